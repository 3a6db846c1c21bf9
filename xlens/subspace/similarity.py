"""How alike are the states of the same items in two languages? CKA, cosine, retrieval, MEXA."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import norm

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import Resampling, bootstrap, generator
from xlens.subspace.cka import LEAST_ITEMS, Kernel, cka, cka_interval
from xlens.subspace.controls import length_terms, mismatch, mismatch_of_same_length, without
from xlens.subspace.pairs import LanguagePairs, check_options, language_pairs, spread
from xlens.subspace.states import origin, parallel

Partner = Int[np.ndarray, " item"]
MEASURES = ("cka", "cka_unbiased", "cosine", "cosine_centred", "retrieval", "mexa", "mexa_centred")
SOURCES = {
    "cka": "linear kernel and last token are our reading; 2505.13141 names CKA only (unverified)",
    "cka_unbiased": "as cka; HSIC of Song et al. 2012",
    "cosine": "2505.13141 names cosine only; mean over items is our reading (unverified)",
    "cosine_centred": "our reading: after each language's mean is subtracted",
    "retrieval": "our reading: strict nearest neighbour by cosine, mean of both directions",
    "mexa": "2410.05873 and its code: the pair's cosine is strictly above its row's and column's",
    "mexa_centred": "our reading: after each language's mean is subtracted",
}


@typed
def language_similarity(
    activations: Activations,
    *,
    measures: Sequence[str] = MEASURES,
    pooling: str = "last",
    resampling: Resampling = Resampling(),
    n_controls: int = 20,
) -> LanguagePairs:
    """Similarity of every two languages at every layer, with controls.

    | measure | what it is |
    |---|---|
    | `cka`, `cka_unbiased` | linear CKA: sees no shift, no rotation and no scale |
    | `cosine` | mean cosine of the pairs |
    | `retrieval` | share of items whose partner is the nearest by cosine; mean of both ways |
    | `mexa` | share of items for which that holds both ways at once (MEXA) |
    | `..._centred` | the same after each language's mean is subtracted |

    Kinds of numbers: `value`; `length_controlled` (log T and 1/T regressed out of every dimension
    of each language; for the measures that are centred anyway); `mismatched` (each item paired
    with another); `same_length` (with another of nearly the same length). Unrelated states get
    about 1/(2n - 1) of MEXA; the control says what these get. Ties fail, so an item that occurs
    twice never counts. Intervals: bootstrap over items, for CKA a jackknife; items about one
    passage (`paragraph`) are drawn, or left out, together.

    Args:
        activations: The same items in several languages.
        measures: Any of the table's.
        pooling: How a prompt becomes one state (`pool`).
        resampling: Of the intervals; its seed is that of the controls too.
        n_controls: Draws of each control.

    Returns:
        One row per layer, pair, measure and kind. NaN where a measure isn't defined: a state of
        norm 0, or a language whose states are all the same.

    Raises:
        ValueError: an unknown measure, fewer than five items, or what `parallel` refuses.
    """
    if (unknown := [m for m in measures if m not in MEASURES]) or not measures:
        raise InputError(f"measures={unknown or measures!r}; accepted are {list(MEASURES)}.")
    check_options(resampling.confidence, n_controls)
    states = parallel(activations, pooling, at_least=LEAST_ITEMS)
    n = len(states.ids)
    clusters = resampling.codes(states.meta)
    rng = generator(resampling.seed)
    # Drawn once, before the layers: these differ by their states, not by the draw.
    wrong = [mismatch(n, rng) for _ in range(n_controls)]
    pairs = list(language_pairs(len(states.languages)))
    similar = [
        [mismatch_of_same_length(states.n_tokens[b], rng) for _ in range(n_controls)]
        for _, b in pairs
    ]
    terms = [length_terms(lengths) for lengths in states.n_tokens]
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        here = states.layer(index)
        no_length = np.stack([without(x, t) for x, t in zip(here, terms, strict=True)])
        for measure in measures:
            compare = _Compare(measure, resampling, clusters)
            sides = [compare.side(x) for x in here]
            # What is left of a regression has mean 0, so it can't be
            # compared with what keeps its mean.
            rest = [compare.side(x) for x in no_length] if compare.centred else []
            values = compare.values(sides, pairs)
            by_length = compare.values(rest, pairs) if rest else []
            for i, ((a, b), partners) in enumerate(zip(pairs, similar, strict=True)):
                found = {"value": values[i]}
                if rest:
                    found["length_controlled"] = by_length[i]
                for kind, draws in (("mismatched", wrong), ("same_length", partners)):
                    controls = compare.draws(sides[a], sides[b], draws)
                    found[kind] = spread(controls, resampling.confidence)
                names = {"layer": layer, "a": states.languages[a], "b": states.languages[b]}
                for kind, (mean, low, high) in found.items():
                    numbers = {"mean": mean, "low": low, "high": high, "n": n}
                    rows.append({**names, "measure": measure, "kind": kind, **numbers})
    return LanguagePairs(
        provenance=origin(
            activations,
            "language_similarity",
            pooling=pooling,
            n_controls=n_controls,
            **resampling.provenance(),
            sources={m: SOURCES[m] for m in measures},
        ),
        table=pd.DataFrame(rows),
        languages=states.languages,
        n_items=n,
        confidence=resampling.confidence,
        pooling=pooling,
    )


@dataclass(frozen=True)
class _Compare:
    """One measure: what it prepares of a language, and what it says of two."""

    measure: str
    resampling: Resampling
    clusters: np.ndarray

    @property
    def centred(self) -> bool:
        """Whether a language's mean makes no difference to it."""
        return self.measure.startswith("cka") or self.measure.endswith("_centred")

    def side(self, states: Float[np.ndarray, "item d_model"]) -> Any:
        """What one language brings: a kernel, or unit states."""
        if self.measure.startswith("cka"):
            return Kernel.of(states, unbiased=self.measure == "cka_unbiased")
        if self.centred:
            states = states - states.mean(0)
        return unit(states)

    def values(
        self, sides: Sequence[Any], pairs: Sequence[tuple[int, int]]
    ) -> list[tuple[float, float, float]]:
        """The number of every pair, and its interval."""
        if isinstance(sides[0], Kernel):
            z = float(norm.ppf((1 + self.resampling.confidence) / 2))
            both = [(sides[a], sides[b]) for a, b in pairs]
            return [(cka(x, y), *cka_interval(x, y, z=z, clusters=self.clusters)) for x, y in both]
        each = np.column_stack([self._each(sides[a] @ sides[b].T) for a, b in pairs])
        low_bound = -1.0 if self.measure.startswith("cosine") else 0.0
        boot = bootstrap(
            each, clusters=self.clusters, resampling=self.resampling, bounds=(low_bound, 1.0)
        )
        low, high = boot.interval()
        columns = zip(boot.mean.tolist(), low.tolist(), high.tolist(), strict=True)
        return [(mean, lowest, highest) for mean, lowest, highest in columns]

    def draws(self, x: Any, y: Any, partners: Sequence[Partner]) -> Float[np.ndarray, " draw"]:
        """The number for each set of wrong partners."""
        if isinstance(x, Kernel):
            return np.array([cka(x, y.take(partner)) for partner in partners])
        cosines = x @ y.T
        # Columns change places: the diagonal is of wrong pairs,
        # and the right one is among the others.
        each = [self._each(cosines[:, partner]) for partner in partners]
        return np.array(
            [e[np.isfinite(e)].mean() if np.isfinite(e).any() else np.nan for e in each]
        )

    def _each(self, cosines: Float[np.ndarray, "item item"]) -> Float[np.ndarray, " item"]:
        """What every item contributes to the mean."""
        if self.measure.startswith("cosine"):
            return np.diag(cosines)
        name = "mexa" if self.measure.startswith("mexa") else "retrieval"
        return matches(cosines)[name]


def unit(states: Float[np.ndarray, "item d_model"]) -> Float[np.ndarray, "item d_model"]:
    """States of length 1; NaN where there is no direction."""
    size = np.linalg.norm(states, axis=1, keepdims=True)
    # What rounding leaves of a state that is its language's mean has no direction.
    nothing = size <= 1e-12 * np.abs(size).max()
    return states / np.where(nothing, np.nan, size)


def matches(cosines: Float[np.ndarray, "item item"]) -> dict[str, Float[np.ndarray, " item"]]:
    """What every item contributes to `retrieval` and to `mexa`; a tie is no match."""
    own = np.diag(cosines)
    # A state without a direction is nobody's partner, and in nobody's way.
    others = np.where(np.isnan(cosines), -np.inf, cosines)
    np.fill_diagonal(others, -np.inf)
    # Along rows the other language's items compete, along columns one's own.
    forth, back = own > others.max(1), own > others.max(0)
    found = {"retrieval": (forth + back.astype(float)) / 2, "mexa": (forth & back).astype(float)}
    return {name: np.where(np.isnan(own), np.nan, each) for name, each in found.items()}
