"""What half precision changes: the same prompts through the same model in fp32 and in its dtype.

The model in fp32 is read first and may be let go before the other is loaded: at no time do both
have to fit into memory.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from xlens._lazy import listed
from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine import harvest, stream
from xlens.errors import InputError, ModelError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, PromptsLike
from xlens.results import Result, analysed
from xlens.stats import generator

__all__ = ["PrecisionResult", "Reference", "precision", "read_reference", "sample_prompts"]
__dir__ = listed(__all__)
_TOLD = ("model", "weights", "fingerprint", "dtype", "device", "attention", "precision", "versions")


@dataclass(frozen=True)
class Reference:
    """What a model in fp32 says of prompts; from `read_reference`.

    Attributes:
        prompts: What it read.
        states: At every residual point, at each prompt's last token.
        top: Id of the most probable next token of each prompt.
        logprobs: Of these tokens, in nats.
    """

    prompts: Prompts
    states: Activations = field(repr=False)
    top: np.ndarray = field(repr=False)
    logprobs: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PrecisionResult(Result):
    """What a model's dtype changes of what it says in fp32, at each prompt's last token.

    Attributes:
        layers: `layer median most`: by residual point, the norm of the difference of two states,
            of the norm of the state in fp32: over prompts the median and the largest.
        table: `id language token logprob logprob_fp32 same_top`: by prompt, the next token that is
            most probable in fp32 (its id), its log-probability in both, in nats, and whether it is
            the most probable one in both. Whatever the model's dtype is, its unembedding is fp32.
        dtype: Of the model that is compared.
    """

    layers: pd.DataFrame
    table: pd.DataFrame
    dtype: str

    def to_frame(self) -> pd.DataFrame:
        """`layers`."""
        return self.layers

    @property
    def same_top(self) -> int:
        """Of how many prompts the most probable next token is the same."""
        return int(self.table["same_top"].sum())

    @property
    def median_error(self) -> float:
        """Of the layers' medians the median: relative error of a state."""
        return float(self.layers["median"].median())

    @property
    def worst(self) -> tuple[int, float]:
        """Layer of the largest relative error of a state, and that."""
        at = int(self.layers["most"].to_numpy(float).argmax())
        return int(self.layers["layer"].iloc[at]), float(self.layers["most"].iloc[at])

    @property
    def median_off(self) -> float:
        """The median of `logprob_differences`."""
        return float(np.median(self.logprob_differences))

    @property
    def most_off(self) -> float:
        """The largest of `logprob_differences`."""
        return float(self.logprob_differences.max())

    @property
    def logprob_differences(self) -> np.ndarray:
        """By prompt, how far the log-probability of fp32's token is off, in nats."""
        return np.abs((self.table["logprob"] - self.table["logprob_fp32"]).to_numpy(float))


@typed
def read_reference(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    token_budget: int | None = None,
    progress: bool = True,
) -> Reference:
    """What a model in fp32 says of prompts: its states at their last tokens, and the next token.

    Args:
        model: From `xlens.load`, in fp32.
        prompts: Some of those that are asked of the model in another dtype.
        token_budget: Most tokens in a pass, padding included.
        progress: Show bars.

    Raises:
        ValueError: no prompts, or a model that isn't in fp32 or has quantised weights.
    """
    asked = Prompts.of(prompts)
    require_plain(model.config, model.name)
    if model.dtype != torch.float32:
        raise ModelError(
            f"{model.name} is in {model.dtype}; what others are compared with is in fp32: "
            "load it with dtype=torch.float32."
        )
    states = harvest(model, asked, token_budget=token_budget, progress=progress)
    found = stream(model.readout, _last(states), top_k=1, statistics=(), progress=progress)
    top, logprobs = found.top_ids[0, :, 0], found.top_logprobs[0, :, 0]
    return Reference(asked, states, top.numpy(), logprobs.double().numpy())


