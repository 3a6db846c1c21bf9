"""Forward passes with hooks on the model's own blocks; nothing above the deepest layer.

Token ids, mask and explicit positions are the whole interface to a model; no tokenizer pads for
us. A plain pass is padded on the right. Shared prefixes are padded on the left and what follows
them on the right, so that every sequence's real tokens stand side by side: sliding windows, which
count places and not positions, see what they would see alone.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from xlens.engine.gather import Seats
from xlens.engine.plan import Batch, Tokens
from xlens.engine.positions import fresh
from xlens.models import HookedModel
from xlens.models.sites import Keep, Point, visiting

Watch = Callable[[Seats], Keep]
# Told which sequences are done, after each pass.
Passed = Callable[[Sequence[int]], None]


@torch.inference_mode()
def run_batch(
    model: HookedModel,
    batch: Batch,
    sequences: Sequence[Tokens],
    layers: Sequence[Point],
    watch: Watch,
    passed: Passed = lambda _: None,
    *,
    below: tuple[Any, ...] = (),
) -> Any:
    """Run one batch of the plan without the language-model head.

    Args:
        model: Runs; its weights, mode and modules are as before afterwards.
        batch: From `plan`.
        sequences: What was planned.
        layers: Residual points, and places inside blocks, to visit.
        watch: Called before each pass with its seats; gives what is called at each point.
        passed: Called after each pass with the sequences that are done by it.
        below: Keys and values of the shared prefixes at the first blocks, where these are skipped.

    Returns:
        Keys and values of the shared prefixes; None without prefixes.
    """
    with model.evaluating(), fresh(model):
        if batch.prefix_tokens == 0:
            for rows in batch.passes:
                _right_padded(model, rows, sequences, layers, watch)
                passed(rows)
            return None
        cache = prefix_pass(model, batch, sequences, layers, watch)
        cache.layers[: len(below)] = below
        going_on = {i for rows in batch.passes for i in rows}
        passed([i for i in batch.members if i not in going_on])
        for rows in batch.passes:
            _rest_pass(model, batch, rows, sequences, layers, watch, cache)
            passed(rows)
        return cache


def _right_padded(
    model: HookedModel,
    rows: Sequence[int],
    sequences: Sequence[Tokens],
    layers: Sequence[Point],
    watch: Watch,
) -> None:
    width = max(len(sequences[i]) for i in rows)
    ids, mask = padded(model, [sequences[i] for i in rows], width)
    positions = torch.arange(width).expand(len(rows), width)
    seats = Seats(width, {i: (b, 0, len(sequences[i]), 0) for b, i in enumerate(rows)})
    forward(model, ids, mask, positions, layers, watch(seats))


def prefix_pass(
    model: HookedModel,
    batch: Batch,
    sequences: Sequence[Tokens],
    layers: Sequence[Point],
    watch: Watch,
) -> Any:
    """Run the beginnings that a batch's groups share, and give their keys and values."""
    from transformers import DynamicCache

    heads = [sequences[g.members[0]][: g.prefix] for g in batch.groups]
    width = max(map(len, heads))
    ids, mask = padded(model, heads, width, left=True)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    seats = {
        m: (b, 0, g.prefix, width - g.prefix) for b, g in enumerate(batch.groups) for m in g.members
    }
    cache = DynamicCache()
    forward(model, ids, mask, positions, layers, watch(Seats(width, seats)), cache)
    return cache


def _rest_pass(
    model: HookedModel,
    batch: Batch,
    rows: Sequence[int],
    sequences: Sequence[Tokens],
    layers: Sequence[Point],
    watch: Watch,
    cache: Any,
) -> None:
    group = {m: (b, g.prefix) for b, g in enumerate(batch.groups) for m in g.members}
    prefixes = torch.tensor([group[i][1] for i in rows])
    ahead = max(g.prefix for g in batch.groups)
    rest = [sequences[i][group[i][1] :] for i in rows]
    width = max(map(len, rest))
    ids, mask = padded(model, rest, width)
    # The prefixes were padded on the left: what is real ends at place `ahead`.
    before = torch.arange(ahead) >= ahead - prefixes.unsqueeze(1)
    # Padding after a long prefix would stand beyond the context: any real position will do for it.
    last = max(len(sequences[i]) for i in rows) - 1
    positions = (prefixes.unsqueeze(1) + torch.arange(width)).clamp_max(last)
    seats = {i: (b, group[i][1], len(rest[b]), 0) for b, i in enumerate(rows)}
    own = rows_of(cache, torch.tensor([group[i][0] for i in rows]))
    full = torch.cat([before.long(), mask], dim=1)
    forward(model, ids, full, positions, layers, watch(Seats(width, seats)), own)


def rows_of(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows of `cache`, which stays as it is."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    own.batch_select_indices(rows)
    return own


def padded(
    model: HookedModel, sequences: Sequence[Tokens], width: int, *, left: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids and mask of equal width, padded on the right or on the left."""
    # Any id will do for padding: it is masked. The tokenizer's own may have no embedding.
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for b, tokens in enumerate(sequences):
        place = slice(width - len(tokens), None) if left else slice(0, len(tokens))
        ids[b, place] = torch.tensor(tokens)
        mask[b, place] = 1
    return ids, mask


def forward(
    model: HookedModel,
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    layers: Sequence[Point],
    keep: Keep,
    cache: Any = None,
) -> None:
    """One pass through the model's body as far as the deepest of `layers`, with `keep` at each."""
    with visiting(model, layers, keep):
        body(model, ids, mask, positions, cache)


def body(model: HookedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> None:
    """One pass through the model's body, whatever is hooked there."""
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask}
    if takes_positions(type(model.body)):
        inputs["position_ids"] = positions
    moved: Mapping[str, Any] = {
        name: tensor.to(model.device, non_blocking=True) for name, tensor in inputs.items()
    }
    fast = model.compiled.inside() if model.compiled and cache is None else nullcontext()
    with fast:
        model.body(**moved, past_key_values=cache, use_cache=cache is not None)


@functools.cache
def takes_positions(body: type[nn.Module]) -> bool:
    """Whether a model's body is told where its tokens stand; looked up once, not at each pass."""
    return "position_ids" in inspect.signature(body.forward).parameters
