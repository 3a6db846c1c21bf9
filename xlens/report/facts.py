"""The page of a run of `xlens facts`: what is recalled, in which languages, and is it the same?"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens.acquisition import (
    MEASURES,
    FactCurves,
    FactRecall,
    FrequencyResponse,
    Transfer,
    TransferCurves,
)
from xlens.consistency import ConsistencyResult
from xlens.errors import InputError
from xlens.figures import (
    Figure,
    agreement_matrix,
    fact_bars,
    fact_curves,
    fact_groups,
    fact_relations,
)
from xlens.languages import english_names
from xlens.report.blocks import Block, Drawing, Findings, Folded, Section, Table
from xlens.report.cells import interval, number
from xlens.report.choices import listed_models
from xlens.report.fact_frequency import (
    frequencies_given,
    frequency_figures,
    frequency_findings,
    frequency_section,
)
from xlens.report.fact_transfer import (
    grown_figures,
    grown_section,
    transfer_figures,
    transfer_findings,
    transfer_section,
)
from xlens.report.facts_minute import facts_minute
from xlens.report.minute import Minute, minutes
from xlens.report.sentences import listed, used
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import ACROSS, RunDirectory
from xlens.studies.facts import ANSWERS, CURVES, GROWN, PANEL, RECALL, RESPONSE, TRANSFER
from xlens.tasks.facts import RULES, FactAnswers
from xlens.wording import number_of, percent

_DRAWN = ("accuracy", "co", "phi")
_FLAGS = {
    "identical_object": "Facts whose object is written as in the pivot",
    "subject_is_object": "Facts whose subject is their object",
}
Names = Mapping[str, str]


def write_facts_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens facts` and write `report.html`.

    Args:
        run: With the parts of a `FactsStudy`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    parts = {model: run.parts(model) for model in run.models}
    found = {model: own for model, each in parts.items() if (own := _recall(each))}
    if not found:
        raise InputError(
            f"{str(run.path)!r} has no results yet: run the study to its end first, so that "
            "results/<model>/recall holds one."
        )
    across = run.parts(ACROSS) if ACROSS in run.results() else {}
    grown = across.get(CURVES)
    names = english_names(tag for each in found.values() for tag in each.accuracy["language"])
    figures: dict[str, Figure] = {}
    sections: list[Section] = []
    if isinstance(grown, FactCurves):
        drawn = {f"curves-{name}": fact_curves(grown, name) for name in _DRAWN}
        if len(grown.groups):
            drawn["curves-groups"] = fact_groups(grown)
        figures |= drawn
        sections += [_curves(grown, drawn, names)]
    if isinstance(followed := across.get(GROWN), TransferCurves):
        drawn = grown_figures(followed)
        figures |= drawn
        sections += [grown_section(followed, drawn, names)]
    for model, each in found.items():
        start = f"{model}-" if len(found) > 1 else ""
        drawn = {f"{start}recall": fact_bars(each), f"{start}relations": fact_relations(each)}
        panel = parts[model].get(PANEL)
        if isinstance(panel, ConsistencyResult):
            drawn[f"{start}rank-c"] = agreement_matrix(panel, "rank_c")
        figures |= drawn
        title = model if start else ""
        sections += [_found(title, each, names), _tables(title, each, drawn, names)]
        response = parts[model].get(RESPONSE)
        if isinstance(response, FrequencyResponse):
            counted = frequency_figures(response, start)
            figures |= counted
            sections.append(frequency_section(response, counted, names, title))
        carried = parts[model].get(TRANSFER)
        if isinstance(carried, Transfer):
            drawn = transfer_figures(carried, start)
            figures |= drawn
            sections.append(transfer_section(carried, drawn, names, title))
    made_by = [each.provenance for each in found.values()]
    return write_page(
        run,
        f"Which facts does {listed_models(made_by)} recall, and in which languages?",
        sections,
        made_by,
        figures,
        static,
        minute=minutes({model: parts[model] for model in found}, minute),
        offered=offered(run.provenance),
        template="facts",
        rule=_rule(next(iter(found.values()))),
        percent=run.resampling.percent,
    )


def offered(known: Mapping[str, Any]) -> list[str]:
    """What is said of the facts before any is asked."""
    said = [used(known.get("survival", {}).get("facts", {}), "facts")]
    if (shown := known.get("demonstrations", {})).get("shots"):
        said.append(
            f"The answer stands among the demonstrations of {percent(shown['shown'])} of prompts; "
            f"drawn blindly it would in {percent(shown['leakage'])}."
        )
    if counted := known.get("frequencies"):
        said.append(frequencies_given(counted))
    flags: Mapping[str, Mapping[str, int]] = known.get("flags", {})
    for name, what in _FLAGS.items():
        if counts := {tag: n for tag, n in flags.get(name, {}).items() if n}:
            names = english_names(flags[name])
            shares = ", ".join(f"{names[tag]} {n}" for tag, n in counts.items())
            said.append(f"{what}: {shares}.")
    return [text for text in said if text]


def told(_: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    found = _recall(parts)
    if found is None:
        return []
    names = english_names(found.accuracy["language"])
    response = parts.get(RESPONSE)
    more = frequency_findings(response, names) if isinstance(response, FrequencyResponse) else []
    if isinstance(carried := parts.get(TRANSFER), Transfer):
        more += transfer_findings(carried, names)
    return [_found("", found, names, more)]


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    found, answers = _recall(parts), parts.get(ANSWERS)
    assert found is not None
    return facts_minute(found, answers if isinstance(answers, FactAnswers) else None)


def grew(across: Mapping[str, Result], _: Mapping[str, Mapping[str, Result]]) -> list[Section]:
    """What the terminal says of several models: a table of recall."""
    grown = across.get(CURVES)
    if not isinstance(grown, FactCurves):
        return []
    return [_curves(grown, {}, english_names(dict.fromkeys(grown.table["language"])))]


def findings(result: FactRecall, names: Names) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say.

    Args:
        result: Of a model.
        names: Of the languages of the whole run.
    """
    rows = result.accuracy.to_dict("records")
    shares = ", ".join(f"{names[row['language']]} {interval(row, 'accuracy')}" for row in rows)
    said = [f"Recalled of {number_of(int(rows[0]['n']), 'fact')}: {shares}."]
    if blind := [row["language"] for row in rows if not row["low"] > row["majority"]]:
        said.append(f"Not above always giving the most frequent object in {listed(names, blind)}.")
    said += _consistency(result, names)
    n, of = result.prefix_only
    if n:
        said.append(
            f"The paper's prefix rule would count {n} more of {of} answers as right: a part of the "
            "object, or one that goes on within a word."
        )
    return said


