"""Lenses: what carries a state from where it is to where the final norm and the unembedding read.

A lens is affine at each residual point. `LogitLens` carries nothing (arXiv 2402.10588 and before);
`TunedLens` has learned to, point by point (arXiv 2303.08112); `JacobianLens` by the mean Jacobian
of the last point (Gurnee et al. 2026, transformer-circuits.pub/2026/workspace). The last point is
read as it is under each of them: that is the model's output.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens._renamed import renamed
from xlens.checks import typed
from xlens.engine.transport import Carry
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.results import Result


class Lens(ABC):
    """Carries states of residual points to the last one's basis, where they are read."""

    kind: ClassVar[str]
    """`logit`, `tuned` or `jacobian`."""

    @property
    @abstractmethod
    def key(self) -> str | None:
        """What a store tells its readings by; None: they are read as they are."""

    @abstractmethod
    def readable(self, layers: Sequence[int], model: HookedModel) -> tuple[int, ...]:
        """Those of a model's points that the lens has.

        Raises:
            ValueError: it has none of them, or is another model's.
        """

    @abstractmethod
    def over(self, layers: Sequence[int]) -> Carry | None:
        """What carries the states of these points, on whatever device they lie; None: nothing."""

    @abstractmethod
    def back(self, along: Float[Tensor, "row d_model"], layer: int) -> Float[Tensor, "row d_model"]:
        """The directions at a point that come to lie along these where states are read."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What results say of it."""


@dataclass(frozen=True)
class LogitLens(Lens):
    """States are read as they are."""

    kind: ClassVar[str] = "logit"

    @property
    def key(self) -> None:
        """None: nothing is carried."""

    def readable(self, layers: Sequence[int], model: HookedModel) -> tuple[int, ...]:
        """All of them."""
        return tuple(layers)

    def over(self, layers: Sequence[int]) -> None:
        """Nothing."""

    def back(self, along: Float[Tensor, "row d_model"], layer: int) -> Float[Tensor, "row d_model"]:
        """They are the same."""
        return along

    def described(self) -> dict[str, Any]:
        """Its kind."""
        return {"kind": self.kind}


LOGIT = LogitLens()
"""The usual."""


