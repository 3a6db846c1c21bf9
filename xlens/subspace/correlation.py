"""Do languages rank the same items alike along a principal component? With length taken out."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from xlens.activations import Activations
from xlens.checks import typed
from xlens.stats import Resampling, Rows, generator
from xlens.subspace.axes import PooledPCA
from xlens.subspace.controls import length_terms, mismatch, mismatch_of_same_length, without
from xlens.subspace.pairs import LanguagePairs, check_options, language_pairs, spread
from xlens.subspace.states import Parallel, origin, parallel


@dataclass(frozen=True, kw_only=True)
class ScoreCorrelation(LanguagePairs):
    """Correlations of component scores between languages.

    Attributes:
        components: `layer component explained between_languages length`. `explained`: its share of
            all variance. `between_languages`: the share of its own variance that lies between the
            languages' means; near 1 it is an axis of language, and the correlations speak of what
            little is left. `length`: the mean over languages of the correlation with log T, its
            sign dropped.
    """

    components: pd.DataFrame


@typed
def score_correlation(
    activations: Activations,
    *,
    pooling: str = "mean",
    center: Literal["pooled", "language"] = "pooled",
    n_components: int = 1,
    resampling: Resampling = Resampling(),
    n_controls: int = 100,
) -> ScoreCorrelation:
    """Pearson and Spearman of principal component scores over aligned items.

    With the defaults the test of arXiv 2405.13816's code: per layer one PCA over the pooled states
    (mean over all tokens, BOS included, not standardised), then the correlation over items of two
    languages' scores on the first component. Its known weakness: the mean divides the first
    token's huge state by the length, so that the component can be 1/length and correlations above
    0.95 come from lengths alone. So every number has beside it (our reading): `length_controlled`,
    the partial correlation given log T and 1/T of both prompts; `mismatched`, each item paired
    with another; `same_length`, with another of nearly the same length. If `same_length` is as
    high as the value, length is what correlates. `pooling="mean_without_first"` or `"last"` and
    `center="language"` avoid the weakness.

    The component depends on which languages are pooled: compare numbers only between the same
    sets. Intervals: bootstrap over items with the component (and ranks) held fixed.

    Args:
        activations: The same items in several languages.
        pooling: How a prompt becomes one state (`pool`).
        center: As in `PooledPCA`.
        n_components: Components looked at; measures are `pearson_1`, `spearman_1`, ...
        resampling: Of the intervals.
        n_controls: Draws of each control.

    Raises:
        ValueError: fewer than eight items, more components than the states give, or what
            `parallel` refuses.
    """
    check_options(resampling.confidence, n_controls)
    # Four length terms and a constant are taken out; what is left needs something to correlate.
    states = parallel(activations, pooling, at_least=8)
    n, n_languages = len(states.ids), len(states.languages)
    rng = generator(resampling.seed)
    clusters = resampling.codes(states.meta)
    drawn = resampling.rows(int(clusters.max()) + 1)
    # The same wrong partners for every pair and layer, so that these compare.
    wrong = np.stack([mismatch(n, rng) for _ in range(n_controls)])
    pairs = list(language_pairs(n_languages))
    similar = [
        # Lengths of b, as it is b's items that change places.
        np.stack([mismatch_of_same_length(states.n_tokens[b], rng) for _ in range(n_controls)])
        for _, b in pairs
    ]
    rows: list[dict[str, Any]] = []
    components: list[dict[str, Any]] = []
    for index, layer in enumerate(states.layers):
        scores, described = _scores(states, index, n_components, center)
        components += [{"layer": layer, **one} for one in described]
        for number in range(n_components):
            for name, table in (
                ("pearson", scores[..., number]),
                ("spearman", rankdata(scores[..., number], axis=1)),
            ):
                for (a, b), partners in zip(pairs, similar, strict=True):
                    x, y = table[a], table[b]
                    # Ranks are adjusted for ranks of the lengths: Spearman's partial correlation.
                    terms = _terms(states.n_tokens[[a, b]], ranks=name == "spearman")
                    left = without(np.column_stack([x, y]), terms)
                    both = {"value": (x, y), "length_controlled": (left[:, 0], left[:, 1])}
                    found = {
                        kind: _with_interval(*sides, drawn, clusters, resampling.confidence)
                        for kind, sides in both.items()
                    }
                    for kind, draws in (("mismatched", wrong), ("same_length", partners)):
                        found[kind] = spread(_correlation(x, y[draws]), resampling.confidence)
                    names = {"layer": layer, "a": states.languages[a], "b": states.languages[b]}
                    for kind, (mean, low, high) in found.items():
                        numbers = {"mean": mean, "low": low, "high": high, "n": n}
                        measure = f"{name}_{number + 1}"
                        rows.append({**names, "measure": measure, "kind": kind, **numbers})
    return ScoreCorrelation(
        provenance=origin(
            activations,
            "score_correlation",
            pooling=pooling,
            center=center,
            n_components=n_components,
            n_controls=n_controls,
            **resampling.provenance(),
            sources={
                "pearson": "2405.13816, code"
                if (pooling, center) == ("mean", "pooled")
                else "our reading",
                "spearman": "our reading",
                "controls": "our reading",
            },
        ),
        table=pd.DataFrame(rows),
        components=pd.DataFrame(components),
        languages=states.languages,
        n_items=n,
        confidence=resampling.confidence,
        pooling=pooling,
    )


def _scores(
    states: Parallel, index: int, n_components: int, center: Literal["pooled", "language"]
) -> tuple[Float[np.ndarray, "language item component"], list[dict[str, Any]]]:
    flat, languages, _ = states.flat(index)
    shape = (len(states.languages), len(states.ids), n_components)
    if not np.ptp(flat, axis=0).any():
        nothing = {"explained": np.nan, "between_languages": np.nan, "length": np.nan}
        empty = [{"component": n + 1, **nothing} for n in range(n_components)]
        return np.full(shape, np.nan), empty
    pca = PooledPCA(n_components, center=center).fit(flat, languages)
    # Scores around the pooled mean in both cases, so that what lies between languages is seen.
    scores = ((flat - flat.mean(0)) @ pca.components_.T).reshape(shape)
    total = scores.reshape(-1, n_components).var(0)
    # Languages have equally many items, so a plain variance of their means is the part between.
    between = scores.mean(1).var(0) / np.where(total > 0, total, np.nan)
    lengths = np.log(states.n_tokens)
    described: list[dict[str, Any]] = []
    for n in range(n_components):
        by_length = np.array(
            [_correlation(s, t[None])[0] for s, t in zip(scores[..., n], lengths, strict=True)]
        )
        known = np.abs(by_length[np.isfinite(by_length)])
        described.append(
            {
                "component": n + 1,
                "explained": float(pca.explained_variance_ratio_[n]),
                "between_languages": float(between[n]),
                "length": float(known.mean()) if len(known) else np.nan,
            }
        )
    return scores, described


def _terms(
    n_tokens: Float[np.ndarray, "side item"], *, ranks: bool
) -> Float[np.ndarray, "item term"]:
    terms = np.column_stack([length_terms(lengths) for lengths in n_tokens])
    # Ranks of 1/T are those of log T, backwards.
    # Columns are log T and 1/T of one side, then of the other; every second one is a log T.
    return rankdata(terms[:, ::2], axis=0) if ranks else terms


def _correlation(
    x: Float[np.ndarray, " item"], y: Float[np.ndarray, "draw item"]
) -> Float[np.ndarray, " draw"]:
    """Pearson of x with each row of y; NaN where a side doesn't vary."""
    x, y = x - x.mean(), y - y.mean(1, keepdims=True)
    sizes = np.linalg.norm(x) * np.linalg.norm(y, axis=1)
    return y @ x / np.where(sizes > 0, sizes, np.nan)


def _with_interval(
    x: Float[np.ndarray, " item"],
    y: Float[np.ndarray, " item"],
    rows: Rows,
    clusters: np.ndarray,
    confidence: float,
) -> tuple[float, float, float]:
    """Pearson of the items as they are, and its interval."""
    # [row, item]: an item weighs as its cluster was drawn. Weighted moments are a resample's.
    w = rows.weights[:, clusters]
    w = w / w.sum(1, keepdims=True)
    mean_x, mean_y = w @ x, w @ y
    cov = w @ (x * y) - mean_x * mean_y
    size = (w @ x**2 - mean_x**2) * (w @ y**2 - mean_y**2)
    every = cov / np.sqrt(np.where(size > 0, size, np.nan))
    # Row 0 is the sample; the value below is computed without weights, to be exact for ±1.
    low, high = rows.interval(every, rows.n, confidence)
    return float(_correlation(x, y[None])[0]), low, high
