"""Subspaces that all languages share: PCA, LSAR, LDA axes, the difference of two means."""

from typing import Any, Literal, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from xlens.errors import InputError
from xlens.subspace.base import Subspace, check_rank, fixed_signs


class PooledPCA(Subspace):
    """Principal components of all languages' states together, not standardised.

    As in the code of arXiv 2405.13816 with `center="pooled"` (2 components for its figure, 1 for
    its correlations). Once languages separate, the first component is the axis between them;
    `center="language"` subtracts each language's mean first, so that only variation within
    languages is left (our reading).

    Args:
        n_components: How many.
        center: `pooled` (one mean) or `language` (a mean each; then `transform` needs y).

    Attributes:
        components_: `[n_components, d_model]`, orthonormal, by explained variance; the largest
            entry of each is positive.
        explained_variance_: By component.
        explained_variance_ratio_: The same as a share of all variance.
        mean_: `[d_model]`; `means_` `[language, d_model]` and `classes_` with `center="language"`.
    """

    def __init__(
        self, n_components: int = 2, *, center: Literal["pooled", "language"] = "pooled"
    ) -> None:
        self.n_components = n_components
        self.center = center

    @property
    def per_language(self) -> bool:  # type: ignore[override]
        """Whether y is needed."""
        return self.center == "language"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the components.

        Raises:
            ValueError: more components than items or dimensions, or states that are all the same.
        """
        from sklearn.decomposition import PCA

        if self.center not in ("pooled", "language"):
            raise InputError(f"center={self.center!r}; accepted are 'pooled' and 'language'.")
        if self.per_language:
            states, languages = self._start_by_language(X, y)
            # `np.unique` sorts, so a tag's place in `classes_` can be searched for.
            states = states - self.means_[np.searchsorted(self.classes_, languages)]
            # Every mean that was subtracted leaves one direction less.
            most = min(len(states) - len(self.classes_), states.shape[1])
        else:
            states = self._start(X)
            most = min(len(states) - 1, states.shape[1])
        why = f"{len(states)} states of {states.shape[1]} dimensions give no more components"
        rank = check_rank(self.n_components, most, name="n_components", because=why)
        # scikit-learn's "auto" draws at random for large tables: the same states gave other axes.
        pca = PCA(rank, svd_solver="full").fit(states)
        self.mean_ = pca.mean_
        self.components_ = fixed_signs(np.asarray(pca.components_))
        self.explained_variance_ = pca.explained_variance_
        self.explained_variance_ratio_ = pca.explained_variance_ratio_
        return self

    def _origin(self, language: str | None) -> np.ndarray:
        return self.means_[self._language_index(language)] if self.per_language else self.mean_


class LSAR(Subspace):
    """The subspace that language means span, by low-rank factorisation (Xie et al. 2022).

    With the languages' means as columns of M and c their mean: `M̂ = c 1ᵀ + U_r S_r V_rᵀ`,
    `m_a = (M̂⁺)ᵀ 1`, divided by `‖m_a‖²`; the language subspace is the span of the r first left
    singular vectors of `M̂ - m_a 1ᵀ`. These are the steps of the authors' code; here in closed
    form. Removal `x - M_s M_sᵀ x` needs no language label, and is from the origin, not the mean.

    Args:
        rank: r; None for one less than languages, as the authors take it.

    Attributes:
        components_: `[rank, d_model]`, orthonormal.
        common_: m_a, `[d_model]`, orthogonal to the components: what all languages share.
        singular_values_: Of the centred means, all of them: how many count says the rank.
        means_: `[language, d_model]`; `classes_` names them.
    """

    def __init__(self, rank: int | None = None) -> None:
        self.rank = rank

    def fit(self, X: Any, y: Any = None) -> Self:
        """Factorise the languages' means.

        Raises:
            ValueError: one language only, equal means, or a rank above the number of languages - 1.
        """
        states, _ = self._start_by_language(X, y)
        n = len(self.classes_)
        most = min(n - 1, states.shape[1])
        why = f"the means of {n} languages differ along no more axes"
        rank = check_rank(most if self.rank is None else self.rank, most, name="rank", because=why)
        # [d_model, language], as in the paper's M.
        means = self.means_.T
        centre = means.mean(1, keepdims=True)
        left, sizes, _ = np.linalg.svd(means - centre, full_matrices=False)
        _require_apart(self.means_, states)
        self.components_ = fixed_signs(left[:, :rank].T)
        # What the pseudo-inverse comes to: U_r is orthogonal to m_a, and so M_s spans what U_r
        # spans. This way nothing is divided by a mean that may be 0.
        self.common_ = centre[:, 0] - self.components_.T @ self.components_ @ centre[:, 0]
        self.singular_values_ = sizes[:most]
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class LDAAxes(Subspace):
    """Axes along which languages differ most against the spread within them.

    Args:
        n_components: How many; None for one less than languages.
        solver: `ridge`: `(S_w + λ I)⁻¹` times the means' differences, S_w the covariance within
            languages; with two languages this is the direction of CLaS-Bench's code (2601.08331).
            `svd`: columns of `scalings_` of scikit-learn's LinearDiscriminantAnalysis, as in the
            code of Chang et al. 2022; axes without any spread within languages are lost there.
        ridge: λ as a share of the mean variance within languages. (CLaS-Bench adds 1e-6 whatever
            the scale. A share is our reading: scales differ by orders of magnitude between
            layers.) With fewer states than dimensions a small one fits noise.

    Attributes:
        components_: `[n_components, d_model]`, unit length, not orthogonal; the most telling first.
        mean_: `[d_model]`.
        means_: `[language, d_model]`; `classes_` names them.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        solver: Literal["ridge", "svd"] = "ridge",
        ridge: float = 1e-2,
    ) -> None:
        self.n_components = n_components
        self.solver = solver
        self.ridge = ridge

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the axes.

        Raises:
            ValueError: one language only, equal means, too many components, or an unknown solver.
        """
        if self.solver not in ("ridge", "svd") or not self.ridge > 0:
            raise InputError(
                f"solver={self.solver!r}, ridge={self.ridge}; accepted are 'ridge' with a ridge "
                "above 0, and 'svd'."
            )
        states, languages = self._start_by_language(X, y)
        n = len(self.classes_)
        most = min(n - 1, states.shape[1])
        why = f"{n} languages differ along no more axes"
        rank = check_rank(
            most if self.n_components is None else self.n_components,
            most,
            name="n_components",
            because=why,
        )
        self.mean_ = states.mean(0)
        counts = np.array([(languages == c).sum() for c in self.classes_])
        # [language, d_model], so that betweenᵀ between is S_b: languages weigh by their states.
        between = (self.means_ - self.mean_) * np.sqrt(counts / len(states))[:, None]
        _require_apart(self.means_, states)
        if self.solver == "svd":
            axes = _svd_axes(states, languages, rank)
        else:
            inside = states - self.means_[np.searchsorted(self.classes_, languages)]
            axes = _ridge_axes(inside, between, self.ridge, rank)
        self.components_ = fixed_signs(axes / np.linalg.norm(axes, axis=1, keepdims=True))
        return self

    def _origin(self, language: str | None) -> np.ndarray:
        return self.mean_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


class MeanDifference(Subspace):
    """The direction from one language to another: the difference of their means.

    `direction_ = mean(target) - mean(source)`. On parallel items this is also the mean of the
    paired differences. How arXiv 2505.13141 reads according to public reviews; it prints no
    formula that we know of (unverified).

    Args:
        source: Language to go from.
        target: Language to go to.

    Attributes:
        direction_: `[d_model]`, in the units of the states: adding it moves one mean to the other.
        components_: Its unit vector, `[1, d_model]`; coordinates are distances from the midpoint
            of the means, along it.
        midpoint_: `[d_model]`.
    """

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the difference; other languages are not looked at.

        Raises:
            ValueError: a language that y lacks, the same one twice, or equal means.
        """
        self._start_by_language(X, y)
        if self.source == self.target:
            raise InputError(f"source and target are both {self.source!r}; give two languages.")
        start, stop = (self.means_[self._language_index(x)] for x in (self.source, self.target))
        self.direction_ = stop - start
        self.midpoint_ = (start + stop) / 2
        length = np.linalg.norm(self.direction_)
        if not length:
            raise InputError(f"{self.source!r} and {self.target!r} have equal means.")
        self.components_ = self.direction_[None] / length
        return self

    def _origin(self, language: str | None) -> np.ndarray:
        return self.midpoint_

    def randomized(self, rng: np.random.Generator) -> Self:
        """A copy with a random direction of the same length."""
        other = super().randomized(rng)
        other.direction_ = other.components_[0] * np.linalg.norm(self.direction_)
        return other

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _require_apart(means: np.ndarray, states: np.ndarray) -> None:
    """Refuse means that differ by no more than single precision's rounding."""
    size = np.sqrt((states**2).sum(1).mean())
    # Against the states' own length, as models' scales differ by orders of magnitude.
    if np.linalg.norm(means - means.mean(0), axis=1).max() <= 1e-6 * size:
        raise InputError("The languages have equal means: nothing tells them apart here.")


