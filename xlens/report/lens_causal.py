"""The part of a page about the causal test: verdicts first, then effects and tests."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from xlens.figures import Figure, causal_curves
from xlens.languages import english_names
from xlens.lens.result import lens_title
from xlens.lens.verdict import (
    NEUTRAL,
    PIVOT,
    UNDONE,
    UNREAD,
    UNUSED,
    CausalSummary,
    CausalVerdicts,
)
from xlens.report.blocks import Drawing, Finding, Findings, Section, Table
from xlens.report.cells import interval, rounded
from xlens.report.pair import anchor
from xlens.results import Result
from xlens.studies.lens import CAUSAL, CAUSAL_SUMMARY, VERDICTS
from xlens.wording import number_of

_WHAT = ("concept", "pivot", "other", "random")
TITLE = "Does what is read do any work?"
_WHERE = {"last": "the last position", "after": "all positions after the word"}
_CAPTION = (
    "By how much the log-odds of another item's word against the own grow at the output when the "
    "state is exchanged along a direction: what languages have in common of the word (without the "
    "target's and the prompt's own word), what the pivot's word has besides, what another "
    "language's has, and a random direction of the same length."
)
_TABLE = (
    "Largest effects over the points, in nats. p: smallest over the points, adjusted for these and "
    "for tests (max-T), and for pairs and lenses (Holm)."
)


def causal_sections(
    parts: Mapping[str, Result], key: str = "", figures: dict[str, Figure] | None = None
) -> list[Section]:
    """What the causal tests of a model came to; nothing where none was asked for.

    Args:
        parts: Of the model.
        key: Of the model, where there are several.
        figures: Takes the drawings; None: none are made, as for a terminal.
    """
    judged = parts.get(VERDICTS)
    if not isinstance(judged, CausalVerdicts) or not len(judged.table):
        return []
    found = {
        name.removesuffix(f"{CAUSAL}/{CAUSAL_SUMMARY}"): part
        for name, part in parts.items()
        if isinstance(part, CausalSummary)
    }
    names = english_names(
        tag for s in found.values() for tag in (s.source, s.target, s.pivot, *s.others)
    )
    links = {name: anchor("-".join(filter(None, (key, name, "causal")))) for name in found}
    rows = [(str(row["name"]), row) for row in judged.table.to_dict("records")]
    told = Findings(tuple(_finding(row, found[name], names, links[name]) for name, row in rows))
    cells = [_cells(row, found[name], names) for name, row in rows]
    head = ("Pair, lens and place", "Shared", "Pivot alone", "Other alone", "Random")
    head = (*head, "p shared", "p pivot")
    blocks: list[Any] = [told, Table(_TABLE, head, cells)]
    if figures is not None:
        for name, summary in found.items():
            fig = figures[links[name]] = causal_curves(summary, names=names)
            blocks.append(Drawing.of(fig, links[name], f"{_pair(summary, names)}. {_CAPTION}"))
    title = TITLE if not key else f"{TITLE} {key}"
    return [Section(anchor("-".join(filter(None, (key, "causal")))), title, tuple(blocks))]


def _pair(summary: CausalSummary, names: Mapping[str, str]) -> str:
    return f"{names[summary.source]} → {names[summary.target]}, {lens_title(summary.lens)}"


def _finding(
    row: Mapping[Any, Any], summary: CausalSummary, names: Mapping[str, str], link: str
) -> Finding:
    pivot, where = names[summary.pivot], _WHERE[str(row["where"])]
    layers = str(row["layers"])
    at = f" (points {layers})" if layers else ""
    said = {
        PIVOT: f"what {pivot} words have besides what all languages share moves the answer, more "
        f"than another language's part and random directions do{at}.",
        NEUTRAL: f"what languages share of the word moves the answer more than random directions "
        f"do{at}; what {pivot} has besides is not told from other languages' part or from random.",
        UNUSED: f"the {pivot} word can be read{at}, and exchanging it, shared or {pivot} part, is "
        "not told from random directions.",
        UNREAD: f"the {pivot} word is not told from other items' at any point, and exchanging it "
        "does nothing that random directions don't.",
        UNDONE: f"at the output the right {names[summary.target]} word is not told from "
        "other items' words: there is nothing to be explained.",
    }
    verdict = str(row["verdict"])
    text = (
        f"Changed at {where}: {said[verdict]} {number_of(summary.n_items, 'item')}; besides "
        f"source, target and pivot, words in {', '.join(names[tag] for tag in summary.others)}."
    )
    capital = f"{verdict[0].upper()}{verdict[1:]}."
    return Finding(text, title=_pair(summary, names), anchor=link, verdict=capital)


def _cells(row: Mapping[Any, Any], summary: CausalSummary, names: Mapping[str, str]) -> list[str]:
    where = str(row["where"])
    table = summary.curves[
        (summary.curves["way"] == "exchange") & (summary.curves["where"] == where)
    ]
    most = [_largest(table[table["what"] == what]) for what in _WHAT]
    p = [rounded(float(row[name]), ".3f") for name in ("p_concept", "p_pivot")]
    return [f"{_pair(summary, names)}, {_WHERE[where]}", *most, *p]


def _largest(rows: pd.DataFrame) -> str:
    best = rows.iloc[int(rows["mean"].argmax())].to_dict()
    return f"{interval(best, 'mean')} at {int(best['layer'])}"
