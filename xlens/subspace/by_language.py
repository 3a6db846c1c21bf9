"""What each language has of its own: its mean, its directions (LIR), its affine subspace."""

from typing import Any, Literal, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from xlens.errors import InputError
from xlens.subspace.base import Subspace, check_rank, fixed_signs, random_basis

Move = Literal["own", "nearest", "own_mean", "shift", "shift_project"]


class Centering(Subspace):
    """Each language's mean, subtracted (Libovický et al. 2020): `x - mean(language)`.

    Args:
        target: None leaves states around 0; a language puts them around its mean,
            `x - mean(language) + mean(target)`.

    Attributes:
        means_: `[language, d_model]`; `classes_` names them.
    """

    per_language = True

    def __init__(self, target: str | None = None) -> None:
        self.target = target

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the means.

        Raises:
            ValueError: one language only, or a target that y lacks.
        """
        self._start_by_language(X, y)
        self._goal()
        # No axes: a mean is a point, and coordinates are whole states.
        self.components_ = np.zeros((0, self.n_features_in_))
        return self

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """States without their language's mean, `[state, d_model]`."""
        states = self._states(X)
        return states - self._mean_of(y, len(states)) + self._goal()

    def inverse_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """The states as they were."""
        states = self._states(X)
        return states + self._mean_of(y, len(states)) - self._goal()

    def project(self, X: Any, y: Any = None) -> np.ndarray:
        """Each state's language mean: all that is about language here."""
        return self._mean_of(y, len(self._states(X)))

    def remove(self, X: Any, y: Any = None) -> np.ndarray:
        """The same as `transform`."""
        return self.transform(X, y)

    def randomized(self, rng: np.random.Generator) -> Self:
        """A copy whose means lie as far from their centre, in random directions."""
        check_is_fitted(self)
        other = self._copy()
        centre = self.means_.mean(0)
        sizes = np.linalg.norm(self.means_ - centre, axis=1, keepdims=True)
        away = rng.standard_normal(self.means_.shape)
        # Only where to is random; how far is kept, else the control would be a weaker removal.
        other.means_ = centre + sizes * away / np.linalg.norm(away, axis=1, keepdims=True)
        return other

    def _goal(self) -> np.ndarray:
        if self.target is None:
            return np.zeros(self.n_features_in_)
        return self.means_[self._language_index(self.target)]

    def _mean_of(self, y: Any, n: int) -> np.ndarray:
        return self.means_[np.searchsorted(self.classes_, self._languages(y, n))]

    def _origin(self, language: str | None) -> np.ndarray:
        return self.means_[self._language_index(language)]


