"""A rule on a model: patches on its own modules, gone when the block ends, however it ends."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xlens.engine.rules.backward import (
    Function,
    Wrap,
    scaled_input,
    scaled_output,
    with_constant_denominators,
    with_identity_rule,
    with_identity_tanh,
)
from xlens.engine.rules.kernels import require_gradients
from xlens.engine.rules.rule import Rule
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.families import FAMILIES, Family, find
from xlens.models.hf import require_weights
from xlens.models.hooks import instead

Patch = tuple[nn.Module, Wrap]


@contextmanager
def applied(model: HookedModel, rule: Rule) -> Generator[None]:
    """Inside, whole forward passes have gradients by `rule`; afterwards the model is as before.

    Raises:
        ValueError: the rule cannot be applied to this family; or a pass went around a patched
            module, so that its gradients were not by the rule.
    """
    patches = _patches(model, rule)
    missed = {id(module): module for module, _ in patches}
    with ExitStack() as stack:
        for module, wrap in patches:
            stack.enter_context(_patched(module, wrap, missed))
        yield
    if missed:
        kinds = sorted({type(module).__name__ for module in missed.values()})
        raise InputError(
            f"rule={rule.name!r} did not reach {len(missed)} modules of {model.name} "
            f"({', '.join(kinds)}): something replaced the forward pass that would call them "
            "(fused kernels?). Load the model without it, or use rule='gradient'."
        )


def check(model: HookedModel, rule: Rule) -> None:
    """Whether `rule` can be applied, found out before anything runs.

    Raises:
        ValueError: it cannot, and why; by any rule, a model through whose layers no gradient goes
            or whose weights are not there.
    """
    require_weights(model.hf_model)
    _patches(model, rule)
    require_gradients(model)
    if rule.constant_norms:
        one_a_kind = {type(norm): norm for norm in _norms(model)}
        for norm in one_a_kind.values():
            _require_linear(norm, rule, model)
    if rule.identity_activations:
        family = _family(model, rule)
        for activation in (_part(block, family.activation) for block in model.blocks):
            zero = torch.zeros(1, dtype=model.dtype, device=model.device)
            if float(activation(zero)) != 0:
                raise InputError(
                    f"rule={rule.name!r} needs activations with f(0) = 0, since it divides f(x) "
                    f"by x; {type(activation).__name__} of {model.name} is not one. Use "
                    "rule='gradient', or a Rule with identity_activations=False."
                )


def _family(model: HookedModel, rule: Rule) -> Family:
    kind = model.config.get_text_config().model_type
    family = find(kind)
    if family is None or not family.relevance:
        able = sorted(kind for f in FAMILIES if f.relevance for kind in f.types)
        raise InputError(
            f"rule={rule.name!r} is not defined for {model.name} (model_type {kind!r}): it must "
            f"know every product in a block, and xlens does for {', '.join(able)}. "
            "rule='gradient' works for every family."
        )
    return family


def _part(block: nn.Module, path: str | None) -> nn.Module:
    assert path is not None  # relevance is for families that have every part
    return block.get_submodule(path)


def _factors(
    family: Family, config: Any, shares: tuple[float, float, float]
) -> list[Callable[[Tensor], float | Tensor]]:
    """Per projection, the factors of its output channels for these (query, key, value)."""
    if len(family.projections) == 3:
        return [lambda _out, share=share: share for share in shares]
    groups = config.num_attention_heads if family.by_head else 1

    def fused(out: Tensor) -> Tensor:
        each = torch.tensor(shares, dtype=out.dtype, device=out.device)
        return each.repeat_interleave(out.shape[-1] // groups // 3).repeat(groups)

    return [fused]


def _norms(model: HookedModel) -> Sequence[nn.Module]:
    inside = (m for block in model.blocks for m in block.modules())
    named = [m for m in inside if "norm" in type(m).__name__.lower() and not [*m.children()]]
    return [*named, model.readout.ln_final]


def _patches(model: HookedModel, rule: Rule) -> list[Patch]:
    if rule.plain:
        return []
    family = _family(model, rule)
    config = model.config.get_text_config()
    softcap = getattr(config, "attn_logit_softcapping", None)
    if rule.identity_activations and softcap and config._attn_implementation != "eager":
        raise InputError(
            f"rule={rule.name!r} must see the soft-cap inside attention, and "
            f"{config._attn_implementation!r} computes it out of sight. Load {model.name} with "
            "attention='eager'."
        )
    patches: list[Patch] = []
    if rule.constant_norms:
        patches += [(norm, with_constant_denominators) for norm in _norms(model)]
    factors = _factors(family, config, (rule.query, rule.key, rule.value))
    try:
        for block in model.blocks:
            attention, activation = (
                _part(block, family.attention),
                _part(block, family.activation),
            )
            for name, factor in zip(family.projections, factors, strict=True):
                patches.append((attention.get_submodule(name), scaled_output(factor)))
            if rule.identity_activations:
                patches.append((activation, with_identity_rule))
                if softcap:
                    patches.append((attention, with_identity_tanh))
            if family.product is not None:
                patches.append((activation, scaled_output(lambda _out: rule.gate)))
                patches.append((_part(block, family.product), scaled_input(rule.product)))
    except AttributeError as error:
        raise InputError(
            f"rule={rule.name!r} cannot be applied: {model.name} is not built like other models of "
            f"its family ({error}). Use rule='gradient'."
        ) from error
    return patches


def _patched(
    module: nn.Module, wrap: Wrap, missed: dict[int, nn.Module]
) -> AbstractContextManager[None]:
    def noting(usual: Function) -> Function:
        wrapped = wrap(usual)

        def forward(*args: Any, **kwargs: Any) -> Any:
            missed.pop(id(module), None)
            return wrapped(*args, **kwargs)

        return forward

    return instead(module, noting)


@torch.inference_mode(False)
@torch.enable_grad()
def _require_linear(norm: nn.Module, rule: Rule, model: HookedModel) -> None:
    """With its denominator constant a norm must be linear: what goes in comes out.

    Asked of the module itself, since a kernel may stand in for the forward pass that one can read.
    """
    weights = {name: p.detach().float() for name, p in norm.named_parameters()}
    first = next(iter(weights.values()), torch.empty(model.d_model, device=model.device))
    draw = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, *first.shape, generator=draw).to(first.device)
    x.requires_grad_()
    with _patched(norm, with_constant_denominators, {}):
        y: Tensor = functional_call(norm, weights, (x,))
        bias: Tensor = functional_call(norm, weights, (torch.zeros_like(x),))
    (dx,) = torch.autograd.grad((y * v).sum(), x)
    flows_in, flows_out = float((x * dx).detach().sum()), float(((y - bias) * v).detach().sum())
    if not isclose(flows_in, flows_out, rel_tol=1e-3, abs_tol=1e-4):
        raise InputError(
            f"rule={rule.name!r} cannot hold the denominator of {type(norm).__name__} constant in "
            f"{model.name}: relevance {flows_out:.4g} above it is {flows_in:.4g} "
            "below. Use rule='gradient', or a Rule with constant_norms=False."
        )
