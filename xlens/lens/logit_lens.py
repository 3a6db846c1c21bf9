"""`logit_lens`: cached activations and target sets in, a `LensResult` out; through any lens."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xlens.activations import Activations, SlotValues
from xlens.checks import typed
from xlens.engine.stream import Streamed, require_residual, stream
from xlens.errors import InputError
from xlens.lens.energy import token_energy
from xlens.lens.identify import identify_tokens
from xlens.lens.lenses import LOGIT, Lens
from xlens.lens.result import LensResult, LensTokens
from xlens.lens.targets import TargetSets
from xlens.models import HookedModel
from xlens.prompts.fewshot import headers_in
from xlens.prompts.prompt import UNDETERMINED
from xlens.results import analysed


@overload
def logit_lens(
    activations: Activations,
    model: HookedModel,
    targets: TargetSets,
    *,
    slot: str | None = None,
    pivot: str = "en",
    top_k: int = 10,
    lens: Lens = LOGIT,
    progress: bool = True,
) -> LensResult: ...
@overload
def logit_lens(
    activations: Activations,
    model: HookedModel,
    targets: None = None,
    *,
    slot: str | None = None,
    top_k: int = 10,
    lens: Lens = LOGIT,
    progress: bool = True,
) -> LensTokens: ...
@typed
def logit_lens(
    activations: Activations,
    model: HookedModel,
    targets: TargetSets | None = None,
    *,
    slot: str | None = None,
    pivot: str = "en",
    top_k: int = 10,
    lens: Lens = LOGIT,
    progress: bool = True,
) -> LensResult | LensTokens:
    """Which language's word is the model about to say, layer by layer?

    Each state goes through the model's own final norm, unembedding and soft-cap, in fp32 and in
    vocabulary tiles (arXiv 2402.10588, section 3; the last layer is the model's own output).

    Args:
        activations: From `harvest`; with targets, all with the same meta `source`, `target` and
            `task`.
        model: The model that made them; only its readout and vocabulary are used.
        targets: Disjoint token sets per item; None: only the most probable tokens, the entropy and
            the divergence from the output are told.
        slot: Which slot to read, one row per prompt; the only one by default.
        pivot: The language suspected inside.
        top_k: Most probable tokens kept per layer.
        lens: Through which states are read; layers that it lacks are left out.
        progress: Show a bar.

    Raises:
        ValueError: activations of another model, prompts without target sets, a pivot of which
            there is no target set, a ragged slot, a lens of another model or without any layer.
    """
    if targets is None:
        return _tokens(activations, model, slot, top_k, lens, progress)
    every = logit_lenses(
        activations,
        model,
        {"": targets},
        slot=slot,
        pivot=pivot,
        top_k=top_k,
        lens=lens,
        progress=progress,
    )
    return every[""]


@typed
def logit_lenses(
    activations: Activations,
    model: HookedModel,
    targets: Mapping[str, TargetSets],
    *,
    slot: str | None = None,
    pivot: str = "en",
    top_k: int = 10,
    lens: Lens = LOGIT,
    progress: bool = True,
) -> dict[str, LensResult]:
    """`logit_lens` for several readings of the same states in one pass over the vocabulary.

    For a result beside its shuffled control, say. `states` and `top` are shared.
    """
    activations.require(model.fingerprint, what="Readout")
    task = one_task(activations)
    kept = _one_row_each(activations, slot)
    ids = list(activations.meta["id"])
    languages = dict.fromkeys(x for sets in targets.values() for x in sets.all_languages)
    require_pivot(pivot, languages)
    wanted = {name: sets.tensor(ids) for name, sets in targets.items()}
    size = max(w.shape[-1] for w in wanted.values())
    together = torch.cat([pad(w, (0, size - w.shape[-1]), value=-1) for w in wanted.values()], 1)
    read = read_rows(
        activations,
        model,
        kept.values,
        lens,
        list(languages),
        targets=together,
        top_k=top_k,
        progress=progress,
    )
    results: dict[str, LensResult] = {}
    first = 0
    for name, sets in targets.items():
        columns = slice(first, first + len(sets.all_languages))
        first = columns.stop
        results[name] = LensResult(
            provenance=analysed(
                activations.provenance,
                "lens",
                {
                    "slot": slot or next(iter(activations.slots)),
                    "top_k": top_k,
                    **through(lens),
                    **headers_in(activations.meta),
                    "targets": sets.survival().set_index("reason")["n"].to_dict(),
                },
            ),
            rows=headed(
                _word_rows(read.layers, ids, read.streamed, columns, sets, together), activations
            ),
            states=read.states,
            top=read.top,
            n_layers=model.n_layers,
            pivot=pivot,
            match=sets.match,
            lens=lens.kind,
            **task,
        )
    return results


def _one_row_each(activations: Activations, slot: str | None) -> SlotValues:
    kept = activations.slot(slot)
    if not kept.dense:
        raise InputError(f"logit_lens reads one row per prompt; slot {slot!r} has several.")
    return kept


def _tokens(
    activations: Activations,
    model: HookedModel,
    slot: str | None,
    top_k: int,
    lens: Lens,
    progress: bool,
) -> LensTokens:
    """What is read of states where no words are looked for."""
    activations.require(model.fingerprint, what="Readout")
    kept = _one_row_each(activations, slot)
    languages = [tag for tag in activations.languages if tag != UNDETERMINED]
    read = read_rows(
        activations, model, kept.values, lens, languages, top_k=top_k, progress=progress
    )
    how = {"slot": slot or next(iter(activations.slots)), "top_k": top_k, **through(lens)}
    return LensTokens(
        provenance=analysed(activations.provenance, "lens", how),
        states=read.states,
        top=read.top,
        n_layers=model.n_layers,
        lens=lens.kind,
    )


@dataclass(frozen=True)
class RowsRead:
    """What a lens reads of one row per prompt: statistics, and the tables that all results have."""

    layers: tuple[int, ...]
    streamed: Streamed
    states: pd.DataFrame
    top: pd.DataFrame


def read_rows(
    activations: Activations,
    model: HookedModel,
    values: Float[Tensor, "layer row d_model"],
    lens: Lens,
    languages: Sequence[str],
    *,
    targets: Int[Tensor, "row set size"] | None = None,
    top_k: int,
    progress: bool,
) -> RowsRead:
    """Read states, one row per prompt, at the layers that a lens can.

    Args:
        activations: What the states are of.
        model: Of the readout.
        values: The states, at all layers of the activations.
        lens: Through which they are read.
        languages: That tokens are told to be of.
        targets: Token ids of each row's target sets, whose ranks are told.
        top_k: Most probable tokens kept.
        progress: Show a bar.
    """
    layers, values = readable_states(activations, model, lens, values)
    carry = lens.over(layers)
    read = stream(
        model.readout,
        values,
        layers=layers,
        targets=targets,
        top_k=top_k,
        carry=carry,
        progress=progress,
    )
    energy = token_energy(model.readout, values, carry).numpy()
    ids = list(activations.meta["id"])
    return RowsRead(layers, read, *_tables(layers, ids, model, read, energy, languages))


def readable_states(
    activations: Activations,
    model: HookedModel,
    lens: Lens,
    values: Float[Tensor, "layer row d_model"],
) -> tuple[tuple[int, ...], Float[Tensor, "read row d_model"]]:
    """The layers that a lens can read, and the states there.

    Raises:
        ValueError: none of them, a lens of another model, or states of another site.
    """
    require_residual(activations)
    layers = lens.readable(activations.layers, model)
    if layers == tuple(activations.layers):
        return layers, values
    return layers, values[[activations.layers.index(n) for n in layers]]


def through(lens: Lens) -> dict[str, Any]:
    """What provenance says of the lens; of the usual one nothing."""
    return {} if lens.key is None else {"through": lens.described()}


def _word_rows(
    layers: Sequence[int],
    ids: Sequence[str],
    read: Streamed,
    columns: slice,
    targets: TargetSets,
    wanted: Int[Tensor, "row set size"],
) -> pd.DataFrame:
    assert read.set_logprobs is not None and read.set_ranks is not None
    logprob = read.set_logprobs[..., columns].numpy()
    rank = read.set_ranks[..., columns].numpy().astype(float)
    sizes = np.broadcast_to((wanted[:, columns] >= 0).sum(-1).numpy(), logprob.shape)
    rows = grid(layers, ids, language=targets.all_languages)
    rows["prob"] = np.where(sizes == 0, np.nan, np.exp(logprob)).ravel()
    rows["logprob"] = np.where(sizes == 0, np.nan, logprob).ravel()
    rows["rank"] = np.where(sizes == 0, np.nan, rank).ravel()
    rows["n_tokens"] = sizes.ravel()
    return rows


def require_pivot(pivot: str, languages: Collection[str]) -> None:
    """See that there are words in the language suspected inside.

    Raises:
        ValueError: there are none: nothing would be said about it.
    """
    if pivot not in languages:
        raise InputError(
            f"pivot is {pivot!r}, and the words to be read are {', '.join(languages)}: give one of "
            "these, or that language's words too (of target_sets, extra=)."
        )


def one_task(activations: Activations) -> dict[str, str]:
    """`source`, `target` and `task` of the prompts, which must agree.

    Raises:
        ValueError: a column is missing or holds several values.
    """
    found: dict[str, str] = {}
    for key in ("source", "target", "task"):
        values = list(activations.meta[key].unique()) if key in activations.meta else []
        if len(values) != 1:
            raise InputError(
                f"One LensResult is about one language pair and task, but the prompts' meta has "
                f"{key} = {values or 'nothing'}. Build the prompts with xlens.tasks.words, or set "
                "Prompt.meta, and read one pair at a time."
            )
        found[key] = str(values[0])
    return found


def grid(layers: Sequence[int], ids: Sequence[str], **last: Sequence[Any]) -> pd.DataFrame:
    """Layer × prompt (× one more axis) as columns, in the order of a `[layer, prompt, …]` array."""
    axes: dict[str, Sequence[Any]] = {"layer": layers, "prompt": range(len(ids)), **last}
    frame = pd.MultiIndex.from_product(list(axes.values()), names=list(axes)).to_frame(index=False)
    frame.insert(2, "id", np.asarray(ids, dtype=object)[frame["prompt"]])
    return frame


def headed(rows: pd.DataFrame, activations: Activations) -> pd.DataFrame:
    """Rows with the `header` of demonstrations of their prompts, where prompts share some."""
    if "header" not in activations.meta:
        return rows
    return rows.assign(header=activations.meta["header"].to_numpy()[rows["prompt"]])


def _tables(
    layers: Sequence[int],
    ids: Sequence[str],
    model: HookedModel,
    read: Streamed,
    energy: np.ndarray,
    languages: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The `states` and `top` tables of a streamed readout."""
    assert read.entropy is not None
    states = grid(layers, ids)
    states["entropy"] = read.entropy.numpy().ravel()
    # The reference of the divergence is the model's output; without it there is none.
    complete = layers[-1] == model.n_layers and read.kl is not None
    states["kl"] = read.kl.numpy().ravel() if complete and read.kl is not None else np.nan
    states["energy"] = energy.ravel()
    top = grid(layers, ids, k=range(1, read.top_ids.shape[-1] + 1))
    tokens = read.top_ids.numpy().ravel()
    distinct, where = np.unique(tokens, return_inverse=True)
    vocab = model.vocab
    texts = [vocab.text(int(t)) for t in distinct]
    labels = np.array([vocab.label(int(t)) for t in distinct], dtype=object)
    tongues = np.array(identify_tokens(texts, languages), dtype=object)
    top["token"] = tokens
    top["label"] = labels[where]
    top["prob"] = np.exp(read.top_logprobs.numpy().ravel())
    top["language"] = tongues[where]
    return states, top
