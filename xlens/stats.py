"""Intervals over prompts."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


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
    check_draws(confidence)
    n = len(values)
    if n == 0:
        raise ValueError("An interval over prompts needs at least one prompt; got none.")
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"There are {n} prompts but {len(clusters)} clusters; give one for each.")
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)
    if clusters is None:
        sums = ClusterSums(filled, there.astype(np.float64))
    else:
        sums = ClusterSums.of(values, pd.factorize(pd.Series(list(clusters), dtype="object"))[0])
    draws = sums.draws(bootstrap_weights(len(sums.sums), n_boot, seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(0) / there.sum(0)
    return Bootstrap(mean=mean, draws=draws, n=there.sum(0), confidence=confidence)


@dataclass(frozen=True)
class ClusterSums:
    """Sums and counts of some columns by cluster: all that means of resamples need.

    Attributes:
        sums: NaN left out.
        counts: Numbers behind the sums.
    """

    sums: Float[np.ndarray, "cluster column"]
    counts: Float[np.ndarray, "cluster column"]

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "prompt column"],
        clusters: Int[np.ndarray, " prompt"],
        n: int | None = None,
    ) -> "ClusterSums":
        """By cluster, numbered from 0; `n` where there are more clusters than occur here."""
        n = int(clusters.max()) + 1 if n is None else n
        there = np.isfinite(values)
        sums, counts = np.zeros((n, values.shape[1])), np.zeros((n, values.shape[1]))
        np.add.at(sums, clusters, np.where(there, values, 0.0))
        np.add.at(counts, clusters, there.astype(float))
        return cls(sums, counts)

    @property
    def n(self) -> int:
        """Clusters with a number in every column."""
        return int((self.counts > 0).all(axis=1).sum())

    def mean(self) -> Float[np.ndarray, " column"]:
        """Of the prompts as they are; NaN where there are none."""
        return self.draws(np.ones((1, len(self.sums))))[0]

    def draws(self, weights: Float[np.ndarray, "draw cluster"]) -> Float[np.ndarray, "draw column"]:
        """Means with each cluster counted so often."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (weights @ self.sums) / (weights @ self.counts)

    def flipped(self, signs: Float[np.ndarray, "draw cluster"]) -> Float[np.ndarray, "draw column"]:
        """Means with each cluster's numbers times its sign."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (signs @ self.sums) / self.counts.sum(axis=0)


def bootstrap_weights(n: int, n_boot: int, seed: int) -> Float[np.ndarray, "draw cluster"]:
    """How often each of `n` clusters is drawn."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot)
    return drawn.astype(np.float64)


def check_draws(confidence: float, **numbers: int) -> None:
    """Refuse options that make no interval.

    Raises:
        ValueError: a confidence outside (0, 1), or a number of draws below 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; accepted is a share between 0 and 1.")
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1.")
