"""Two-dimensional maps of all languages, layer by layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.base import clone

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result
from xlens.stats import generator
from xlens.subspace.axes import PooledPCA
from xlens.subspace.base import Subspace, random_basis
from xlens.subspace.controls import shuffled_languages
from xlens.subspace.pairs import check_options, language_pairs, spread
from xlens.subspace.states import Parallel, origin, parallel


@dataclass(frozen=True, kw_only=True)
class LanguageMap(Result):
    """Where every item of every language lies on two axes, by layer.

    Attributes:
        points: `layer id language x y`.
        centroids: `layer language x y sd_major sd_minor angle n`: mean, standard deviations along
            the long and the short axis of a language's cloud, and the long one's angle (radians).
        axes: `layer axis explained`: share of all variance along an axis.
        separation: `layer where kind mean low high`: the share of variance that lies between the
            languages' means, on the map (`where` is `map`) and in the whole space (`space`).
            `kind`: `value`, `shuffled` (the languages of each item dealt out anew, the map drawn
            anew) or `random` (a random plane; only for `map`).
        languages: In the order of the activations.
        estimator: What drew the axes, in words.
        pooling: How a prompt became one state.
        confidence: Of the controls' ranges.
    """

    points: pd.DataFrame
    centroids: pd.DataFrame
    axes: pd.DataFrame
    separation: pd.DataFrame
    languages: tuple[str, ...]
    estimator: str
    pooling: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`points`."""
        return self.points

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points, ascending."""
        return tuple(sorted(map(int, self.points["layer"].unique())))

    def apart(self) -> pd.DataFrame:
        """How far languages' means lie apart on the map: `layer a b mean`, for `by_relation`.

        In root mean squared deviations of the items from their language's mean, all languages
        alike: what an axis' unit is, differs from layer to layer.
        """
        rows: list[dict[str, Any]] = []
        for layer, mine in self.centroids.groupby("layer", sort=False):
            # Squares along two perpendicular axes add up to the cloud's whole variance.
            within = (mine["sd_major"] ** 2 + mine["sd_minor"] ** 2).mean() ** 0.5
            places = mine[["x", "y"]].to_numpy(float)
            tags = mine["language"].tolist()
            for a, b in language_pairs(len(tags)):
                far = float(np.linalg.norm(places[a] - places[b]))
                mean = far / within if within > 0 else np.nan
                rows.append({"layer": layer, "a": tags[a], "b": tags[b], "mean": mean})
        return pd.DataFrame(rows)

    @property
    def telling(self) -> int:
        """The layer whose map tells languages apart best, beyond shuffled ones.

        The largest share of the map's variance between languages, less what shuffled languages get;
        the lowest layer where nothing varies.
        """
        table = self.separation[self.separation["where"] == "map"]
        by = table.pivot(index="layer", columns="kind", values="mean")
        beyond = (by["value"] - by["shuffled"] if "shuffled" in by else by["value"]).dropna()
        layers = beyond.index.to_list()
        return int(layers[int(beyond.to_numpy().argmax())]) if layers else self.layers[0]


@typed
def language_map(
    activations: Activations,
    estimator: Subspace | None = None,
    *,
    pooling: str = "last",
    n_controls: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
) -> LanguageMap:
    """All languages' states on two axes per layer, with centroids, spread and separation.

    Axes keep the estimator's own signs at the lowest layer; above, each is turned so that items
    stay on the side where they were one layer below. Axes of different layers are different axes.

    Args:
        activations: The same items in several languages.
        estimator: What gives the axes, fitted at each layer: by default `PooledPCA(2)`, as the
            figure of arXiv 2405.13816. `LDAAxes(2)` looks for what separates; with fewer states
            than dimensions it finds that in noise too: look at `separation`, kind `shuffled`.
        pooling: How a prompt becomes one state (`pool`).
        n_controls: Draws of each control.
        confidence: Of the controls' ranges.
        seed: Of the controls.

    Returns:
        The map. At layers where all states are the same, coordinates are 0 and shares NaN.

    Raises:
        ValueError: an estimator without two axes or with a subspace per language, or what
            `parallel` and the estimator refuse.
    """
    check_options(confidence, n_controls)
    estimator = PooledPCA(2) if estimator is None else estimator
    if estimator.per_language and not isinstance(estimator, PooledPCA):
        raise InputError(
            f"{estimator!r} has a subspace per language; a map needs axes that all share: "
            "PooledPCA(2), LDAAxes(2) or LSAR(2)."
        )
    states = parallel(activations, pooling, at_least=3)
    points: list[pd.DataFrame] = []
    centroids: list[dict[str, Any]] = []
    axes: list[dict[str, Any]] = []
    separation: list[dict[str, Any]] = []
    before: np.ndarray | None = None
    for index, layer in enumerate(states.layers):
        try:
            here, explained, shares = _one(states, index, estimator, n_controls, seed)
        except ValueError as error:
            raise InputError(f"Layer {layer}: {error}") from error
        if before is not None:
            # [state, axis] of two layers, row by row the same states: a
            # negative product is a mirrored axis.
            here = here * np.where((here * before).sum(0) < 0, -1.0, 1.0)
        before = here
        _, languages, items = states.flat(index)
        points.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "id": np.array(states.ids, dtype=object)[items],
                    "language": languages.astype(object),
                    "x": here[:, 0],
                    "y": here[:, 1],
                }
            )
        )
        for tag in states.languages:
            centroids.append({"layer": layer, "language": tag, **_cloud(here[languages == tag])})
        axes += [
            {"layer": layer, "axis": n + 1, "explained": float(share)}
            for n, share in enumerate(explained)
        ]
        for (where, kind), draws in shares.items():
            mean, low, high = spread(draws, confidence)
            if kind == "value":
                low = high = np.nan
            numbers = {"mean": mean, "low": low, "high": high}
            separation.append({"layer": layer, "where": where, "kind": kind, **numbers})
    return LanguageMap(
        provenance=origin(
            activations,
            "language_map",
            pooling=pooling,
            n_controls=n_controls,
            seed=seed,
            sources={"map": "2405.13816, code, with PooledPCA(2) and pooling='mean'"},
        ),
        points=pd.concat(points, ignore_index=True),
        centroids=pd.DataFrame(centroids),
        axes=pd.DataFrame(axes),
        separation=pd.DataFrame(separation),
        languages=states.languages,
        estimator=repr(estimator),
        pooling=pooling,
        confidence=confidence,
    )


def _one(
    states: Parallel, index: int, estimator: Subspace, n_controls: int, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Coordinates, explained shares and separation at one layer."""
    flat, languages, items = states.flat(index)
    rng = generator(seed, index)
    if not np.ptp(flat, axis=0).any():
        nothing = np.full(1, np.nan)
        shares = {("map", "value"): nothing, ("space", "value"): nothing}
        return np.zeros((len(flat), 2)), np.full(2, np.nan), shares

    def draw(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted: Any = clone(estimator).fit(flat, y)  # type: ignore[attr-defined]
        if len(fitted.components_) != 2:
            raise InputError(f"{estimator!r} gives {len(fitted.components_)} axes; a map needs 2.")
        # Around the mean of all states, whatever the estimator's own origin.
        return (flat - flat.mean(0)) @ fitted.components_.T, fitted.components_

    here, components = draw(languages)
    asks = estimator.__sklearn_tags__().target_tags.required  # else its axes stay as they are
    total = flat.var(0).sum()
    # Over the squared length, should an estimator's axes not be unit vectors.
    explained = here.var(0) / (np.linalg.norm(components, axis=1) ** 2 * total)
    dealt = [shuffled_languages(languages, items, rng) for _ in range(n_controls)]
    planes = [flat @ random_basis(2, flat.shape[1], rng).T for _ in range(n_controls)]
    shares = {
        ("map", "value"): np.array([between(here, languages)]),
        ("map", "shuffled"): np.array([between(draw(y)[0] if asks else here, y) for y in dealt]),
        ("map", "random"): np.array([between(plane, languages) for plane in planes]),
        ("space", "value"): np.array([between(flat, languages)]),
        ("space", "shuffled"): np.array([between(flat, y) for y in dealt]),
    }
    return here, explained, shares


def between(states: Float[np.ndarray, "state axis"], languages: np.ndarray) -> float:
    """The share of variance that lies between the languages' means; NaN where nothing varies."""
    total = states.var(0).sum()
    inside = sum(
        states[languages == x].var(0).sum() * (languages == x).mean() for x in set(languages)
    )
    return float(1 - inside / total) if total > 0 else float("nan")


def _cloud(points: Float[np.ndarray, "item 2"]) -> dict[str, float | int]:
    # From the smallest on, eigenvectors in columns: the long axis is turns[:, 1]. Rounding can
    # put a cloud on a line a little below 0.
    sizes, turns = np.linalg.eigh(np.cov(points.T))
    minor, major = np.sqrt(np.maximum(sizes, 0))
    x, y = points.mean(0)
    return {
        "x": float(x),
        "y": float(y),
        "sd_major": float(major),
        "sd_minor": float(minor),
        "angle": float(np.arctan2(turns[1, 1], turns[0, 1])),
        "n": len(points),
    }
