"""One forward and one backward pass of a batch, by a rule."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.engine.graphs import traced, weights_constant
from xlens.engine.positions import fresh
from xlens.engine.rules.patches import applied
from xlens.engine.rules.rule import Rule
from xlens.engine.rules.scalars import Scalar, objective
from xlens.models import HookedModel


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
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(model.evaluating())
        stack.enter_context(fresh(model))
        stack.enter_context(weights_constant(model))
        stack.enter_context(applied(model, rule))
        # Below the head, which is computed for one position, by `objective`.
        states = traced(model, prompts, points)
        top = states[model.n_layers]
        ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=top.device)
        read = top[torch.arange(len(prompts), device=top.device), ends]
        found = objective(model, read, targets, scalar=scalar, rule=rule)
        asked = [states[point] for point in points]
        gradients = torch.autograd.grad(found.sum(), asked, materialize_grads=True)
    wide = torch.promote_types(model.dtype, torch.float32)
    scores = [
        (h.detach().to(wide) * dh.to(wide)).sum(-1).to(found.device)
        for h, dh in zip(asked, gradients, strict=True)
    ]
    return torch.stack(scores).cpu(), found.detach().cpu()
