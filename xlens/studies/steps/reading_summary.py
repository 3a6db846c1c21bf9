"""What a report says of reading, in a few numbers: computed here, worded there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.phases import (
    Curves,
    CurveSummary,
    DepthResult,
    StabilityCorrelation,
    StabilityResult,
    correlate,
    depth_gap,
)
from xlens.phases.curves import ALL
from xlens.results import Result, analysed
from xlens.served.generations import REFUSED
from xlens.stats import Resampling
from xlens.studies.reading import BASELINES, SUMMARIES
from xlens.studies.steps.leaderboard import language_of
from xlens.studies.study import Parts, Step
from xlens.tasks.xmrc import OracleResult, Predictions, ReadingResult
from xlens.tasks.xmrc.answers import KEY

_ROOM = "summary"
_FEWEST = 3  # languages that a correlation needs
_SETTINGS = ("en-en", "en-x", "x-en", "x-x")
_CELL = ("context_language", "question_language", "answer_language")
_EXAMPLES = 8
_LIMITS = ("truncated", "text_cut")


@dataclass(frozen=True, kw_only=True)
class ReadingSummary(Result):
    """A model's answers in a few numbers, over all combinations of languages.

    Attributes:
        unread: F1 of what needs no reading: `control mean top low high fewest most`: the mean over
            combinations, the highest of them with its interval (of exchanged texts), and how many
            questions a combination has at least and at most.
        cut: Of each limit that cut something, `limit n of share` and `most`, the combinations with
            the highest share: of how many combinations it cut something off.
        wrong: `setting of content language failure golds compared above`: shares of the wrong
            answers by kind; `golds` is how often the rules call right answers to other questions in
            another language, each of the `compared` combinations by its wrong answers, and `above`
            where an interval lies above that.
        examples: The first question of every combination, then the second, of a few:
            `context_language question_language question reference prediction f1 kind`.
        refused: Prompts that a server did not take.
        prompts: Of how many.
    """

    unread: pd.DataFrame
    cut: pd.DataFrame
    wrong: pd.DataFrame
    examples: pd.DataFrame
    refused: int
    prompts: int

    def to_frame(self) -> pd.DataFrame:
        """`wrong`."""
        return self.wrong


@dataclass(frozen=True, kw_only=True)
class OracleSummary(Result):
    """How often answers hang on the sentence that holds them.

    Attributes:
        table: `OracleResult.summary`.
        targets: All combinations together: `target hit chance longest above of`; `above` of how
            many combinations, `of` so many, the interval lies above chance.
    """

    table: pd.DataFrame
    targets: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True, kw_only=True)
class DepthSummary(Result):
    """Relevance depth, with what random tokens give beside it.

    Attributes:
        table: `DepthResult.summary`, and `which`: empty, or `control` of random tokens.
        gaps: `depth_gap`, and `which`: how much deeper the text lies than the question.
    """

    table: pd.DataFrame
    gaps: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def summary_steps(names: Sequence[str], resampling: Resampling) -> Iterator[Step]:
    """Summaries of the parts that are there.

    Args:
        names: Of these parts.
        resampling: Of the intervals.
    """

    def of_curves(done: Parts) -> Result:
        curves = done["curves"]
        assert isinstance(curves, Curves)
        return curves.summary(resampling=resampling)

    made: dict[str, tuple[type[Result], Any]] = {
        "scores": (ReadingSummary, reading_summary),
        "oracle": (OracleSummary, lambda done: oracle_summary(done, resampling)),
        "curves": (CurveSummary, of_curves),
        "depth": (DepthSummary, lambda done: depth_summary(done, resampling)),
    }
    for name, summary in SUMMARIES.items():
        if name in names:
            yield Step.one(summary, *made[name])


def reading_summary(parts: Parts) -> ReadingSummary:
    """The scores' summary, with the answers and the baselines beside them."""
    scores = parts["scores"]
    assert isinstance(scores, ReadingResult)
    answers = parts.get("predictions")
    reasons: list[str] = []
    if isinstance(answers, Predictions):
        reasons = answers.table["reason"].tolist()
    return ReadingSummary(
        provenance=analysed(scores.provenance, _ROOM, {}),
        unread=_unread(scores, parts),
        cut=_cut(scores),
        wrong=_wrong(scores),
        examples=_examples(scores, answers),
        refused=reasons.count(REFUSED),
        prompts=len(reasons),
    )


def answer_table(parts: Parts) -> pd.DataFrame:
    """One row per answer with its scores, for people."""
    answers, scores = parts["predictions"], parts["scores"]
    assert isinstance(answers, Predictions) and isinstance(scores, ReadingResult)
    keys = ["id", *KEY]
    verdicts = scores.items[[*keys, "em", "f1", "inclusion", "kind", "rule"]]
    table = answers.table.drop(columns=["context", "question_references"]).merge(
        verdicts, on=keys, validate="one_to_one"
    )
    table["references"] = [json.dumps(each, ensure_ascii=False) for each in table["references"]]
    return pd.DataFrame(table)


