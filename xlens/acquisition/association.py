"""How frequency and recall go together: measures with intervals, and shuffled frequencies beside.

Every measure is made of two numbers by frequency: how many facts of it are right, and how many
wrong. So those of all resamples are made at once, from weights.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import Resampling, generator, middle

MEASURES = ("auc", "spearman", "pearson", "pearson_bins")
N_SHUFFLES = 500
_ROWS = 256  # measured at once: a row has a number for every frequency that occurs
Counts = Int[np.ndarray, " fact"]
Right = Bool[np.ndarray, " fact"]
Table = Float[np.ndarray, "row frequency"]


@dataclass(frozen=True, eq=False)
class Totals:
    """Facts by frequency.

    Attributes:
        there: The frequencies that occur, ascending.
        at: Of each fact the place of its frequency there.
        right: Whether it is recalled.
    """

    there: Int[np.ndarray, " frequency"]
    at: Int[np.ndarray, " fact"]
    right: Right

    @classmethod
    def of(cls, frequency: Counts, right: Right) -> "Totals":
        """Of some facts.

        Raises:
            ValueError: unequal numbers of facts, or none.
        """
        same(frequency, right)
        there, at = np.unique(frequency, return_inverse=True)
        return cls(there, at, right)

    def weighted(
        self, weights: Float[np.ndarray, "row cluster"], codes: Int[np.ndarray, " fact"]
    ) -> tuple[Table, Table]:
        """How many are right, and how many wrong, with each cluster counted so often."""
        shape = (weights.shape[1], len(self.there))
        # [row, cluster] @ [cluster, frequency]: facts of one
        # cluster and frequency add up on the way.
        yes, no = (
            np.asarray(weights @ _sparse(codes[kind], self.at[kind], shape))
            for kind in (self.right, ~self.right)
        )
        return yes, no

    def whole(self) -> tuple[Table, Table]:
        """As they are, in one row."""
        return self.weighted(np.ones((1, 1)), np.zeros(len(self.at), dtype=int))

    def shuffled(self, strata: Sequence[Hashable] | None, n: int, seed: int) -> tuple[Table, Table]:
        """With the frequencies of facts exchanged within strata."""
        random = generator(seed, 2)
        right = np.tile(self.right, (n, 1))
        kinds = (
            np.zeros(len(self.at), int) if strata is None else pd.factorize(pd.Series(strata))[0]
        )
        for kind in np.unique(kinds):
            inside = kinds == kind
            # Answers change places, frequencies stay: the same
            # thing, and [draw, fact] is all it takes.
            right[:, inside] = random.permuted(right[:, inside], axis=1)
        every = _sparse(np.arange(len(self.at)), self.at, (len(self.at), len(self.there)))
        yes = np.asarray(right.astype(float) @ every)
        return yes, np.bincount(self.at, minlength=len(self.there)) - yes


def _sparse(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


@typed
def correlations(
    frequency: Counts, right: Right, at: Float[np.ndarray, " edge"]
) -> dict[str, float]:
    """How frequency and recall go together, each measure by its name.

    `pearson_bins` is over the bins that hold facts (log of the centre, share right), `pearson` over
    facts (log10(1 + f), right or not), `spearman` over facts, `auc` how often a right fact is more
    frequent than a wrong one. Which of them the paper means by Pearson isn't known. NaN where
    nothing varies.

    Raises:
        ValueError: unequal numbers of facts.
    """
    found = Totals.of(frequency, right)
    return {name: float(row[0]) for name, row in _measured(found, *found.whole(), at).items()}


@typed
def associations(
    frequency: Counts,
    right: Right,
    at: Float[np.ndarray, " edge"],
    *,
    clusters: Int[np.ndarray, " fact"] | None = None,
    strata: Sequence[Hashable] | None = None,
    n_shuffles: int = N_SHUFFLES,
    resampling: Resampling = Resampling(),
) -> dict[str, float]:
    """`correlations` with intervals, and what they are with shuffled frequencies.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        at: From `edges`.
        clusters: What is drawn whole: one fact in several languages, say. None: every row.
        strata: Frequencies are shuffled within these: within relations, what is left of a measure
            is what goes with the relation and not with the fact. None: among all.
        n_shuffles: How often.
        resampling: Of the intervals.

    Returns:
        Of each measure `NAME`, `NAME_low`, `NAME_high`; with shuffled frequencies `NAME_control`
        (mean) and the middle of their range, `NAME_control_low`, `NAME_control_high`; and
        `NAME_p`, one-sided: how often shuffling gives as much or more. NaN where nothing varies,
        and for intervals where no resample moves the measure.

    Raises:
        ValueError: unequal numbers of facts.
    """
    found = Totals.of(frequency, right)
    codes = np.arange(len(right)) if clusters is None else pd.factorize(clusters)[0]
    rows = resampling.rows(int(codes.max()) + 1)
    parts = [
        _measured(found, *found.weighted(rows.weights[n : n + _ROWS], codes), at)
        for n in range(0, len(rows.weights), _ROWS)
    ]
    chance = _measured(found, *found.shuffled(strata, n_shuffles, resampling.seed), at)
    said: dict[str, float] = {}
    for name in MEASURES:
        values = np.concatenate([part[name] for part in parts])
        value, null = float(values[0]), chance[name]
        low, high = rows.interval(values, rows.n, resampling.confidence)
        low, high = (np.nan, np.nan) if low == high or np.isnan(value) else (low, high)
        low, high = np.clip((low, high), 0.0 if name == "auc" else -1.0, 1.0).tolist()
        said |= {name: value, f"{name}_low": low, f"{name}_high": high}
        known = null[np.isfinite(null)]
        some = len(known) > 0 and not np.isnan(value)
        below, above = middle(known[:, None]) if some else (np.array([np.nan]),) * 2
        said |= {
            f"{name}_control": float(known.mean()) if some else np.nan,
            f"{name}_control_low": float(below[0]),
            f"{name}_control_high": float(above[0]),
            # Rounding must not decide whether a shuffle gives as much.
            f"{name}_p": (1 + int((known >= value - 1e-12).sum())) / (1 + len(known))
            if some
            else np.nan,
        }
    return said


@typed
def bin_of(frequency: Counts, at: Float[np.ndarray, " edge"]) -> Counts:
    """The bin of each count, from 0; -1 for 0, which is in none."""
    # `digitize` leaves the last edge out of the last bin; here it is in.
    found = np.digitize(frequency, at) - 1
    found[frequency == at[-1]] = len(at) - 2
    return np.where(frequency > 0, found, -1)


def same(frequency: np.ndarray, right: np.ndarray) -> None:
    """See that there are as many counts as answers.

    Raises:
        ValueError: there aren't, or none, or a count below 0.
    """
    if len(frequency) != len(right) or not len(right):
        raise InputError(
            f"{len(frequency)} frequencies and {len(right)} answers: give both of the same facts, "
            "at least one."
        )
    if frequency.min() < 0:
        raise InputError("A frequency is negative; leave out the facts that were not counted.")


def _measured(
    found: Totals, yes: Table, no: Table, at: Float[np.ndarray, " edge"]
) -> dict[str, Float[np.ndarray, " row"]]:
    every = yes + no
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = yes.sum(axis=1) * no.sum(axis=1)
        # Wrong facts below each frequency, and half of those at it: the Mann-Whitney statistic.
        wins = (yes * (np.cumsum(no, axis=1) - no / 2)).sum(axis=1) / pairs
        # A resample may hold a single frequency: then nothing goes with anything.
        varied = (every > 0).sum(axis=1) > 1
        # Mean ranks of ties, but for a constant that a correlation doesn't see.
        rank = np.cumsum(every, axis=1) - every / 2
        logs = np.broadcast_to(np.log10(1.0 + found.there), every.shape)
        bins = bin_of(found.there, at)
        into = (bins[:, None] == np.arange(len(at) - 1)).astype(float)
        n = every @ into
        centres = np.log10([np.sqrt(least * most) for least, most in pairwise(at)])
        return {
            "auc": np.where(varied & (pairs > 0), wins, np.nan),
            "spearman": _against(rank, yes, every),
            "pearson": _against(logs, yes, every),
            "pearson_bins": _over_bins(centres, (yes @ into) / n, n > 0),
        }


def _against(x: Table, yes: Table, every: Table) -> Float[np.ndarray, " row"]:
    """Pearson's correlation of a number by frequency with being right."""
    n = every.sum(axis=1)
    # Around its mean, x times (right - share) sums to x times right: the covariance. The variance
    # of right or wrong is share (1 - share).
    away = x - ((every * x).sum(axis=1) / n)[:, None]
    share = yes.sum(axis=1) / n
    spread = (every * away**2).sum(axis=1) / n * share * (1 - share)
    return np.where(spread > 1e-12, (yes * away).sum(axis=1) / n / np.sqrt(spread), np.nan)


def _over_bins(x: np.ndarray, share: np.ndarray, some: np.ndarray) -> Float[np.ndarray, " row"]:
    """Pearson's correlation of bins' centres and shares, of those that hold facts."""
    n = some.sum(axis=1)
    a, b = (np.where(some, values, 0.0) for values in (x, share))
    # Empty bins are 0 before and after centring, and so add nothing to any sum.
    a, b = (np.where(some, v - (v.sum(axis=1) / n)[:, None], 0.0) for v in (a, b))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.where((n > 1) & (spread > 1e-12), (a * b).sum(axis=1) / spread, np.nan)
