"""Steering vectors: from one language's states to another's, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine.interventions import Intervention, add
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.models import HookedModel
from xlens.results import Result, analysed
from xlens.stats import generator

METHODS = {
    "mean_difference": "mean of the paired differences",
    "pca": "first singular vector of the paired differences, as long as their mean along it",
    "pca_centred": "first principal component of the paired differences, as long as their spread",
    "lda": "Fisher's direction between the languages, as long as the mean difference along it",
}


@dataclass(frozen=True, kw_only=True)
class SteeringVectors(Result):
    """A vector per layer, to be added to the residual stream.

    Attributes:
        vectors: Raw basis, in the stream's own units.
        layers: Residual points of the rows.
        source: The language that is left.
        target: The language that is gone to.
        method: One of `METHODS`, or the name of a control.
        agreement: For each layer, the share of the pairs whose difference points the vector's way.
            Pairs the vector was estimated from: the shuffled control shows how much of that any
            vector gets.
        slot: What the vectors were estimated at.
        fingerprint: Of the model.
    """

    vectors: Float[np.ndarray, "layer d_model"]
    layers: tuple[int, ...]
    source: str
    target: str
    method: str
    agreement: Float[np.ndarray, " layer"]
    slot: str
    fingerprint: str

    @property
    def norms(self) -> Float[np.ndarray, " layer"]:
        """Length of each vector."""
        return np.linalg.norm(self.vectors, axis=1)

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: `layer norm agreement`."""
        return pd.DataFrame(
            {"layer": list(self.layers), "norm": self.norms, "agreement": self.agreement}
        )

    def unit(self) -> "SteeringVectors":
        """The same directions with length 1; strengths are then in the stream's own units.

        Raises:
            ValueError: a vector of length 0.
        """
        if not (self.norms > 0).all():
            at = self.layers[int(np.flatnonzero(self.norms == 0)[0])]
            raise InputError(f"The vector at layer {at} has length 0 and so no direction.")
        return replace(self, vectors=self.vectors / self.norms[:, None])

    def random(self, *, seed: int = 0) -> "SteeringVectors":
        """The control: random directions of the same length at every layer."""
        drawn = generator(seed).normal(size=self.vectors.shape)
        drawn *= (self.norms / np.linalg.norm(drawn, axis=1))[:, None]
        return replace(
            self,
            vectors=drawn.astype(self.vectors.dtype),
            method="random direction of equal norm",
            agreement=np.full(len(self.layers), np.nan),
        )

    def interventions(
        self,
        model: HookedModel,
        *,
        strength: float = 1.0,
        layers: Sequence[int] | int | None = None,
        slot: str = "all",
    ) -> list[Intervention]:
        """What `harvest`, `score` and `generate` take: `resid += strength * vector`.

        A raw mean difference of strength 1 moves the source's mean onto the target's where it is
        added at a single layer; at several layers the pushes add up.

        Args:
            model: The one they were estimated on.
            strength: γ; negative ones push the other way.
            layers: Some of the vectors' layers; None: all.
            slot: `last`, `all`, `generated` or a span's.

        Raises:
            ValueError: another model, or a layer without a vector.
        """
        require_model(self.fingerprint, model)
        asked = chosen_layers(self.layers, layers)
        rows = self.vectors[[self.layers.index(layer) for layer in asked]]
        # [1, layer, d_model]: the same for every prompt.
        return [add(rows[None], layers=asked, slot=slot, strength=strength)]


