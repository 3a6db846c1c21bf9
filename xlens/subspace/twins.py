"""Two models' states of the same prompts: how alike are they, and where did the languages move?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import clone

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, analysed
from xlens.stats import Resampling, generator
from xlens.subspace.axes import PooledPCA
from xlens.subspace.cka import LEAST_ITEMS, Kernel, cka, cka_interval
from xlens.subspace.controls import mismatch
from xlens.subspace.maps import between
from xlens.subspace.states import Parallel, parallel


@dataclass(frozen=True, kw_only=True)
class TwinStates(Result):
    """Two models' states of the same prompts, side by side.

    Attributes:
        similarity: `layer language cka low high control`: linear CKA (unbiased) of the two models'
            states of a language's items, with an interval over clusters of them; `control` is that
            with the second model's items exchanged, the mean over draws.
        points: `model layer id language x y`: both models on common axes, the principal components
            of the first model's states of all languages, around its mean.
        centroids: `model layer language x y`: means of these.
        separation: `model layer map space`: the share of variance that lies between the languages'
            means, on the map and in the whole space.
        explained: `model layer share`: of all variance, what the common axes hold.
        names: What the two are called.
        languages: In order.
        pooling: How a prompt became one state.
        confidence: Of the intervals.
    """

    similarity: pd.DataFrame
    points: pd.DataFrame
    centroids: pd.DataFrame
    separation: pd.DataFrame
    explained: pd.DataFrame
    names: tuple[str, ...]
    languages: tuple[str, ...]
    pooling: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`similarity`."""
        return self.similarity

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points, ascending."""
        return tuple(sorted(map(int, self.similarity["layer"].unique())))

    def least_alike(self) -> dict[str, Any]:
        """The row of `similarity` with the lowest CKA: the lowest of many, so rather too low."""
        row = min(self.similarity.to_dict("records"), key=lambda row: float(row["cka"]))
        return {str(name): value for name, value in row.items()}


@typed
def twin_states(
    first: Activations,
    second: Activations,
    *,
    names: tuple[str, str] = ("base", "aligned"),
    pooling: str = "last",
    n_controls: int = 10,
    resampling: Resampling = Resampling(),
) -> TwinStates:
    """Compare two models' states of the same prompts, layer by layer.

    The map's axes are fitted on the first model alone and hold for both, so that what moved can be
    seen; axes fitted anew on each (as the figure of arXiv 2405.13816 has them) turn and flip by
    themselves.

    Args:
        first: The same items in several languages, from one model.
        second: The same from another one, of the same layers.
        names: What the two are called.
        pooling: How a prompt becomes one state (`pool`).
        n_controls: Draws of the control.
        resampling: Of the intervals (a jackknife over its clusters); its seed is the control's.

    Raises:
        ValueError: other layers, languages or items, too few items, or what `parallel` refuses.
    """
    one, two = (parallel(each, pooling, at_least=LEAST_ITEMS) for each in (first, second))
    for what in ("layers", "languages", "ids"):
        a, b = getattr(one, what), getattr(two, what)
        if a != b:
            raise InputError(
                f"The two models' {what} differ ({list(a)[:6]} and {list(b)[:6]}): harvest the "
                "same prompts at the same layers of both."
            )
    if len(set(names)) < 2:
        raise InputError(f"Both are called {names[0]!r}: give two names.")
    codes = resampling.codes(one.meta)
    z = float(norm.ppf((1 + resampling.confidence) / 2))
    random = generator(resampling.seed, 7)
    orders = [mismatch(len(one.ids), random) for _ in range(n_controls)]
    similar: list[dict[str, Any]] = []
    maps: list[tuple[pd.DataFrame, ...]] = []
    for index, layer in enumerate(one.layers):
        for k, tag in enumerate(one.languages):
            x, y = (Kernel.of(_states(each, index, k), unbiased=True) for each in (one, two))
            low, high = cka_interval(x, y, z=z, clusters=codes)
            # Taking items in another order needs no new centring: draws cost a product each.
            control = float(np.mean([cka(x, y.take(order)) for order in orders]))
            similar.append(
                {"layer": layer, "language": tag, "cka": cka(x, y), "low": low, "high": high}
                | {"control": control}
            )
        maps.append(_maps(one, two, index, layer, names))
    points, centroids, separation, explained = (
        pd.concat(tables, ignore_index=True) for tables in zip(*maps, strict=True)
    )
    origin = {"first": first.provenance, "second": second.provenance}
    return TwinStates(
        provenance=analysed(
            origin,
            "twin_states",
            {"pooling": pooling, "n_controls": n_controls, **resampling.provenance()},
        ),
        similarity=pd.DataFrame(similar),
        points=points,
        centroids=centroids,
        separation=separation,
        explained=explained,
        names=names,
        languages=one.languages,
        pooling=pooling,
        confidence=resampling.confidence,
    )


def _states(of: Parallel, index: int, language: int) -> np.ndarray:
    return np.asarray(of.layer(index)[language], dtype=np.float64)


def _maps(
    one: Parallel, two: Parallel, index: int, layer: int, names: tuple[str, str]
) -> tuple[pd.DataFrame, ...]:
    """Both models on the first one's axes at a layer."""
    flat, languages, items = one.flat(index)
    middle = flat.mean(0)
    still = not np.ptp(flat, axis=0).any()  # the embedding of a last token that all share
    axes = np.zeros((2, flat.shape[1]))
    if not still:
        fitted: Any = clone(PooledPCA(2)).fit(flat, languages)  # type: ignore[attr-defined]
        axes = fitted.components_
    points: list[pd.DataFrame] = []
    shares: list[dict[str, Any]] = []
    explained: list[dict[str, Any]] = []
    ids = np.array(one.ids, dtype=object)[items]
    for name, each in zip(names, (one, two), strict=True):
        states, tags, _ = each.flat(index)
        # The second model's states around the first one's mean too: what moved shows as moved.
        here = (states - middle) @ axes.T
        points.append(
            pd.DataFrame(
                {
                    "model": name,
                    "layer": layer,
                    "id": ids,
                    "language": tags.astype(object),
                    "x": here[:, 0],
                    "y": here[:, 1],
                }
            )
        )
        total = states.var(0).sum()
        share = float(here.var(0).sum() / total) if total > 0 else np.nan
        explained.append({"model": name, "layer": layer, "share": share})
        apart = {"map": between(here, tags), "space": between(states, tags)}
        shares.append({"model": name, "layer": layer, **apart})
    every = pd.concat(points, ignore_index=True)
    keys = ["model", "layer", "language"]
    centroids = every.groupby(keys, sort=False, as_index=False)[["x", "y"]].mean()
    return every, centroids, pd.DataFrame(shares), pd.DataFrame(explained)
