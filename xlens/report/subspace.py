"""The page of a run of `xlens subspace`: is it language or is it script?"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.figures import (
    Figure,
    language_map_animation,
    pair_matrix,
    script_columns,
    script_probe_curves,
)
from xlens.figures.subspace import control_name, measure_name
from xlens.report.blocks import Findings, Paragraph, Section, Table
from xlens.report.by_model import ModelPage, write_by_model
from xlens.report.cells import interval, number
from xlens.report.minute import Minute, prompt_of
from xlens.report.sentences import used
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.subspace import DISTANCES, MAP, PROBE, SCRIPTS, SIMILARITY
from xlens.subspace import (
    LanguageMap,
    LanguagePairs,
    RelatedPairs,
    ScriptControl,
    ScriptProbe,
    by_relation,
)
from xlens.subspace.relations import LANGUAGE, LETTERS, PUBLISHED, RELATIONS, WORDS
from xlens.wording import number_of, percent

_SHOWN = ("cka_unbiased", "mexa_centred", "cosine_centred", "retrieval_centred", "mexa", "cosine",
          "distance", "direction")  # fmt: skip
_SAID = ("mexa_centred", "cka_unbiased", "distance")
HALF = 0.5
"""Of what language and script make: above it is more the language's."""
CAPTIONS = {
    SCRIPTS: "Every measure, over pairs of varieties by what they share. For a distance, low is "
    "alike. Where a language is there in two scripts, the other pairs are those with it.",
    "scripts-length": "The same with length and tokens a character taken out.",
    SIMILARITY: "Every two varieties, by script, and in it by what lies together.",
    MAP: "Sentences of every variety on the two main axes of their layer. It opens at the layer "
    "where the map tells varieties apart best: the largest share of its variance between them, "
    "beyond what shuffled ones get.",
    PROBE: "Trained on one script of each of two languages, asked with the scripts swapped.",
}


