"""What a lens is to the core: how states are carried to the output's basis before they are read."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from xlens.models import HookedModel

Carry = Callable[[Float[Tensor, "layer row d_model"]], Float[Tensor, "layer row d_model"]]


@runtime_checkable
class Transport(Protocol):
    """Carries states of residual points to where the final norm and the unembedding read."""

    @property
    def key(self) -> str | None:
        """What a store tells its readings by; None: they are read as they are."""
        ...

    def readable(self, layers: Sequence[int], model: HookedModel) -> tuple[int, ...]:
        """Those of a model's points that can be carried.

        Raises:
            ValueError: none can, or the lens is another model's.
        """
        ...

    def over(self, layers: Sequence[int]) -> Carry | None:
        """What carries the states of these points, on whatever device they lie; None: nothing."""
        ...


def kind_of(lens: Transport | None) -> str:
    """What a lens is called (`logit`, `jacobian`, `tuned`), by what its readings are kept by."""
    return "logit" if lens is None or lens.key is None else lens.key.partition(":")[0]
