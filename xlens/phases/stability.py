"""How stable the phases are over samples and languages."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import RelevanceScores
from xlens.errors import InputError
from xlens.phases.curves import ALL
from xlens.phases.depth import DepthResult
from xlens.phases.resample import shared_rows
from xlens.results import Result, analysed
from xlens.stats import Resampling, Rows

INDICES = {
    "S1_question": "evenness over samples: - standard deviation of the question's depth / blocks",
    "S1_context": "the same for the context's depth",
    "S1_gap": "the same for the gap between them",
    "S2": "closeness to the pivot: - |mean question depth, language less pivot| / blocks",
    "S3": "evenness over languages: - standard deviation of their mean question depth / blocks",
    "S4": "agreement with the pivot: correlation of mean question relevance over layers",
    "S5": "order: share of samples whose question depth is below the context's",
}
"""Names under which xlens reports candidates for the 'phasing stability' of arXiv 2504.10906, whose
definition is not confirmed: our reading, all of them. Higher is stabler."""
SHIFT = "shift"
"""Name of the signed number behind S2: mean question depth, language less pivot, / blocks. It says
which way the depth moves; it is no index, and is not correlated."""


@dataclass(frozen=True, kw_only=True)
class StabilityResult(Result):
    """Stability indices per language.

    Attributes:
        table: `index language value low high n`: the indices, and `shift` (`SHIFT`). The pivot has
            no `shift`, S2 and S4; S3 is one number, of language `all`, with the languages besides
            the pivot for `n`.
        draws: Each row's bootstrap draws. Those of S2 are folded at 0, its interval is not of them.
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


@typed
def stability(
    depth: DepthResult,
    scores: RelevanceScores | None = None,
    *,
    pivot: str = "en",
    question: str = "question",
    context: str = "context",
    resampling: Resampling = Resampling(),
) -> StabilityResult:
    """Candidates for phasing stability, S1 to S5 (`INDICES`).

    The prompts' language is the question's; the context's is the same for all. S2 and S4 take the
    ids that exist in the pivot too. Explain the same answer token in every language, or depths mix
    targets.

    S2 and S3 are sizes, and sizes of noisy numbers are too large. S2 is therefore given with the
    signed `shift`, from whose interval its own follows: it ends at 0 where the shift's straddles 0.
    S3 is a variance of means of few prompts: the part that sampling adds, estimated by the same
    bootstrap (the same prompts in all languages, drawn together), is subtracted before the root,
    and what is left below 0 counts as 0.

    Args:
        depth: With the segments `question` and `context`.
        scores: The relevance that the depth is of, with `question:sum` or `question:mean`, for S4.
        pivot: The language that others are compared with.
        question: Name of the question's segment.
        context: Name of the context's, or of the answer sentence's.
        resampling: Of the intervals.

    Raises:
        ValueError: a missing segment or pivot, scores of other prompts.
    """
    wide = _wide(depth, question, context)
    languages = list(dict.fromkeys(wide["language"]))
    if pivot not in languages:
        raise InputError(f"pivot={pivot!r} is not among the languages {languages}.")
    clusters = resampling.codes(wide)
    rows = resampling.rows(int(clusters.max()) + 1)
    # [row, prompt]: row 0 the sample, then resamples, then without each cluster.
    weights = rows.weights[:, clusters]
    profiles = None if scores is None else _profiles(scores, wide, question)
    blocks = depth.n_layers
    columns = {
        "S1_question": wide["question"].to_numpy(),
        "S1_context": wide["context"].to_numpy(),
        "S1_gap": (wide["context"] - wide["question"]).to_numpy(),
    }
    order = np.where(np.isfinite(columns["S1_gap"]), (columns["S1_gap"] > 0).astype(float), np.nan)
    n_clusters = {
        language: len(np.unique(clusters[(wide["language"] == language).to_numpy()]))
        for language in languages
    } | {ALL: len(np.unique(clusters))}
    found: list[tuple[str, str, np.ndarray, int]] = []
    means: list[np.ndarray] = []
    intervals: dict[tuple[str, str], tuple[float, float]] = {}
    for language in languages:
        here = (wide["language"] == language).to_numpy()
        for name, values in columns.items():
            spread = _deviation(np.where(here, values, np.nan), weights)
            found.append((name, language, -spread / blocks, int(here.sum())))
        found.append(
            (
                "S5",
                language,
                weighted_means(np.where(here, order, np.nan), weights),
                int(here.sum()),
            )
        )
        if language != pivot:
            theirs, ours = shared_rows(wide, language, pivot)
            apart = columns["S1_question"][theirs] - columns["S1_question"][ours]
            # The other language's row stands for the pair; both are in one cluster.
            shift = weighted_means(_at(theirs, apart, len(wide)), weights) / blocks
            pairs = int(np.isfinite(apart).sum())
            found.append((SHIFT, language, shift, pairs))
            found.append(("S2", language, -np.abs(shift), pairs))
            intervals["S2", language] = _folded(
                *rows.interval(shift, n_clusters[language], resampling.confidence)
            )
            # One row per language of S3, under the same resamples.
            mean = weighted_means(np.where(here, columns["S1_question"], np.nan), weights)
            means += [mean] if np.isfinite(mean[0]) else []
            if profiles is not None:
                both = [np.isin(np.arange(len(wide)), rows) for rows in (theirs, ours)]
                curves = [_mean_rows(profiles, x, weights) for x in both]
                found.append(("S4", language, row_correlations(*curves), len(theirs)))
    if len(means) > 1:
        found.append(("S3", ALL, -_spread(np.stack(means), rows) / blocks, len(means)))
    names = [*INDICES, SHIFT]
    found.sort(key=lambda row: names.index(row[0]))
    table: list[dict[str, Any]] = []
    for name, language, values, count in found:
        # S2's was made from the signed shift: |x| is never below
        # 0, so its own draws can't straddle 0.
        low, high = intervals.get((name, language)) or rows.interval(
            values, n_clusters[language], resampling.confidence
        )
        named = {"index": name, "language": language}
        table.append({**named, "value": float(values[0]), "low": low, "high": high, "n": count})
    return StabilityResult(
        provenance=analysed(
            depth.provenance,
            "stability",
            {
                **resampling.provenance(),
                "sources": {"stability": "our reading of 'phasing stability' (arXiv 2504.10906)"},
            },
        ),
        table=pd.DataFrame(table),
        draws=np.stack([values[rows.drawn] for _, _, values, _ in found]),
        clusters=pd.DataFrame({"id": wide["id"], "cluster": clusters}).drop_duplicates("id"),
        pivot=pivot,
        seed=resampling.seed,
    )


