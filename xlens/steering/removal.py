"""Removing what the stream has of a subspace, by strength, over a band of layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.engine.interventions import Intervention, project_out
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.results import Result
from xlens.stats import generator
from xlens.steering.vectors import chosen_layers, require_model


@dataclass(frozen=True, kw_only=True)
class SubspaceRemoval(Result):
    """A subspace per layer, to be taken out of the residual stream.

    As in arXiv 2505.15257 and its code: `resid -= λ M M^T resid` with λ > 0 in some layers, and
    λ < 0, which puts more of it in, in others. There, M comes from LSAR: here from whatever was
    fitted.

    Attributes:
        bases: Orthonormal rows by layer; raw basis.
        layers: Residual points.
        method: What found the subspace.
        source: The language that is left; `*` where the subspace is of several.
        fingerprint: Of the model.
    """

    bases: Float[np.ndarray, "layer rank d_model"]
    layers: tuple[int, ...]
    method: str
    source: str
    fingerprint: str

    @classmethod
    def of(
        cls,
        bases: Mapping[int, Float[np.ndarray, "rank d_model"]],
        *,
        fingerprint: str,
        method: str,
        source: str = "*",
    ) -> "SubspaceRemoval":
        """From each layer's basis, such as `{n: subspaces[n].components_ for n in layers}`.

        Raises:
            ValueError: no bases, or bases of unequal shapes or dependent rows.
        """
        shapes = {np.shape(basis) for basis in bases.values()}
        if len(shapes) != 1 or any(len(shape) != 2 or not all(shape) for shape in shapes):
            raise InputError(
                f"The bases have the shapes {sorted(shapes)}; one shape [rank, d_model] is needed "
                "for all layers."
            )
        # Columns of Q span the basis' rows; a small number on R's diagonal says that a
        # row is nearly a sum of those before it.
        rows = {n: np.linalg.qr(np.asarray(basis, float).T) for n, basis in bases.items()}
        for layer, (_, triangle) in rows.items():
            sizes = np.abs(np.diag(triangle))
            if sizes.min() <= 1e-6 * sizes.max():
                raise InputError(f"The rows of the basis at layer {layer} depend on each other.")
        layers = tuple(sorted(rows))
        return cls(
            provenance={},
            bases=np.stack([rows[n][0].T for n in layers]).astype(np.float32),
            layers=layers,
            method=method,
            source=source,
            fingerprint=fingerprint,
        )

    @property
    def rank(self) -> int:
        """Dimensions that are taken out."""
        return self.bases.shape[1]

    def to_frame(self) -> pd.DataFrame:
        """One row per layer: `layer rank`."""
        return pd.DataFrame({"layer": list(self.layers), "rank": self.rank})

    def random(self, *, seed: int = 0) -> "SubspaceRemoval":
        """The control: random subspaces of the same rank."""
        drawn = generator(seed).normal(size=self.bases.shape)
        bases = np.stack([np.linalg.qr(basis.T)[0].T for basis in drawn])
        return replace(self, bases=bases.astype(np.float32), method="random subspace of equal rank")

    def interventions(
        self,
        model: HookedModel,
        *,
        strength: float = 1.0,
        layers: Sequence[int] | int | None = None,
        slot: str = "all",
    ) -> list[Intervention]:
        """What `harvest`, `score` and `generate` take: `resid -= strength * M M^T resid`.

        Args:
            model: The one whose states the subspace was fitted on.
            strength: λ: 1 takes all of it out, -1 doubles it.
            layers: Some of the layers (a band); None: all.
            slot: `last`, `all`, `generated` or a span's.

        Raises:
            ValueError: another model, or a layer without a basis.
        """
        require_model(self.fingerprint, model)
        return [
            project_out(self.bases[self.layers.index(n)], layers=n, slot=slot, strength=strength)
            for n in chosen_layers(self.layers, layers)
        ]
