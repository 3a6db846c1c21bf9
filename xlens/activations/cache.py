"""States as TransformerLens caches them: tensors by the names of its hooks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from xlens.activations.slots import SlotValues
from xlens.errors import InputError
from xlens.sites import has_heads, hook_name

_MOST_LAYERS = 1_000  # more than any model has


def cached(
    rows: Float[Tensor, "layer row d_model"],
    layers: Sequence[int],
    site: str,
    n_heads: int | None,
) -> Any:
    """Rows of one prompt as a `transformer_lens.ActivationCache` (batch of one).

    Raises:
        ValueError: a site that has no name there.
    """
    from transformer_lens import ActivationCache

    states = rows.unsqueeze(1)
    if n_heads is not None:
        states = rearrange(states, "l b pos (head d) -> l b pos head d", head=n_heads)
    named = {hook_name(site, n): states[i] for i, n in enumerate(layers)}
    return ActivationCache(named, model=None)


def uncached(
    cache: Mapping[str, Tensor], lengths: Sequence[int], site: str
) -> tuple[SlotValues, tuple[int, ...], int | None]:
    """The slot `all` of prompts of these lengths, its layers, and how many heads `z` has.

    Raises:
        ValueError: nothing of that site there, or another number of prompts.
    """
    names = {hook_name(site, layer): layer for layer in range(_MOST_LAYERS)}
    layers = tuple(sorted(names[name] for name in cache if name in names))
    if not layers:
        raise InputError(f"The cache holds nothing of site {site!r}: {sorted(cache)[:5]} ...")
    states = torch.stack([cache[hook_name(site, layer)] for layer in layers])
    n_heads = states.shape[3] if has_heads(site) else None
    if n_heads is not None:
        states = rearrange(states, "l b pos head d -> l b pos (head d)")
    if states.shape[1] != len(lengths) or max(lengths) > states.shape[2]:
        raise InputError(
            f"The cache holds {states.shape[1]} prompts of {states.shape[2]} places; meta has "
            f"{len(lengths)} of up to {max(lengths)} tokens."
        )
    kept = SlotValues(
        values=torch.cat([states[:, i, :n] for i, n in enumerate(lengths)], dim=1),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        positions=torch.cat([torch.arange(n) for n in lengths]),
    )
    return kept, layers, n_heads
