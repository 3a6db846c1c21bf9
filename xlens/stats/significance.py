"""Tests that ask for nothing but exchangeable signs, and corrections for asking more than once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats.draws import generator


@typed
def random_signs(n: int, n_flips: int, seed: int) -> Float[np.ndarray, "draw cluster"]:
    """Signs of `n` clusters; the first row is all +1, the clusters as they are.

    Where there are fewer than `n_flips` different rows, each of them occurs once.

    Raises:
        ValueError: no flips.
    """
    if n_flips < 1:
        raise InputError(f"n_flips is {n_flips}; it must be at least 1.")
    # Every pattern once makes the test exact.
    if n < 63 and 2**n <= n_flips:
        # Row 0 has no bit set, which is the row of all +1.
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    # A path of its own: flips must not go with the resamples that intervals are drawn by.
    signs = generator(seed, 1).choice([-1.0, 1.0], size=(n_flips + 1, n))
    signs[0] = 1.0
    return signs


@typed
def adjusted_flips(flipped: Sequence[Float[np.ndarray, "draw column"]]) -> list[np.ndarray]:
    """Two-sided p of each column of the first rows, adjusted over all columns of all tables.

    Single-step max-T: each flip's largest standardised number, over everything that was looked at,
    is what the numbers as they are must reach. Tables share their flips, so that what hangs
    together is not counted twice.

    Args:
        flipped: Means under random signs, the first row as they are; `ClusterSums.flipped`.
    """
    sizes: list[np.ndarray] = []
    for table in flipped:
        # Around 0, which is each column's mean under random signs.
        spread = np.sqrt((table**2).mean(axis=0))
        sizes.append(np.abs(table) / np.where(spread > 0, spread, np.inf))
    most = np.max([size.max(axis=1) for size in sizes], axis=0)
    # The first row reaches itself, so that p is at least one in the rows; the room is for sums
    # that are equal but for the order they were added in.
    return [(most[:, None] >= size[0] * (1 - 1e-9)).mean(axis=0) for size in sizes]


@typed
def holm(p: Sequence[float] | np.ndarray) -> Float[np.ndarray, " test"]:
    """Holm's adjustment of p values of several tests; NaN stay, and do not count."""
    values = np.asarray(p, dtype=float)
    out = np.full(len(values), np.nan)
    # NaN sort last: they fall off here.
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    # The smallest p times the number of tests, the next times one less...
    steps = values[order] * np.arange(len(order), 0, -1)
    # ...and none below one before it: a test that failed stops all that come after.
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out
