"""Passes that gradients go back through: what all of them have in common."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xlens.engine.forward import takes_positions
from xlens.engine.plan import Tokens, plan
from xlens.engine.positions import labels
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.hooks import Keep, residual


def in_passes(
    model: HookedModel, sequences: Sequence[Tokens], some: Sequence[int], budget: int
) -> list[tuple[int, ...]]:
    """Some of the sequences by number, in passes of at most `budget` tokens; nothing is shared."""
    chosen = [sequences[i] for i in some]
    batches = plan(chosen, budget, share=False, apart=labels(model, list(map(len, chosen))))
    return [tuple(some[m] for m in batch.members) for batch in batches]


def body_pass(
    model: HookedModel, sequences: Sequence[Sequence[int]], *, first: int = 0, cache: Any = None
) -> None:
    """One pass without a mask, from position `first` on.

    Padding stands to the right of every real token of a causal model: nothing looks at it, so it
    needs no mask, whatever id it has. With one, a padded query behind a sliding window would look
    at nothing, and what it computes, NaN in some kernels, would spoil the gradients.
    """
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    inputs: dict[str, Any] = {"input_ids": ids.to(model.device)}
    if takes_positions(type(model.body)):
        at = torch.arange(first, first + width).expand(ids.shape)
        inputs["position_ids"] = at.to(model.device)
    model.body(**inputs, past_key_values=cache, use_cache=cache is not None)


def traced(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    points: Sequence[int],
    *,
    first: int = 0,
    cache: Any = None,
) -> dict[int, Tensor]:
    """The stream at residual points and at the last, as a graph that begins at the lowest.

    It ends below the head.

    Raises:
        ValueError: the pass never came by a point.
    """
    states: dict[int, Tensor] = {}

    def caught(point: int, resid: Tensor) -> Tensor:
        states[point] = resid.detach().requires_grad_() if point == min(points) else resid
        return states[point]

    _through(model, sequences, points, caught, first, cache)
    _require_all(model, points, states)
    return states


def parted(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    lowest: int,
    *,
    first: int = 0,
    cache: Any = None,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """As `traced`, with a graph of its own from each point, the lowest and on, to the next.

    Returns:
        Where the graphs begin, and where they end, by point.

    Raises:
        ValueError: the pass never came by a point.
    """
    begins: dict[int, Tensor] = {}
    ends: dict[int, Tensor] = {}

    def caught(point: int, resid: Tensor) -> Tensor | None:
        ends[point] = resid
        if point == model.n_layers:
            return None
        begins[point] = resid.detach().requires_grad_()
        return begins[point]

    points = range(lowest, model.n_layers)
    _through(model, sequences, points, caught, first, cache)
    _require_all(model, points, ends)
    return begins, ends


def _through(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    points: Sequence[int],
    keep: Keep,
    first: int,
    cache: Any,
) -> None:
    with torch.enable_grad(), residual(model.blocks, sorted({*points, model.n_layers}), keep):
        body_pass(model, sequences, first=first, cache=cache)


def _require_all(model: HookedModel, points: Sequence[int], came: Mapping[int, Tensor]) -> None:
    if missing := [p for p in (*points, model.n_layers) if p not in came]:
        raise InputError(
            f"The forward pass of {model.name} never came by the residual points {missing}: "
            "something replaced it (torch.compile, fused kernels?). Load it without."
        )


@contextmanager
def weights_constant(model: HookedModel) -> Generator[None]:
    """Inside, no parameter wants a gradient: the graph need not keep what theirs would take."""
    wanting = [p for p in model.hf_model.parameters() if p.requires_grad]
    try:
        for p in wanting:
            p.requires_grad_(False)
        yield
    finally:
        for p in wanting:
            p.requires_grad_(True)
