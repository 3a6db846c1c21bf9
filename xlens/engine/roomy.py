"""Keys and values with room for what follows: a step writes its own, and copies nothing."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


def roomy(layer: Any, room: int) -> Any:
    """A layer of a cache with free places behind what it holds.

    The cache that transformers grows copies all of it at every token; its static one computes over
    all places that will ever be. This one shows what is held of memory that was taken once.

    Args:
        layer: A `DynamicLayer`.
        room: Places to be free.
    """
    return _kind()(layer, room)


@cache
def _kind() -> type[Any]:
    from transformers.cache_utils import DynamicLayer

    class Roomy(DynamicLayer):
        def __init__(self, layer: Any, room: int) -> None:
            super().__init__()
            self.lazy_initialization(layer.keys, layer.values)
            self.places = tuple(
                torch.cat([kept, kept.new_zeros(*kept.shape[:2], room, kept.shape[3])], dim=2)
                for kept in (layer.keys, layer.values)
            )
            self.show(layer.keys.shape[2])

        def update(
            self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            first = self.get_seq_length()
            for places, new in zip(self.places, (key_states, value_states), strict=True):
                places[:, :, first : first + new.shape[2]] = new
            return self.show(first + key_states.shape[2])

        def batch_select_indices(self, indices: Tensor) -> None:
            held, chosen = self.get_seq_length(), indices.to(self.places[0].device)
            self.places = tuple(places[chosen] for places in self.places)
            self.show(held)

        def show(self, held: int) -> tuple[Tensor, Tensor]:
            self.keys, self.values = (places[:, :, :held] for places in self.places)
            return self.keys, self.values

    return Roomy
