"""What the estimators share: scikit-learn's contract, coordinates, projection, removal."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from xlens.errors import InputError

States = Float[np.ndarray, "state d_model"]


class Subspace(TransformerMixin, BaseEstimator):
    """A subspace of the residual stream, or one per language.

    `X` is `[state, d_model]`, `y` the language of each state. Rows of a basis are orthonormal.
    Which point the subspace passes through (its origin) is a subclass's choice.

    Subclasses set `components_` and say which origin and which axes belong to a language.
    """

    per_language = False
    """Whether each language has its own: then `y` is needed everywhere."""

    n_features_in_: int
    components_: np.ndarray

    def _origin(self, language: str | None) -> np.ndarray:
        """A point of the subspace, `[d_model]`."""
        return np.zeros(self.n_features_in_)

    def _axes(self, language: str | None) -> np.ndarray:
        """Its directions, `[rank, d_model]`; they need not be orthonormal."""
        return self.components_

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """`fit` and `transform` of the same states."""
        # TransformerMixin's own calls `transform(X)` without y, which subspaces by language need.
        unfitted: Any = self
        return unfitted.fit(X, y, **fit_params).transform(X, y)

    def transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Coordinates `[state, rank]` within the subspace (smaller ranks filled with zeros)."""
        states = self._states(X)
        out = np.zeros((len(states), self._width()))
        for rows, (origin, axes) in self._groups(len(states), y):
            out[rows, : len(axes)] = (states[rows] - origin) @ axes.T
        return out

    def inverse_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """States `[state, d_model]` that have these coordinates and nothing beyond the subspace."""
        check_is_fitted(self)
        coordinates = _table(X)
        if coordinates.shape[1] != self._width():
            raise InputError(
                f"X has {coordinates.shape[1]} coordinates; this subspace has {self._width()}."
            )
        out = np.zeros((len(coordinates), self.n_features_in_))
        for rows, (origin, axes) in self._groups(len(coordinates), y):
            # Axes need not be orthonormal (LDA's are not): the
            # shortest state with these coordinates.
            back: np.ndarray = np.linalg.pinv(axes)
            out[rows] = origin + coordinates[rows, : len(axes)] @ back.T
        return out

    def project(self, X: Any, y: Any = None) -> np.ndarray:
        """The states' images in the subspace: what is kept of them."""
        return self.inverse_transform(self.transform(X, y), y)

    def remove(self, X: Any, y: Any = None) -> np.ndarray:
        """The states without their part along the subspace; as seen from its origin."""
        states = self._states(X)
        out = states.copy()
        for rows, (origin, axes) in self._groups(len(states), y):
            basis = orthonormal(axes)
            out[rows] -= (states[rows] - origin) @ basis.T @ basis
        return out

    def basis(self, language: str | None = None) -> Float[np.ndarray, "rank d_model"]:
        """Orthonormal rows that span the subspace (of a language, if each has its own)."""
        check_is_fitted(self)
        return orthonormal(self._axes(language))

    def randomized(self, rng: np.random.Generator) -> Self:
        """A copy whose axes are random, of equal rank: the control of every removal."""
        check_is_fitted(self)
        other = self._copy()
        other.components_ = self._random_components(rng)
        return other

    def _random_components(self, rng: np.random.Generator) -> np.ndarray:
        rank, d_model = self.components_.shape
        return random_basis(rank, d_model, rng)

    def _width(self) -> int:
        return len(self.components_)

    def _copy(self) -> Self:
        other = type(self)(**self.get_params(deep=False))
        for name, value in vars(self).items():
            setattr(other, name, value)
        return other

    def _groups(
        self, n: int, y: Any
    ) -> list[tuple[np.ndarray | slice, tuple[np.ndarray, np.ndarray]]]:
        if not self.per_language:
            return [(slice(None), (self._origin(None), self._axes(None)))]
        languages = self._languages(y, n)
        return [
            (languages == tag, (self._origin(str(tag)), self._axes(str(tag))))
            for tag in np.unique(languages)
        ]

    def _languages(self, y: Any, n: int) -> np.ndarray:
        if y is None:
            raise InputError(
                f"{type(self).__name__} needs the language of every state: give y, "
                "one tag per row of X."
            )
        languages = np.asarray(y).astype(str)
        if languages.shape != (n,):
            raise InputError(f"y has shape {languages.shape}; X has {n} rows.")
        # While fitting there are no classes yet, and every tag is welcome.
        known = list(map(str, getattr(self, "classes_", languages)))
        if unknown := sorted(set(map(str, languages)) - set(known)):
            raise InputError(f"{type(self).__name__} was not fitted on {unknown}, only on {known}.")
        return languages

    def _states(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        states = _table(X)
        if states.shape[1] != self.n_features_in_:
            # scikit-learn's own words: its checks read them.
            raise InputError(
                f"X has {states.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return states

    def _start(self, X: Any) -> np.ndarray:
        """Check the states to fit on.

        Raises:
            ValueError: not a table of finite numbers, or nothing varies in it.
        """
        states = _table(X, at_least=2)
        self.n_features_in_ = states.shape[1]
        if not np.ptp(states, axis=0).any():
            raise InputError(
                f"All {len(states)} states are the same, so {type(self).__name__} has nothing to "
                "fit. At layer 0 the slot `last` is often the same token in every prompt: leave "
                "such layers out, or pool another slot."
            )
        return states

    def _start_by_language(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """As `_start`, and sets `classes_` and `means_`.

        Raises:
            ValueError: also when y is missing, has another length, or names one language only.
        """
        states = self._start(X)
        # Else a second fit would hold the new tags against those of the first.
        vars(self).pop("classes_", None)
        if y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give "
                "the language of every state."
            )
        languages = self._languages(y, len(states))
        self.classes_ = np.unique(languages)
        if len(self.classes_) < 2:
            raise InputError(
                f"{type(self).__name__} needs at least two languages; y has one class, "
                f"{self.classes_[0]!r}."
            )
        self.means_ = np.stack([states[languages == c].mean(0) for c in self.classes_])
        return states, languages

    def _language_index(self, language: str | None) -> int:
        found = np.flatnonzero(self.classes_ == language)
        if not len(found):
            raise InputError(
                f"No language {language!r}: {type(self).__name__} was fitted on "
                f"{list(map(str, self.classes_))}."
            )
        return int(found[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.per_language
        return tags


def _table(X: Any, *, at_least: int = 1) -> np.ndarray:
    as_float: Any = np.float64
    return np.asarray(check_array(X, dtype=as_float, ensure_min_samples=at_least))


def orthonormal(rows: Float[np.ndarray, "rank d_model"]) -> Float[np.ndarray, "rank2 d_model"]:
    """Orthonormal rows with the same span."""
    if not len(rows):
        return rows
    # Rank is told by singular values: of unit rows, so that a short axis isn't taken for none.
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, sizes, basis = np.linalg.svd(unit, full_matrices=False)
    return basis[sizes > 1e-10 * sizes[0]]


def fixed_signs(components: Float[np.ndarray, "rank d_model"]) -> Float[np.ndarray, "rank d_model"]:
    """Axes turned so that each one's largest entry is positive: the same whatever the row order."""
    if not len(components):
        return components
    # An SVD gives either sign, by library and machine.
    largest = components[np.arange(len(components)), np.abs(components).argmax(1)]
    return components * np.where(largest < 0, -1.0, 1.0)[:, None]


def random_basis(
    rank: int, d_model: int, rng: np.random.Generator
) -> Float[np.ndarray, "rank d_model"]:
    """Orthonormal rows that span a subspace drawn evenly from all of this rank."""
    # A normal distribution looks alike in every direction, and so does the span of its draws.
    return np.linalg.qr(rng.standard_normal((d_model, rank)))[0].T


def check_rank(rank: Any, most: int, *, name: str, because: str) -> int:
    """A number of components that the data can give.

    Raises:
        ValueError: below 1 or above `most`.
    """
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= most:
        raise InputError(f"{name}={rank!r}; accepted is 1 to {most}: {because}.")
    return int(rank)
