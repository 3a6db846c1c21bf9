"""`Bootstrap`: means over prompts, their resamples, and intervals of what is made of them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats.intervals import FEWEST, interval, wilson
from xlens.stats.resampling import Resampling
from xlens.stats.sums import ClusterSums

Bounds = tuple[int | float | np.ndarray, int | float | np.ndarray]
Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resampled means over prompts, the same resample for every column.

    Columns (layers, languages) of one prompt are read in the same forward pass, so prompts are
    drawn whole: statistics across columns, such as a peak's layer, keep their dependence.

    Attributes:
        sums: By cluster.
        mean: Of the prompts as they are; NaN cells are left out.
        draws: Means of the resamples.
        left_out: Means without each cluster in turn.
        resampling: What was drawn.
        bounds: What a prompt's number can't leave, for all columns or by column; None: unknown.
    """

    sums: ClusterSums
    mean: Float[np.ndarray, " column"]
    draws: Float[np.ndarray, "draw column"]
    left_out: Float[np.ndarray, "cluster column"]
    resampling: Resampling
    bounds: Bounds | None = None

    @classmethod
    def of(
        cls,
        sums: ClusterSums,
        weights: Float[np.ndarray, "draw cluster"],
        resampling: Resampling,
        bounds: Bounds | None = None,
    ) -> "Bootstrap":
        """With weights that other columns were drawn with."""
        return cls(sums, sums.mean(), sums.draws(weights), sums.left_out(), resampling, bounds)

    @property
    def n(self) -> np.ndarray:
        """Prompts behind each column."""
        return self.sums.counts.sum(axis=0).astype(int)

    @property
    def clusters(self) -> np.ndarray:
        """Clusters behind each column."""
        return (self.sums.counts > 0).sum(axis=0)

    @cached_property
    def _ends(self) -> Ends:
        """Of every column."""
        low, high = interval(
            self.mean,
            self.draws,
            self.left_out,
            clusters=self.clusters,
            confidence=self.resampling.confidence,
        )
        if self.bounds is None:
            return low, high
        least, most = (np.broadcast_to(np.asarray(b, float), low.shape) for b in self.bounds)
        # An interval of a mean can't say more than the numbers can: it is cut at their bounds.
        sums, n, clusters = self.sums, self.sums.counts.sum(axis=0), self.clusters
        low, high = np.maximum(low, least), np.minimum(high, most)
        # Two kinds of column of which resamples say too little: those that never move, and rates.
        still = sums.least == sums.most
        rate = sums.two_valued & (sums.least == least) & (sums.most == most)
        # NaN ends stay so: too few clusters, or no number.
        some = (rate | still) & np.isfinite(most - least) & (clusters >= FEWEST)
        if not some.any():
            return low, high
        # All on the scale from 0 to 1, as Wilson's interval is of shares; 1 only keeps unbounded
        # columns, which `some` leaves as they are, from dividing by inf.
        width = np.where(np.isfinite(most - least), most - least, 1.0)
        # A cluster that holds all of a column's numbers leaves
        # no mean without it: it adds nothing.
        gone = np.nan_to_num(self.left_out - self.mean) / width
        error = np.sqrt((clusters - 1) / np.maximum(clusters, 1) * (gone**2).sum(axis=0))
        with np.errstate(invalid="ignore"):
            # A column that stands still is asked like a rate of 0: how many could be otherwise?
            share = np.where(rate, (self.mean - least) / width, 0.0)
            below, above = wilson(
                share,
                np.maximum(n, 1.0),
                error,
                clusters=np.maximum(clusters, 1),
                # No cluster with two prompts: nothing hangs
                # together, and the binomial's own z holds.
                alone=np.asarray((sums.counts <= 1).all(axis=0)),
                confidence=self.resampling.confidence,
            )
            # Where all are alike, a share of what was not seen may lie at either bound.
            below, above = (
                np.where(rate, least + width * end, self.mean + above * (bound - self.mean))
                for end, bound in ((below, least), (above, most))
            )
        return np.where(some, below, low), np.where(some, above, high)

    def interval(
        self,
        of: Callable[[Float[np.ndarray, "*row k"]], np.ndarray | float] | None = None,
        columns: Sequence[int] = (),
    ) -> Ends:
        """Interval of every column's mean, or of a smooth function of some columns' means.

        No resample moves a column that is all at a bound (all right in a language, say): the ends
        are moved on by each such column's own interval in turn, and the moves are added up, as
        nothing is known of how the columns hang together.

        Args:
            of: From means, the columns on the last axis, to numbers; None: the means themselves.
            columns: Which ones `of` is given, in this order.
        """
        if of is None:
            return self._ends
        at = list(columns)
        # `of` sees [k], [draw, k] and [cluster, k]: columns are last, so one call serves all rows.
        tables = (self.mean, self.draws, self.left_out)
        rows = [np.asarray(of(table[..., at]), dtype=float) for table in tables]
        value = rows[0]
        (low,), (high,) = interval(
            value[None],
            rows[1][:, None],
            rows[2][:, None],
            # The column with the fewest clusters is the least
            # sure: the others don't make up for it.
            clusters=int(self.clusters[at].min()),
            confidence=self.resampling.confidence,
        )
        stuck = self._stuck(at)
        if not len(stuck):
            return np.asarray(low), np.asarray(high)
        # [end, stuck column, k]: the means as they are, but for one stuck column put at its end.
        moved = np.repeat(self.mean[at][None, None], 2, axis=0).repeat(len(stuck), axis=1)
        for k, end in enumerate(self._ends):
            moved[k, np.arange(len(stuck)), stuck] = end[at][stuck]
        # Which of a column's ends pulls `of` down is not known (a denominator's pulls it up), so
        # each column's worse end counts, and never one that would narrow the interval.
        steps = of(moved) - value
        down, up = np.minimum(steps.min(axis=0), 0).sum(), np.maximum(steps.max(axis=0), 0).sum()
        return np.asarray(low + down), np.asarray(high + up)

    def _stuck(self, at: list[int]) -> Int[np.ndarray, " k"]:
        """Which of these columns aren't known though no resample moves them: all at a bound.

        Where nothing varies at all, also those that are all the same number in between.
        """
        if self.bounds is None:
            return np.zeros(0, dtype=int)
        sums = self.sums
        least, most = (np.broadcast_to(np.asarray(b, float), sums.least.shape) for b in self.bounds)
        still = (sums.least == sums.most)[at]
        ended = ((sums.least <= least) | (sums.most >= most))[at]
        return np.flatnonzero(still if still.all() else still & ended)


