"""How stable the phases are over samples and languages, and whether that goes with the scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from xlens.engine import RelevanceScores
from xlens.phases.curves import ALL
from xlens.phases.depth import DepthResult
from xlens.phases.resample import cluster_of, percentiles, shared_rows
from xlens.results import Result, versions
from xlens.stats import bootstrap_weights, check_draws

INDICES = {
    "S1_question": "evenness over samples: - standard deviation of the question's depth / blocks",
    "S1_context": "the same for the context's depth",
    "S1_gap": "the same for the gap between them",
    "S2": "closeness to the pivot: - |mean question depth, language less pivot| / blocks",
    "S3": "evenness over languages: - standard deviation of the languages' mean depth / blocks",
    "S4": "agreement with the pivot: correlation of mean question relevance over layers",
    "S5": "order: share of samples whose question depth is below the context's",
}
"""Names under which xlens reports candidates for the 'phasing stability' of arXiv 2504.10906, whose
definition is not confirmed: our reading, all of them. Higher is stabler."""
SMALL = 10
"""Correlations over fewer cells than this are flagged."""
Over = Literal["items", "cells"]


@dataclass(frozen=True, kw_only=True)
class StabilityResult(Result):
    """Stability indices per language.

    Attributes:
        table: `index language value low high n`. S3 is one number, of language `all`. NaN where
            an index is not defined: the pivot itself for S2 and S4.
        draws: Each row's bootstrap draws.
        clusters: Which cluster each id was resampled with: `id cluster`.
        pivot: The language that others are compared with.
        seed: Of the bootstrap.
    """

    table: pd.DataFrame
    draws: Float[np.ndarray, "row draw"]
    clusters: pd.DataFrame
    pivot: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True, kw_only=True)
class StabilityCorrelation(Result):
    """Stability against a score, over (model, language) cells or over models.

    Attributes:
        table: `index coefficient value low high n small`; `coefficient` is `pearson` or `spearman`,
            `small` says that fewer than ten cells stand behind it.
        cells: `index model language stability score`: what was correlated.
        over: What the intervals resample.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    cells: pd.DataFrame
    over: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def stability(
    depth: DepthResult,
    scores: RelevanceScores | None = None,
    *,
    pivot: str = "en",
    question: str = "question",
    context: str = "context",
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> StabilityResult:
    """Candidates for phasing stability, S1 to S5 (`INDICES`).

    The prompts' language is the question's; the context's is the same for all. S2 and S4 take the
    ids that exist in the pivot too. Explain the same answer token in every language, or depths mix
    targets.

    Args:
        depth: With the segments `question` and `context`.
        scores: The relevance that the depth is of, with `question:sum` or `question:mean`, for S4.
        pivot: The language that others are compared with.
        question: Name of the question's segment.
        context: Name of the context's, or of the answer sentence's.
        cluster: Meta column that is resampled whole; None for `paragraph` where there is one, else
            `id`.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.

    Raises:
        ValueError: a missing segment or pivot, scores of other prompts.
    """
    check_draws(confidence, n_boot=n_boot)
    wide = _wide(depth, question, context)
    languages = list(dict.fromkeys(wide["language"]))
    if pivot not in languages:
        raise ValueError(f"pivot={pivot!r} is not among the languages {languages}.")
    clusters = cluster_of(wide, cluster)
    n = int(clusters.max()) + 1
    # The first draw is the sample as it is.
    weights = np.vstack([np.ones(n), bootstrap_weights(n, n_boot, seed)])[:, clusters]
    profiles = None if scores is None else _profiles(scores, wide, question)
    blocks = depth.n_layers
    columns = {
        "S1_question": wide["question"].to_numpy(),
        "S1_context": wide["context"].to_numpy(),
        "S1_gap": (wide["context"] - wide["question"]).to_numpy(),
    }
    order = np.where(np.isfinite(columns["S1_gap"]), (columns["S1_gap"] > 0).astype(float), np.nan)
    found: list[tuple[str, str, np.ndarray, int]] = []
    means: list[np.ndarray] = []
    for language in languages:
        here = (wide["language"] == language).to_numpy()
        for name, values in columns.items():
            spread = _deviation(np.where(here, values, np.nan), weights)
            found.append((name, language, -spread / blocks, int(here.sum())))
        means.append(_mean(np.where(here, columns["S1_question"], np.nan), weights))
        found.append(
            ("S5", language, _mean(np.where(here, order, np.nan), weights), int(here.sum()))
        )
        if language != pivot:
            theirs, ours = shared_rows(wide, language, pivot)
            both = [np.isin(np.arange(len(wide)), rows) for rows in (theirs, ours)]
            away = [_mean(np.where(x, columns["S1_question"], np.nan), weights) for x in both]
            found.append(("S2", language, -np.abs(away[0] - away[1]) / blocks, len(theirs)))
            if profiles is not None:
                curves = [_mean_rows(profiles, x, weights) for x in both]
                found.append(("S4", language, _correlations(*curves), len(theirs)))
    if len(languages) > 1:
        found.append(("S3", ALL, -np.std(means, axis=0) / blocks, len(languages)))
    names = list(INDICES)
    found.sort(key=lambda row: names.index(row[0]))
    rows: list[dict[str, Any]] = []
    for name, language, values, count in found:
        low, high = percentiles(values[1:], confidence)
        numbers = {"value": float(values[0]), "low": low, "high": high, "n": count}
        rows.append({"index": name, "language": language, **numbers})
    return StabilityResult(
        provenance={
            **depth.provenance,
            "stability": {"cluster": cluster, "n_boot": n_boot, "confidence": confidence},
            "sources": {"stability": "our reading of 'phasing stability' (arXiv 2504.10906)"},
            "versions": versions(),
        },
        table=pd.DataFrame(rows),
        draws=np.stack([values[1:] for _, _, values, _ in found]),
        clusters=pd.DataFrame({"id": wide["id"], "cluster": clusters}).drop_duplicates("id"),
        pivot=pivot,
        seed=seed,
    )


def correlate(
    stabilities: Mapping[str, StabilityResult],
    scores: pd.DataFrame,
    *,
    score: str = "f1",
    over: Over = "cells",
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> StabilityCorrelation:
    """Pearson and Spearman correlations of stability with a score.

    S1, S2, S4 and S5 over (model, language) cells, the pivot left out for S2 and S4; S3 over
    models, with the models' mean scores.

    Args:
        stabilities: By model.
        scores: `model language` and the score; one row per item (then with `id`) or per cell.
        score: The score's column.
        over: What intervals resample: `cells` (do other languages and models agree?), or `items`
            (would other paragraphs say the same of these?), which needs scores per item and
            stabilities of the same seed and number of draws.
        confidence: Of the intervals.
        n_boot: Resamples of cells.
        seed: Of these.

    Raises:
        ValueError: missing columns or cells, or scores per cell with `over="items"`.
    """
    check_draws(confidence, n_boot=n_boot)
    _check_scores(stabilities, scores, score, over)
    parts: list[pd.DataFrame] = []
    draws: list[tuple[np.ndarray, np.ndarray]] = []
    for model, found in stabilities.items():
        mine = scores[scores["model"] == model]
        table = found.table.assign(model=model)
        for row, drawn in zip(table.to_dict("records"), found.draws, strict=True):
            here = mine if row["language"] == ALL else mine[mine["language"] == row["language"]]
            if here.empty:
                raise ValueError(f"scores has no row of {model!r} in {row['language']!r}.")
            value = float(here.groupby("language")[score].mean().mean())
            parts.append(
                pd.DataFrame(
                    {
                        "index": [row["index"]],
                        "model": [model],
                        "language": [row["language"]],
                        "stability": [row["value"]],
                        "score": [value],
                    }
                )
            )
            drawn_score = _score_draws(found, here, score) if over == "items" else drawn * np.nan
            draws.append((drawn, drawn_score))
    cells = pd.concat(parts, ignore_index=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name in INDICES:
        here = np.flatnonzero((cells["index"] == name) & np.isfinite(cells["stability"]))
        if len(here) == 0:
            continue
        x, y = (cells[c].to_numpy()[here] for c in ("stability", "score"))
        if over == "cells":
            picks = rng.integers(len(here), size=(n_boot, len(here)))
            xs, ys = x[picks], y[picks]
        else:
            xs, ys = (np.stack([draws[i][side] for i in here], axis=1) for side in (0, 1))
        for coefficient in ("pearson", "spearman"):
            ranked = coefficient == "spearman"
            value = float(_correlations(*_ranked(x[None], y[None], ranked))[0])
            low, high = percentiles(_correlations(*_ranked(xs, ys, ranked)), confidence)
            rows.append(
                {
                    "index": name,
                    "coefficient": coefficient,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": len(here),
                    "small": len(here) < SMALL,
                }
            )
    return StabilityCorrelation(
        provenance={"models": list(stabilities), "score": score, "versions": versions()},
        table=pd.DataFrame(rows),
        cells=cells,
        over=over,
        confidence=confidence,
    )


def _wide(depth: DepthResult, question: str, context: str) -> pd.DataFrame:
    for segment in (question, context):
        if segment not in depth.segments:
            raise ValueError(
                f"This depth has no segment {segment!r}; it has {list(depth.segments)}. Name one, "
                "or ask relevance_depth() for it."
            )
    one = depth.table[depth.table["segment"] == question].set_index("prompt")
    other = depth.table[depth.table["segment"] == context].set_index("prompt")
    return one.rename(columns={"depth": "question"}).assign(context=other["depth"]).reset_index()


def _profiles(
    scores: RelevanceScores, wide: pd.DataFrame, question: str
) -> Float[np.ndarray, "prompt layer"]:
    keys = ["id", "language"]
    if not scores.meta[keys].equals(wide[keys]):
        raise ValueError("scores and depth are of different prompts; give those it was made of.")
    slots = [s for s in (f"{question}:sum", f"{question}:mean") if (scores.rows["slot"] == s).any()]
    return scores.get(slots[0] if slots else f"{question}:sum")


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ np.where(there, values, 0.0)) / (weights @ there.astype(float))


def _deviation(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = _mean(values, weights)
    return np.sqrt(np.maximum(_mean(values**2, weights) - mean**2, 0.0))


def _mean_rows(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    chosen = weights * rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return (chosen @ np.nan_to_num(values)) / chosen.sum(axis=1, keepdims=True)


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row by row; NaN where one of them is constant, or there are fewer than three numbers."""
    if x.shape[1] < 3:
        return np.full(len(x), np.nan)
    a, b = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    flat = size <= 1e-12 * np.sqrt((x**2).sum(1) * (y**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flat, np.nan, (a * b).sum(1) / size)


def _ranked(x: np.ndarray, y: np.ndarray, ranked: bool) -> tuple[np.ndarray, np.ndarray]:
    return (rankdata(x, axis=1), rankdata(y, axis=1)) if ranked else (x, y)


def _score_draws(found: StabilityResult, items: pd.DataFrame, score: str) -> np.ndarray:
    """Mean scores under the resamples that the stability was drawn with."""
    by_id = dict(zip(found.clusters["id"], found.clusters["cluster"], strict=True))
    if unknown := sorted(set(items["id"]) - set(by_id)):
        raise ValueError(f"scores has the item {unknown[0]!r}, of which there is no stability.")
    n = int(found.clusters["cluster"].max()) + 1
    clusters = items["id"].map(by_id).to_numpy()
    weights = bootstrap_weights(n, found.draws.shape[1], found.seed)[:, clusters]
    each = [
        _mean(np.where(items["language"] == x, items[score], np.nan), weights)
        for x in items["language"].unique()
    ]
    return np.mean(each, axis=0)


def _check_scores(
    stabilities: Mapping[str, StabilityResult], scores: pd.DataFrame, score: str, over: str
) -> None:
    if not stabilities:
        raise ValueError("correlate needs the stability of at least one model; got none.")
    if over not in get_args(Over):
        raise ValueError(f"over is {over!r}; accepted are {list(get_args(Over))}.")
    needed = ["model", "language", score, *(["id"] if over == "items" else [])]
    if missing := [c for c in needed if c not in scores]:
        raise ValueError(
            f"scores lacks the columns {missing}; it has {list(scores.columns)}. Intervals over "
            "items need one row per item, with its id."
        )
