"""`trace`: one prompt, layer × position, the most probable token in each cell."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.engine import harvest
from xlens.engine.stream import stream
from xlens.lens.lenses import LOGIT, Lens
from xlens.lens.logit_lens import grid, readable_states, through
from xlens.lens.result import TraceResult
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, PromptsLike
from xlens.results import analysed


@overload
def trace(
    model: HookedModel,
    text: str | Prompt,
    *,
    prepend_bos: bool | None = None,
    lens: Lens = LOGIT,
) -> TraceResult: ...
@overload
def trace(
    model: HookedModel,
    text: Prompts | Sequence[str | Prompt],
    *,
    prepend_bos: bool | None = None,
    lens: Lens = LOGIT,
) -> tuple[TraceResult, ...]: ...
@typed
def trace(
    model: HookedModel,
    text: PromptsLike,
    *,
    prepend_bos: bool | None = None,
    lens: Lens = LOGIT,
) -> TraceResult | tuple[TraceResult, ...]:
    """The classic table of one prompt: what is read after each token at each layer.

    The last layer's row is what the model itself would say after each token.

    Args:
        model: From `xlens.load`.
        text: The prompt; of several, each gets a table of its own.
        prepend_bos: None keeps what the tokenizer does by itself.
        lens: Through which states are read; layers that it lacks are left out.

    Raises:
        ValueError: an empty text, or one longer than the context; a lens of another model.
    """
    if not isinstance(text, str | Prompt):
        each = list(Prompts.of(text))
        return tuple(trace(model, one, prepend_bos=prepend_bos, lens=lens) for one in each)
    prompt = text if isinstance(text, Prompt) else Prompt(text, "und", "trace")
    acts = harvest(model, [prompt], slots="all", prepend_bos=prepend_bos, progress=False)
    layers, values = readable_states(acts, model, lens, acts.slot("all").values)
    read = stream(model.readout, values, top_k=1, statistics=("entropy",), carry=lens.over(layers))
    assert read.entropy is not None
    tokens, label = [int(t) for t in acts.meta["tokens"][0]], model.vocab.label
    cells = grid(layers, [prompt.id] * len(tokens)).drop(columns="id")
    cells = cells.rename(columns={"prompt": "pos"})
    best = read.top_ids[..., 0].numpy().ravel()
    cells["token"] = best
    cells["label"] = [label(int(t)) for t in best]
    cells["prob"] = np.exp(read.top_logprobs[..., 0].numpy().ravel())
    cells["entropy"] = read.entropy.numpy().ravel()
    return TraceResult(
        provenance=analysed(acts.provenance, "trace", {"text": prompt.text, **through(lens)}),
        cells=cells,
        tokens=pd.DataFrame(
            {
                "pos": range(len(tokens)),
                "token": tokens,
                "label": [label(t) for t in tokens],
            }
        ),
        n_layers=model.n_layers,
    )
