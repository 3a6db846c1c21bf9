"""transformers' attention interface: a look at what a kernel is given, and the weights it uses.

A model hands queries, keys, values, mask and options (scaling, soft-cap, sinks) to a function that
stands in a table of transformers under a name in the config. Rotary, norms of queries and keys and
cached keys are in them by then; windows are in the mask. Here are names of our own in that table,
whose functions call the usual kernel and show what it was given to the thread that asked.
"""

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import unwrap
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from xlens.errors import ModelError
from xlens.models.computation import LOOKED, attention_configs

# Kernels whose masks are understood here. Another one is looked at as `eager`, which every family
# of the interface has, and with which the implementation was compared when the model was loaded.
_KNOWN = ("eager", "sdpa")
# Relative to the values' size: how far a kernel's output may be from what the weights make of them.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_TOLERANCE = 0.05


class NotTheseWeights(ModelError):
    """A kernel does something to the scores that is not known here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a kernel was given in one pass, and what it made of it.

    Attributes:
        query: Of all tokens of the pass.
        key: Of these and of those before them.
        value: As `key`.
        mask: None, or True where a query sees a key, or what is added to the scores.
        causal: Without a mask, whether a query sees only the keys that don't follow it.
        options: Of the kernel.
        output: What it gave.
    """

    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_value"]
    mask: Tensor | None
    causal: bool
    options: dict[str, Any]
    output: Float[Tensor, "batch query head d_value"]

    @property
    def n_keys(self) -> int:
        """Keys of a row of the batch."""
        return self.key.shape[2]

    def weights(
        self, rows: Int[Tensor, " n"], queries: Int[Tensor, " n"]
    ) -> Float[Tensor, "n head key"]:
        """The weights of some queries, in fp32; with a sink they make less than 1.

        Raises:
            NotTheseWeights: they are not those by which the kernel mixed the values.
        """
        rows, queries = rows.to(self.query.device), queries.to(self.query.device)
        query = rearrange(
            self.query[rows, :, queries].float(),
            "n (kv_head group) d -> n kv_head group d",
            kv_head=self.key.shape[1],
        )
        scores = einsum(query, self.key[rows].float(), "n kv group d, n kv key d -> n kv group key")
        scores = rearrange(scores, "n kv group key -> n (kv group) key") * self._scaling
        if cap := self.options.get("softcap"):
            scores = torch.tanh(scores / cap) * cap
        scores = self._masked(scores, rows, queries)
        sinks = self.options.get("s_aux")
        if sinks is not None:
            sink = sinks.float().reshape(1, -1, 1).expand(len(rows), -1, -1)
            weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        self._compare(weights, rows, queries)
        return weights

    @property
    def _scaling(self) -> float:
        scaling = self.options.get("scaling")
        return self.query.shape[-1] ** -0.5 if scaling is None else float(scaling)

    def _masked(self, scores: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
        bias = self.options.get("position_bias")
        for added in (self.mask, bias):
            if added is None:
                continue
            whole = added.expand(len(self.query), -1, -1, -1)
            picked = whole[rows, :, queries, : self.n_keys]  # one for all heads, or of each
            if picked.dtype == torch.bool:
                scores = scores.masked_fill(~picked, -torch.inf)
            else:
                scores = scores + picked.float()
        if self.mask is None and self.causal:
            places = torch.arange(self.n_keys, device=scores.device)
            scores = scores.masked_fill(places > queries[:, None, None], -torch.inf)
        return scores

    def _compare(self, weights: Tensor, rows: Tensor, queries: Tensor) -> None:
        values = self.value[rows].float()
        grouped = rearrange(weights, "n (kv group) key -> n kv group key", kv=values.shape[1])
        mixed = einsum(grouped, values, "n kv group key, n kv key d -> n kv group d")
        mixed = rearrange(mixed, "n kv group d -> n (kv group) d")
        size = mixed.norm().clamp_min(torch.finfo(torch.float32).tiny)  # 0: nothing to compare
        error = float((mixed - self.output[rows, queries].float()).norm() / size)
        tolerance = _TOLERANCE.get(self.value.dtype, _HALF_TOLERANCE)
        if not error <= tolerance:  # NaN too
            raise NotTheseWeights(
                "the values mixed by the weights that xlens works out differ from its output by "
                f"{error:.2g} of their size (accepted: {tolerance:g}), so something else is done "
                f"to the scores; its options were {', '.join(sorted(self.options))}"
            )


Seen = Callable[[Given], None]
_asking: ContextVar[Mapping[nn.Module, Seen] | None] = ContextVar("asking", default=None)


@contextmanager
def showing(hf_model: nn.Module, see: Mapping[nn.Module, Seen]) -> Generator[None]:
    """Inside, in this thread, show what the kernels of some attention modules are given.

    The model must be this thread's alone: its attention has another name inside, of the same kernel
    (`attention_of` still tells the usual one).

    Args:
        hf_model: Runs.
        see: Called after the kernel, by attention module.
    """
    for kernel in _KNOWN:
        _register(kernel)
    by_kernel = all(_eager_of(module) for module in see)
    # Not by `set_attn_implementation`: Falcon does not take it, though it goes by its config.
    before = [(c, c._attn_implementation_internal) for c in attention_configs(hf_model)]
    token = _asking.set(see)
    try:
        for config, name in before:
            kernel = name if by_kernel and name in _KNOWN else "eager"
            config._attn_implementation_internal = LOOKED + kernel
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name
        _asking.reset(token)


def _register(kernel: str) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def looked(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> Any:
        usual: Any = _eager_of(module) if kernel == "eager" else ALL_ATTENTION_FUNCTIONS[kernel]
        result = usual(module, query, key, value, attention_mask, **options)
        if see := (_asking.get() or {}).get(module):
            is_causal = options.get("is_causal")
            if is_causal is None:
                is_causal = getattr(module, "is_causal", True)
            see(
                Given(
                    query=query,
                    key=key,
                    value=value,
                    mask=attention_mask,
                    causal=kernel == "sdpa" and is_causal and query.shape[2] > 1,
                    options=options,
                    output=result[0],
                )
            )
        return result

    AttentionInterface.register(LOOKED + kernel, looked)
    AttentionMaskInterface.register(LOOKED + kernel, ALL_MASK_ATTENTION_FUNCTIONS[kernel])


def _eager_of(module: nn.Module) -> Callable[..., Any] | None:
    """A family's own, in no table: it lies in the file of the module's forward, if it calls one."""
    file = sys.modules[unwrap(type(module).forward).__module__]
    return getattr(file, "eager_attention_forward", None)
