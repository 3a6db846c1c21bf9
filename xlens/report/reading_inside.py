"""What was found inside a model that reads: sentences and tables for terminal and page."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from xlens.languages import english_names
from xlens.phases import (
    INDICES,
    Curves,
    DepthResult,
    PhaseResult,
    StabilityCorrelation,
    StabilityResult,
)
from xlens.phases.curves import ALL
from xlens.phases.detect import placed
from xlens.report.cells import ends, interval, rounded
from xlens.results import Result
from xlens.studies.phases import TWIN
from xlens.studies.reading import SUMMARIES
from xlens.studies.steps.reading_summary import DepthSummary
from xlens.wording import number_of, percent

_PARAGRAPHS = 6
"""Fewer can't give a p below 0.05 by sign flips, after correction."""


def phase_findings(parts: Mapping[str, Result]) -> list[str]:
    """What was found inside."""
    phases, curves, depth = (parts.get(name) for name in ("phases", "curves", "depth"))
    said: list[str] = []
    if isinstance(phases, PhaseResult):
        blank = parts.get(TWIN)
        too = isinstance(blank, PhaseResult) and phases.found() and blank.found()
        doubt = ", but with random weights there are two as well: no finding" if too else ""
        said.append(f"Inside: {phases.verdict()}{doubt}.")
        if isinstance(blank, PhaseResult):
            said.append(f"The same with random weights, {_named(blank)}: {blank.verdict()}.")
        n = int(phases.provenance["detector"]["n_clusters"])
        if n < _PARAGRAPHS:
            said.append(
                f"Only {number_of(n, 'paragraph was', 'paragraphs were')} looked at inside, too "
                f"few for the test: no p can be below {rounded(0.5**n, '.2g')}. Raise --n-phases "
                "to "
                f"{2 * _PARAGRAPHS} or more."
            )
    if isinstance(curves, Curves):
        telling, whole = curves.telling, len(curves.meta)
        least, most = min(telling.values()), max(telling.values())
        if least < whole:
            few = [kind for kind, n in telling.items() if n == least]
            span = f"{least}" if least == most else f"{least} to {most}"
            said.append(
                f"Of {number_of(whole, 'prompt')}, {span} {'says' if most == 1 else 'say'} "
                f"something, by kind of evidence (fewest: {', '.join(few)}): in the others the "
                "right and the wrong answer begin with the same token, or the states of the other "
                "question don't fit."
            )
    summary = parts.get(SUMMARIES["depth"])
    if isinstance(depth, DepthResult) and isinstance(summary, DepthSummary):
        null = _depths(summary, "control")
        told = [
            f"the {name}'s is {found}"
            + (f" (of as many random tokens: {null[name]})" if name in null else "")
            for name, found in _depths(summary, "").items()
        ]
        said.append(
            f"Relevance depth, the layer {_reached(depth)}, of {depth.n_layers}: {', '.join(told)}."
        )
        said += _gap(summary)
    return said


def _reached(depth: DepthResult) -> str:
    """What a depth is, by the options that it was read with."""
    share = percent(depth.options["share"], whole=False)
    if depth.options["measure"] == "cumulative":
        return f"by which {share} of a segment's relevance is reached"
    place = f"{100 * depth.options['share']:g}th percentile"
    return f"that is the last whose relevance reaches the {place} of all layers'"


def _gap(summary: DepthSummary) -> list[str]:
    """Whether the text lies deeper than the question, and deeper than random tokens of both."""
    gaps = _pooled(summary.gaps)
    gap, null = gaps[""], gaps.get("control")
    if math.isnan(gap["gap"]):
        return []
    if math.isnan(gap["low"]):
        where = "can't be told apart from the question in depth, of so few prompts"
    elif gap["low"] > 0:
        where = "lies deeper than the question"
    elif gap["high"] < 0:
        where = "lies less deep than the question"
    else:
        where = "isn't told apart from the question in depth"
    said = f"By it the text {where}: the difference is {_layers(gap)} layers"
    if null is None or math.isnan(null["gap"]):
        return [f"{said}."]
    doubt = ""
    if any(math.isnan(row[end]) for row in (gap, null) for end in ("low", "high")):
        doubt = ", of too few prompts to be told apart"
    elif gap["low"] <= null["high"] and gap["high"] >= null["low"]:
        doubt = ", within the intervals the same"
    return [f"{said} (of as many random tokens: {_layers(null)}{doubt})."]


def _pooled(table: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    """Of all languages together, by what it is of."""
    return {str(row["which"]): row for row in table.to_dict("records") if row["language"] == ALL}


def _layers(row: Mapping[Any, Any], name: str = "gap") -> str:
    value = row[name]
    return f"{rounded(value, '.1f')}{ends(value, row['low'], row['high'], '.1f')}"


def phase_rows(found: PhaseResult) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a language a row, all together first."""
    rows: list[list[str]] = []
    names = _names(found.phases["language"])
    for row in found.phases.to_dict("records"):
        places = [placed(row, edge) for edge in ("question", "answer")]
        tag = str(row["language"])
        verdict = "two phases" if row["found"] else f"none found: {row['why']}"
        p = "–" if math.isnan(row["p"]) else rounded(row["p"], ".2g")
        rows.append([names[tag], *places, p, verdict])
    return ["question in", "question handed over", "answer retrieved", "p", "structure"], rows


def stability_rows(found: StabilityResult) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: an index a row, a language a column."""
    tags = sorted(dict.fromkeys(found.table["language"]), key=lambda tag: tag == ALL)
    cells = {(r["index"], r["language"]): interval(r) for r in found.table.to_dict("records")}
    rows = [
        [f"{index}: {words}", *(cells.get((index, tag), "–") for tag in tags)]
        for index in dict.fromkeys(found.table["index"])
        if (words := INDICES.get(str(index), "question depth less the pivot's / blocks"))
    ]
    names = _names(tags)
    return ["index", *(names[tag] for tag in tags)], rows


def correlation_rows(found: StabilityCorrelation) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: each index against F1, over languages and models."""
    cells = {(r["index"], r["coefficient"]): r for r in found.table.to_dict("records")}
    rows: list[list[str]] = []
    for index in dict.fromkeys(found.table["index"]):
        both = [cells[index, coefficient] for coefficient in ("pearson", "spearman")]
        if not math.isnan(both[0]["value"]):  # S3 is one number of a model
            few = " (few)" if both[0]["small"] else ""
            rows.append([str(index), *map(interval, both), f"{both[0]['n']}{few}"])
    return ["index", "Pearson", "Spearman", "cells"], rows


def _named(found: PhaseResult) -> str:
    names = _names(found.phases["language"])
    tags = [str(tag) for tag in found.phases["language"] if tag != ALL]
    return f"questions in {', '.join(names[tag] for tag in tags)}" if tags else "in one language"


def _names(tags: Iterable[str]) -> dict[str, str]:
    """English names with script and region, told apart, and what all of them together are."""
    return {ALL: "all languages"} | english_names((t for t in tags if t != ALL), variant=True)


def _depths(summary: DepthSummary, which: str) -> dict[str, str]:
    """By segment, all languages together."""
    return {
        str(row["segment"]): "unknown" if math.isnan(row["depth"]) else _layers(row, "depth")
        for row in summary.table.to_dict("records")
        if (row["language"], row["which"]) == (ALL, which)
    }
