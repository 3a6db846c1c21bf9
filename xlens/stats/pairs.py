"""`PairBootstrap`: means over pairs of things, where two pairs that share one hang together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats.intervals import FEWEST, interval
from xlens.stats.resampling import Resampling, Rows


@dataclass(frozen=True, eq=False)
class PairBootstrap:
    """Resampled means over pairs, the same resample for every column.

    Things are drawn, and a pair counts as often as the one times the other (the pigeonhole
    bootstrap of Owen 2007, with one population on both sides): pairs that share a thing rise and
    fall together. It errs on the wide side.

    Attributes:
        values: Of each pair; NaN where it has none.
        first: Number of each pair's first thing.
        second: Of its second.
        n_things: That occur.
        resampling: What was drawn.
    """

    values: Float[np.ndarray, "pair column"]
    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    n_things: int
    resampling: Resampling

    @cached_property
    def _rows(self) -> Rows:
        return self.resampling.rows(self.n_things)

    @cached_property
    def _means(self) -> Float[np.ndarray, "row column"]:
        """Of the sample, of its resamples, and without each thing in turn."""
        weights = self._rows.weights
        # [row, pair]. Without a thing its weight is 0, and with it that of every pair it is in.
        of_pairs = weights[:, self.first] * weights[:, self.second]
        there = np.isfinite(self.values)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (of_pairs @ np.where(there, self.values, 0.0)) / (of_pairs @ there)

    @property
    def mean(self) -> Float[np.ndarray, " column"]:
        """Of the pairs as they are."""
        return self._means[0]

    @property
    def draws(self) -> Float[np.ndarray, "draw column"]:
        """Means of the resamples."""
        return self._means[self._rows.drawn]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every column's mean; NaN for fewer than four things."""
        left_out = self._means[self._rows.drawn.stop :]
        return interval(
            self.mean,
            self.draws,
            left_out,
            clusters=self.n_things,
            confidence=self.resampling.confidence,
        )

    def above(self) -> Float[np.ndarray, " column"]:
        """One-sided p of each column's mean being above 0, adjusted over all columns.

        Single-step max-T: how often the largest standardised deviation of a resample's means from
        the sample's, over all columns, reaches the column's own. A column that no resample moves
        (nothing happened in any pair) has p = 1.
        """
        spread = np.nanstd(self.draws, axis=0)
        # What rounding leaves of nothing is nothing.
        # Written as a "not", so that a column whose spread is NaN stands still too.
        still = ~(spread > 1e-9 * np.nanmax(np.abs(self.values), initial=1e-300))
        if self.n_things < FEWEST or still.all():
            return np.ones(len(spread))
        # Columns that stand still are 0 on every scale: they neither win nor set the maximum.
        scale = np.where(still, np.inf, spread)
        size = np.nan_to_num(self.mean / scale)
        # Around the sample's mean, draws are what chance would do if the truth were 0.
        most = np.nan_to_num((self.draws - self.mean) / scale).max(axis=1)
        reached = (most[:, None] >= size - 1e-9).sum(axis=0)
        # The sample itself counts as one of the draws, so that no p is 0.
        return np.where(still, 1.0, (1 + reached) / (1 + len(most)))


@typed
def pair_bootstrap(
    values: Float[np.ndarray, "pair column"],
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    resampling: Resampling = Resampling(),  # noqa: B008 - frozen
) -> PairBootstrap:
    """Resample what pairs are made of.

    Args:
        values: Of each pair; NaN where it has none.
        first: Names of the pairs' first things.
        second: Of their second ones, from the same population.
        resampling: How.

    Raises:
        ValueError: no pairs, or not two names for each.
    """
    if not len(values) or not len(values) == len(first) == len(second):
        raise InputError(
            f"{len(values)} pairs with {len(first)} and {len(second)} names; one or more pairs are "
            "needed, with two names each."
        )
    # Both sides are numbered together: a thing is the same one on either side.
    codes, names = pd.factorize(pd.Series([*first, *second], dtype="object"))
    n = len(values)
    return PairBootstrap(
        values=np.asarray(values, dtype=float),
        first=np.asarray(codes[:n], dtype=np.int64),
        second=np.asarray(codes[n:], dtype=np.int64),
        n_things=len(names),
        resampling=resampling,
    )
