"""What the page says of continuations under steering, judged by what came out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xlens.figures import Figure, output_scores, output_surface
from xlens.figures.steering_outputs import condition_name
from xlens.report.blocks import Table
from xlens.report.cells import interval, number
from xlens.steering import OutputSteering
from xlens.steering.outputs import ALL, OF_MEANS, PLAIN, RATES, RULE, SCORE, SWEEP
from xlens.wording import number_of, percent

CAPTIONS = {
    "outputs-scores": "Shares of outputs on prompts that had no part in choosing; in grey the "
    "controls, hollow what stands beside: no steering, the prompt in that language, and what was "
    "written there, which shows how far the judges are right about text that isn't the model's.",
    "outputs-surface": "What was tried on development prompts.",
}
_COLUMNS = {
    "forcing": "in the language",
    "relevance": "about the prompt",
    SCORE: "both",
    "wrong_language": "about it, wrong language",
    "lines": "lines",
    "words": "words",
    "unknown": "can't be told",
}
_SURE = ("forcing", "relevance", SCORE, "wrong_language")
"""Columns with intervals: more don't fit on a page."""
_MOST_SAID = 3
_BEYOND = "more than random changes"


def output_figures(result: OutputSteering) -> dict[str, Figure]:
    """By name."""
    return {"outputs-scores": output_scores(result), "outputs-surface": output_surface(result)}


def output_findings(result: OutputSteering, names: Mapping[str, str]) -> list[str]:
    """What the numbers say, in sentences."""
    several = len(result.targets) > 1
    target = ALL if several else result.targets[0]
    told: list[str] = []
    scores = _rows(result, SCORE, target)
    forcing, relevance = (_rows(result, metric, target) for metric in ("forcing", "relevance"))
    wrong, means = _rows(result, "wrong_language", target), _rows(result, OF_MEANS, target)
    methods = list(dict.fromkeys(result.chosen["method"]))
    for method in methods:
        tags = result.chosen[result.chosen["method"] == method]["target"].unique()
        whom = number_of(len(tags), "language") if len(tags) > 1 else names[str(tags[0])]
        row = scores[method]
        random = scores[f"{method}, random"]
        average = f", of averages {number(means[method]['value'])}" if means else ""
        told.append(
            f"From {names[result.source]} to {whom} by {condition_name(method)} (layer and "
            f"strength chosen on other prompts): {percent(forcing[method]['value'])} of the "
            f"outputs are in the target language, {percent(relevance[method]['value'])} are about "
            f"their prompt (chance {percent(result.chance)}); the harmonic mean is "
            f"{interval(row, 'value')}{average}. Without steering it is "
            f"{number(scores[PLAIN]['value'])}, with random changes of the same size "
            f"{number(random['value'])}. About the prompt but in another language: "
            f"{percent(wrong[method]['value'])}."
        )
    lost = result.swept[result.swept["target"] == target] if len(result.swept) else result.swept
    for row in lost.to_dict("records"):
        cells = result.chosen[(result.chosen["method"] == row["method"])]
        layer = ", ".join(dict.fromkeys(cells[cells["picked"] == RULE]["band"]))
        told.append(
            f"The layer that alignment and separability predict before anything is steered "
            f"({layer}) costs {interval(row, 'lost')} of that "
            f"score against the layers of the sweep, by {condition_name(str(row['method']))}."
        )
    if not len(lost) and not several:
        told.append(
            "Which layer alignment and separability predict can't be said with one target: the "
            "rule compares the vectors to two languages or more."
        )
    return told


def output_lead(result: OutputSteering, names: Mapping[str, str]) -> str:
    """Whether a push brings the target language about, more than random changes do."""
    table = beyond_random(result, names)
    won = sum(row[-1] == _BEYOND for row in table.rows)
    of = number_of(len(table.rows), "push", "pushes")
    return (
        f"pushed from {names[result.source]}, what is said is in the target language and about "
        f"its prompt more often than with random changes of the same size in {won} of {of}"
    )


