"""One forward and one backward pass of a batch, by a rule."""

import inspect
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xlens.engine.positions import fresh
from xlens.engine.rules.patches import applied
from xlens.engine.rules.rule import Rule
from xlens.engine.rules.scalars import Scalar, objective
from xlens.models import HookedModel


class _Top(Exception):  # a signal, not an error
    """Raised after the last block: the head is computed for one position, by `objective`."""


def relevance_pass(
    model: HookedModel,
    prompts: Sequence[Sequence[int]],
    targets: Int[Tensor, " batch"],
    points: Sequence[int],
    *,
    scalar: Scalar,
    rule: Rule,
) -> tuple[Float[Tensor, "layer batch pos"], Float[Tensor, " batch"]]:
    """`sum_d h * dh` at residual points, and the scalars, read at each prompt's last token.

    Sums are fp32 (fp64 for fp64 models), on the CPU; what lies right of a prompt's end is 0.
    """
    length = max(map(len, prompts))
    # Padding stands to the right of every real token of a causal model: nothing looks at it, so it
    # needs no mask, whatever id it has. With one, a padded query behind a sliding window would look
    # at nothing, and what it computes, NaN in some kernels, would spoil the gradients.
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    inputs: dict[str, Any] = {"input_ids": ids}
    if "position_ids" in inspect.signature(model.body.forward).parameters:
        inputs["position_ids"] = torch.arange(length).expand(ids.shape)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}

    states: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(model.evaluating())
        stack.enter_context(fresh(model))
        stack.enter_context(_weights_constant(model))
        stack.enter_context(applied(model, rule))
        with _captured(model, points, states), suppress(_Top):
            model.body(**inputs, use_cache=False)
        top = states[model.n_layers]
        ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=top.device)
        read = top[torch.arange(len(prompts), device=top.device), ends]
        found = objective(model, read, targets, scalar=scalar, rule=rule)
        asked = [states[point] for point in points]
        gradients = torch.autograd.grad(found.sum(), asked, materialize_grads=True)
    wide = torch.promote_types(model.dtype, torch.float32)
    scores = [
        (h.detach().to(wide) * dh.to(wide)).sum(-1).cpu()
        for h, dh in zip(asked, gradients, strict=True)
    ]
    return torch.stack(scores), found.detach().cpu()


@contextmanager
def _captured(
    model: HookedModel, points: Sequence[int], states: dict[int, Tensor]
) -> Generator[None]:
    """Fills `states` with the points asked for and the last one; the graph begins at the first."""
    leaf = min(points)

    def caught(point: int, resid: Tensor) -> Tensor:
        states[point] = resid.detach().requires_grad_() if point == leaf else resid
        return states[point]

    def before(point: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (caught(point, args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": caught(point, kwargs["hidden_states"])}

        return hook

    def top(_module: nn.Module, _args: Any, output: Any) -> None:
        caught(model.n_layers, output if isinstance(output, Tensor) else output[0])
        raise _Top

    with ExitStack() as stack:
        for point in points:
            if point < model.n_layers:
                block = model.blocks[point]
                handle = block.register_forward_pre_hook(before(point), with_kwargs=True)
                stack.callback(handle.remove)
        stack.callback(model.blocks[-1].register_forward_hook(top).remove)
        yield


@contextmanager
def _weights_constant(model: HookedModel) -> Generator[None]:
    """Inside, no parameter wants a gradient: the graph need not keep what theirs would take."""
    wanting = [p for p in model.hf_model.parameters() if p.requires_grad]
    try:
        for p in wanting:
            p.requires_grad_(False)
        yield
    finally:
        for p in wanting:
            p.requires_grad_(True)
