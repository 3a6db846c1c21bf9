"""What the tests of the core share: loaded models, mixed prompts, references computed plainly."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
import xlens
from xlens.models import HookedModel, foreign
from xlens.prompts import Prompt, Prompts, TokenizedPrompt

# Short and long ones, one after the other: neighbours of unlike length share a batch.
_SHAPES = ((0, 3, 5), (12, 30, 9), (3, 9, 30), (1, 2, 1), (20, 8, 0), (5, 4, 12))


@cache
def model(folder: Path) -> HookedModel:
    """The model of a folder, loaded once a session. Leave it as it is."""
    return xlens.load(folder, device="cpu")


def fresh(family: str, **changes: object) -> HookedModel:
    """A model of a test's own, to be spoiled."""
    return xlens.load(tiny.model(family, **changes), tiny.tokenizer(family))


def interrupt() -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def passes(
    hooked: HookedModel, *, stop: int | None = None, how: Callable[[], object] = interrupt
) -> Iterator[list[int]]:
    """Counts the model's passes; the one numbered `stop` is interrupted, or ended otherwise.

    With a hook of ours on the model nothing would be stored or found, nor with a function of torch
    exchanged, unless this file's are known.
    """
    counted: list[int] = []
    words, lookup = hooked.hf_model.get_input_embeddings().weight, torch.nn.functional.embedding

    def embedding(ids: Tensor, weight: Tensor, *args: object, **kwargs: object) -> Tensor:
        if weight is words:
            if len(counted) == stop:
                how()
            counted.append(len(ids))
        return lookup(ids, weight, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "embedding", embedding)
        patch.setattr("xlens.models.foreign._KNOWN", foreign._KNOWN | {__name__})
        yield counted


def mixed() -> Prompts:
    """Twelve languages, lengths from 4 to about 75 tokens, each with the span `word`."""
    prompts: list[Prompt] = []
    for n, (language, text) in enumerate(tiny.TEXT.items()):
        before, word, after = _SHAPES[n % len(_SHAPES)]
        stop = before + word
        parts = [text[:before], ("word", text[before:stop]), text[stop : stop + after]]
        prompts.append(Prompt.from_parts(parts, language=language, id=f"item {n}"))
    return Prompts(prompts)


@torch.inference_mode()
def hidden_states(hooked: HookedModel, ids: Sequence[int]) -> Tensor:
    """Residual points by Hugging Face's own doing: one prompt, nothing but ids.

    `[layer, pos, d_model]`. The last is after the final norm: their hidden_states[-1].
    """
    out = hooked.hf_model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    return torch.cat(out.hidden_states)


@torch.inference_mode()
def logits(hooked: HookedModel, ids: Sequence[int]) -> Tensor:
    """The model's own logits of one prompt, `[pos, d_vocab]`."""
    return hooked.hf_model(torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def picked(states: Tensor, tokens: TokenizedPrompt, slot: str) -> Tensor:
    """A slot's rows from all states of one prompt, spelt out."""
    if slot == "last":
        return states[:, -1:]
    if slot == "all":
        return states
    name, how = slot.split(":")
    start, stop = tokens.spans[name]
    return {
        "first": lambda: states[:, start : start + 1],
        "last": lambda: states[:, stop - 1 : stop],
        "mean": lambda: states[:, start:stop].mean(1, keepdim=True),
        "each": lambda: states[:, start:stop],
        "predict": lambda: states[:, start - 1 : stop - 1],
    }[how]()


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """The largest difference of a state, relative to the state's own size."""
    got, wanted = got.detach(), wanted.detach()
    size = wanted.abs().amax(-1).clamp_min(1e-30)
    return float(((got - wanted).abs().amax(-1) / size).max())


def names_its_model(result, model) -> None:
    """Every fact of the model stands in the result's provenance as the model tells it."""
    known = model.provenance()
    found = {name: result.provenance.get(name, "nothing") for name in known}
    assert found == known, type(result).__name__
