"""Linear CKA of two sets of paired states, biased and unbiased, with a jackknife over items.

`CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with K = XXᵀ, L = YYᵀ. Biased: `tr(KHLH)`, the
same as `‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)` of centred states; with fewer items than dimensions it is
above 0 even for unrelated states. Unbiased: Song et al. 2012, equation 5. Our reading: arXiv
2505.13141 says CKA by layer and neither kernel nor estimator.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import FEWEST

Gram = Float[np.ndarray, "item item"]
LEAST_ITEMS = 5
"""The unbiased estimator needs four items, its jackknife one more."""


@dataclass(frozen=True)
class Kernel:
    """One language's similarities between items, prepared for both estimators.

    Attributes:
        gram: Inner products of the centred states; the diagonal is 0 if unbiased.
        centred: The matrix whose elementwise products give HSIC: doubly centred, or U-centred
            (Székely & Rizzo 2014) with diagonal 0.
        unbiased: Which estimator.
    """

    gram: Gram
    centred: Gram
    unbiased: bool

    @classmethod
    def of(cls, states: Float[np.ndarray, "item d_model"], *, unbiased: bool) -> Self:
        """The linear kernel, at unit scale: CKA doesn't see it, and 1e5⁴ is too large to sum."""
        gram = _gram(states, unbiased=unbiased)
        if not unbiased:
            return cls(gram, gram, False)  # rows sum to 0 already
        # With both sides U-centred (Székely & Rizzo 2014, section 3) the elementwise product sums
        # to Song's estimator times n(n - 3), a factor that the ratio drops.
        return cls(gram, _centred(gram, unbiased=True), True)

    def only(self, items: Int[np.ndarray, " item"]) -> Self:
        """That of some of the items."""
        gram = self.gram[np.ix_(items, items)]
        # Fewer items have another mean: centred anew, not cut out of the centred matrix.
        return type(self)(gram, _centred(gram, unbiased=self.unbiased), self.unbiased)

    def take(self, items: Int[np.ndarray, " item"]) -> Self:
        """The same with items in another order."""
        at = np.ix_(items, items)
        # Centring goes by rows and columns alike, so it stands any order of the items.
        return type(self)(self.gram[at], self.centred[at], self.unbiased)


def cka(x: Kernel, y: Kernel) -> float:
    """CKA of paired items; NaN where a side doesn't vary (unbiased: where HSIC is not above 0)."""
    both = float(np.vdot(x.centred, y.centred))
    own = (float(np.vdot(x.centred, x.centred)), float(np.vdot(y.centred, y.centred)))
    return _ratio(both, *own)


def cka_interval(
    x: Kernel, y: Kernel, *, z: float, clusters: Int[np.ndarray, " item"] | None = None
) -> tuple[float, float]:
    """`± z` standard errors by the jackknife over clusters of items, cut off at 1."""
    value = cka(x, y)
    if clusters is None or len(np.unique(clusters)) == len(clusters):
        left_out = [_left_out(x, y), _left_out(x, x), _left_out(y, y)]
        with np.errstate(divide="ignore", invalid="ignore"):
            each = left_out[0] / np.sqrt(left_out[1] * left_out[2])
    else:
        # No closed form for whole clusters: each kernel is centred anew without them.
        rest = [np.flatnonzero(clusters != c) for c in np.unique(clusters)]
        if len(rest) < FEWEST or min(map(len, rest)) < LEAST_ITEMS - 1:
            return float("nan"), float("nan")
        each = np.array([cka(x.only(items), y.only(items)) for items in rest])
    # Units that were left out: items, or clusters of them.
    n = len(each)
    error = float(np.sqrt((n - 1) / n * ((each - each.mean()) ** 2).sum()))
    # CKA is at most 1; the unbiased one may well be below 0, so the lower end is left.
    return value - z * error, min(value + z * error, 1.0)


@typed
def linear_cka(
    X: Float[np.ndarray, "item d_1"], Y: Float[np.ndarray, "item_y d_2"], *, unbiased: bool = False
) -> float:
    """Linear CKA of two tables of paired states (see the module).

    Raises:
        ValueError: different numbers of items, or too few.
    """
    if len(X) != len(Y) or len(X) < LEAST_ITEMS:
        raise InputError(
            f"X has {len(X)} items and Y {len(Y)}; CKA pairs them, and needs at least "
            f"{LEAST_ITEMS}."
        )
    x, y = (np.asarray(states, dtype=np.float64) for states in (X, Y))
    return cka(Kernel.of(x, unbiased=unbiased), Kernel.of(y, unbiased=unbiased))


