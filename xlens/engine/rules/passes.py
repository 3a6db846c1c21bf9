"""One forward and one backward pass of a batch, by a rule."""

import inspect
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.engine.positions import fresh
from xlens.engine.rules.patches import applied
from xlens.engine.rules.rule import Rule
from xlens.engine.rules.scalars import Scalar, objective
from xlens.models import HookedModel
from xlens.models.hooks import residual


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

    def caught(point: int, resid: Tensor) -> Tensor:
        # The graph begins at the lowest point; it ends below the head, which is computed for one
        # position, by `objective`.
        states[point] = resid.detach().requires_grad_() if point == min(points) else resid
        return states[point]

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(model.evaluating())
        stack.enter_context(fresh(model))
        stack.enter_context(weights_constant(model))
        stack.enter_context(applied(model, rule))
        with residual(model.blocks, sorted({*points, model.n_layers}), caught):
            model.body(**inputs, use_cache=False)
        if missing := [p for p in (*points, model.n_layers) if p not in states]:
            raise ValueError(
                f"The forward pass of {model.name} never came by the residual points {missing}: "
                "something replaced it (torch.compile, fused kernels?). Load it without."
            )
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
