"""The states of one slot: what is kept of the position axis."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SlotValues:
    """One slot's states.

    Attributes:
        values: `[layer, row, d_model]`, raw basis.
        offsets: Rows of prompt i are `offsets[i]:offsets[i+1]`.
        positions: Token position of each row; -1 for means.
    """

    values: Float[Tensor, "layer row d_model"]
    offsets: Int[Tensor, " prompts_1"]
    positions: Int[Tensor, " row"]

    @property
    def dense(self) -> bool:
        """Whether every prompt has exactly one row."""
        return bool((self.offsets.diff() == 1).all())