def beyond_random(result: OutputSteering, names: Mapping[str, str]) -> Table:
    """By target and method: both in the language and about the prompt, and what controls get."""
    rows: list[list[str]] = []
    for target in result.targets:
        scores = _rows(result, SCORE, target)
        for method in dict.fromkeys(result.chosen["method"]):
            own, random = scores.get(str(method)), scores.get(f"{method}, random")
            if own is None or random is None:
                continue
            rows.append(
                [
                    f"{names[target]}, {condition_name(str(method))}",
                    _cell(own),
                    _cell(random),
                    _cell(scores.get(PLAIN)),
                    _BEYOND if own["low"] > random["high"] else "not told from random changes",
                ]
            )
    caption = (
        "Outputs in the target language and about their prompt (harmonic mean of the two shares), "
        "on prompts that had no part in choosing; the verdict compares the intervals."
    )
    return Table(caption, ["", "pushed", "random changes", "not steered", "verdict"], rows)


def output_tables(result: OutputSteering, names: Mapping[str, str]) -> list[Table]:
    """Rates, the cells that were chosen, and the languages that were said."""
    several = len(result.targets) > 1
    target = ALL if several else result.targets[0]
    cells = {metric: _rows(result, metric, target) for metric in (*RATES, SCORE)}
    rows = [
        [
            condition_name(c),
            *(_cell(cells[m].get(c), sure=m in _SURE) for m in _COLUMNS),
        ]
        for c in result.conditions
        if c in cells[SCORE]
    ]
    tables = [
        Table(
            "Test prompts, with intervals"
            + (f"; means over {number_of(len(result.targets), 'language')}. " if several else ". ")
            + "Lines: every line of five words or more is in the language; words: of those, none "
            "slips into Latin letters (not told where the language is in them). 'Can't be told' "
            "counts as no pass.",
            ["", *_COLUMNS.values()],
            rows,
        )
    ]
    shown = [c for c in result.conditions if ", " not in c]
    by_target = {t: _rows(result, SCORE, t) for t in result.targets}
    if several:
        tables.append(
            Table(
                "Both (harmonic mean), by language.",
                ["", *map(condition_name, shown)],
                [[names[t], *(_cell(by_target[t].get(c)) for c in shown)] for t in result.targets],
            )
        )
    chosen = [
        [
            f"{names[str(row['target'])]}: {condition_name(str(row['method']))}",
            "sweep" if row["picked"] == SWEEP else "rule",
            str(row["band"]),
            f"{row['strength']:g}",
            number(row["dev_score"]),
        ]
        for row in result.chosen.to_dict("records")
    ]
    head = ["", "picked by", "layer", "strength", "score there"]
    tables.append(Table("Chosen on development prompts.", head, chosen))
    tables.append(
        Table(
            "The languages that outputs are in, the most frequent first.",
            ["", "identified as"],
            [[*row] for row in _languages(result, names, shown)],
            numbers=False,
        )
    )
    return tables


def _languages(
    result: OutputSteering, names: Mapping[str, str], shown: Sequence[str]
) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in result.said[result.said["condition"].isin(list(shown))].to_dict("records"):
        cell = found.setdefault((str(row["target"]), str(row["condition"])), [])
        if len(cell) < _MOST_SAID:
            cell.append(f"{row['identified']} {percent(row['share'])}")
    return [
        (f"{names[target]}: {condition_name(condition)}", ", ".join(said))
        for (target, condition), said in sorted(found.items(), key=lambda item: (
            result.targets.index(item[0][0]), result.conditions.index(item[0][1])
        ))
    ]  # fmt: skip


def _rows(result: OutputSteering, metric: str, target: str) -> dict[str, Mapping[Any, Any]]:
    table = result.test[(result.test["metric"] == metric) & (result.test["target"] == target)]
    return {str(row["condition"]): row for row in table.to_dict("records")}


def _cell(row: Mapping[Any, Any] | None, *, sure: bool = True) -> str:
    if row is None or math.isnan(row["value"]):
        return "–"
    return interval(row, "value") if sure else number(row["value"])
