"""Where one kind of evidence changes, with its interval and its tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from xlens.phases.curves import KINDS, Curves
from xlens.phases.steps import best_line, best_step, levels
from xlens.stats import ClusterSums, jumping


@dataclass(frozen=True, eq=False)
class Draws:
    """Resamples and sign flips of clusters, the same for every kind.

    Attributes:
        weights: Bootstrap.
        signs: The first row is all +1.
    """

    weights: Float[np.ndarray, "draw cluster"]
    signs: Float[np.ndarray, "flip cluster"]


@dataclass(frozen=True, eq=False)
class Boundary:
    """One kind's boundary in one language.

    Attributes:
        value: NaN where there is none.
        draws: Of the bootstrap.
        null: The explained sums of squares under sign flips, the first as it is; None untested.

    The others are columns of `PhaseResult.edges`.
    """

    kind: str
    value: float
    draws: Float[np.ndarray, " draw"]
    before: float
    after: float
    null: np.ndarray | None
    gradual: float
    p: float
    p_adjusted: float
    n: int
    n_clusters: int

    @property
    def edge(self) -> str:
        """What it marks."""
        return KINDS[self.kind].edge

    @property
    def basis(self) -> str:
        """Whether something was changed, or read off a run."""
        return KINDS[self.kind].basis

    def found(self, level: float) -> bool:
        """Whether the step is significant."""
        return self.p_adjusted < level

    def row(self, confidence: float, level: float, layers: Sequence[int]) -> dict[str, Any]:
        """As `PhaseResult.edges` has it."""
        low, high = interval(self.draws, self.n_clusters, confidence, layers)
        return {
            "kind": self.kind,
            "edge": self.edge,
            "basis": self.basis,
            "value": self.value,
            "low": low,
            "high": high,
            "before": self.before,
            "after": self.after,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "gradual": self.gradual,
            "found": self.found(level),
            "n": self.n,
            "n_clusters": self.n_clusters,
        }


def boundaries(
    curves: Curves, here: np.ndarray, clusters: np.ndarray, draw: Draws
) -> list[Boundary]:
    """Every kind's boundary, with p values adjusted within each edge."""
    excess = curves.excess
    found = [
        step
        for kind, values in zip(curves.kinds, excess, strict=True)
        if (step := _one(kind, np.where(here[:, None], values, np.nan), curves, clusters, draw))
    ]
    # What is changed and what is read off are adjusted apart: the one decides without the other.
    groups: dict[tuple[str, str], list[Boundary]] = {}
    for step in found:
        groups.setdefault((step.edge, step.basis), []).append(step)
    adjusted = {
        step.kind: p
        for mine in groups.values()
        for step, p in zip(mine, _adjusted(mine), strict=True)
    }
    return [replace(step, p_adjusted=adjusted[step.kind]) for step in found]


def _one(
    kind: str, values: np.ndarray, curves: Curves, clusters: np.ndarray, draw: Draws
) -> Boundary | None:
    # A prompt counts with its whole curve, or not at all.
    whole = np.asarray(np.isfinite(values).all(axis=1))
    if not whole.any():
        return None
    rises = KINDS[kind].rises
    n_clusters = draw.weights.shape[1]
    # Clusters without a whole prompt stay in, empty: signs and weights are of all of them.
    sums = ClusterSums.of(np.where(whole[:, None], values, np.nan), clusters, n_clusters)
    mean = sums.mean()
    (at,), _ = best_step(mean[None], rises=rises)
    resampled = sums.draws(draw.weights)
    drawn = np.isfinite(resampled).all(axis=1)
    places = np.full(len(resampled), np.nan)
    where, size = best_step(resampled[drawn], rises=rises)
    layers = np.array(curves.layers, dtype=float)
    # -1 (no step) reads the last layer here, and is thrown away.
    places[drawn] = np.where(where > 0, layers[where], np.nan)
    before, after = levels(mean, int(at)) if at > 0 else (float("nan"), float("nan"))
    # Where there is no step in the expected direction, its size is 0.
    lines = best_line(resampled[drawn], layers) >= size * (1 - 1e-9)
    null, p = None, float("nan")
    if KINDS[kind].basis != "untested":
        _, null = best_step(sums.flipped(draw.signs), rises=rises)
        p = float(_ranks(null)[0])
    return Boundary(
        kind=kind,
        value=float(layers[at]) if at > 0 else float("nan"),
        draws=places,
        before=before,
        after=after,
        null=null,
        gradual=float(lines.mean()) if len(lines) else float("nan"),
        p=p,
        p_adjusted=float("nan"),
        n=int(whole.sum()),
        n_clusters=sums.whole,
    )


def _ranks(null: np.ndarray) -> np.ndarray:
    """For each flip the share of flips whose step is as large, rounding aside."""
    order = np.sort(null)
    # Flips from the first equal one on, itself among them: never 0.
    return 1 - np.searchsorted(order, null * (1 - 1e-9), side="left") / len(null)


def _adjusted(steps: Sequence[Boundary]) -> list[float]:
    """Single-step min-p over kinds: the flips are shared, so their dependence is kept."""
    nulls = [s.null for s in steps if s.null is not None]
    if not nulls:
        return [float("nan")] * len(steps)
    # [kind, flip]: ranks, as kinds in nats, logits and shares have no common size.
    ranks = np.stack([_ranks(null) for null in nulls])
    least = ranks.min(axis=0)
    # Column 0 is the curves as they are. Its best rank must hold against each flip's best.
    return [float((least <= rank * (1 + 1e-9)).mean()) for rank in ranks[:, 0]]


def interval(
    draws: Float[np.ndarray, " draw"], n_clusters: int, confidence: float, layers: Sequence[int]
) -> tuple[float, float]:
    """Of a boundary, which may lie anywhere after the last layer that was looked at before it."""
    low, high = jumping(draws, clusters=n_clusters, confidence=confidence)
    # Found at a layer, the boundary may be at any that was skipped just before it.
    below = max((layer for layer in layers if layer < low), default=None)
    return (low if below is None else min(low, below + 1.0)), high
