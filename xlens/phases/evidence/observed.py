"""Evidence from cached activations: questions aligned across languages, answers readable."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float

from xlens.activations import Activations
from xlens.engine import harvest
from xlens.engine.stream import stream
from xlens.engine.transport import Transport
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens
from xlens.phases.curves import READABLE, Curves, one_kind
from xlens.phases.evidence.sweep import read_answers
from xlens.phases.resample import shared_rows
from xlens.results import analysed

Measure = Literal["logprob", "rank", "top1"]
# Cosines closer than this are a tie: rounding tells nothing apart.
_TIE = 1e-5


def aligned(
    asked: Activations, donors: Activations, *, kind: str, slot: str, n_layers: int
) -> Curves:
    """Whether a question's state is nearest to that of its translation, layer by layer.

    For each prompt and each other language there are four states: the question and its translation,
    and another question about the same context, in both languages. The value is 1 if question and
    translation are nearer to each other (cosine, each language's mean subtracted) than either is to
    the other question: mutual nearest neighbours among questions about one context, so that a
    shared context can't be taken for a shared question. The control is the same for the other
    question's translation. Mean over the other languages. Ties count for neither.

    Words that the languages share (names, numbers) align states without any understanding, also in
    a model with random weights: compare with one.

    Args:
        asked: States of the questions in several languages.
        donors: States of other questions about the same contexts, under the same ids.
        kind: Which kind of evidence this is (`KINDS`).
        slot: Where: `last`, `question:last`.
        n_layers: Blocks of the model.

    Raises:
        ValueError: a single language, or no shared id; other prompts or layers.
    """
    keys = ["id", "language"]
    if not asked.meta[keys].equals(donors.meta[keys]) or asked.layers != donors.layers:
        raise InputError(
            "The two activations must be of the same ids, languages and layers, in one order; "
            "harvest the questions and their donors alike."
        )
    languages = list(asked.languages)
    if len(languages) < 2:
        raise InputError(
            f"The questions are all in {languages}; alignment across languages needs two."
        )
    mine, other = _centred(asked, slot), _centred(donors, slot)
    shape = (len(asked), len(asked.layers))
    hits, misses, counts = (np.zeros(shape) for _ in range(3))
    for x in languages:
        for y in languages:
            a, b = shared_rows(asked.meta, x, y)
            if x == y or not len(a):
                continue
            # [pair, layer] cosines, as states have length 1.
            right = np.einsum("pld,pld->pl", mine[a], mine[b])
            wrong = np.einsum("pld,pld->pl", mine[a], other[b])
            crossed = np.einsum("pld,pld->pl", other[a], mine[b])
            others = np.einsum("pld,pld->pl", other[a], other[b])
            # Counted for x's prompts; y's get theirs when the loop comes to them as x.
            hits[a] += right > np.maximum(wrong, crossed) + _TIE
            # The two translations with their names exchanged.
            misses[a] += wrong > np.maximum(right, others) + _TIE
            counts[a] += 1
    if not counts.any():
        raise InputError(f"No id is shared by two of the languages {list(languages)}.")
    with np.errstate(invalid="ignore"):
        value, control = (
            hits / np.where(counts, counts, np.nan),
            misses / np.where(counts, counts, np.nan),
        )
    return one_kind(
        kind,
        value,
        control,
        layers=asked.layers,
        meta=asked.meta.drop(columns=["n_tokens", "tokens"]),
        n_layers=n_layers,
        provenance=asked.provenance,
        centred="by language",
    )


def readable(
    model: HookedModel,
    asked: Asked,
    *,
    measure: Measure = "logprob",
    layers: str | int | Sequence[int] = "all",
    lens: Transport | None = None,
    progress: bool = True,
    **harvesting: Any,
) -> Curves:
    """Whether the answer's first token can be read at the last position, layer by layer.

    The control is the wrong answer, from the same context.

    Args:
        model: From `xlens.load`.
        asked: Prompts.
        measure: `logprob` (nats); `rank`: minus the binary logarithm of the rank; `top1`: 1 where
            it is the most probable token.
        layers: Residual points to read.
        lens: Through which they are read (`xlens.lens`), NaN at those that it lacks; None: the
            logit lens.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Raises:
        ValueError: an unknown measure, a lens of another model, or what `harvest` refuses.
    """
    if measure not in get_args(Measure):
        raise InputError(f"measure is {measure!r}; accepted are {list(get_args(Measure))}.")
    tokens = answer_tokens(model, asked)
    states = harvest(model, asked.prompts, layers=layers, progress=progress, **harvesting)
    kept, carry, every = states.slot("last").values, None, states.layers
    at = list(range(len(every)))
    if lens is not None:
        read_at = lens.readable(every, model)
        at = [states.layer_index(n) for n in read_at]
        kept, carry = kept[at], lens.over(read_at)
    if measure == "logprob":
        found = read_answers(model, kept, tokens, carry=carry, progress=progress)
    else:
        read = stream(
            model.readout,
            kept,
            targets=torch.from_numpy(np.maximum(tokens, 0))[..., None],
            top_k=0,
            statistics=("rank",),
            carry=carry,
            progress=progress,
        )
        assert read.set_ranks is not None
        ranks = read.set_ranks.double().numpy().transpose(1, 0, 2)
        found = -np.log2(ranks) if measure == "rank" else (ranks == 1).astype(float)
        # -1 was read as token 0, since `stream` wants a token for each: thrown away here.
        found = np.where(tokens[:, None, :] < 0, np.nan, found)
    origin = states.provenance
    if lens is not None:
        whole = np.full((len(found), len(every), 2), np.nan)
        whole[:, at] = found
        found, origin = whole, analysed(origin, READABLE, {"through": lens.key or "logit"})
    return one_kind(
        READABLE,
        found[..., 0],
        found[..., 1],
        layers=states.layers,
        meta=asked.meta,
        n_layers=model.n_layers,
        provenance=origin,
        measure=measure,
        left_out={"readable": int((tokens[:, 0] < 0).sum())},
    )


def _centred(states: Activations, slot: str) -> Float[np.ndarray, "prompt layer d_model"]:
    """Unit vectors less their language's mean; 0 where nothing is left of a state."""
    values = states.get(slot).double().numpy().copy()
    size = np.linalg.norm(values, axis=-1, keepdims=True)
    languages = states.meta["language"].to_numpy()
    for language in states.languages:
        here = languages == language
        values[here] -= values[here].mean(0)
    left = np.linalg.norm(values, axis=-1, keepdims=True)
    # Against the state's own size before: a state that is its language's mean has no direction.
    return values / np.where(left > _TIE * size, left, np.inf)
