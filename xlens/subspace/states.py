"""One state per prompt (`pool`) and the same items in every language, side by side (`parallel`)."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.activations import Activations, SlotValues
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import analysed

MEANS = ("mean", "mean_without_first", "mean_weighted")


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """States of the same items in several languages.

    Attributes:
        values: Rows are paired: item i is the same in every language.
        n_tokens: Length of each prompt.
        layers: Residual points, in the order of the values.
        languages: In the order of the values.
        ids: Parallel ids, in the order of the values.
        pooling: How a prompt became one state.
        meta: Of the items, in the order of the values, as their prompts in the first language have.
    """

    values: Float[np.ndarray, "layer language item d_model"]
    n_tokens: Float[np.ndarray, "language item"]
    layers: tuple[int, ...]
    languages: tuple[str, ...]
    ids: tuple[str, ...]
    pooling: str
    meta: pd.DataFrame

    def layer(self, index: int) -> Float[np.ndarray, "language item d_model"]:
        """One layer in double precision: a residual stream can reach 1e5."""
        return self.values[index].astype(np.float64)

    def flat(self, index: int) -> tuple[Float[np.ndarray, "state d_model"], np.ndarray, np.ndarray]:
        """One layer's states under each other, with their languages and item numbers."""
        states = self.layer(index)
        n_languages, n_items, d_model = states.shape
        languages = np.repeat(np.array(self.languages), n_items)
        return states.reshape(-1, d_model), languages, np.tile(np.arange(n_items), n_languages)


@typed
def pool(
    activations: Activations, pooling: str = "last"
) -> Float[np.ndarray, "layer prompt d_model"]:
    """One state per prompt.

    | pooling | state | slot it needs |
    |---|---|---|
    | `last` | the last token | `last` or `all` |
    | `mean` | mean over all tokens, BOS included (what the code of arXiv 2405.13816 does) | `all` |
    | `mean_without_first` | the same less the first token: BOS, or what is in its place | `all` |
    | `mean_weighted` | mean with weights t / Σt, t = 1..T (default of MEXA, 2410.05873) | `all` |
    | `SPAN:mean` | mean over a span's tokens: content without what is around it | that or `:each` |
    | any other slot | its state, or the mean of its states | that |

    In many models the first token's state is larger than all others by orders of magnitude
    (Gemma's passes 1e5), so that `mean` is mostly that token divided by the length.

    Raises:
        ValueError: the slot isn't there; a prompt without a token left; a state that isn't finite.
    """
    values = _pooled(activations, pooling).float().numpy()
    if not np.isfinite(values).all():
        layer, prompt = np.argwhere(~np.isfinite(values).all(-1))[0]
        row = activations.meta.iloc[int(prompt)]
        raise InputError(
            f"The state of {row['id']!r} ({row['language']}) at layer {activations.layers[layer]} "
            "is not finite. fp16 overflows at 65,504: harvest with dtype=torch.float32."
        )
    return values


def _pooled(activations: Activations, pooling: str) -> Tensor:
    if pooling in MEANS and pooling not in activations.slots:  # `LayerWise.remove` names them so
        return _mean(activations, _need(activations, "all", pooling), pooling)
    if pooling == "last" and "last" not in activations.slots:
        slot = _need(activations, "all", pooling)
        # values [layer, token, d_model], prompts one after another: a
        # prompt ends before the next's offset.
        return slot.values[:, slot.offsets[1:] - 1]
    each = f"{pooling.removesuffix(':mean')}:each"
    if pooling.endswith(":mean") and pooling not in activations.slots and each in activations.slots:
        return _mean(activations, activations.slot(each), pooling)
    slot = _need(activations, pooling, pooling)
    return slot.values if slot.dense else _mean(activations, slot, pooling)


def _need(activations: Activations, name: str, pooling: str) -> SlotValues:
    if name not in activations.slots:
        raise InputError(
            f"pooling={pooling!r} needs the slot {name!r}; these activations hold "
            f"{list(activations.slots)}. Accepted are 'last', {', '.join(map(repr, MEANS))} and "
            f"the name of a slot: choose one that is there, or harvest with slots={name!r}."
        )
    return activations.slot(name)


