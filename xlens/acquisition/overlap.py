"""Are the same facts right in two languages? Measures of two accuracies and what both share."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from xlens.checks import typed
from xlens.errors import InputError

Measure = Callable[[Any, Any, Any], np.ndarray]
"""Of shares, one or many at once."""


def _over(top: Any, bottom: Any) -> np.ndarray:
    """A ratio; NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 1e-12, top / bottom, np.nan)


def _phi(a: Any, b: Any, both: Any) -> np.ndarray:
    return _over(both - a * b, np.sqrt(np.maximum(a * (1 - a) * b * (1 - b), 0)))


def _kappa(a: Any, b: Any, both: Any) -> np.ndarray:
    agreed, by_chance = 1 - a - b + 2 * both, a * b + (1 - a) * (1 - b)
    return _over(agreed - by_chance, 1 - by_chance)


MEASURES: Mapping[str, tuple[str, Measure, float]] = {
    "co": ("right in both, of those right in either", lambda a, b, ab: _over(ab, a + b - ab), 0),
    "j0": (
        "that, were the two independent",
        lambda a, b, _: _over(a * b, a + b - a * b),
        0,
    ),
    "given_pivot": ("right, given right in the pivot", lambda a, _, ab: _over(ab, a), 0),
    "pivot_given": ("right in the pivot, given right", lambda _, b, ab: _over(ab, b), 0),
    "phi": ("correlation of being right", _phi, -1),
    "kappa": ("agreement on right and wrong, above chance", _kappa, -1),
}
"""By name: what it says, how it is made of the accuracies of pivot and language and the share that
is right in both, and its least value. All are at most 1."""


@typed
def overlap(pivot: Bool[np.ndarray, " fact"], other: Bool[np.ndarray, " fact"]) -> dict[str, float]:
    """Every measure of `MEASURES` for two languages (CO: arXiv 2505.14824's code).

    CO is Jaccard's index, which rises with accuracy alone: it can't be above the ratio of the two
    accuracies, and `j0` (about what independent answers would give) stands beside it. What is not
    defined is NaN, where the paper's code has 0: CO where nothing is right in either language.

    Args:
        pivot: Whether each fact is right in the pivot.
        other: In the other language.

    Raises:
        ValueError: unequal numbers of facts, or none.
    """
    if len(pivot) != len(other) or not len(pivot):
        raise InputError(f"{len(pivot)} facts and {len(other)}: give the same ones, at least one.")
    a, b, both = (x.mean() for x in (pivot, other, pivot & other))
    return {name: float(of(a, b, both)) for name, (_, of, _) in MEASURES.items()}
