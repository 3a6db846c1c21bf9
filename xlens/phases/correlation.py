"""Does the phases' stability go with a score: over languages and models, or over models?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from xlens.checks import typed
from xlens.errors import InputError
from xlens.phases.curves import ALL
from xlens.phases.stability import INDICES, StabilityResult, row_correlations, weighted_means
from xlens.results import Result, analysed
from xlens.stats import Resampling, jumping

SMALL = 10
"""Correlations over fewer points than this, or with intervals over fewer, are flagged."""
Unit = Literal["cells", "models"]
Over = Literal["groups", "items"]


@dataclass(frozen=True, kw_only=True)
class StabilityCorrelation(Result):
    """Stability against a score, over (model, language) cells or over models.

    Attributes:
        table: `index coefficient value low high n resampled small`; `coefficient` is `pearson` or
            `spearman`, `n` the points, `resampled` how many models, languages or clusters of items
            the interval resamples; `small` says that either is below ten.
        cells: `index model language stability score`: what was correlated, the pivot left out;
            language `all` where it is a model's number.
        unit: `cells` or `models`. S3 is a number of a model in either.
        over: What the intervals resample: `models`, `languages` or `items`.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    unit: str
    over: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True)
class _Point:
    """One point of a scatter, and both its numbers under resamples of items."""

    index: str
    model: str
    language: str
    stability: float
    score: float
    drawn: Float[np.ndarray, "side draw"]


@typed
def correlate(
    stabilities: Mapping[str, StabilityResult],
    scores: pd.DataFrame,
    *,
    score: str = "f1",
    unit: Unit = "cells",
    over: Over = "groups",
    resampling: Resampling = Resampling(),
) -> StabilityCorrelation:
    """Pearson and Spearman correlations of stability with a score.

    The pivot is no point and has no part in a mean: asked and read in one language, it has nothing
    to lose. Cells are not independent, neither those of a model nor those of a language. Intervals
    therefore resample whole models, or the languages where there is one model, on Fisher's scale.
    A correlation of ±1 has none: no resample moves it. docs/statistics.md says how often intervals
    leave out 0 where nothing goes with anything.

    Args:
        stabilities: By model.
        scores: `model language` and the score; one row per item (then with `id`) or per cell.
        score: The score's column.
        unit: What a point is: a model in a language (`cells`), or a model (`models`), with the mean
            over its languages of the index and of the score. S3 is one number of a model already.
        over: What intervals resample: `groups` (do other models, or languages, agree?), or `items`
            (would other paragraphs say the same of these?), which needs scores per item and
            stabilities of the same seed and number of draws.
        resampling: Of the intervals.

    Raises:
        ValueError: missing columns or cells, no language besides the pivot, scores per cell with
            `over="items"`; with `unit="models"` fewer than three, or of different languages.
    """
    _check(stabilities, scores, score, unit, over)
    points: list[_Point] = []
    for model, found in stabilities.items():
        items = scores[scores["model"] == model]
        points += _points(model, found, items, score, drawn=over == "items")
    if unit == "models":
        points = _over_languages(points)
    alone = len(stabilities) == 1
    table: list[dict[str, Any]] = []
    for name in INDICES:
        # Points of one index; x and y are [1, point], as weights have a row for each resample.
        mine = [p for p in points if p.index == name and np.isfinite(p.stability)]
        if not mine:
            continue
        x, y = (np.array([[getattr(p, side) for p in mine]]) for side in ("stability", "score"))
        # Of one model there is nothing to draw but languages.
        groups = pd.factorize(np.array([p.language if alone else p.model for p in mine]))[0]
        items = min(found.clusters["cluster"].nunique() for found in stabilities.values())
        resampled = int(groups.max()) + 1 if over == "groups" else items
        for coefficient in ("pearson", "spearman"):
            ranked = coefficient == "spearman"
            value = float(_correlations(x, y, np.ones_like(x), ranked)[0])
            if over == "groups":
                rows = resampling.rows(resampled)
                # [row, point]: a model that is drawn twice stands there twice with all its cells.
                values = _correlations(x, y, rows.weights[:, groups], ranked)
                # On Fisher's scale, where errors do not depend on the correlation.
                ends = rows.interval(_stretched(values), resampled, resampling.confidence)
                # At ±1 Fisher's scale has no end, and what `_stretched` cut off is no estimate.
                low, high = np.tanh(ends) if abs(value) < 1 - 1e-9 else (np.nan, np.nan)
            else:
                # [draw, point]: here points move, and none is drawn or left out.
                xs, ys = (np.stack([p.drawn[side] for p in mine], axis=1) for side in (0, 1))
                drawn = _correlations(xs, ys, np.ones_like(x), ranked)
                low, high = jumping(drawn, clusters=resampled, confidence=resampling.confidence)
            table.append(
                {
                    "index": name,
                    "coefficient": coefficient,
                    "value": value,
                    "low": float(low),
                    "high": float(high),
                    "n": len(mine),
                    "resampled": resampled,
                    "small": min(len(mine), resampled) < SMALL,
                }
            )
    columns = ["index", "model", "language", "stability", "score"]
    return StabilityCorrelation(
        provenance=analysed(
            {"models": list(stabilities)},
            "correlation",
            {"score": score, **resampling.provenance()},
        ),
        table=pd.DataFrame(table),
        cells=pd.DataFrame([[getattr(p, c) for c in columns] for p in points], columns=columns),
        unit=unit,
        over="items" if over == "items" else "languages" if alone else "models",
        confidence=resampling.confidence,
    )


