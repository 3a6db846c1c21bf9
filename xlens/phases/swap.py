"""Exchanging the last blocks of two models of one shape."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from xlens.checks import typed
from xlens.engine import harvest
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens
from xlens.phases.effects import SWAPPED, LayerEffects, layer_effects
from xlens.phases.evidence.sweep import read_answers
from xlens.stats import Resampling


@contextmanager
def swapped_blocks(model: HookedModel, other: HookedModel, last: int) -> Generator[None]:
    """`model` with the last blocks' weights of `other` inside; its own are back afterwards, always.

    No weight is copied: parameters point to the other's for the time being.

    Args:
        model: Changed inside.
        other: Of the same shape; stays as it is.
        last: How many blocks, from the top.

    Raises:
        ValueError: blocks of another shape, or more than there are.
    """
    if not 0 <= last <= min(model.n_layers, other.n_layers):
        raise InputError(f"last is {last}; accepted are 0 to {model.n_layers} blocks.")
    pairs: list[tuple[nn.Parameter, torch.Tensor]] = []
    # From the top: models of one shape, but maybe not of as many blocks.
    chosen = zip(model.blocks[::-1][:last], other.blocks[::-1][:last], strict=True)
    for number, (mine, theirs) in enumerate(chosen):
        ours, given = dict(mine.named_parameters()), dict(theirs.named_parameters())
        shapes = [{k: tuple(v.shape) for k, v in x.items()} for x in (ours, given)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"Block {model.n_layers - 1 - number} of {model.name} and of {other.name} differ "
                "in shape; blocks can be swapped between models of one architecture and size."
            )
        pairs += [(ours[k], given[k].data.to(ours[k].device, ours[k].dtype)) for k in ours]
    # All are checked before any is exchanged.
    own = [(parameter, parameter.data) for parameter, _ in pairs]
    try:
        for parameter, data in pairs:
            parameter.data = data
        yield
    finally:
        for parameter, data in own:
            parameter.data = data


@typed
def layer_swap(
    model: HookedModel,
    other: HookedModel,
    asked: Asked,
    *,
    last: Sequence[int] | None = None,
    resampling: Resampling = Resampling(),
    progress: bool = True,
    **harvesting: Any,
) -> LayerEffects:
    """Log-probability of the answers with the other model's last blocks in place.

    Args:
        model: Whose lower blocks, embedding and readout are kept.
        other: Whose last blocks are used.
        asked: Prompts.
        last: Numbers of blocks; None for 0 to all. 0 is always among them: changes are from there.
        resampling: Of the intervals.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Returns:
        `layer` is the number of blocks swapped; `mean` the right answer's log-probability (nats),
        `control` the wrong one's. `change` is what the right answer gains over the same prompt with
        no block swapped, with its interval; `control_change` what the wrong one gains.

    Raises:
        ValueError: models of different shape, or what `harvest` refuses.
    """
    numbers = sorted({0, *(range(model.n_layers + 1) if last is None else last)})
    resampling.codes(asked.meta)
    tokens = answer_tokens(model, asked)
    for number in (numbers[0], numbers[-1]):
        with swapped_blocks(model, other, number):
            pass  # what cannot be swapped is refused before anything runs
    said: list[Float[np.ndarray, "prompt 2"]] = []
    for number in numbers:
        with swapped_blocks(model, other, number):
            # A store can't mix them up: a model's fingerprint sees
            # that its parameters are others now.
            states = harvest(
                model, asked.prompts, layers=model.n_layers, progress=progress, **harvesting
            )
            said.append(read_answers(model, states.slot("last").values, tokens)[:, 0])
    found = np.stack(said, axis=1)
    return layer_effects(
        found[..., 0],
        found[..., 1],
        layers=numbers,
        meta=asked.meta,
        effect=SWAPPED,
        options={},
        n_layers=model.n_layers,
        resampling=resampling,
        provenance={"model": model.provenance(), "other": other.provenance()},
    )
