"""Agreement between two languages, item by item; NaN where a measure is not defined."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from xlens.checks import typed

Weights = Literal["softmax", "norm1", "norm2"]


@typed
def option_ranks(
    values: Float[np.ndarray, "*items option"],
) -> Int[np.ndarray, "*items option"]:
    """Places of the options, 1 for the best; of equal scores the first option is the better one.

    NaN options come after all others.
    """
    order = np.argsort(-values, axis=-1, kind="stable")  # NaN sorts last
    # `order` says which option is at a place; its inverse, the place of an option.
    ranks = np.empty_like(order)
    places = np.broadcast_to(np.arange(1, values.shape[-1] + 1), order.shape)
    np.put_along_axis(ranks, order, places, axis=-1)
    return ranks


@typed
def spearman(
    one: Float[np.ndarray, "item option"], other: Float[np.ndarray, "item option"]
) -> Float[np.ndarray, " item"]:
    """Spearman's rho of the options' order within each item (arXiv 2505.13141, Eq. 1).

    Equal scores share their average rank; an item whose scores are all equal in one of the
    languages has none (NaN).
    """
    return (unit_ranks(one) * unit_ranks(other)).sum(-1)


def unit_ranks(
    values: Float[np.ndarray, "*items option"],
) -> Float[np.ndarray, "*items option"]:
    """Average ranks of an item's options, centred and of length 1: their product sums to rho.

    Where all scores are equal there is no order: NaN. Options that an item lacks are 0.
    """
    # The lowest score has rank 1, not the best: of both sides alike, so rho is the same.
    ranks = rankdata(values, axis=-1, nan_policy="omit")
    centred = np.nan_to_num(ranks - np.nanmean(ranks, axis=-1, keepdims=True))
    size = np.sqrt((centred**2).sum(-1, keepdims=True))
    with np.errstate(invalid="ignore"):
        return np.where(size > 0, centred / size, np.nan)


@typed
def rank_c(
    one: Int[np.ndarray, "item option"],
    other: Int[np.ndarray, "item option"],
    counts: Int[np.ndarray, " item"],
    *,
    weights: Weights = "softmax",
) -> Float[np.ndarray, " item"]:
    """RankC of each item (Qi et al. 2023, arXiv 2310.10378), from `option_ranks`.

    `Σ_j w_j |top_j ∩ top_j'| / j`. An option is in both tops from j = max of its two ranks on, so
    one look-up per option replaces the intersections.

    Args:
        one: Ranks in one language.
        other: In the other.
        counts: Options of each item, N.
        weights: `softmax` w_j ∝ exp(N - j), `norm1` w_j ∝ N - j + 1, `norm2` its square.
    """
    both = np.maximum(one, other)
    found = np.zeros(len(both))
    for n in np.unique(counts):
        mine = counts == n
        places = np.arange(1, n + 1)
        w = {
            "softmax": np.exp(1.0 - places),  # exp(N - j) over its largest, which cannot overflow
            "norm1": n - places + 1.0,
            "norm2": (n - places + 1.0) ** 2,
        }[weights]
        share = w / w.sum() / places
        from_place = np.append(np.cumsum(share[::-1])[::-1], 0.0)  # Σ over j ≥ place
        # Options that an item lacks rank after its n: they read the 0 at the end.
        found[mine] = from_place[np.minimum(both[mine], n + 1) - 1].sum(1)
    return found
