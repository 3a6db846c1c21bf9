"""Documents dealt into folds: distances of means without their noise, and intervals by fold.

A document's sentences hang together in every variety. Left out fold by fold, they say how sure a
mean over pairs of varieties is (delete-a-group jackknife, Kott 2001), and products of different
folds hold no noise of their own (cross-validated distances, Walther et al. 2016).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from xlens.stats import FEWEST, generator

MOST = 20


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each item is in.

    Attributes:
        of: By item.
        n: Folds; as many as there are documents where these are few.
    """

    of: Int[np.ndarray, " item"]
    n: int

    @classmethod
    def deal(cls, clusters: Int[np.ndarray, " item"], seed: int) -> "Folds":
        """Whole clusters, the largest first, each into the smallest fold."""
        sizes = np.bincount(clusters)
        n = min(MOST, len(sizes))
        # By size first (lexsort's last key), ties at random. Large ones go while there is room to
        # even out; so folds differ by little.
        order = np.lexsort([generator(seed, 7).permutation(len(sizes)), -sizes])
        filled, fold = np.zeros(n), np.empty(len(sizes), dtype=int)
        for cluster in order:
            fold[cluster] = least = int(filled.argmin())
            filled[least] += sizes[cluster]
        return cls(fold[clusters], n)

    @property
    def sizes(self) -> Int[np.ndarray, " fold"]:
        """Items in each."""
        return np.bincount(self.of, minlength=self.n)

    def sums(
        self, states: Float[np.ndarray, "variety item d_model"]
    ) -> Float[np.ndarray, "variety fold d_model"]:
        """Of the states in each fold."""
        there = np.eye(self.n)[self.of]  # item by fold
        return np.matmul(there.T, states)

    def members(self) -> list[Int[np.ndarray, " item"]]:
        """The items of each fold in turn."""
        return [np.flatnonzero(self.of == fold) for fold in range(self.n)]


def jackknifed(
    value: Float[np.ndarray, " column"],
    left_out: Float[np.ndarray, "fold column"],
    confidence: float,
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """The value plus or minus t standard errors; NaN for fewer folds than an interval needs."""
    n = len(left_out)
    if n < FEWEST:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
    reach = stdtrit(n - 1, (1 + confidence) / 2) * error
    return value - reach, value + reach


def products(
    sums: Float[np.ndarray, "variety fold d_model"], sizes: Int[np.ndarray, " fold"]
) -> Float[np.ndarray, "row variety variety"]:
    """Inner products of the varieties' means, across folds only: all folds, then without each.

    The mean of `x_i · y_j` over items of different folds: without bias, as their noise is not
    shared.
    """
    whole = sums.sum(1)
    # Sums over all pairs of items, less those within a fold, are those across folds; so are
    # counts: n² less the squares of the sizes.
    own = np.einsum("vfd,wfd->fvw", sums, sums, optimize=True)
    both, n = whole @ whole.T - own.sum(0), float(sizes.sum())
    rows = [both / (n**2 - float((sizes**2).sum()))]
    for fold, size in enumerate(sizes.tolist()):
        kept = whole - sums[:, fold]
        square = float((sizes**2).sum()) - size**2
        # The fold that is left out is not in `kept`, so its own products must not be taken off.
        mine = kept @ kept.T - own.sum(0) + own[fold]
        rows.append(mine / ((n - size) ** 2 - square))
    return np.stack(rows)