@typed
def steering_vectors(
    activations: Activations,
    source: str,
    target: str,
    *,
    method: str = "mean_difference",
    slot: str | None = None,
    shuffled: int | None = None,
) -> SteeringVectors:
    """Estimate vectors that lead from one language's states to another's.

    With paired states `d_i = h_i(target) - h_i(source)`: their mean, or their first singular
    vector; or Fisher's direction between the two languages' states, with shrinkage, as CLaS-Bench
    (arXiv 2601.08331) has it in another form. The mean difference towards English is what arXiv
    2505.13141 is said to use; the others are our reading.

    Args:
        activations: Parallel prompts in both languages; a slot of one position per prompt.
        source: The language to leave.
        target: The language to go to.
        method: See `METHODS`.
        slot: Which of the slots; None where there is one.
        shuffled: The control, with this seed: which language is which is drawn for each pair anew.

    Raises:
        ValueError: an unknown method, language or slot, a slot of several positions, items that one
            of the languages lacks or has twice, fewer than two pairs.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r}; accepted are {', '.join(map(repr, METHODS))}.")
    if slot is None and len(activations.slots) > 1:
        raise InputError(f"There are several slots, {list(activations.slots)}: choose with slot=.")
    name = next(iter(activations.slots)) if slot is None else slot
    one = activations.slot(name)
    if len(one.positions) != len(activations):
        raise InputError(
            f"Slot {name!r} keeps several positions per prompt; steering vectors are estimated "
            "from one state each: use 'last', or NAME:first, NAME:last, NAME:mean."
        )
    source, target = standardize(source), standardize(target)
    here, there = _rows(activations, source), _rows(activations, target)
    if source == target or set(here) != set(there) or len(here) < 2:
        only = sorted(set(here) ^ set(there))
        raise DataError(
            f"{source} has {len(here)} items and {target} {len(there)}"
            + (f"; {len(only)} are in one alone, first {only[0]!r}" if only else "")
            + ". Two different languages with at least two parallel items are needed: select the "
            "items that both have."
        )
    states = one.values.double().numpy()
    # [layer, pair, d_model] both, paired by id and not by row.
    left, gained = states[:, list(here.values())], states[:, [there[id] for id in here]]
    if shuffled is not None:
        # One coin for each pair, the same at all layers: a pair is turned round as a whole.
        same = generator(shuffled).random((1, len(here), 1)) < 0.5
        left, gained = np.where(same, left, gained), np.where(same, gained, left)
    apart = gained - left
    vectors = np.stack([_direction(a, b, method) for a, b in zip(gained, left, strict=True)])
    along = np.einsum("lnd,ld->ln", apart, vectors)
    return SteeringVectors(
        provenance=analysed(
            activations.provenance, "steering", {"n_pairs": len(here), "shuffled": shuffled}
        ),
        vectors=vectors.astype(np.float32),
        layers=activations.layers,
        source=source,
        target=target,
        method=method if shuffled is None else f"{method}, languages shuffled",
        agreement=(along > 0).mean(1),
        slot=name,
        fingerprint=activations.fingerprint,
    )


def _rows(activations: Activations, language: str) -> dict[str, int]:
    meta = activations.meta
    mine = meta.index[meta["language"] == language]
    ids = [str(meta["id"][i]) for i in mine]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise InputError(f"Item {twice!r} occurs twice in {language}; pairs are made by id.")
    return dict(zip(ids, map(int, mine), strict=True))


def require_model(fingerprint: str, model: HookedModel) -> None:
    """Refuse to steer another model than the one that the states were of."""
    if model.fingerprint != fingerprint:
        raise InputError(
            f"These vectors are of another model ({fingerprint[:12]}…) than {model.name} "
            f"({model.fingerprint[:12]}…): estimate them on the model that is steered."
        )


def chosen_layers(there: Sequence[int], asked: Sequence[int] | int | None) -> list[int]:
    """Layers that are asked for, out of those that there are; None: all."""
    chosen = [asked] if isinstance(asked, int) else list(there if asked is None else asked)
    if lacking := [layer for layer in chosen if layer not in there]:
        raise InputError(f"There are no vectors at layers {lacking}; only at {tuple(there)}.")
    if not chosen:
        raise InputError(f"layers is empty; give some of {tuple(there)}.")
    return chosen


def _direction(
    there: Float[np.ndarray, "pair d_model"], here: Float[np.ndarray, "pair d_model"], method: str
) -> Float[np.ndarray, " d_model"]:
    apart = there - here
    mean = apart.mean(0)
    if method == "mean_difference":
        return mean
    if method == "lda":
        axis = _fisher(there, here)
        # The mean's projection on the axis, so it doesn't matter which sign the axis came with.
        return axis * (axis @ mean)
    # Not centred, the first singular vector is about the mean;
    # centred, it is how pairs differ from it.
    middle = mean if method == "pca_centred" else np.zeros_like(mean)
    _, sizes, right = np.linalg.svd(apart - middle, full_matrices=False)
    axis = right[0]
    if method == "pca":
        return axis * (axis @ mean)
    # About the mean there is no side that is the target's: the one nearer the mean is taken.
    sign = 1.0 if axis @ mean >= 0 else -1.0
    # The singular value over √n is the standard deviation along the axis.
    return sign * axis * sizes[0] / np.sqrt(len(apart))


def _fisher(
    there: Float[np.ndarray, "pair d_model"], here: Float[np.ndarray, "pair d_model"]
) -> Float[np.ndarray, " d_model"]:
    """`S_w^-1 (mean - mean)`, one long; the covariance shrunk after Ledoit and Wolf."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labels = np.repeat([1, 0], [len(there), len(here)])
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
        np.concatenate([there, here]), labels
    )
    # Of two classes scikit-learn keeps one row, towards label 1: `there`.
    axis = fitted.coef_[0]
    size = np.linalg.norm(axis)
    return axis / size if size > 0 else axis
