"""Sums by cluster: all that means of resamples need."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class ClusterSums:
    """Sums and counts of some columns by cluster, and what kind of numbers they are.

    Attributes:
        sums: NaN left out.
        counts: Numbers behind the sums.
        least: Smallest number of each column; inf where there is none.
        most: Largest; -inf where there is none.
        two_valued: Whether a column holds no third number besides these.
    """

    sums: Float[np.ndarray, "cluster column"]
    counts: Float[np.ndarray, "cluster column"]
    least: Float[np.ndarray, " column"]
    most: Float[np.ndarray, " column"]
    two_valued: Bool[np.ndarray, " column"]

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
        filled = np.where(there, values, 0.0)
        # Every prompt its own cluster, the usual case: nothing to add up, and `np.add.at` is slow.
        if n == len(values) and (clusters == np.arange(n)).all():
            sums, counts = filled, there.astype(float)
        else:
            # `sums[clusters] += filled` would add only the last prompt of each cluster.
            sums, counts = np.zeros((n, values.shape[1])), np.zeros((n, values.shape[1]))
            np.add.at(sums, clusters, filled)
            np.add.at(counts, clusters, there.astype(float))
        least = np.where(there, values, np.inf).min(axis=0, initial=np.inf)
        most = np.where(there, values, -np.inf).max(axis=0, initial=-np.inf)
        return cls(
            sums, counts, least, most, ((values == least) | (values == most) | ~there).all(axis=0)
        )

    @property
    def whole(self) -> int:
        """Clusters with a number in every column."""
        return int((self.counts > 0).all(axis=1).sum())

    def mean(self) -> Float[np.ndarray, " column"]:
        """Of the prompts as they are; NaN where there are none."""
        return self.draws(np.ones((1, len(self.sums))))[0]

    def draws(self, weights: Float[np.ndarray, "draw cluster"]) -> Float[np.ndarray, "draw column"]:
        """Means with each cluster counted so often."""
        with np.errstate(divide="ignore", invalid="ignore"):
            # A ratio of sums: a cluster of many prompts weighs by their number, in each column by
            # those that have one there. No number at all is 0 / 0, which is NaN.
            return (weights @ self.sums) / (weights @ self.counts)

    def left_out(self) -> Float[np.ndarray, "cluster column"]:
        """Means without each cluster in turn."""
        counts = self.counts.sum(axis=0) - self.counts
        with np.errstate(divide="ignore", invalid="ignore"):
            # A row without a number in this column takes nothing
            # away, and leaves the mean as it is.
            means = (self.sums.sum(axis=0) - self.sums) / counts
        return np.where(counts > 0, means, np.nan)

    def flipped(self, signs: Float[np.ndarray, "draw cluster"]) -> Float[np.ndarray, "draw column"]:
        """Means with each cluster's numbers times its sign."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (signs @ self.sums) / self.counts.sum(axis=0)
