"""One state per prompt, kept: what two models' states are compared by when both ran long ago."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from xlens.activations import Activations, SlotValues
from xlens.checks import typed
from xlens.results import Result, analysed
from xlens.subspace.states import pool


@dataclass(frozen=True, kw_only=True)
class PooledStates(Result):
    """Pooled states of one model's prompts.

    Attributes:
        values: In the order of `items` and `layers`.
        items: One row per prompt: `id language n_tokens`, and the prompts' meta.
        layers: Residual points.
        pooling: How a prompt became one state (`pool`).
        fingerprint: Of the model.
    """

    values: Float[np.ndarray, "layer prompt d_model"]
    items: pd.DataFrame
    layers: tuple[int, ...]
    pooling: str
    fingerprint: str

    def to_frame(self) -> pd.DataFrame:
        """`items`."""
        return self.items

    def activations(self) -> Activations:
        """As activations with one slot, called like the pooling: for every room that reads them."""
        n = len(self.items)
        slot = SlotValues(
            values=torch.from_numpy(self.values),
            offsets=torch.arange(n + 1),
            positions=torch.full((n,), -1),  # as of means
        )
        return Activations(
            slots={self.pooling: slot},
            layers=self.layers,
            meta=self.items,
            fingerprint=self.fingerprint,
            provenance=dict(self.provenance),
        )


@typed
def pooled_states(activations: Activations, *, pooling: str = "last") -> PooledStates:
    """Keep one state per prompt.

    Args:
        activations: From `harvest`, with a slot that the pooling needs.
        pooling: As for `pool`.

    Raises:
        ValueError: as `pool`.
    """
    return PooledStates(
        provenance=analysed(activations.provenance, "pooled_states", {"pooling": pooling}),
        values=pool(activations, pooling),
        items=activations.meta.drop(columns="tokens", errors="ignore"),
        layers=activations.layers,
        pooling=pooling,
        fingerprint=activations.fingerprint,
    )
