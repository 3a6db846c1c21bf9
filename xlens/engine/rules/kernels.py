"""Whether gradients pass through a model's linear layers: quantised kernels have none."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from xlens.errors import InputError
from xlens.models import HookedModel

_WIDTHS = ("in_features", "infeatures", "nx")  # of nn.Linear and its kin; AutoGPTQ; Conv1D


@torch.inference_mode(False)
@torch.enable_grad()
def require_gradients(model: HookedModel) -> None:
    """Refuse a model with a linear layer that no gradient passes through.

    Around such a layer the gradient survives through the residual stream alone: relevance would be
    0 everywhere else, without an error. Each kind of linear layer is asked once, with one vector,
    for the gradient itself: outputs of kernels without a backward pass may claim to have one.

    Raises:
        ValueError: there is one.
    """
    seen: set[tuple[Any, ...]] = set()
    for module, width in _linears(model):
        weight = getattr(module, "weight", None)
        stored = (type(weight), weight.dtype) if isinstance(weight, Tensor) else ()
        kind = (type(module), "forward" in vars(module), *stored)
        if kind in seen:
            continue
        seen.add(kind)
        if not _passes(module, width, model):
            raise InputError(
                f"No gradient passes through {type(module).__module__}.{type(module).__name__}, a "
                f"linear layer of {model.name}: it looks quantised, and its kernel has no backward "
                "pass, so that relevance would be 0 wherever it is on the way. Load the model with "
                "unquantised weights (float32 or bfloat16, without a quantization_config)."
            )


def _passes(module: nn.Module, width: int, model: HookedModel) -> bool:
    held = (*module.parameters(), *module.buffers())
    device = next((t.device for t in held if t.device.type != "meta"), model.device)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, width, generator=draw).to(device, model.dtype).requires_grad_()
    # Not by calling the module: hooks on it are the user's, and this is no run of the model.
    try:
        out = module.forward(x)
    except Exception:  # it wants something else; the model's own run will say so, if anything is
        return True
    if not isinstance(out, Tensor):
        return True
    if not out.requires_grad:
        return False
    weights = torch.randn(out.shape, generator=draw).to(out.device, out.dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some kernels only warn that they have no backward
            (grad,) = torch.autograd.grad((out * weights).sum(), x, materialize_grads=True)
    except RuntimeError:  # others refuse on the way back
        return False
    # A gradient of 0 is no gradient, as of rounding; unless the weights are 0.
    return bool(grad.any()) or torch.equal(out, module.forward(-x))


def _linears(model: HookedModel) -> list[tuple[nn.Module, int]]:
    """What stands in the blocks where linear layers belong, with the width of its input."""
    there = dict(model.hf_model.named_modules())
    places = _places(model.hf_model)
    # A kernel need not say that it is a linear layer; the architecture does.
    try:
        with torch.device("meta"):
            bare = type(model.hf_model)(copy.deepcopy(model.config))
    except Exception:  # code from elsewhere may need more than its config
        pass
    else:
        places = {name: w for name, w in _places(bare).items() if name in there} | places
    inside = {id(module) for block in model.blocks for module in block.modules()}
    return [(there[name], w) for name, w in places.items() if id(there[name]) in inside]


def _places(model: nn.Module) -> dict[str, int]:
    widths = {
        name: next((w for key in _WIDTHS if isinstance(w := getattr(module, key, None), int)), 0)
        for name, module in model.named_modules()
    }
    return {name: width for name, width in widths.items() if width > 0}