def unbiased_without(
    states: Iterable[Float[np.ndarray, "item d_model"]],
    groups: Sequence[Int[np.ndarray, " _"]],
) -> Float[np.ndarray, "row set set"]:
    """Unbiased CKA of every two sets of paired states: of all items, then without each group.

    As `cka` of `Kernel.only`, from sums over rows of the kernels: no kernel is cut and centred
    anew, which for many sets and groups is most of the time.

    Args:
        states: The same items in several sets.
        groups: Every item in one of them.

    Returns:
        NaN where a set doesn't vary, or fewer than four items are left.
    """
    grams = np.stack([_gram(x, unbiased=True) for x in states])
    n = grams.shape[1]
    own = grams.sum(2)  # [set, item]
    every, parts = np.zeros((len(grams),) * 2), []
    for group in groups:
        block = grams[:, group]
        mine = _inner(block)  # Σ A∘B over the group's rows; over all items it is the sum of these
        every += mine
        # A kernel is symmetric: the group's rows and columns, and what lies in both once again.
        parts.append((group, 2 * mine - _inner(block[:, :, group]), block.sum(1)))
    found = [_song(every, own, n)]
    for group, there, sums in parts:
        rest = np.setdiff1d(np.arange(n), group)
        found.append(_song(every - there, (own - sums)[:, rest], len(rest)))
    return np.stack(found)


def _inner(blocks: Float[np.ndarray, "set row item"]) -> Float[np.ndarray, "set set"]:
    flat = blocks.reshape(len(blocks), -1)
    return flat @ flat.T


def _song(
    both: Float[np.ndarray, "set set"], sums: Float[np.ndarray, "set item"], n: int
) -> Float[np.ndarray, "set set"]:
    """CKA from Σ A∘B and the kernels' sums of rows (Song et al. 2012, equation 5)."""
    if n < LEAST_ITEMS - 1:
        return np.full(both.shape, np.nan)
    total = sums.sum(1)
    hsic = both - 2 / (n - 2) * sums @ sums.T + np.outer(total, total) / ((n - 1) * (n - 2))
    own = np.diag(hsic)
    # Kernels have norm 1, and these are differences of sums: what is below is their rounding.
    size = np.sqrt(np.where(own > 1e-12, own, np.nan))
    return hsic / np.outer(size, size)


def _gram(states: Float[np.ndarray, "item d_model"], *, unbiased: bool) -> Gram:
    """Inner products of the centred states, at norm 1; the diagonal is 0 if unbiased."""
    inside = states - states.mean(0)
    # The mean of equal numbers may miss them by a rounding, and at unit scale that would be
    # all there is: a dimension that varies by no more than that doesn't vary.
    noise = 8 * np.finfo(states.dtype).eps * np.abs(states).max(0)
    inside[:, np.abs(inside).max(0) <= noise] = 0
    gram = inside @ inside.T
    gram /= np.linalg.norm(gram) or 1.0
    if unbiased:
        np.fill_diagonal(gram, 0.0)
    return gram


def _centred(gram: Gram, *, unbiased: bool) -> Gram:
    n, sums = len(gram), gram.sum(1)
    if not unbiased:
        return gram - (sums[:, None] + sums) / n + gram.sum() / n**2
    # U-centring: n - 2 and (n - 1)(n - 2) for n and n², as the diagonal holds no number.
    centred = gram - (sums[:, None] + sums) / (n - 2) + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def _ratio(both: float, own_x: float, own_y: float) -> float:
    # Kernels have norm 1, so what is below is rounding; unbiased, it may even be negative.
    return both / np.sqrt(own_x * own_y) if own_x > 1e-20 and own_y > 1e-20 else float("nan")


def _left_out(x: Kernel, y: Kernel) -> Float[np.ndarray, " item"]:
    """HSIC without each item in turn, up to a factor that all of CKA's three terms share."""
    k, l = x.gram, y.gram  # noqa: E741
    # Items that are left. All three terms of HSIC without item i are those of all items less what
    # i has part in: [item] numbers in O(n²), where centring n times would take O(n³).
    n = len(k) - 1
    row = (k * l).sum(1)
    diagonal = np.diag(k) * np.diag(l)
    k_row, l_row = k.sum(1), l.sum(1)
    trace = row.sum() - 2 * row + diagonal
    k_sum = k.sum() - 2 * k_row + np.diag(k)
    l_sum = l.sum() - 2 * l_row + np.diag(l)
    # 1ᵀKL1 without item i: every j's row sums lose their entry i.
    product = (k_row * l_row).sum() - k_row * l_row
    product -= l @ k_row - np.diag(l) * k_row + k @ l_row - np.diag(k) * l_row
    product += row - diagonal
    if x.unbiased:
        return trace + k_sum * l_sum / ((n - 1) * (n - 2)) - 2 / (n - 2) * product
    return trace + k_sum * l_sum / n**2 - 2 / n * product