def _wide(depth: DepthResult, question: str, context: str) -> pd.DataFrame:
    for segment in (question, context):
        if segment not in depth.segments:
            raise InputError(
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
        raise InputError("scores and depth are of different prompts; give those it was made of.")
    slots = [s for s in (f"{question}:sum", f"{question}:mean") if (scores.rows["slot"] == s).any()]
    return scores.get(slots[0] if slots else f"{question}:sum")


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of the numbers among `values`, each counted so often, for each row of weights."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ np.where(there, values, 0.0)) / (weights @ there.astype(float))


def _deviation(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = weighted_means(values, weights)
    # The difference of two large numbers may come out a little below 0.
    return np.sqrt(np.maximum(weighted_means(values**2, weights) - mean**2, 0.0))


def _at(rows: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """`n` numbers, NaN but in these rows."""
    out = np.full(n, np.nan)
    out[rows] = values
    return out


def _folded(low: float, high: float) -> tuple[float, float]:
    """The interval of - |x| from that of x."""
    least, most = sorted((abs(low), abs(high)))
    return -most, 0.0 if low <= 0 <= high else -least


def _spread(means: Float[np.ndarray, "language row"], rows: Rows) -> Float[np.ndarray, " row"]:
    """Standard deviation over languages without what sampling adds.

    A mean's error makes languages differ where nothing does. The bootstrap knows how much; a
    resample's means have the sample's errors and their own besides.
    """
    # How much resamples make languages differ from where the sample has them.
    drawn = float(np.nanmean(np.var(means[:, rows.drawn] - means[:, :1], axis=0)))
    # Resamples of n spread by (n - 1) / n of what samples do.
    sampled = drawn * rows.n / max(rows.n - 1, 1)
    added = np.full(means.shape[1], sampled)
    # A resample's means carry the sample's error and the resample's.
    added[rows.drawn] += drawn
    return np.sqrt(np.maximum(np.var(means, axis=0) - added, 0.0))


def _mean_rows(values: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    chosen = weights * rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return (chosen @ np.nan_to_num(values)) / chosen.sum(axis=1, keepdims=True)


def row_correlations(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> Float[np.ndarray, " row"]:
    """Pearson row by row, each point counted so often.

    NaN where one of them is constant, or there are fewer than three points.
    """
    w = np.ones((1, x.shape[1])) if weights is None else weights
    if x.shape[1] < 3:
        return np.full(max(len(x), len(w)), np.nan)
    total = w.sum(1, keepdims=True)
    a, b = (side - (w * side).sum(1, keepdims=True) / total for side in (x, y))
    size = np.sqrt((w * a**2).sum(1) * (w * b**2).sum(1))
    # Against the size before centring: what is so small is rounding of a constant.
    flat = size <= 1e-12 * np.sqrt((w * x**2).sum(1) * (w * y**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flat, np.nan, (w * a * b).sum(1) / size)
