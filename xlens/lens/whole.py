"""The exact reading: the probability of the whole word, teacher-forced, at every layer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.engine import harvest
from xlens.engine.score import span_logprobs
from xlens.errors import InputError
from xlens.lens.lenses import LOGIT, Lens
from xlens.lens.logit_lens import grid, headed, one_task, read_rows, require_pivot, through
from xlens.lens.result import LensResult
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import headers_in
from xlens.results import analysed
from xlens.text import form

_SPAN = "answer"
_SLOT = f"{_SPAN}:predict"


@typed
def whole_word_lens(
    model: HookedModel,
    prompts: Prompts,
    words: pd.DataFrame,
    *,
    pivot: str = "en",
    top_k: int = 10,
    lens: Lens = LOGIT,
    progress: bool = True,
) -> LensResult:
    """Log-probability of each language's whole word after the prompt, layer by layer.

    `log p_l(w | q) = Σ_τ log softmax(readout(h_l[pos(w_τ) - 1]))[w_τ]` over the word's tokens,
    read from one pass over prompt + word (arXiv 2505.13141's product over tokens, with the state
    that predicts each token: our reading). Runs the model once per language.

    Where the tokenizer joins the prompt's end and the word's beginning in one token, that token
    is the first of the word; `n_tokens` counts it.

    Args:
        model: Runs the prompts.
        prompts: Each ends where the word would begin; meta `source`, `target`, `task`.
        words: Prompt ids × language tags: the words to score.
        pivot: The language suspected inside.
        top_k: Most probable tokens kept per layer, at the prompt's last position.
        lens: Through which states are read; layers that it lacks are left out.
        progress: Show bars.

    Raises:
        ValueError: a prompt's id without a word in some language, or no words of the pivot.
    """
    languages = list(words.columns)
    require_pivot(pivot, languages)
    asked = words.reindex([p.id for p in prompts])
    gaps = asked[asked.isna().any(axis=1)]
    if len(gaps):
        raise InputError(
            f"{len(gaps)} prompts have no word in every one of {languages}, first "
            f"{gaps.index[0]!r}; drop them with prompts.select(ids=[i for i in prompts.ids if i in "
            "words.dropna().index])."
        )
    own = harvest(model, prompts, slots="last", progress=progress)
    last = own.slot("last").values
    read = read_rows(own, model, last, lens, languages, top_k=top_k, progress=progress)
    scored = [
        _scores(model, prompts, [form(w) for w in asked[lang]], lens, progress)
        for lang in languages
    ]
    logprob = np.stack([s for s, _ in scored], axis=-1)
    rows = grid(read.layers, list(own.meta["id"]), language=languages)
    rows["prob"] = np.exp(logprob).ravel()
    rows["logprob"] = logprob.ravel()
    rows["rank"] = np.nan
    counts = np.stack([n for _, n in scored], axis=-1)
    rows["n_tokens"] = np.broadcast_to(counts, logprob.shape).ravel()
    return LensResult(
        provenance=analysed(
            own.provenance,
            "lens",
            {"slot": _SLOT, "top_k": top_k, **through(lens), **headers_in(own.meta)},
        ),
        rows=headed(rows, own),
        states=read.states,
        top=read.top,
        n_layers=model.n_layers,
        pivot=pivot,
        match="whole",
        lens=lens.kind,
        **one_task(own),
    )


def _scores(
    model: HookedModel, prompts: Prompts, words: Sequence[str], lens: Lens, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`[layer, prompt]` log-probabilities and `[prompt]` token counts."""
    extended = Prompts(
        Prompt(p.text + w, p.language, p.id, {_SPAN: (len(p.text), len(p.text) + len(w))})
        for p, w in zip(prompts, words, strict=True)
    )
    states = harvest(model, extended, slots=_SLOT, progress=progress)
    return span_logprobs(model, states, _SLOT, lens=lens, progress=progress)
