"""The parts of a model that xlens keeps hold of, and whether they are still its parts."""

from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from xlens.errors import ModelError
from xlens.models import families
from xlens.models.readout import output_options


@dataclass(frozen=True, eq=False)
class Parts:
    """Of a causal language model, as found when it was loaded.

    Attributes:
        family: From `xlens.models.families`.
        blocks: In order.
        ln_final: The final norm.
        unembed: The module that gives the logits.
        config: Read at run time, by the model too.
        softcap: Of the logits, or None.
        logit_scale: Factor on the logits.
    """

    family: families.Family
    blocks: tuple[nn.Module, ...]
    ln_final: nn.Module
    unembed: nn.Module
    config: Any
    softcap: float | None
    logit_scale: float

    @classmethod
    def of(cls, hf_model: nn.Module) -> "Parts":
        """Find them.

        Raises:
            ValueError: a layout that is not known, or no unembedding.
        """
        family, blocks, ln_final = families.recognised(hf_model)
        unembed = hf_model.get_output_embeddings()  # type: ignore[operator]
        if unembed is None:
            raise ModelError(
                f"{type(hf_model).__name__} has no unembedding (get_output_embeddings() is None); "
                "xlens reads causal language models. Load it with AutoModelForCausalLM."
            )
        config: Any = hf_model.config
        softcap, scale = output_options(config)
        return cls(family, blocks, ln_final, unembed, config, softcap, scale)

    def require_same(self, hf_model: nn.Module) -> None:
        """Refuse a model whose parts were replaced: hooks and readout would sit on the old ones.

        Raises:
            ValueError: some were (layers cut out or put in another order, a new unembedding).
        """
        now = Parts.of(hf_model)
        for part in fields(self)[1:]:
            before, after = getattr(self, part.name), getattr(now, part.name)
            same = before == after if part.name != "config" else before is after
            if not same:
                number = f" ({len(before)} then, {len(after)} now)" if before is self.blocks else ""
                raise ModelError(
                    f"{type(hf_model).__name__} is not as it was loaded: its {_WORDS[part.name]} "
                    f"changed{number}. What xlens keeps of it would be out of date; load it again: "
                    "xlens.load(model.hf_model, model.tokenizer)."
                )


_WORDS = {
    "blocks": "blocks",
    "ln_final": "final norm",
    "unembed": "unembedding",
    "config": "config object",
    "softcap": "soft-cap on the logits",
    "logit_scale": "scale of the logits",
}