def oracle_summary(parts: Parts, resampling: Resampling) -> OracleSummary:
    """Rates by combination, and over all of them."""
    found = parts["oracle"]
    assert isinstance(found, OracleResult)
    table = found.summary(resampling=resampling)
    means = found.items.groupby("target", sort=False)[["hit", "chance", "longest"]].mean()
    lows = table.groupby("target", sort=False)["above_low"]
    targets = means.assign(above=lows.agg(lambda low: int((low > 0).sum())), of=lows.size())
    return OracleSummary(
        provenance=analysed(found.provenance, _ROOM, resampling.provenance()),
        table=table,
        targets=targets.reset_index(),
    )


def depth_summary(parts: Parts, resampling: Resampling) -> DepthSummary:
    """Depths of the segments, and by how much the text lies deeper than the question."""
    which = {"": parts.get("depth"), "control": parts.get("depth-control")}
    found = {name: depth for name, depth in which.items() if isinstance(depth, DepthResult)}
    return DepthSummary(
        provenance=analysed(found[""].provenance, _ROOM, resampling.provenance()),
        table=pd.concat(
            [d.summary(resampling=resampling).assign(which=n) for n, d in found.items()],
            ignore_index=True,
        ),
        gaps=pd.concat(
            [depth_gap(d, resampling=resampling).assign(which=n) for n, d in found.items()],
            ignore_index=True,
        ),
    )


def stability_and_scores(
    models: Mapping[str, Parts], resampling: Resampling
) -> StabilityCorrelation | None:
    """Each index of stability against F1, over languages and models; None for too few."""
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
    return correlate(found, pd.concat(scores, ignore_index=True), resampling=resampling)


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


def _examples(scores: ReadingResult, answers: Result | None) -> pd.DataFrame:
    columns = ["context_language", "question_language", "question", "reference", "prediction"]
    columns += ["f1", "kind"]
    if not isinstance(answers, Predictions):
        return pd.DataFrame(columns=columns)
    joined = answers.table[["question", "references"]].join(scores.items)
    real = joined[joined["control"] == ""]
    turns = real.groupby(list(_CELL), sort=False).cumcount()
    few = real.assign(turn=turns).sort_values("turn", kind="stable").head(_EXAMPLES)
    first = [str(references[0]) for references in few["references"]]
    return few.assign(reference=first)[columns].reset_index(drop=True)


def _unread(scores: ReadingResult, parts: Parts) -> pd.DataFrame:
    f1 = scores.scores[scores.scores["metric"] == "f1"]
    other = f1[f1["control"] == "mismatched"]
    rows: list[dict[str, Any]] = []
    if other["value"].notna().any():
        top = max(other.dropna(subset="value").to_dict("records"), key=lambda row: row["value"])
        rows.append(
            {
                "control": "mismatched",
                "mean": float(other["value"].mean()),
                **{"top": top["value"], "low": top["low"], "high": top["high"]},
                **{"fewest": int(other["n"].min()), "most": int(other["n"].max())},
            }
        )
    for name in BASELINES:
        part = parts.get(name)
        if isinstance(part, ReadingResult):
            own = part.scores[part.scores["metric"] == "f1"]
            counts = {"fewest": int(own["n"].min()), "most": int(own["n"].max())}
            rows.append({"control": name, "mean": float(own["value"].mean()), **counts})
    columns = ["control", "mean", "top", "low", "high", "fewest", "most"]
    return pd.DataFrame(rows, columns=columns)


def _cut(scores: ReadingResult) -> pd.DataFrame:
    cells = scores.scores[(scores.scores["control"] == "") & (scores.scores["metric"] == "f1")]
    rows: list[dict[str, Any]] = []
    for limit in _LIMITS:
        there = cells[cells[limit] > 0] if limit in cells else cells.iloc[:0]
        if there.empty:
            continue
        most = there[there[limit] == there[limit].max()]
        names = ("-".join(str(row[name]) for name in _CELL) for row in most.to_dict("records"))
        rows.append(
            {
                **{"limit": limit, "n": len(there), "of": len(cells)},
                **{"share": float(most[limit].iloc[0]), "most": " and ".join(names)},
            }
        )
    return pd.DataFrame(rows, columns=["limit", "n", "of", "share", "most"])


def _wrong(scores: ReadingResult) -> pd.DataFrame:
    errors = scores.errors[scores.errors["control"] == ""]
    kinds = ("content", "language", "failure")
    rows: list[dict[str, Any]] = []
    for setting in _SETTINGS:
        mine = errors[errors["setting"] == setting]
        whole = int(mine[mine["kind"] == "content"]["of"].sum())
        if not whole:
            continue
        shares = {kind: float(mine[mine["kind"] == kind]["n"].sum()) / whole for kind in kinds}
        golds = mine[(mine["kind"] == "language") & mine["baseline"].notna() & (mine["of"] > 0)]
        # Each cell counts by its wrong answers, as in the shares themselves.
        so = np.nan if golds.empty else np.average(golds["baseline"], weights=golds["of"])
        cells = golds[golds["low"] > golds["baseline"]].to_dict("records")
        above = dict.fromkeys(language_of(row, scores.pivot) for row in cells)
        rows.append(
            {
                **{"setting": setting, "of": whole, **shares},
                **{"golds": float(so), "compared": len(golds), "above": " ".join(above)},
            }
        )
    return pd.DataFrame(rows, columns=["setting", "of", *kinds, "golds", "compared", "above"])