def _points(
    model: str, found: StabilityResult, items: pd.DataFrame, score: str, *, drawn: bool
) -> list[_Point]:
    """A model's cells, and its S3, whose score is the mean over the same languages."""
    points: list[_Point] = []
    tags = [str(x) for x in found.table["language"].unique() if x not in (ALL, found.pivot)]
    means = items.groupby("language")[score].mean()
    if missing := [tag for tag in tags if tag not in means.index]:
        raise InputError(f"scores has no row of {model!r} in {missing[0]!r}.")
    for row, draws in zip(found.table.to_dict("records"), found.draws, strict=True):
        language = str(row["language"])
        if row["index"] not in INDICES or language == found.pivot:
            continue
        some = tags if language == ALL else [language]
        here = items[items["language"].isin(some)] if drawn else items
        said = _score_draws(found, here, score) if drawn else np.full(len(draws), np.nan)
        points.append(
            _Point(
                index=str(row["index"]),
                model=model,
                language=language,
                stability=float(row["value"]),
                score=float(means[some].mean()),
                drawn=np.stack([draws, said]),
            )
        )
    return points


def _over_languages(points: list[_Point]) -> list[_Point]:
    """Each model's mean over its languages; those in which some model lacks the index are not."""
    spoken = {p.model: {q.language for q in points if q.model == p.model} - {ALL} for p in points}
    (first, wanted), *others = spoken.items()
    for model, tags in others:
        if tags != wanted:
            raise InputError(
                f"unit='models' compares means over the same languages; {first!r} has "
                f"{sorted(wanted)} and {model!r} {sorted(tags)}. Leave out what they do not share."
            )
    means: list[_Point] = []
    for index in dict.fromkeys(p.index for p in points):
        mine = [p for p in points if p.index == index]
        # A mean over other languages than other models' would be another number.
        lacking = {p.language for p in mine if not np.isfinite(p.stability)}
        for model in spoken:
            some = [p for p in mine if p.model == model and p.language not in lacking]
            if some:
                means.append(
                    replace(
                        some[0],
                        language=ALL,
                        stability=float(np.mean([p.stability for p in some])),
                        score=float(np.mean([p.score for p in some])),
                        drawn=np.mean([p.drawn for p in some], axis=0),
                    )
                )
    return means


def _stretched(r: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))


def _correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray, ranked: bool) -> np.ndarray:
    if ranked:
        x, y = _ranks(x, weights), _ranks(y, weights)
    return row_correlations(x, y, weights)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks within each row, ties by their mean, as if each point stood there so often."""
    if len(values) > 1:
        return rankdata(values, axis=1)
    (row,) = values
    below, equal = (row[:, None] < row).astype(float), (row[:, None] == row).astype(float)
    # Points before it, and half of those that are like it (itself counted): the mean rank of
    # ties, without writing repeated points out.
    return weights @ below + (weights @ equal + 1) / 2


def _score_draws(found: StabilityResult, items: pd.DataFrame, score: str) -> np.ndarray:
    """Mean scores under the resamples that the stability was drawn with."""
    by_id = dict(zip(found.clusters["id"], found.clusters["cluster"], strict=True))
    if unknown := sorted(set(items["id"]) - set(by_id)):
        raise InputError(f"scores has the item {unknown[0]!r}, of which there is no stability.")
    n = int(found.clusters["cluster"].max()) + 1
    clusters = items["id"].map(by_id).to_numpy()
    # The same seed, number and clusters draw what `stability` drew: both sides move together.
    how = Resampling(draws=found.draws.shape[1], seed=found.seed)
    weights = how.weights(n)[:, clusters]
    each: list[np.ndarray] = []
    for language in items["language"].unique():
        # Languages weigh alike, however many items each has.
        here = (items["language"] == language).to_numpy()
        each.append(weighted_means(items.loc[here, score].to_numpy(dtype=float), weights[:, here]))
    return np.mean(each, axis=0)


def _check(
    stabilities: Mapping[str, StabilityResult],
    scores: pd.DataFrame,
    score: str,
    unit: str,
    over: str,
) -> None:
    if not stabilities:
        raise InputError("correlate needs the stability of at least one model; got none.")
    if unit == "models" and len(stabilities) < 3:
        raise InputError(
            f"unit='models' correlates models, at least three; got {list(stabilities)}. "
            "unit='cells' correlates their languages."
        )
    needed = ["model", "language", score, *(["id"] if over == "items" else [])]
    if missing := [c for c in needed if c not in scores]:
        raise InputError(
            f"scores lacks the columns {missing}; it has {list(scores.columns)}. Intervals over "
            "items need one row per item, with its id."
        )
    if len(pivots := {found.pivot for found in stabilities.values()}) > 1:
        raise InputError(f"The stabilities are relative to different pivots: {sorted(pivots)}.")
    for model, found in stabilities.items():
        if not set(found.table["language"]) - {ALL, found.pivot}:
            raise InputError(
                f"{model!r} has no language besides the pivot {found.pivot!r}, which is left out; "
                "ask in others."
            )
