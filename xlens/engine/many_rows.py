"""Ways back that many rows of a gradient go at once: attention, and norms by the root mean square.

torch's kernel of attention goes back row by row, and a norm that is written out goes back in a
dozen steps. What both do to a gradient is known from one pass: where an output can be told from
its parts, the way back is a few products that all rows share.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from xlens.models import HookedModel
from xlens.models.hooks import Forward, instead

# How far, relative to its size, what is worked out here may be from what the model computes.
_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-4}
_HALF_CLOSE = 0.02


@contextmanager
def for_many_rows(model: HookedModel) -> Generator[None]:
    """Inside, a pass remembers how gradients go back through attention and norms."""
    with ExitStack() as stack:
        for block in model.blocks:
            for module in block.modules():
                if "norm" in type(module).__name__.lower() and not [*module.children()]:
                    stack.enter_context(instead(module, _norm(module)))
        stack.enter_context(_Attention())
        yield


class _Attention(TorchFunctionMode):
    """Puts a way back for many rows behind torch's attention, where its weights can be told."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        out = func(*args, **options)
        if func is not scaled_dot_product_attention or not out.requires_grad:
            return out
        query, key, value = args[:3]
        scale = options.pop("scale", None)
        scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
        weights = _weights(query, key, *args[3:], scale=scale, **options)
        groups = query.shape[1] // value.shape[1]
        mixed = weights.to(value.dtype) @ value.repeat_interleave(groups, 1)
        if not _alike(mixed, out):
            return out
        return _Attended.apply(query, key, value, out.detach(), weights.detach(), scale)


def _weights(
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float,
    **_other: Any,
) -> Float[Tensor, "batch head query key"]:
    """As torch's documentation of its attention has them, in fp32."""
    groups = query.shape[1] // key.shape[1]
    scores = query.float() @ key.repeat_interleave(groups, 1).float().mT * scale
    if is_causal:
        attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask.float()
    return scores.softmax(-1)


class _Attended(torch.autograd.Function):
    """What attention gave, with a way back."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        query, key, value, out, weights, ctx.scale = given
        ctx.save_for_backward(query, key, value, weights)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = _AttentionBack.apply(gradients[0], *ctx.saved_tensors, ctx.scale)
        return (*found, None, None, None)


class _AttentionBack(torch.autograd.Function):
    """Gradients at queries, keys and values. Rows that come with them share these."""

    @staticmethod
    def forward(gradient: Tensor, *given: Any) -> tuple[Tensor, ...]:
        (query, key, value), rows = _attention_back(gradient.unsqueeze(0), *given)
        return tuple(x.squeeze(d) for x, d in zip((query, key, value), rows, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is differentiated twice."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        gradient, *given = args
        assert in_dims[0] is not None  # attention itself is the same for all rows
        return _attention_back(gradient.movedim(in_dims[0], 0), *given)


def _attention_back(
    gradient: Float[Tensor, "row batch head query d_value"],
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_value"],
    weights: Float[Tensor, "batch head query key"],
    scale: float,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, int, int]]:
    """Gradients, and which of their axes the rows are: each product takes all of them at once."""
    rows, batch, heads, queries, d_value = gradient.shape
    kv, keys, d_head = key.shape[1:]
    # Heads that share keys and values are more queries of one head.
    n, many = batch * kv, heads // kv * queries
    out = gradient.permute(1, 2, 3, 0, 4).reshape(n, many, rows * d_value)
    asked, share = query.reshape(n, many, d_head), weights.reshape(n, many, keys)
    along, mixed = key.reshape(n, keys, d_head), value.reshape(n, keys, d_value)
    at_weights = out.view(n, many * rows, d_value) @ mixed.mT
    scores = at_weights.view(n, many, rows, keys).float() * share.unsqueeze(2)
    scores -= share.unsqueeze(2) * scores.sum(-1, keepdim=True)
    scores = (scores * scale).to(gradient.dtype)
    at_query = scores.view(n, many * rows, keys) @ along
    at_key = scores.view(n, many, rows * keys).mT @ asked
    at_value = share.mT.to(gradient.dtype) @ out
    found = (
        at_query.view(batch, heads, queries, rows, d_head),
        at_key.view(batch, kv, rows, keys, d_head),
        at_value.view(batch, kv, keys, rows, d_value),
    )
    return found, (3, 2, 3)


def _norm(module: nn.Module) -> Callable[[Forward], Forward]:
    def wrap(usual: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != 1 or not getattr(args[0], "requires_grad", False):
                return usual(*args, **kwargs)
            inside = args[0].detach().requires_grad_()
            out = usual(inside)
            way = _way_back(module, inside, out)
            return usual(*args) if way is None else _Normed.apply(args[0], out.detach(), *way)

        return forward

    return wrap


def _way_back(module: nn.Module, states: Tensor, out: Tensor) -> tuple[Tensor, ...] | None:
    """What `_through` goes back by; None where this is no norm by the root mean square."""
    weight = getattr(module, "weight", None)
    d, here = states.shape[-1], states.detach().float()
    if out.shape != states.shape or not (weight is None or weight.shape == (d,)):
        return None
    gain = here.new_ones(d) if weight is None else weight.detach().float()
    for each in (gain, 1 + gain):
        straight = here * each
        size = (straight * straight).sum(-1, keepdim=True)
        scale = (out.detach().float() * straight).sum(-1, keepdim=True) / size
        # In the precision of the states, as everything else on the way.
        way = (scale * each, straight, -(scale**3) / d * here)
        way = tuple(w.to(out.dtype) for w in way)
        if _alike(straight * scale, out):
            probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
            (wanted,) = torch.autograd.grad(out, states, probe)
            return way if _alike(_through(probe, *way), wanted) else None
    return None


def _through(gradient: Tensor, factor: Tensor, straight: Tensor, taken: Tensor) -> Tensor:
    along = (gradient * straight).sum(-1, keepdim=True)
    return torch.addcmul(gradient * factor, along, taken)


class _Normed(torch.autograd.Function):
    """What a norm gave, with a way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, out: Tensor, *way: Tensor) -> Tensor:
        ctx.save_for_backward(*way)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (_through(gradients[0], *ctx.saved_tensors), *[None] * 4)


def _alike(found: Tensor, wanted: Tensor) -> bool:
    dtype, wanted = wanted.dtype, wanted.detach().float()
    off = (found.detach().float() - wanted).norm() / wanted.norm()
    return bool(off < _CLOSE.get(dtype, _HALF_CLOSE))  # not for NaN
