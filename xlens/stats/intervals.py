"""The interval function: bias-corrected and accelerated, by t for few clusters, Wilson's for rates.

docs/statistics.md says how often each covers the truth.
"""

import warnings

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri, stdtrit

from xlens.checks import typed

FEWEST = 4
"""Clusters below which no interval is drawn: it is NaN."""
FEW = 8
"""Clusters below which intervals go by t: too few orders of them to resample."""


@typed
def interval(
    value: Float[np.ndarray, " column"],
    draws: Float[np.ndarray, "draw column"],
    left_out: Float[np.ndarray, "cluster column"] | None = None,
    *,
    clusters: np.ndarray | int,
    confidence: float,
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Intervals of a statistic from its resamples.

    BCa (Efron 1987) with tails widened as t's are (Hesterberg 2015), as percentiles of few clusters
    are too narrow; below `FEW` clusters the value plus or minus t standard errors by the jackknife.
    Ends are values that were drawn, so that those of a layer are layers.

    Args:
        value: Of the sample.
        draws: Of its resamples; NaN where it has none. Where more than half have none, neither has
            the interval.
        left_out: Without each cluster in turn; one that plays no part leaves the value as it is.
            None for statistics that jump, such as the layer of a peak: then the ends are widened
            percentiles.
        clusters: That play a part in each column.
        confidence: Share of such intervals that should hold the truth.

    Returns:
        Lower and upper ends; NaN for fewer than `FEWEST` clusters.
    """
    n = np.broadcast_to(np.asarray(clusters, dtype=float), value.shape)
    # [end, 1], so that all below is [end, column]: the lower end first.
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])[:, None]
    t = stdtrit(np.maximum(n - 1, 1), tails)
    finite = np.isfinite(draws).sum(axis=0)
    if left_out is None:
        shift = skew = square = np.zeros(value.shape)
    else:
        # Rounding must not decide which side of the value a draw is on.
        room = 1e-12 * np.maximum(np.abs(value), 1e-300)
        # Twice the draws below, a tie counting half: the bias of a statistic with few
        # values (a rate) would else hang on which side its ties are put. The 1 of 2 keeps
        # z0 finite where all draws are on one side.
        below = (draws < value - room).sum(axis=0) + (draws <= value + room).sum(axis=0)
        shift = ndtri((below + 1) / (2 * finite + 2))
        # From the value and not from the mean of the rest, as textbooks have it: a cluster that
        # plays no part must have no influence at all.
        influence = np.nan_to_num(value - left_out)
        square = (influence**2).sum(axis=0)
        safe = np.where(square > 0, square, 1.0) ** 1.5
        # Efron's acceleration a.
        skew = (influence**3).sum(axis=0) / (6 * safe)
    # Resamples spread by the variance over n, not over n - 1; Hesterberg's widening takes it back.
    wide = shift + t * np.sqrt(n / np.maximum(n - 1, 1))
    # At 0 and below BCa's map would fold back and swap the ends: it stops short of that.
    at = ndtr(shift + wide / np.maximum(1 - skew * wide, 1e-3))
    # The inverse of the draws' distribution function, without interpolation. NaN sort
    # last, so ranks among the finite ones hold.
    rank = np.clip(np.ceil(at * finite) - 1, 0, np.maximum(finite - 1, 0)).astype(int)
    low, high = np.take_along_axis(np.sort(draws, axis=0), rank, axis=0)
    if left_out is not None and (n < FEW).any():
        # The jackknife's standard error.
        error = np.sqrt((n - 1) / np.maximum(n, 1) * square)
        low, high = (
            np.where(n < FEW, value + q * error, end) for q, end in zip(t, (low, high), strict=True)
        )
    none = (n < FEWEST) | (2 * finite < len(draws))
    return np.where(none, np.nan, low), np.where(none, np.nan, high)


@typed
def jumping(
    draws: Float[np.ndarray, " draw"], *, clusters: int, confidence: float
) -> tuple[float, float]:
    """Interval of one statistic that jumps, such as a layer: `interval` without `left_out`."""
    # Without `left_out` the value is not looked at: only its shape is.
    ends = interval(np.zeros(1), draws[:, None], clusters=clusters, confidence=confidence)
    return float(ends[0][0]), float(ends[1][0])


def wilson(
    share: Float[np.ndarray, " column"],
    n: Float[np.ndarray, " column"],
    error: Float[np.ndarray, " column"],
    *,
    clusters: np.ndarray,
    alone: Bool[np.ndarray, " column"],
    confidence: float,
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Wilson's score interval of rates, also of clusters.

    Of prompts in clusters, `n` is divided by the design effect (at least 1), and t of the clusters
    stands for z. A rate of 0 or 1 says nothing about its design effect: then a cluster counts as
    one prompt, and z is kept, as no error was estimated.

    Args:
        share: Rates.
        n: Prompts.
        error: Standard errors by the jackknife over clusters.
        clusters: Behind each rate.
        alone: Whether each prompt is a cluster of its own.
        confidence: Share of such intervals that should hold the truth.
    """
    tail = (1 + confidence) / 2
    certain = (share <= 0) | (share >= 1)
    z = np.where(alone | certain, ndtri(tail), stdtrit(np.maximum(clusters - 1, 1), tail))
    # The squared error that prompts drawn one by one would have; the design effect
    # is how many times that the clusters' is.
    plain = share * (1 - share) / np.maximum(n - 1, 1)
    effect = np.where(plain > 0, error**2 / np.where(plain > 0, plain, 1.0), n / clusters)
    size = n / np.maximum(effect, 1.0)
    # Wilson 1927, with `size` in the place of n.
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    # At rates of 0 and 1 the end is there, whatever rounding says.
    return (
        np.where(share <= 0, 0.0, np.maximum(middle - half, 0.0)),
        np.where(share >= 1, 1.0, np.minimum(middle + half, 1.0)),
    )


@typed
def middle(
    draws: Float[np.ndarray, "draw ..."], confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The range that holds `confidence` of some draws, of a control say; NaN where none is finite.

    It is no interval of a mean: it says where single draws lie.
    """
    tail = (1 - confidence) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without a number is NaN
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return np.asarray(low), np.asarray(high)
