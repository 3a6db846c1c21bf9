"""What was found inside a model that reads: sentences and tables for terminal and page."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from xlens.languages import english_names
from xlens.phases import (
    INDICES,
    Curves,
    DepthResult,
    PhaseResult,
    StabilityResult,
    correlate,
    depth_gap,
)
from xlens.phases.curves import ALL
from xlens.phases.detect import placed
from xlens.report.cells import interval
from xlens.results import Result
from xlens.stats import Resampling
from xlens.studies.phases import TWIN
from xlens.tasks.xmrc import ReadingResult
from xlens.wording import number_of, percent

_PARAGRAPHS = 6
"""Fewer can't give a p below 0.05 by sign flips, after correction."""
_FEWEST = 3  # languages that a correlation needs


def intervals_of(parts: Mapping[str, Result]) -> Resampling:
    """What the intervals of a model's scores were drawn by: everything else is, too."""
    found = parts.get("scores")
    return Resampling.of({} if found is None else found.provenance)


def phase_findings(parts: Mapping[str, Result]) -> list[str]:
    """What was found inside."""
    phases, curves, depth, control = (
        parts.get(name) for name in ("phases", "curves", "depth", "depth-control")
    )
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
                f"few for the test: no p can be below {0.5**n:.2g}. Raise --n-phases to "
                f"{2 * _PARAGRAPHS} or more."
            )
    if isinstance(curves, Curves):
        used = np.isfinite(curves.values).any(axis=2).sum(axis=1)
        whole = len(curves.meta)
        if used.min() < whole:
            few = [k for k, n in zip(curves.kinds, used, strict=True) if n == used.min()]
            least, most = int(used.min()), int(used.max())
            span = f"{least}" if least == most else f"{least} to {most}"
            said.append(
                f"Of {number_of(whole, 'prompt')}, {span} {'says' if most == 1 else 'say'} "
                f"something, by kind of evidence (fewest: {', '.join(few)}): in the others the "
                "right and the wrong answer begin with the same token, or the states of the other "
                "question don't fit."
            )
    if isinstance(depth, DepthResult):
        how = intervals_of(parts)
        null = _depths(control, how) if isinstance(control, DepthResult) else {}
        told = [
            f"the {name}'s is {found}"
            + (f" (of as many random tokens: {null[name]})" if name in null else "")
            for name, found in _depths(depth, how).items()
        ]
        said.append(
            f"Relevance depth, the layer {_reached(depth)}, of {depth.n_layers}: {', '.join(told)}."
        )
        said += _gap(depth, control if isinstance(control, DepthResult) else None, how)
    return said


def _reached(depth: DepthResult) -> str:
    """What a depth is, by the options that it was read with."""
    share = percent(depth.options["share"], whole=False)
    if depth.options["reading"] == "cumulative":
        return f"by which {share} of a segment's relevance is reached"
    place = f"{100 * depth.options['share']:g}th percentile"
    return f"that is the last whose relevance reaches the {place} of all layers'"


def _gap(depth: DepthResult, control: DepthResult | None, resampling: Resampling) -> list[str]:
    """Whether the text lies deeper than the question, and deeper than random tokens of both."""
    gap = _pooled(depth, resampling)
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
    null = None if control is None else _pooled(control, resampling)
    if null is None or math.isnan(null["gap"]):
        return [f"{said}."]
    doubt = ""
    if any(math.isnan(row[end]) for row in (gap, null) for end in ("low", "high")):
        doubt = ", of too few prompts to be told apart"
    elif gap["low"] <= null["high"] and gap["high"] >= null["low"]:
        doubt = ", within the intervals the same"
    return [f"{said} (of as many random tokens: {_layers(null)}{doubt})."]


def _pooled(depth: DepthResult, resampling: Resampling) -> pd.Series:
    """By how much the text lies deeper, all languages together."""
    gaps = depth_gap(depth, resampling=resampling)
    return gaps[gaps["language"] == ALL].iloc[0]


def _layers(row: Mapping[Any, Any] | pd.Series, name: str = "gap") -> str:
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row[name]:.1f}{ends}"


def phase_rows(found: PhaseResult) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a language a row, all together first."""
    rows: list[list[str]] = []
    names = _names(found.phases["language"])
    for row in found.phases.to_dict("records"):
        places = [placed(row, edge) for edge in ("question", "answer")]
        tag = str(row["language"])
        verdict = "two phases" if row["found"] else f"none found: {row['why']}"
        p = "–" if math.isnan(row["p"]) else f"{row['p']:.2g}"
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


def correlation_rows(
    models: Mapping[str, Mapping[str, Result]],
) -> tuple[list[str], list[list[str]]] | None:
    """Headings and rows: each index against F1, over languages and models; None for too few."""
    found: dict[str, StabilityResult] = {}
    scores: list[pd.DataFrame] = []
    for name, parts in models.items():
        steady, result = parts.get("stability"), parts.get("scores")
        if isinstance(steady, StabilityResult) and isinstance(result, ReadingResult):
            asked = set(steady.table["language"]) - {ALL}
            if asked <= set((mine := _by_language(result, asked))["language"]):
                found[name] = steady
                scores.append(mine.assign(model=name))
    cells = {(n, t) for n, x in found.items() for t in set(x.table["language"]) - {ALL, x.pivot}}
    if len(cells) < _FEWEST:
        return None
    how = intervals_of(next(iter(models.values())))
    table = correlate(found, pd.concat(scores, ignore_index=True), resampling=how).table
    rows: list[list[str]] = []
    for index in dict.fromkeys(table["index"]):
        mine = table[table["index"] == index].set_index("coefficient").to_dict("index")
        if math.isnan(mine["pearson"]["value"]):  # S3 is one number of a model
            continue
        told = [interval(mine[how]) for how in ("pearson", "spearman")]
        n = mine["pearson"]["n"]
        rows.append([str(index), *told, f"{n}{' (few)' if mine['pearson']['small'] else ''}"])
    return ["index", "Pearson", "Spearman", "cells"], rows


def _by_language(result: ReadingResult, asked: set[str]) -> pd.DataFrame:
    """`language f1` of the combinations that phases look at: the pivot's text, or all in one."""
    table = result.scores[(result.scores["control"] == "") & (result.scores["metric"] == "f1")]
    home = table[
        (table["context_language"] == result.pivot) & (table["answer_language"] == result.pivot)
    ]
    if not asked <= set(home["question_language"]):
        home = table[
            (table["context_language"] == table["question_language"])
            & (table["context_language"] == table["answer_language"])
        ]
    return pd.DataFrame({"language": home["question_language"], "f1": home["value"]})


def _named(found: PhaseResult) -> str:
    names = _names(found.phases["language"])
    tags = [str(tag) for tag in found.phases["language"] if tag != ALL]
    return f"questions in {', '.join(names[tag] for tag in tags)}" if tags else "in one language"


def _names(tags: Iterable[str]) -> dict[str, str]:
    """English names with script and region, told apart, and what all of them together are."""
    return {ALL: "all languages"} | english_names((t for t in tags if t != ALL), variant=True)


def _depths(depth: DepthResult, resampling: Resampling) -> dict[str, str]:
    """By segment, all languages together."""
    table = depth.summary(resampling=resampling)
    return {
        str(row["segment"]): "unknown" if math.isnan(row["depth"]) else _layers(row, "depth")
        for row in table[table["language"] == "all"].to_dict("records")
    }