@typed
def bootstrap(
    values: Float[np.ndarray, "prompt column"],
    *,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    resampling: Resampling = Resampling(),  # noqa: B008 - frozen
    bounds: Bounds | None = None,
) -> Bootstrap:
    """Resample prompts with replacement.

    Args:
        values: Of each prompt; NaN where it has none.
        clusters: What each prompt belongs to, such as the paragraph it asks about
            (`resampling.codes(meta)`): whole clusters are drawn, and means weigh prompts. None:
            every prompt by itself.
        resampling: How.
        bounds: What no prompt's number can leave. Rates between them get Wilson's interval, and
            numbers that are all the same one that isn't empty.

    Raises:
        ValueError: no prompts, or not a cluster for each prompt.
    """
    n = len(values)
    if n == 0:
        raise InputError("An interval over prompts needs at least one prompt; got none.")
    if clusters is not None and len(clusters) != n:
        raise InputError(f"There are {n} prompts but {len(clusters)} clusters; give one for each.")
    codes = np.arange(n)
    if clusters is not None:
        # As objects: 1 and "1" are two clusters, and tuples stay one value each.
        codes = pd.factorize(pd.Series(list(clusters), dtype="object"))[0]
    sums = ClusterSums.of(values, codes)
    return Bootstrap.of(sums, resampling.weights(len(sums.sums)), resampling, bounds)
