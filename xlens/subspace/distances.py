"""How far apart are the languages' affine subspaces, as Chang et al. 2022 measure it?"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import eigh, subspace_angles

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import generator
from xlens.subspace.base import Subspace
from xlens.subspace.by_language import AffineSubspaces
from xlens.subspace.controls import shuffled_languages
from xlens.subspace.pairs import LanguagePairs, check_options, language_pairs, spread
from xlens.subspace.states import Parallel, origin, parallel

DISTANCES = ("mean_angle", "geodesic", "chordal", "mean_shift", "fixed_rank", "full_rank")


@typed
def subspace_distances(
    activations: Activations,
    *,
    measures: Sequence[str] = ("mean_angle", "geodesic", "chordal", "mean_shift"),
    n_components: int | float = 0.9,
    pooling: str = "last",
    confidence: float = 0.95,
    n_controls: int = 10,
    seed: int = 0,
) -> LanguagePairs:
    """Distances between languages' principal subspaces at every layer, with controls.

    With V the bases, θ the principal angles and K the covariances of languages A and B:

    | measure | distance |
    |---|---|
    | `mean_angle` | mean of θ, in degrees |
    | `geodesic` | `sqrt(Σ θ²)`, in radians |
    | `chordal` | `sqrt(max rank - tr(P_A P_B))`, P the projectors |
    | `mean_shift` | distance of the means, as a share of the mean spread (root of the variance) |
    | `fixed_rank` | `sqrt(Σ θ² + Σ ln² λ(R_A² (R_B²)⁻¹))`; needs equal ranks |
    | `full_rank` | `sqrt(Σ ln² λ(K_A⁻¹ K_B))`; needs more items than dimensions |

    R² is the covariance in the principal vectors of the two subspaces.

    All but `mean_shift` (our reading) are those of the authors' code, which hides eigenvalues that
    are not positive; here they are an error. Controls (our reading): `shuffled`, the languages of
    each item dealt out anew after their means were subtracted, shows how far apart subspaces are
    by chance alone; `random`, random subspaces of equal ranks, what unrelated ones would show
    (only where a distance asks for nothing but bases). A value has no interval.

    Args:
        activations: The same items in several languages.
        measures: Any of the table's.
        n_components: As in `AffineSubspaces`.
        pooling: How a prompt becomes one state (`pool`).
        confidence: Of the controls' ranges.
        n_controls: Draws of each control.
        seed: Of the controls.

    Raises:
        ValueError: an unknown measure, unequal ranks or too few items where a measure needs them,
            or what `parallel` and `AffineSubspaces` refuse.
    """
    if (unknown := [m for m in measures if m not in DISTANCES]) or not measures:
        raise InputError(f"measures={unknown or measures!r}; accepted are {list(DISTANCES)}.")
    check_options(confidence, n_controls)
    if "fixed_rank" in measures and isinstance(n_components, float):
        raise InputError(
            f"fixed_rank compares subspaces of equal rank; n_components={n_components} is a share "
            "of variance, which gives each language a rank of its own. Give a number."
        )
    states = parallel(activations, pooling, at_least=3)
    n, d_model = len(states.ids), states.values.shape[-1]
    if "full_rank" in measures and n <= d_model:
        raise InputError(
            f"full_rank compares whole covariances of {d_model} dimensions, which {n} items can't "
            "fill; give more items, or use fixed_rank."
        )
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        found = _layer(states, index, measures, n_components, n_controls, seed)
        for (a, b), measure, kind, values in found:
            low = high = mean = float(values[0])
            if kind != "value":
                mean, low, high = spread(values, confidence)
            names = {"layer": layer, "a": states.languages[a], "b": states.languages[b]}
            numbers = {"mean": mean, "low": low, "high": high, "n": n}
            # `spread` of one draw would give a range of no width.
            if kind == "value":
                numbers |= {"low": np.nan, "high": np.nan}
            rows.append({**names, "measure": measure, "kind": kind, **numbers})
    return LanguagePairs(
        provenance=origin(
            activations,
            "subspace_distances",
            pooling=pooling,
            n_components=n_components,
            n_controls=n_controls,
            seed=seed,
            sources={
                m: "our reading" if m == "mean_shift" else "Chang et al. 2022, code"
                for m in measures
            },
        ),
        table=pd.DataFrame(rows),
        languages=states.languages,
        n_items=n,
        confidence=confidence,
        pooling=pooling,
    )


def _layer(
    states: Parallel,
    index: int,
    measures: Sequence[str],
    n_components: int | float,
    n_controls: int,
    seed: int,
) -> list[tuple[tuple[int, int], str, str, np.ndarray]]:
    flat, languages, items = states.flat(index)
    rng = generator(seed, index)
    dealt = [shuffled_languages(languages, items, rng) for _ in range(n_controls)]
    # Dealt out with their means, every language would have the others' means for a direction.
    here = states.layer(index)
    centred = (here - here.mean(1, keepdims=True)).reshape(flat.shape)
    # Measures of the same rank share fits and draws of the controls.
    ranks = {m: flat.shape[1] if m == "full_rank" else n_components for m in measures}
    fits: dict[int | float, dict[str, Sequence[Subspace]]] = {}
    try:
        for rank in dict.fromkeys(ranks.values()):
            fitted = AffineSubspaces(rank).fit(flat, languages)
            fits[rank] = {
                "value": [fitted],
                "shuffled": [AffineSubspaces(rank).fit(centred, y) for y in dealt],
                "random": [fitted.randomized(rng) for _ in range(n_controls)],
            }
    except ValueError as error:
        raise InputError(f"Layer {states.layers[index]}: {error}") from error
    out: list[tuple[tuple[int, int], str, str, np.ndarray]] = []
    for measure, rank in ranks.items():
        distance = _DISTANCES[measure]
        for a, b in language_pairs(len(states.languages)):
            tags = states.languages[a], states.languages[b]
            for kind, there in fits[rank].items():
                if kind == "random" and measure not in _OF_BASES:
                    continue
                out.append(((a, b), measure, kind, np.array([distance(f, *tags) for f in there])))
    return out


def _angles(fit: Any, a: str, b: str) -> np.ndarray:
    # SciPy takes columns; of unequal ranks it gives as many angles as the smaller has.
    return subspace_angles(fit.basis(a).T, fit.basis(b).T)


def _mean_angle(fit: Any, a: str, b: str) -> float:
    return float(np.degrees(_angles(fit, a, b)).mean())


def _geodesic(fit: Any, a: str, b: str) -> float:
    return float(np.linalg.norm(_angles(fit, a, b)))


def _chordal(fit: Any, a: str, b: str) -> float:
    first, second = fit.basis(a), fit.basis(b)
    shared = float((np.abs(first @ second.T) ** 2).sum())  # tr(P_A P_B)
    return max(0.0, max(len(first), len(second)) - shared) ** 0.5


def _mean_shift(fit: Any, a: str, b: str) -> float:
    (first, second) = (fit.means_[list(fit.classes_).index(x)] for x in (a, b))
    totals = [fit.total_variance_[list(fit.classes_).index(x)] for x in (a, b)]
    return float(np.linalg.norm(first - second) / np.sqrt(np.mean(totals)))


def _fixed_rank(fit: Any, a: str, b: str) -> float:
    first, second = fit.components(a), fit.components(b)
    # Principal vectors are these turns of each basis: A's are turn_aᵀ first, B's turn_b second.
    # Variances are diagonal in the components, and are turned with them.
    turn_a, _, turn_b = np.linalg.svd(first @ second.T)
    inside_a = turn_a.T * fit.variance(a) @ turn_a
    inside_b = turn_b * fit.variance(b) @ turn_b.T
    return float(np.hypot(_geodesic(fit, a, b), _log_ratio(inside_a, inside_b)))


def _full_rank(fit: Any, a: str, b: str) -> float:
    # All d_model components, so rowsᵀ diag(variance) rows is the whole covariance.
    rows = {x: fit.components(x) for x in (a, b)}
    return _log_ratio(*(rows[x].T * fit.variance(x) @ rows[x] for x in (a, b)))


def _log_ratio(k_a: np.ndarray, k_b: np.ndarray) -> float:
    """`sqrt(Σ ln² λ(K_A⁻¹ K_B))`."""
    try:
        # The generalised problem K_B v = λ K_A v: no inverse is formed. SciPy refuses a K_A that
        # isn't positive definite, which is the same fault as a λ that is not above 0.
        ratios = np.asarray(eigh(k_b, k_a, eigvals_only=True))
    except np.linalg.LinAlgError:
        ratios = np.array([-1.0])
    if (ratios <= 0).any():
        raise InputError(
            "A covariance isn't positive definite, so this distance isn't defined: use fewer "
            "components or more items."
        )
    return float(np.linalg.norm(np.log(ratios)))


_DISTANCES: dict[str, Callable[[Any, str, str], float]] = {
    "mean_angle": _mean_angle,
    "geodesic": _geodesic,
    "chordal": _chordal,
    "mean_shift": _mean_shift,
    "fixed_rank": _fixed_rank,
    "full_rank": _full_rank,
}
_OF_BASES = ("mean_angle", "geodesic", "chordal")
