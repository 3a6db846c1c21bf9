"""How large a model is, as far as that decides how long it computes."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xlens.errors import InputError, ModelError
from xlens.models.hf import auto_class, quietly


@dataclass(frozen=True)
class Size:
    """What a pass costs.

    Attributes:
        n_layers: Blocks.
        d_model: Width of the stream.
        d_vocab: Entries of the vocabulary, as the readout has them.
        n_params: Weights but for embedding and unembedding: each is used once a token. Of a
            mixture of experts all of them, though a token visits few.
    """

    n_layers: int
    d_model: int
    d_vocab: int
    n_params: int

    def check_layers(self, asked: Collection[int], *, fewest: int = 0) -> None:
        """Refuse layers that a model of this size lacks.

        Args:
            asked: Residual points; below 0, from the top.
            fewest: The first that can be asked.

        Raises:
            ValueError: there are some.
        """
        n = self.n_layers
        if wrong := [at for at in asked if not fewest <= (at if at >= 0 else at + n + 1) <= n]:
            raise ModelError(f"It has no layer {wrong[0]}: accepted are {fewest} to {n}.")

    @classmethod
    def of(cls, model: nn.Module) -> "Size":
        """Of a causal model of transformers; its weights may lie on `meta`."""
        text = model.config.get_text_config()  # type: ignore[union-attr,operator]
        ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
        outside = {id(end.weight): end.weight.numel() for end in ends if end is not None}
        inside = sum(p.numel() for p in model.parameters() if id(p) not in outside)
        return cls(int(text.num_hidden_layers), int(text.hidden_size), int(text.vocab_size), inside)

    @classmethod
    def of_config(cls, config: Any, *, trust_remote_code: bool = False) -> "Size":
        """Of a model whose weights aren't loaded."""
        import transformers

        with quietly(), torch.device("meta"):
            kind = getattr(transformers, auto_class(config))
            return cls.of(kind.from_config(config, trust_remote_code=trust_remote_code))


def check_room(max_new_tokens: int, n_ctx: int | None) -> None:
    """Refuse to generate more than a model reads, prompt and all.

    Raises:
        ValueError: as many tokens, or more.
    """
    if n_ctx is not None and max_new_tokens >= n_ctx:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}; prompt and all it reads {n_ctx:,}. Give fewer."
        )