@renamed(points="layers")
@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLens(Result, Lens):
    """A lens with a matrix for each point: `h -> matrix @ h + offset`.

    Attributes:
        matrices: `[point, d_model, d_model]`, fp32.
        offsets: `[point, d_model]`, or empty: there are none.
        layers: Which residual points they are of, ascending.
        n_layers: Of the model: point `n_layers`, the last, is read as it is.
        n_prompts: How many texts it was fitted on; 0 where that isn't known.
        languages: Of these texts; empty where they aren't known.
        text: Digest of the texts; empty where they aren't known.
        fingerprint: Of the model that it was fitted on; empty where that isn't known: then
            whether it belongs to a model is only checked by what it reads (`xlens.lens.agreement`).
    """

    matrices: Float[np.ndarray, "point d_model d_model"]
    offsets: Float[np.ndarray, "..."]
    layers: tuple[int, ...]
    n_layers: int
    n_prompts: int = 0
    languages: tuple[str, ...] = ()
    text: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        n, d = self.matrices.shape[:2]
        whole = self.offsets.shape in ((0,), (n, d)) and self.matrices.shape == (n, d, d)
        ascending = list(self.layers) == sorted(set(self.layers)) and len(self.layers) == n
        if not n or not whole or not ascending or not 0 <= self.layers[0] <= self.layers[-1]:
            raise InputError(
                f"A lens needs a square matrix for each of its points: got matrices of shape "
                f"{self.matrices.shape}, offsets of {self.offsets.shape} and layers {self.layers}."
            )
        if self.layers[-1] >= self.n_layers:
            raise InputError(
                f"A lens of {self.n_layers} layers carries points 0 to {self.n_layers - 1}; got "
                f"{self.layers[-1]}."
            )
        if not (np.isfinite(self.matrices).all() and np.isfinite(self.offsets).all()):
            raise InputError("A lens of numbers that are not finite reads nothing; fit it anew.")

    def __repr__(self) -> str:
        of = f" on {self.n_prompts} texts ({', '.join(self.languages)})" if self.n_prompts else ""
        return (
            f"{type(self).__name__}(points {self.layers[0]}..{self.layers[-1]} of {self.n_layers}, "
            f"d_model={self.d_model}{of})"
        )

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return self.matrices.shape[1]

    @property
    def key(self) -> str:
        """Digest of all that is carried by."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        hashed = blake2b(digest_size=16)
        for array in (self.matrices, self.offsets, np.array(self.layers)):
            hashed.update(np.ascontiguousarray(array).tobytes())
        return f"{self.kind}:{hashed.hexdigest()}"

    @typed
    def readable(self, layers: Sequence[int], model: HookedModel) -> tuple[int, ...]:
        """Those of a model's points that the lens has, and the last.

        Raises:
            ValueError: another model's, as far as that can be told, or none of the points.
        """
        self.require(model)
        found = tuple(n for n in layers if n in self.layers or n == self.n_layers)
        if not found:
            raise InputError(
                f"This {self.kind} lens has no matrix for {list(layers)}: it has points "
                f"{self.layers[0]} to {self.layers[-1]}, and the last, {self.n_layers}, is read as "
                "it is. Published Jacobian lenses lack point 0, the embedding: fit your own "
                "(xlens fit-lens)."
            )
        return found

    @typed
    def require(self, model: HookedModel) -> None:
        """See that it is this model's, as far as that can be told.

        Raises:
            ValueError: other weights, or another size.
        """
        if (self.n_layers, self.d_model) != (model.n_layers, model.d_model):
            raise InputError(
                f"This {self.kind} lens is of a model with {self.n_layers} layers of "
                f"{self.d_model}; {model.name} has {model.n_layers} of {model.d_model}. Fit one on "
                "this model: xlens fit-lens."
            )
        if self.fingerprint and self.fingerprint != model.fingerprint:
            raise InputError(
                f"This {self.kind} lens was fitted on other weights "
                f"({self.provenance.get('model')}, fingerprint {self.fingerprint[:12]}) than those "
                f"of {model.name} ({model.fingerprint[:12]}). Fit one on these, or read with the "
                "model that it was fitted on."
            )

    @typed
    def over(self, layers: Sequence[int]) -> Carry:
        """What carries the states of these points; the last is left as it is.

        Raises:
            ValueError: a point that the lens lacks.
        """
        if lacking := [n for n in layers if n not in self.layers and n != self.n_layers]:
            raise InputError(f"This {self.kind} lens has no matrix for points {lacking}.")
        carried = [i for i, n in enumerate(layers) if n != self.n_layers]
        at = [self.layers.index(layers[i]) for i in carried]
        kept: dict[torch.device, tuple[Tensor, Tensor | None]] = {}

        def carry(resid: Float[Tensor, "layer row d_model"]) -> Float[Tensor, "layer row d_model"]:
            if resid.device not in kept:  # moved once, used for every tile
                shift = None
                if self.offsets.size:
                    shift = torch.from_numpy(self.offsets[at]).to(resid.device).unsqueeze(1)
                kept[resid.device] = torch.from_numpy(self.matrices[at]).to(resid.device), shift
            matrices, shift = kept[resid.device]
            out = resid.float().clone()
            moved = torch.bmm(out[carried], matrices.mT)
            out[carried] = moved if shift is None else moved + shift
            return out

        return carry

    def back(self, along: Float[Tensor, "row d_model"], layer: int) -> Float[Tensor, "row d_model"]:
        """By the transposed matrix.

        Raises:
            ValueError: a point that the lens lacks.
        """
        if layer == self.n_layers:
            return along
        if layer not in self.layers:
            raise InputError(f"This {self.kind} lens has no matrix for point {layer}.")
        return along @ torch.from_numpy(self.matrices[self.layers.index(layer)]).to(along.device)

    def described(self) -> dict[str, Any]:
        """Its kind, what it was fitted on, and its digest."""
        return {
            "kind": self.kind,
            "key": self.key,
            "layers": list(self.layers),
            "n_prompts": self.n_prompts,
            "languages": list(self.languages),
            "text": self.text,
            "fitted_on": self.provenance.get("model") if self.fingerprint else "unknown",
        }

    def to_frame(self) -> pd.DataFrame:
        """`layer norm distance`: of each matrix, and how far it is from doing nothing, over √d."""
        eye = np.eye(self.d_model)
        scale = np.sqrt(self.d_model)
        return pd.DataFrame(
            {
                "layer": self.layers,
                "norm": [float(np.linalg.norm(m) / scale) for m in self.matrices],
                "distance": [float(np.linalg.norm(m - eye) / scale) for m in self.matrices],
            }
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JacobianLens(FittedLens):
    """`J_l h`: how the last point follows point l, on average over a corpus.

    Attributes:
        estimator: `jacobian_lens`, or with which part of the rows each text gave
            (`jacobian_lens rows/16`): estimates of different kinds are not to be mixed.
    """

    kind: ClassVar[str] = "jacobian"
    estimator: str = "jacobian_lens"

    def described(self) -> dict[str, Any]:
        """As `FittedLens.described`, with the estimator."""
        return {**super().described(), "estimator": self.estimator}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TunedLens(FittedLens):
    """`A_l h + b_l`, trained so that what is read at l is what the model says in the end.

    Attributes:
        training: `layer step kl`: bits on the texts that were held out; empty where not known. Step
            -1 is the logit lens, 0 what training began with.
    """

    kind: ClassVar[str] = "tuned"
    training: pd.DataFrame


@typed
def pooled(lenses: Sequence[JacobianLens]) -> JacobianLens:
    """The Jacobian lens of several languages' texts: each counts by the number of its texts.

    Raises:
        ValueError: none, or lenses of different models, points or estimators.
    """
    if not lenses:
        raise InputError("No lenses to pool.")
    first = lenses[0]
    for name in ("fingerprint", "layers", "n_layers", "d_model", "estimator"):
        mine, theirs = getattr(first, name), [getattr(lens, name) for lens in lenses]
        if other := [value for value in theirs if value != mine]:
            raise InputError(
                f"Only lenses of one {name} can be pooled; got {mine!r} and {other[0]!r}."
            )
    if len(lenses) > 1 and (not first.fingerprint or not all(lens.n_prompts for lens in lenses)):
        raise InputError(
            "Lenses of unknown origin can't be pooled: what model and how many texts they are of "
            "isn't known."
        )
    shares = np.array([lens.n_prompts or 1 for lens in lenses], dtype=float)
    mean = np.average([lens.matrices for lens in lenses], axis=0, weights=shares)
    return JacobianLens(
        provenance=first.provenance,
        matrices=mean.astype(np.float32),
        offsets=first.offsets,
        layers=first.layers,
        n_layers=first.n_layers,
        n_prompts=sum(lens.n_prompts for lens in lenses),
        languages=tuple(dict.fromkeys(tag for lens in lenses for tag in lens.languages)),
        text=blake2b("".join(lens.text for lens in lenses).encode(), digest_size=16).hexdigest(),
        fingerprint=first.fingerprint,
        estimator=first.estimator,
    )