def _mean(activations: Activations, slot: SlotValues, pooling: str) -> Tensor:
    counts = slot.offsets.diff()
    # [token]: which prompt it is of, and its place in that prompt from 0.
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = torch.arange(len(owner)) - slot.offsets[owner]
    weights = torch.ones(len(owner), dtype=torch.float64)
    if pooling == "mean_without_first":
        weights = (place > 0).double()
    elif pooling == "mean_weighted":
        weights = place.double() + 1
    total = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, owner, weights)
    if (total == 0).any():
        row = activations.meta.iloc[int((total == 0).nonzero()[0])]
        raise InputError(
            f"pooling={pooling!r} leaves no token of prompt {row['id']!r} ({row['language']}), "
            f"which has {row['n_tokens']}. Leave the item out, or use another pooling."
        )
    out = [
        torch.zeros(len(counts), states.shape[-1], dtype=torch.float64).index_add_(
            0, owner, states.double() * (weights / total[owner])[:, None]
        )
        for states in slot.values  # a layer at a time: double precision of all would be large
    ]
    return torch.stack(out)


@typed
def shared_items(activations: Activations) -> Activations:
    """The items that exist in every language; the others are left out.

    Raises:
        ValueError: no id is there in every language.
    """
    of = activations.meta.groupby("language")["id"].agg(set)
    shared = set.intersection(*of)
    if not shared:
        raise InputError(
            f"No parallel id is there in all of {list(activations.languages)}; leave a language "
            "out with activations.select(languages=…)."
        )
    return activations.select(ids=sorted(shared))


def parallel(activations: Activations, pooling: str = "last", *, at_least: int = 2) -> Parallel:
    """Pool and pair by id, never by row order.

    Raises:
        ValueError: one language only, ids twice or missing in a language, fewer than `at_least`
            items, or what `pool` refuses.
    """
    meta, languages = activations.meta, activations.languages
    if len(languages) < 2:
        raise InputError(
            f"Comparing languages needs at least two; these activations hold {list(languages)}. "
            "Harvest parallel prompts in several languages."
        )
    require_unique(activations)
    ids = list(dict.fromkeys(meta["id"]))
    rows = {
        (lang, i): n for n, (lang, i) in enumerate(zip(meta["language"], meta["id"], strict=True))
    }
    lacking = {lang: [i for i in ids if (lang, i) not in rows] for lang in languages}
    if any(lacking.values()):
        some = "; ".join(
            f"{lang} lacks {len(miss)} of {len(ids)}: {miss[:5]}"
            for lang, miss in lacking.items()
            if miss
        )
        raise InputError(
            f"Not every item is there in every language: {some}. Add them, or keep what all share: "
            "xlens.subspace.shared_items(activations)."
        )
    if len(ids) < at_least:
        raise InputError(f"{len(ids)} parallel items; this needs at least {at_least}.")
    order = [[rows[lang, i] for i in ids] for lang in languages]
    states = pool(activations, pooling)
    return Parallel(
        values=np.stack([states[:, at] for at in order], axis=1),
        n_tokens=meta["n_tokens"].to_numpy(dtype=float)[np.array(order)],
        layers=tuple(activations.layers),
        languages=languages,
        ids=tuple(map(str, ids)),
        pooling=pooling,
        meta=meta.iloc[order[0]].reset_index(drop=True),
    )


def require_unique(activations: Activations) -> None:
    """Refuse a second prompt with the same id and language.

    Raises:
        ValueError: names them.
    """
    pairs = Counter(zip(activations.meta["language"], activations.meta["id"], strict=True))
    if twice := [f"{i!r} ({lang})" for (lang, i), n in pairs.items() if n > 1]:
        raise InputError(
            f"{len(twice)} items are there more than once: {', '.join(twice[:5])}. An id names one "
            "item per language; give them different ids or drop the copies."
        )


def origin(activations: Activations, analysis: str, **options: Any) -> dict[str, Any]:
    """Provenance of a result: that of the activations, and in a room the analysis's options."""
    known = {**activations.provenance, "fingerprint": activations.fingerprint}
    return analysed(known, analysis, options)