@typed
def precision(
    model: HookedModel,
    reference: Reference,
    *,
    token_budget: int | None = None,
    progress: bool = True,
) -> PrecisionResult:
    """What a model's dtype changes of what it says in fp32.

    Where a checkpoint is kept in more bits than the dtype has, the rounding of its weights is part
    of it; rounding between operations is in any case.

    Args:
        model: The same model in the dtype that results are made in.
        reference: What it says in fp32, from `read_reference`.
        token_budget: Most tokens in a pass, padding included.
        progress: Show bars.

    Raises:
        ValueError: another model than the one in fp32, by its shape or tokenizer; quantised
            weights.
    """
    require_plain(model.config, model.name)
    base = reference.states
    states = harvest(model, reference.prompts, token_budget=token_budget, progress=progress)
    one, other = states.slot("last").values, base.slot("last").values
    told, was = states.provenance, base.provenance
    if one.shape != other.shape or told["tokenizer"] != was["tokenizer"]:
        raise ModelError(
            f"{told['model']} and {was['model']}, which was read in fp32, are two models: their "
            f"states are {_shape(one)} and {_shape(other)}, their tokenizers "
            f"{'the same' if told['tokenizer'] == was['tokenizer'] else 'differ'}. Give the same "
            "model, loaded with another dtype."
        )
    wanted = torch.from_numpy(reference.top)[:, None, None]
    found = stream(
        model.readout, _last(states), targets=wanted, top_k=1, statistics=(), progress=progress
    )
    assert found.set_logprobs is not None  # there are targets
    # In fp64: points differ a thousandfold in size, and a difference is small beside its terms.
    size = other.double().norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    errors = (one.double() - other.double()).norm(dim=-1) / size
    by_layer = {
        "layer": list(states.layers),
        "median": np.median(errors.numpy(), axis=1),
        "most": errors.max(dim=1).values.numpy(),
    }
    table = base.meta[["id", "language"]].reset_index(drop=True)
    table = table.assign(
        token=reference.top,
        logprob=found.set_logprobs[0, :, 0].double().numpy(),
        logprob_fp32=reference.logprobs,
        same_top=found.top_ids[0, :, 0].numpy() == reference.top,
    )
    how = {"n": len(table), "fp32": {name: was[name] for name in _TOLD if name in was}}
    return PrecisionResult(
        provenance=analysed(told, "fp32_sample", how),
        layers=pd.DataFrame(by_layer),
        table=table,
        dtype=told["dtype"],
    )


@typed
def sample_prompts(prompts: Sequence[Prompt], n: int, *, seed: int = 0) -> Prompts:
    """Some of many prompts, as evenly over their languages as they allow, equal texts once.

    Args:
        prompts: All; their spans and meta are left out. An id that several of a language bear gets
            a number.
        n: How many.
        seed: Of the draw.

    Raises:
        ValueError: n is below 1, or there are fewer.
    """
    if n < 1:
        raise InputError(f"{n} prompts are asked for; accepted are 1 or more.")
    every = list({prompt.text: prompt for prompt in prompts}.values())
    if n > len(every):
        raise InputError(
            f"{n} prompts are asked for, and there are {len(every)} different ones: ask for so "
            "many, or fewer."
        )
    mixed = [every[i] for i in generator(seed).permutation(len(every))]
    met: Counter[str] = Counter()
    turns: list[int] = []
    for prompt in mixed:
        turns.append(met[prompt.language])
        met[prompt.language] += 1
    drawn = [mixed[i] for i in sorted(range(len(mixed)), key=turns.__getitem__)[:n]]
    found: list[Prompt] = []
    named: Counter[tuple[str, str]] = Counter()
    for prompt in drawn:
        named[key := (prompt.language, prompt.id)] += 1
        name = prompt.id if named[key] == 1 else f"{prompt.id} ({named[key]})"
        found.append(Prompt(prompt.text, prompt.language, name))
    return Prompts(found)


def require_plain(config: Any, name: str) -> None:
    """Refuse a model whose weights are quantised: of them there is no fp32.

    Args:
        config: The model's.
        name: What it is called.

    Raises:
        ValueError: it is quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{name} has quantised weights, of which there are none in fp32 to compare with. Load "
            "the checkpoint that it was made of, in half precision."
        )


def _last(states: Activations) -> Activations:
    """The output of the last block."""
    return states.select(layers=states.layers[-1:])


def _shape(values: torch.Tensor) -> str:
    return "×".join(map(str, values.shape))