def write_subspace_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens subspace` and write `report.html`.

    Args:
        run: With the parts of a `SubspaceStudy`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    return write_by_model(run, static, PAGE)


def offered(known: Mapping[str, Any]) -> list[str]:
    """Where the sentences are from, under which licence, and what can't be had of them."""
    if "sentences" not in known:
        return []
    licence = f" Licence: {known['licence']}." if known.get("licence") else ""
    said = [f"Sentences: {known['sentences']}.{licence}", used(known["survival"], "sentences")]
    if made := known.get("made"):
        said.append(f"Made here, not published: {', '.join(sorted(made))}.")
    return [text for text in (*said, *known.get("without", [])) if text]


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    title = str(parts[SCRIPTS].provenance.get("model", model))
    return [Section(model, title, (Findings.of(script_findings(parts)),))]


def script_findings(parts: Mapping[str, Result]) -> list[str]:
    """What the numbers of a model's sentences say, in sentences."""
    control = parts[SCRIPTS]
    assert isinstance(control, ScriptControl)
    return [*_columns(control), *_shares(control), *_probe(parts.get(PROBE))]


def _middle(layers: Sequence[int]) -> int:
    return layers[len(layers) // 2]


def _columns(control: ScriptControl) -> Iterator[str]:
    """What pairs have in common by what they share, at the middle layer."""
    layer = _middle(control.layers)
    for measure in _SAID:
        rows = _rows(control, measure, layer)
        cells = [
            f"{RELATIONS[name]} {interval(row, 'mean')}"
            for name in (*PUBLISHED, WORDS, LETTERS)
            if (row := rows.get(name)) and not math.isnan(row["mean"])
        ]
        if cells:
            yield f"At layer {layer}, {measure_name(measure)}: {'; '.join(cells)}."


def _rows(control: ScriptControl, measure: str, layer: int) -> dict[str, Any]:
    table = control.table
    here = (table["measure"] == measure) & (table["layer"] == layer) & (table["kind"] == "value")
    return {str(row["relation"]): row for row in table[here].to_dict("records")}


def _shares(control: ScriptControl) -> Iterator[str]:
    """Which share of language survives a change of script."""
    layer, table = _middle(control.layers), control.share
    for measure in _SAID:
        mine = table[(table["measure"] == measure) & (table["kind"] == "value")].dropna(
            subset=["share"]
        )
        here = mine[mine["layer"] == layer].to_dict("records")
        if not here:
            # Where no language is there in two scripts there may be no row to read.
            shared = _rows(control, measure, layer).get(LANGUAGE)
            if shared and not math.isnan(shared["mean"]):
                yield (
                    f"By {measure_name(measure)} no share is the language's or the script's at "
                    f"layer {layer}: sharing one of them makes varieties no more alike than "
                    "sharing neither."
                )
            continue
        row = here[0]
        ends = f" [{percent(row['low'])}, {percent(row['high'])}]"
        sure = "" if math.isnan(row["low"]) else ends
        length = table[
            (table["measure"] == measure)
            & (table["kind"] == "length_controlled")
            & (table["layer"] == layer)
        ]["share"].dropna()
        also = f"; with length taken out {percent(float(length.iloc[0]))}" if len(length) else ""
        shares = sorted(map(float, mine["share"]))
        lowest, highest = percent(shares[0]), percent(shares[-1])
        yield (
            f"By {measure_name(measure)}, {percent(row['share'])}{sure} of what language and "
            f"script make of two varieties at layer {layer} is the language's, and survives a "
            f"change of script{also}; over the layers, {lowest} to {highest}."
        )


def _probe(probe: Result | None) -> Iterator[str]:
    if not isinstance(probe, ScriptProbe):
        return
    layer = _middle(probe.layers)
    table = probe.table[(probe.table["layer"] == layer) & (probe.table["kind"] == "value")]
    rows: dict[str, Any] = {str(row["asked"]): row for row in table.to_dict("records")}
    crossed = rows["crossed"]
    verdict = "that it reads the one more than the other can't be told"
    if crossed["high"] < 0.5:
        verdict = "it reads the script more than the language"
    elif crossed["low"] > 0.5:
        verdict = "it reads the language more than the script"
    by_pair: list[Any] = probe.by_pair(layer).to_dict("records")
    least, most = by_pair[0], by_pair[-1]
    if least["mean"] < 1 / 3 and most["mean"] > 2 / 3:
        # A mean of pairs that are read and of pairs that aren't is nothing that any of them does.
        # About a half, pairs scatter without that.
        verdict = (
            f"it depends on the languages, from {percent(least['mean'])} ({least['first']} against "
            f"{least['second']}) to {percent(most['mean'])} ({most['first']} against "
            f"{most['second']}); more the language in {probe.read_as_languages(layer)} of "
            f"{number_of(len(by_pair), 'pair')}"
        )
    yield (
        f"A probe of two languages, each trained in a script of its own, is right in "
        f"{percent(rows['own']['mean'])} of sentences at layer {layer} as trained, and in "
        f"{percent(crossed['mean'])} [{percent(crossed['low'])}, {percent(crossed['high'])}] with "
        f"the scripts swapped: {verdict}."
    )


def script_figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
    """By the names of their captions."""
    drawn: dict[str, Figure] = {}
    for name in (name for name in (SCRIPTS, PROBE, SIMILARITY, MAP) if name in parts):
        part = parts[name]
        if isinstance(part, ScriptControl):
            there = set(part.table["measure"])
            drawn[SCRIPTS] = script_columns(part, [m for m in _SHOWN if m in there])
            drawn["scripts-length"] = script_columns(part, kind="length_controlled")
        elif isinstance(part, LanguagePairs):
            drawn[SIMILARITY] = pair_matrix(part, "cka_unbiased", layers=[_middle(part.layers)])
        elif isinstance(part, LanguageMap):
            drawn[name] = language_map_animation(part)
        elif isinstance(part, ScriptProbe):
            drawn[name] = script_probe_curves(part)
    return drawn


def script_table(parts: Mapping[str, Result]) -> Table:
    """Every measure at the middle layer, by what two varieties share."""
    control = parts[SCRIPTS]
    assert isinstance(control, ScriptControl)
    layer = _middle(control.layers)
    rows: list[list[str]] = []
    for measure in _SHOWN:
        found = _rows(control, measure, layer)
        if found:
            share = _share(control, measure)
            cells = [interval(found[name], "mean") for name in RELATIONS]
            rows.append([measure_name(measure), _cell(share), _word(share), *cells])
    if isinstance(drawn := parts.get(MAP), LanguageMap):
        near = by_relation(drawn.apart())
        here = near[near["layer"] == layer]
        means = dict(zip(here["relation"], here["mean"], strict=True))
        cells = [number(means[name]) if name in means else "–" for name in RELATIONS]
        rows.append(["distance on the map, of all pairs", "–", "–", *cells])
    table = control.table
    counts = dict(zip(table["relation"], table["n_pairs"], strict=True))
    rows.append(["pairs", "–", "–", *(str(counts[name]) for name in RELATIONS)])
    caption = (
        f"At layer {layer}, by what two varieties share; of what that makes, the language's share. "
        "–: there is no such pair, or nothing to share."
    )
    return Table(caption, ["", "the language's share", "verdict", *RELATIONS.values()], rows)


def distance_tables(parts: Mapping[str, Result]) -> Iterator[Table]:
    """How far apart subspaces are at the middle layer, by what two varieties share."""
    if not isinstance(related := parts.get(DISTANCES), RelatedPairs):
        return
    table = related.table
    layer = _middle(sorted(set(map(int, table["layer"]))))
    means: dict[tuple[str, str], dict[str, float]] = {}
    for row in table[table["layer"] == layer].to_dict("records"):
        named = means.setdefault((str(row["measure"]), str(row["kind"])), {})
        named[str(row["relation"])] = row["mean"]
    rows = [
        [
            f"{measure_name(measure)}{control_name(kind)}",
            *(number(found[name]) if name in found else "–" for name in RELATIONS),
        ]
        for (measure, kind), found in means.items()
    ]
    yield Table(
        f"Distances of varieties' subspaces at layer {layer}, by what two varieties share: means "
        "over all pairs of languages that are there in two scripts, and of their twins, without "
        "intervals. Beside each what it is where every sentence's languages are dealt out anew, "
        "and where the subspaces are random: less than these is alike.",
        ["", *RELATIONS.values()],
        rows,
    )


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model: every measure at the middle layer, by what two share."""
    control = parts[SCRIPTS]
    assert isinstance(control, ScriptControl)
    said = (Paragraph("No question is asked: the model only reads sentences, as this."),)
    prompt = prompt_of(control)
    return Minute(
        subspace_lead(control),
        script_table(parts),
        (*said, *prompt) if prompt else (),
        asked=False,
    )


def subspace_lead(control: ScriptControl) -> str:
    """One sentence over all pairs: language, script, or neither; by each measure spoken of."""
    layer = _middle(control.layers)
    words = {measure: _word(_share(control, measure)) for measure in _SAID}
    told = [f"{word} by {measure_name(measure)}" for measure, word in words.items() if word != "–"]
    if not told:
        return (
            f"At layer {layer} sharing a language or a script isn't seen to make varieties more "
            "alike than sharing neither."
        )
    return f"At layer {layer}, what makes two varieties alike is {', '.join(told)}."


def _share(control: ScriptControl, measure: str) -> Mapping[Any, Any] | None:
    """The language's share at the middle layer, of what has one."""
    table, layer = control.share, _middle(control.layers)
    here = (table["measure"] == measure) & (table["kind"] == "value") & (table["layer"] == layer)
    rows = table[here].dropna(subset=["share"]).to_dict("records")
    return rows[0] if rows else None


def _cell(row: Mapping[Any, Any] | None) -> str:
    return "–" if row is None else interval(row, "share")


def _word(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return "–"
    if row["low"] > HALF:
        return "more the language"
    return "more the script" if row["high"] < HALF else "undecided between language and script"


PAGE = ModelPage(
    needs=SCRIPTS,
    what="results",
    title=lambda _: "Is it language or is it script?",
    template="subspace",
    offered=offered,
    told=told,
    minute=minute,
    figures=script_figures,
    captions=CAPTIONS,
    tables=distance_tables,
    folded={"scripts-length": "Control: the same with length and tokens a character taken out"},
)
