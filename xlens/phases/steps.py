"""Where a curve takes its step: the split into two levels that explains most of it."""

import numpy as np
from jaxtyping import Float, Int


def best_step(
    curves: Float[np.ndarray, "curve layer"], *, rises: bool
) -> tuple[Int[np.ndarray, " curve"], Float[np.ndarray, " curve"]]:
    """The best split of each curve into a lower and a higher level, in the expected order.

    Least squares with one change point: the split maximises `n1 n2 / (n1 + n2) * (difference of
    means)^2`. Only splits count whose means differ in the expected direction and whose higher
    level is above zero.

    Args:
        curves: Without NaN.
        rises: Whether the higher level comes after the step.

    Returns:
        The number of the first column after the step, 1 to the last, -1 where there is no such
        split; and the sum of squares that it explains, 0 there.
    """
    n = curves.shape[1]
    before = np.arange(1, n)
    sums = curves.cumsum(axis=1)
    # Means before and after each of the n - 1 splits, from one running sum.
    low = sums[:, :-1] / before
    high = (sums[:, -1:] - sums[:, :-1]) / (n - before)
    if not rises:
        low, high = high, low
    gap = high - low
    explained = np.where((gap > 0) & (high > 0), before * (n - before) / n * gap**2, 0.0)
    # Two splits may explain the same but for rounding: the first of them, whatever the last bits.
    size = explained.max(axis=1, initial=0.0)
    at = (explained >= size[:, None] * (1 - 1e-9)).argmax(axis=1) + 1
    return np.where(size > 0, at, -1), size


def best_line(
    curves: Float[np.ndarray, "curve layer"], layers: Float[np.ndarray, " layer"]
) -> Float[np.ndarray, " curve"]:
    """The sum of squares that a straight line explains of each curve, as `best_step` gives it."""
    # x sums to 0, so a curve's mean plays no part, as in `best_step`: both are sums of squares
    # around it. Real layers, not columns: some may have been skipped.
    x = layers - layers.mean()
    return (curves @ x) ** 2 / (x @ x)


def levels(curve: Float[np.ndarray, " layer"], at: int) -> tuple[float, float]:
    """Means before and after a step."""
    return float(curve[:at].mean()), float(curve[at:].mean())
