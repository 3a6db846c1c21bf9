"""Resampling whole clusters of prompts: intervals by bootstrap, tests by sign flips."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

DEFAULT_CLUSTER = "paragraph"


def cluster_of(meta: pd.DataFrame, column: str | None = None) -> Int[np.ndarray, " prompt"]:
    """The number of each prompt's cluster.

    Prompts about one paragraph, and the same item in several languages, are not independent: they
    are drawn, and flipped, together.

    Args:
        meta: One row per prompt.
        column: Of the clusters; None for `paragraph` where there is one, else `id`.

    Raises:
        ValueError: no such column, or a prompt without a value in it.
    """
    if column is None:
        column = DEFAULT_CLUSTER if DEFAULT_CLUSTER in meta else "id"
    if column not in meta:
        raise ValueError(
            f"cluster={column!r} is no column of the prompts' meta; there are {list(meta.columns)}."
        )
    codes, _ = pd.factorize(meta[column])
    if (codes < 0).any():
        raise ValueError(
            f"{int((codes < 0).sum())} prompts have no {column!r}; give each one its cluster, or "
            "name another column."
        )
    return np.asarray(codes, dtype=np.int64)


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


def random_signs(n: int, n_flips: int, seed: int) -> Float[np.ndarray, "draw cluster"]:
    """Signs of `n` clusters; the first row is all +1, the clusters as they are.

    Where there are fewer than `n_flips` different rows, each of them occurs once.
    """
    if n < 63 and 2**n <= n_flips:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    signs = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], size=(n_flips + 1, n))
    signs[0] = 1.0
    return signs


def percentiles(draws: Float[np.ndarray, " draw"], confidence: float) -> tuple[float, float]:
    """The interval that holds `confidence` of the draws; NaN where fewer than half are numbers."""
    kept = draws[np.isfinite(draws)]
    if 2 * len(kept) < max(1, len(draws)):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    # An integer statistic's interval ends at integers.
    low, high = np.quantile(kept, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


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