def _consistency(result: FactRecall, names: Names) -> list[str]:
    rows = result.pairs[result.pairs["metric"] == "co"].to_dict("records")
    known = [row for row in rows if row["value"] == row["value"]]
    said: list[str] = []
    if known:
        shown = ", ".join(
            f"{names[row['language']]} {number(row['value'])} ({number(row['control'])})"
            for row in known
        )
        above = sum(row["value"] > row["control_high"] for row in known)
        said.append(
            f"CO with {names[result.pivot]} (in brackets: permuted within relations): {shown}; "
            f"above what its permutations give in {above} of {number_of(len(known), 'language')}. "
            "Its mean is "
            f"{number(result.mean_co())}; as the paper's code counts it, with "
            f"{names[result.pivot]} itself as 1, {number(result.mean_co(with_pivot=True))}."
        )
    if without := [row["language"] for row in rows if row not in known]:
        said.append(
            f"No CO in {listed(names, without)}: nothing is right there or in "
            f"{names[result.pivot]}."
        )
    return said


def _recall(parts: Mapping[str, Result]) -> FactRecall | None:
    found = parts.get(RECALL)
    return found if isinstance(found, FactRecall) else None


def _found(model: str, result: FactRecall, names: Names, more: Iterable[str] = ()) -> Section:
    start, head = (f"{model}-", f"{model}: what was found") if model else ("", "What was found")
    return Section(f"{start}findings", head, (Findings.of([*findings(result, names), *more]),))


