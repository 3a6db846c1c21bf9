"""The page of a run of `xlens subspace`: is it language or is it script?"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import (
    Figure,
    language_map_animation,
    pair_matrix,
    script_columns,
    script_probe_curves,
)
from xlens.figures.subspace import measure_name
from xlens.report.blocks import Drawing, Findings, Section, Table
from xlens.report.cells import interval
from xlens.report.sentences import used
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.subspace import MAP, PROBE, SCRIPTS, SIMILARITY
from xlens.subspace import LanguageMap, LanguagePairs, ScriptControl, ScriptProbe
from xlens.subspace.relations import LANGUAGE, LETTERS, PUBLISHED, RELATIONS, WORDS
from xlens.wording import percent

_SHOWN = ("cka_unbiased", "mexa_centred", "cosine_centred", "retrieval_centred", "mexa", "cosine",
          "distance", "direction")  # fmt: skip
_SAID = ("mexa_centred", "cka_unbiased", "distance")
_CAPTIONS = {
    SCRIPTS: "Every measure, over pairs of varieties by what they share. For a distance, low is "
    "alike. Where a language is there in two scripts, the other pairs are those with it.",
    "scripts-length": "The same with length and tokens a character taken out.",
    SIMILARITY: "Every two varieties, by script, and in it by what lies together.",
    MAP: "Sentences of every variety on the two main axes of their layer.",
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
    models = {model: parts for model in run.models if SCRIPTS in (parts := run.parts(model))}
    if not models:
        raise InputError(f"{str(run.path)!r} has no results yet: the same command goes on.")
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    for model, parts in models.items():
        blocks: list[Drawing] = []
        for name, fig in _figures(parts).items():
            figures[f"{model}-{name}"] = fig
            blocks.append(Drawing.of(fig, f"{model}-{name}", _CAPTIONS[name]))
        sections += [
            section.more([*_tables(parts[SCRIPTS]), *blocks]) for section in told(model, parts)
        ]
    return write_page(
        run,
        "Is it language or is it script?",
        sections,
        [parts[SCRIPTS].provenance for parts in models.values()],
        figures,
        static,
        offered=offered(run.provenance),
        template="subspace",
        percent=run.resampling.percent,
    )


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
    control = parts[SCRIPTS]
    assert isinstance(control, ScriptControl)
    said = [*_columns(control), *_shares(control), *_probe(parts.get(PROBE))]
    title = str(control.provenance.get("model", model))
    return [Section(model, title, (Findings.of(said),))]


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
    yield (
        f"A probe of two languages, each trained in a script of its own, is right in "
        f"{percent(rows['own']['mean'])} of sentences at layer {layer} as trained, and in "
        f"{percent(crossed['mean'])} [{percent(crossed['low'])}, {percent(crossed['high'])}] with "
        f"the scripts swapped: {verdict}."
    )


def _figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
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


def _tables(control: Result) -> Iterator[Table]:
    """Every measure at the middle layer, by what two varieties share."""
    assert isinstance(control, ScriptControl)
    layer = _middle(control.layers)
    rows: list[list[str]] = []
    for measure in _SHOWN:
        found = _rows(control, measure, layer)
        if found:
            cells = [interval(found[name], "mean") for name in RELATIONS]
            rows.append([measure_name(measure), *cells])
    table = control.table
    counts = dict(zip(table["relation"], table["n_pairs"], strict=True))
    rows.append(["pairs", *(str(counts[name]) for name in RELATIONS)])
    caption = f"At layer {layer}, by what two varieties share. –: there is no such pair."
    yield Table(caption, ["", *RELATIONS.values()], rows)
