"""The readout: from a residual-stream vector to the vocabulary, as the model itself does it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xlens.errors import ModelError
from xlens.models.passes import full_precision


class Readout:
    """Final norm, unembedding and what the model does to its logits afterwards.

    All arithmetic is fp32 whatever the model's dtype: a bf16 unembedding flips about 2 % of the
    top tokens. The weights are the model's own, not copies; half-precision tiles are widened as
    they are used.

    Attributes:
        fingerprint: The model's; an analysis refuses activations of another.
        softcap: `final_logit_softcapping` (Gemma 2), or None.
        logit_scale: Factor on the logits (Cohere's `logit_scale`, Granite's `logits_scaling`,
            Falcon-H1's `lm_head_multiplier`).
        n_points: Residual points of the model, where that is known.
    """

    def __init__(
        self,
        ln_final: nn.Module,
        unembed: nn.Module,
        *,
        softcap: float | None,
        logit_scale: float,
        fingerprint: Callable[[], str],
        n_points: int | None = None,
    ) -> None:
        self.ln_final = ln_final
        self._unembed = unembed
        self.softcap = softcap
        self.logit_scale = logit_scale
        self._fingerprint = fingerprint
        self.n_points = n_points

    @property
    def fingerprint(self) -> str:
        """The model's fingerprint."""
        return self._fingerprint()

    # Looked up each time: an adapter that has an unembedding of its own can be switched off.
    @property
    def _weight(self) -> Tensor:
        weight = self._unembed.weight
        if not isinstance(weight, Tensor):
            raise ModelError(
                f"The unembedding is a {type(self._unembed).__qualname__}, whose weights are "
                "packed (quantised), where xlens reads numbers. Load the model as it was before."
            )
        return weight

    @property
    def _bias(self) -> Tensor | None:
        return getattr(self._unembed, "bias", None)

    @property
    def d_vocab(self) -> int:
        """Rows of the unembedding: the size of the logits."""
        return self._weight.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the unembedding lies."""
        return self._weight.device

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding as TransformerLens writes it (a view)."""
        return self._weight.detach().T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"] | None:
        """The unembedding's bias, or None."""
        return None if self._bias is None else self._bias.detach()

    @property
    def _norm(self) -> nn.Module:
        # Looked up each time: the weights may be trained on. A norm is d_model numbers, so a copy
        # in fp32 costs nothing and keeps the model untouched.
        here = [
            w.dtype == torch.float32 and w.device == self.device for w in self.ln_final.parameters()
        ]
        if all(here):
            return self.ln_final
        return copy.deepcopy(self.ln_final).to(device=self.device, dtype=torch.float32)

    @torch.inference_mode()
    @full_precision()
    def normed(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The final norm, in fp32, of residual vectors in the raw basis."""
        if self._weight.is_meta:
            raise ModelError(
                "The unembedding's weights are not there: the model is offloaded or on meta."
            )
        if resid.shape[-1:] != (self.d_model,):
            raise ModelError(
                f"Residual states of the shape {list(resid.shape)} can't be read: the last axis is "
                f"to be d_model = {self.d_model}."
            )
        flat = resid.to(self.device, torch.float32)
        return self._norm(flat)

    @full_precision()
    def normed_graph(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """`normed`, as a graph that gradients go back through."""
        return self._norm(resid.to(self.device, torch.float32))

    def tile(
        self, normed: Float[Tensor, "rows d_model"], start: int, stop: int
    ) -> Float[Tensor, "rows tile"]:
        """Logits of vocabulary items `[start, stop)` for already normed rows."""
        return self.onto(slice(start, stop))(normed)

    def at(
        self, normed: Float[Tensor, "rows d_model"], ids: Int[Tensor, " items"]
    ) -> Float[Tensor, "rows items"]:
        """Logits of some vocabulary items for already normed rows."""
        return self.onto(ids)(normed)

    @torch.inference_mode()
    @full_precision()
    def exactly(
        self, normed: Float[Tensor, "pair d_model"], ids: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """The logit of one item for each of already normed rows, summed in fp64.

        It is the same whatever stands beside it, and equal weights give equal logits.
        """
        logits = (normed.double() * self._weight[ids].detach().double()).sum(-1)
        if self._bias is not None:
            logits = logits + self._bias[ids].detach().double()
        return self._transform(logits.float())

    @torch.inference_mode()
    def onto(
        self, items: slice | Int[Tensor, " items"]
    ) -> Callable[[Float[Tensor, "rows d_model"]], Float[Tensor, "rows items"]]:
        """What gives the logits of some items for already normed rows, however many tiles of them.

        The items' weights are widened once.
        """
        weight = self._weight[items].detach().float().T
        bias = None if self._bias is None else self._bias[items].detach().float()
        return lambda normed: self._project(normed, weight, bias)

    @torch.inference_mode()
    @full_precision()
    def _project(self, normed: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        logits = normed @ weight
        return self._transform(logits if bias is None else logits.add_(bias))

    @full_precision()
    def back(
        self,
        gradient: Float[Tensor, "rows tile"],
        logits: Float[Tensor, "rows tile"],
        start: int,
        stop: int,
    ) -> Float[Tensor, "rows d_model"]:
        """What a gradient of `tile`'s logits comes to at what `tile` was given."""
        if self.softcap is not None:
            gradient = gradient * (1 - (logits / self.softcap).square())
        return (gradient * self.logit_scale) @ self._weight[start:stop].detach().float()

    def _transform(self, logits: Tensor) -> Tensor:
        """What the model does to raw logits, in place."""
        if self.logit_scale != 1.0:
            logits = logits.mul_(self.logit_scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    @torch.inference_mode()
    def logits(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
        """All logits of a few vectors; for many rows use `xlens.lens`, which streams."""
        normed = self.normed(resid)
        flat = self.tile(normed.reshape(-1, self.d_model), 0, self.d_vocab)
        return flat.reshape(*resid.shape[:-1], self.d_vocab)

    @property
    def norm_gain(self) -> Float[Tensor, " d_model"]:
        """The final norm's element-wise gain g, read off the module itself.

        The norm is applied to x and -x, where x has mean 0 and variance 1; half the difference
        over x is g for RMSNorm and LayerNorm alike, however they store it (Gemma keeps g - 1).
        """
        half = self.d_model // 2
        x = torch.full((self.d_model,), -half / (self.d_model - half), device=self.device)
        x[:half] = 1
        x /= x.std(correction=0)
        return (self.normed(x) - self.normed(-x)) / (2 * x)


def output_options(config: Any) -> tuple[float | None, float]:
    """(soft-cap, logit scale) from a model's configuration."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    softcap = getattr(text, "final_logit_softcapping", None)
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale *= float(getattr(text, "lm_head_multiplier", None) or 1.0)
    divisor = float(getattr(text, "logits_scaling", None) or 1.0)
    return softcap, scale / divisor