def _ridge_axes(inside: np.ndarray, between: np.ndarray, ridge: float, rank: int) -> np.ndarray:
    """Leading eigenvectors of `(S_w + λI)⁻¹ S_b`, through the few rows that span S_b."""
    within = inside.T @ inside / len(inside)
    mean_variance = float(np.trace(within)) / len(within)
    # Without any spread inside the languages every λ gives the same axes.
    within[np.diag_indices_from(within)] += ridge * mean_variance or 1.0
    # With B the rows of `between`, an eigenvector v of B W⁻¹Bᵀ (language by
    # language) gives W⁻¹Bᵀv, an eigenvector of W⁻¹BᵀB (d_model by d_model) of the
    # same value: the small problem is solved.
    solved = np.asarray(cho_solve(cho_factor(within), between.T))
    _, vectors = np.linalg.eigh(between @ solved)
    # `eigh` sorts from the smallest.
    return (solved @ vectors[:, ::-1][:, :rank]).T


def _svd_axes(states: np.ndarray, languages: np.ndarray, rank: int) -> np.ndarray:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    scalings = LinearDiscriminantAnalysis(solver="svd").fit(states, languages).scalings_
    if scalings.shape[1] < rank:
        raise InputError(
            f"Only {scalings.shape[1]} of {rank} axes have spread within languages, which "
            "solver='svd' needs; use solver='ridge'."
        )
    return scalings[:, :rank].T
