"""Intervals over prompts."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float


@dataclass(frozen=True)
class Bootstrap:
    """Resampled means over prompts, the same resample for every column.

    Columns (layers, languages) of one prompt are read in the same forward pass, so prompts are
    drawn whole: statistics across columns, such as a peak's layer, keep their dependence.

    Attributes:
        mean: Of the prompts as they are; NaN cells are left out.
        draws: Means of the resamples.
        n: Prompts behind each column.
        confidence: Of the intervals.
    """

    mean: Float[np.ndarray, " column"]
    draws: Float[np.ndarray, "draw column"]
    n: np.ndarray
    confidence: float

    def interval(
        self, draws: np.ndarray | None = None
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Percentile interval of the draws, or of any statistic of each draw."""
        tail = (1 - self.confidence) / 2
        values = self.draws if draws is None else draws
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column without a number is NaN
            low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
        return np.asarray(low), np.asarray(high)


def bootstrap(
    values: Float[np.ndarray, "prompt column"],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> Bootstrap:
    """Resample prompts with replacement.

    Args:
        values: Of each prompt; NaN where it has none.
        clusters: What each prompt belongs to, such as the paragraph it asks about: whole clusters
            are drawn, and means weigh prompts. None: every prompt by itself.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the draws.

    Raises:
        ValueError: no prompts, a confidence outside (0, 1), or not a cluster for each prompt.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; accepted is a share between 0 and 1.")
    n = len(values)
    if n == 0:
        raise ValueError("An interval over prompts needs at least one prompt; got none.")
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"There are {n} prompts but {len(clusters)} clusters; give one for each.")
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    counts = there.astype(np.float64)
    sums = filled
    if clusters is not None:
        of, names = pd.factorize(pd.Series(list(clusters), dtype="object"))
        sums, counts = (_summed(each, of, len(names)) for each in (filled, counts))
    drawn = len(sums)
    # Floating point throughout: NumPy multiplies matrices of integers without BLAS.
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(drawn, np.full(drawn, 1 / drawn), size=n_boot) * 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (weights @ sums) / (weights @ counts)
        mean = filled.sum(0) / there.sum(0)
    return Bootstrap(mean=mean, draws=draws, n=there.sum(0), confidence=confidence)


def _summed(rows: np.ndarray, of: np.ndarray, n: int) -> np.ndarray:
    """Rows of the same number, added."""
    out = np.zeros((n, rows.shape[1]))
    np.add.at(out, of, rows)
    return out
