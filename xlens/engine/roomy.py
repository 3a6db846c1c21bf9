"""Keys and values with room for what follows: a step writes its own, and copies nothing."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor


def roomy(layers: Sequence[Any], firsts: Sequence[int], width: int, room: int) -> Any:
    """Layers of caches as one, their ends side by side, with free places behind what they hold.

    The cache that transformers grows copies all of it at every token; its static one computes over
    all places that will ever be. This one shows what is held of memory that was taken once.

    Args:
        layers: Of the kind `DynamicLayer`, one after another in the batch.
        firsts: Of each, the places before which are not taken over.
        width: Places that are held; zeros before what is taken over.
        room: Places to be free.
    """
    return _kind()(layers, firsts, width, room)


@cache
def _kind() -> type[Any]:
    from transformers.cache_utils import DynamicLayer

    class Roomy(DynamicLayer):
        def __init__(
            self, layers: Sequence[Any], firsts: Sequence[int], width: int, room: int
        ) -> None:
            super().__init__()
            self.lazy_initialization(layers[0].keys, layers[0].values)
            keys = [layer.keys[:, :, a:] for layer, a in zip(layers, firsts, strict=True)]
            values = [layer.values[:, :, a:] for layer, a in zip(layers, firsts, strict=True)]
            self.places = tuple(_side_by_side(parts, width, room) for parts in (keys, values))
            self.show(width)

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


def _side_by_side(parts: Sequence[Tensor], width: int, room: int) -> Tensor:
    rows = sum(map(len, parts))
    _, heads, _, size = parts[0].shape
    places, first = parts[0].new_zeros(rows, heads, width + room, size), 0
    for part in parts:
        places[first : first + len(part), :, width - part.shape[2] : width] = part
        first += len(part)
    return places