class LIR(Subspace):
    """Each language's strongest directions, removed (Yang et al. 2021, arXiv 2109.04727).

    The first `rank` left singular vectors C of a language's states, not centred; removal
    `x - C Cᵀ x`. With rank 1 C is about the direction of the language's mean (our reading), and
    so also of what all languages have in common: more than language is removed.

    Args:
        rank: Directions for each language; the authors' default is 1.

    Attributes:
        components_: `[language * rank, d_model]`; `basis(language)` gives a language's.
        classes_: The languages, in that order.
    """

    per_language = True

    def __init__(self, rank: int = 1) -> None:
        self.rank = rank

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find each language's directions.

        Raises:
            ValueError: one language only, or a rank above a language's number of states.
        """
        states, languages = self._start_by_language(X, y)
        fewest = min(int((languages == c).sum()) for c in self.classes_)
        most = min(fewest, states.shape[1])
        why = f"the smallest language has {fewest} states of {states.shape[1]} dimensions"
        rank = check_rank(self.rank, most, name="rank", because=why)
        found = [
            # States are rows here and columns in the paper: its
            # left singular vectors are the right.
            np.linalg.svd(states[languages == c], full_matrices=False)[2][:rank]
            for c in self.classes_
        ]
        self.components_ = np.concatenate([fixed_signs(rows) for rows in found])
        return self

    def _width(self) -> int:
        return len(self.components_) // len(self.classes_)

    def _axes(self, language: str | None) -> np.ndarray:
        start = self._language_index(language) * self._width()
        return self.components_[start : start + self._width()]

    def _random_components(self, rng: np.random.Generator) -> np.ndarray:
        shape = (self._width(), self.n_features_in_)
        return np.concatenate([random_basis(*shape, rng) for _ in self.classes_])


class AffineSubspaces(Subspace):
    """Each language's own principal subspace through its own mean (Chang et al. 2022).

    This is PCA per language. A share below 1 as `n_components` takes the least k whose squared
    singular values reach that share, 0.90 in the authors' code.

    Args:
        n_components: Components for each language, or the share of variance they must reach.

    Attributes:
        means_: `[language, d_model]`; `classes_` names them.
        ranks_: Components of each language.
        components_: All languages' under each other, `[sum of ranks, d_model]`; `basis(language)`
            gives a language's.
        explained_variance_: By component (n - 1 in the denominator, so that languages with
            different n compare).
        explained_variance_ratio_: The same as a share of its language's variance.
        total_variance_: Of each language, over all dimensions.
    """

    per_language = True

    def __init__(self, n_components: int | float = 0.9) -> None:
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find each language's mean and components.

        Raises:
            ValueError: one language only, states of a language that are all the same, or more
                components than its states or dimensions.
        """
        states, languages = self._start_by_language(X, y)
        self._check_share()
        parts: list[np.ndarray] = []
        variances: list[np.ndarray] = []
        totals: list[float] = []
        for tag, mean in zip(self.classes_, self.means_, strict=True):
            mine = states[languages == tag] - mean
            _, sizes, rows = np.linalg.svd(mine, full_matrices=False)
            # The last of n singular values of centred states is
            # 0 but for rounding: no matter here.
            variance = sizes**2 / max(len(mine) - 1, 1)
            if len(mine) < 2 or not variance.sum():
                raise InputError(f"All {len(mine)} states of {tag!r} are the same: no subspace.")
            rank = self._rank(variance, str(tag), len(mine))
            parts.append(fixed_signs(rows[:rank]))
            variances.append(variance[:rank])
            totals.append(float(variance.sum()))
        self.ranks_ = np.array([len(rows) for rows in parts])
        self.components_ = np.concatenate(parts)
        self.explained_variance_ = np.concatenate(variances)
        self.total_variance_ = np.array(totals)
        every = np.repeat(self.total_variance_, self.ranks_)
        self.explained_variance_ratio_ = self.explained_variance_ / every
        return self

    def components(self, language: str) -> np.ndarray:
        """One language's components, `[rank, d_model]`, by explained variance."""
        return self.components_[self._slice(language)]

    def variance(self, language: str) -> np.ndarray:
        """Explained variances of one language's components."""
        return self.explained_variance_[self._slice(language)]

    def move(self, X: Any, *, source: str, target: str, how: Move = "shift_project") -> np.ndarray:
        """States of one language brought to another, in the five ways of the authors' code.

        `V Vᵀ (x - a) + b` with V and the means a, b of source A and target B:

        | how | V | a | b |
        |---|---|---|---|
        | `own` | A | A | A |
        | `nearest` | B | B | B |
        | `own_mean` | B | A | A |
        | `shift` | all of space | A | B |
        | `shift_project` | B | A | B |

        Raises:
            ValueError: an unknown language or `how`.
        """
        states = self._states(X)
        a, b = self._language_index(source), self._language_index(target)
        modes = {
            "own": (source, a, a),
            "nearest": (target, b, b),
            "own_mean": (target, a, a),
            "shift": (None, a, b),
            "shift_project": (target, a, b),
        }
        if how not in modes:
            raise InputError(f"how={how!r}; accepted are {sorted(modes)}.")
        space, start, stop = modes[how]
        centred = states - self.means_[start]
        if space is not None:
            rows = self.components(space)
            centred = centred @ rows.T @ rows
        return centred + self.means_[stop]

    def _check_share(self) -> None:
        given = self.n_components
        if isinstance(given, float) and not 0 < given < 1:
            raise InputError(f"n_components={given}; accepted is a share below 1, or a number.")

    def _rank(self, variance: np.ndarray, tag: str, n: int) -> int:
        if isinstance(self.n_components, float):
            # `argmax` finds the first True: the least k that reaches the share.
            reached = np.cumsum(variance) >= self.n_components * variance.sum()
            return int(reached.argmax()) + 1
        most = min(n - 1, len(variance))
        why = f"{tag!r} has {n} states of {self.n_features_in_} dimensions"
        return check_rank(self.n_components, most, name="n_components", because=why)

    def _width(self) -> int:
        return int(self.ranks_.max())

    def _slice(self, language: str | None) -> slice:
        index = self._language_index(language)
        start = int(self.ranks_[:index].sum())
        return slice(start, start + int(self.ranks_[index]))

    def _origin(self, language: str | None) -> np.ndarray:
        return self.means_[self._language_index(language)]

    def _axes(self, language: str | None) -> np.ndarray:
        return self.components_[self._slice(language)]

    def _random_components(self, rng: np.random.Generator) -> np.ndarray:
        d_model = self.n_features_in_
        return np.concatenate([random_basis(int(rank), d_model, rng) for rank in self.ranks_])