def _curves(grown: FactCurves, figures: Mapping[str, Figure], names: Names) -> Section:
    table = grown.table[grown.table["metric"] == "accuracy"]
    rows: list[list[str]] = []
    for model in grown.models:
        own = table[table["model"] == model].set_index("language").to_dict("index")
        rows.append([model, *(interval(own[tag]) for tag in names)])
    shares = Table("Share of facts recalled.", ["", *names.values()], rows)
    drawn = _drawings(figures, "Bars are intervals over facts, dotted lines controls.")
    return Section("curves", "Over models and checkpoints", (shares, *drawn))


def _tables(model: str, result: FactRecall, figures: Mapping[str, Figure], names: Names) -> Section:
    start, head = (f"{model}-", f"{model}, by language") if model else ("", "By language")
    tables: list[Block] = [
        _accuracy(result, names),
        _paired(result, names),
        _relations(result, names),
        Folded(f"By other rules than: {_rule(result)}", (_rules(result, names),)),
    ]
    drawn = _drawings(figures, "Intervals and baselines show on hovering.")
    return Section(f"{start}tables", head, (*tables, *drawn))


def _drawings(figures: Mapping[str, Figure], caption: str) -> Iterator[Drawing]:
    for name, fig in figures.items():
        yield Drawing.of(fig, name, caption, label=name.replace("-", " "))


def _accuracy(result: FactRecall, names: Names) -> Table:
    table = result.false_credits
    only = dict(zip(table["language"], table["prefix_only"], strict=True))
    rows = [
        [
            names[row["language"]],
            interval(row, "accuracy"),
            number(row["majority"]),
            number(row["dealt"]),
            str(only.get(row["language"], "–")),
        ]
        for row in result.accuracy.to_dict("records")
    ]
    head = ["", "recalled", "most frequent object", "answers to other facts", "false credits"]
    return Table("Share of facts recalled, and what takes no knowledge.", head, rows)


def _paired(result: FactRecall, names: Names) -> Table:
    tags = [tag for tag in result.accuracy["language"] if tag != result.pivot]
    rows: list[list[str]] = []
    for name, (said, *_) in MEASURES.items():
        own = result.pairs[result.pairs["metric"] == name].set_index("language").to_dict("index")
        cells = (f"{interval(own[tag])} ({number(own[tag]['control'])})" for tag in tags)
        rows.append([f"{name}: {said}", *cells])
    caption = f"With {names[result.pivot]}; in brackets right and wrong permuted within relations."
    return Table(caption, ["", *(names[tag] for tag in tags)], rows)


def _relations(result: FactRecall, names: Names) -> Table:
    tags = list(result.accuracy["language"])
    by_relation: dict[str, dict[str, dict[Any, Any]]] = {}
    for row in result.relations.to_dict("records"):
        by_relation.setdefault(str(row["relation"]), {})[row["language"]] = row
    rows: list[list[str]] = []
    for relation, own in by_relation.items():
        first = own[tags[0]]
        shares = (number(own[tag]["accuracy"]) for tag in tags)
        rows.append([f"{relation} ({first['n']})", percent(first["majority"]), *shares])
    head = ["", "most frequent object", *(names[tag] for tag in tags)]
    return Table("Share recalled by relation (facts).", head, rows)


def _rule(result: FactRecall) -> str:
    return RULES[result.rule]  # pyright: ignore[reportArgumentType]


def _rules(result: FactRecall, names: Names) -> Table:
    tags = list(result.accuracy["language"])
    by_rule: dict[str, dict[str, float]] = {}
    for row in result.languages.to_dict("records"):
        by_rule.setdefault(str(row["rule"]), {})[row["language"]] = row["accuracy"]
    rows: list[list[str]] = []
    for rule, shares in by_rule.items():
        said = RULES[rule]  # pyright: ignore[reportArgumentType]
        rows.append([f"{rule}: {said}", *(number(shares[tag]) for tag in tags)])
    return Table("By what counts as right.", ["", *(names[tag] for tag in tags)], rows)
