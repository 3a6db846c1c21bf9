"""A public yardstick for lenses: are the steps of a thought read on the way?

The multilingual items of the Jacobian lens's authors (107 cloze texts in about 36 languages,
unevenly: most languages have one to three). Each text has English `intermediates`, words that a
model might pass through; an item's score is the share of them whose rank, at the text's last
position, is k or better at some layer below the output (their pass@k). The test knows only words of
one token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from langcodes import find

from xlens import strict
from xlens.checks import typed
from xlens.engine import harvest
from xlens.engine.stream import stream
from xlens.errors import DataError, InputError
from xlens.lens.lenses import Lens
from xlens.lens.logit_lens import readable_states
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap, generator


@dataclass(frozen=True, kw_only=True)
class LensItems:
    """Texts, and words that may be passed through before they are continued.

    Attributes:
        prompts: With the language that an item's name begins with; `und` where that is none.
        intermediates: Of each prompt, by its id.
    """

    prompts: Prompts
    intermediates: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class LensYardstick(Result):
    """What lenses score on such items.

    Attributes:
        table: `lens language k score low high control control_low control_high n`: means over
            items; `language` is a tag, or `all`. The control reads other items' words.
        survival: `what n`: items and words that were offered, and those that can be read: the test
            knows only words of one token.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    survival: pd.DataFrame
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def read_lens_items(path: str | Path) -> LensItems:
    """Read `{"items": [{"name", "prompt", "target", "intermediates"}, …]}`.

    Raises:
        ValueError: no such file, no such items, or a name twice.
    """
    if not Path(path).exists():
        raise DataError(f"No items for lenses at {str(path)!r}: no such file.")
    try:
        said: Any = strict.loads(strict.read_bytes(Path(path)).decode())
        items = [
            (str(x["name"]), str(x["prompt"]), tuple(map(str, x["intermediates"])))
            for x in said["items"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(
            f"{str(path)!r} holds no items for lenses: expected an object with `items`, each with "
            f"name, prompt and intermediates ({type(problem).__name__}: {problem})."
        ) from problem
    prompts = Prompts(Prompt(text.rstrip(), _language(name), name) for name, text, _ in items)
    return LensItems(prompts=prompts, intermediates={name: words for name, _, words in items})


@typed
def lens_yardstick(
    model: HookedModel,
    items: LensItems,
    lenses: Mapping[str, Lens],
    *,
    ks: Sequence[int] = (1, 10, 100),
    seed: int = 0,
    resampling: Resampling = Resampling(),
    progress: bool = True,
    **harvesting: Any,
) -> LensYardstick:
    """Score lenses on items.

    Args:
        model: From `xlens.load`.
        items: From `read_lens_items`.
        lenses: By name.
        ks: Ranks that count as read.
        seed: Of the control: each item is read for the words of another.
        resampling: Of the intervals over items.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Raises:
        ValueError: no item has a word that is one token, or a lens of another model.
    """
    single = {id: _single(model, words) for id, words in items.intermediates.items()}
    kept = [p for p in items.prompts if single[p.id]]
    if len(kept) < 2:
        raise InputError(
            f"{len(kept)} of {len(items.prompts)} items have an intermediate that is one token of "
            f"{model.name}; two or more are needed."
        )
    order = generator(seed, 3).permutation(len(kept))
    other = {kept[i].id: kept[order[n - 1]].id for n, i in enumerate(order)}  # nobody's own
    words = [[*single[p.id]] for p in kept]
    null = [[w for w in single[other[p.id]] if w not in single[p.id]] for p in kept]
    width = max(map(len, [*words, *null]))
    asked = torch.full((len(kept), 2 * width, 1), -1, dtype=torch.long)
    for i, (mine, theirs) in enumerate(zip(words, null, strict=True)):
        asked[i, : len(mine), 0] = torch.tensor(mine)
        asked[i, width : width + len(theirs), 0] = torch.tensor(theirs)
    states = harvest(model, kept, slots="last", progress=progress, **harvesting)
    rows: list[dict[str, Any]] = []
    for name, lens in lenses.items():
        layers, values = readable_states(states, model, lens, states.slot("last").values)
        below = [i for i, n in enumerate(layers) if n < model.n_layers]
        read = stream(
            model.readout,
            values,
            targets=asked,
            top_k=0,
            statistics=("rank",),
            carry=lens.over(layers),
            progress=progress,
        )
        assert read.set_ranks is not None
        best = read.set_ranks[below].amin(0).double().numpy()
        missing = (asked[..., 0] < 0).numpy()
        for k in ks:
            passed = np.where(missing, np.nan, best <= k)
            share = [_share(passed[:, :width]), _share(passed[:, width:])]
            rows += _by_language(name, k, np.stack(share, axis=1), kept, resampling)
    survival = {
        "items": len(items.prompts),
        "items with a word of one token": len(kept),
        "words": sum(map(len, items.intermediates.values())),
        "words of one token": sum(map(len, single.values())),
    }
    how = {"ks": list(ks), "seed": seed, "lenses": {n: x.described() for n, x in lenses.items()}}
    return LensYardstick(
        provenance=analysed(states.provenance, "yardstick", {**how, **resampling.provenance()}),
        table=pd.DataFrame(rows),
        survival=pd.DataFrame({"what": list(survival), "n": list(survival.values())}),
        confidence=resampling.confidence,
    )


def _share(passed: np.ndarray) -> np.ndarray:
    """Mean of each row; NaN where nothing was asked."""
    n = np.isfinite(passed).sum(axis=1)
    return np.where(n > 0, np.nansum(passed, axis=1) / np.maximum(n, 1), np.nan)


def _single(model: HookedModel, words: Sequence[str]) -> list[int]:
    """The tokens of words that are one token behind a space."""
    ids = [model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return list(dict.fromkeys(int(each[0]) for each in ids if len(each) == 1))


def _language(name: str) -> str:
    try:
        return str(find(name.partition("-")[0]))
    except LookupError:
        return "und"


def _by_language(
    name: str, k: int, scores: np.ndarray, kept: Sequence[Prompt], resampling: Resampling
) -> list[dict[str, Any]]:
    tags = np.array([p.language for p in kept])
    rows: list[dict[str, Any]] = []
    for tag in ("all", *dict.fromkeys(tags)):
        mine = scores if tag == "all" else scores[tags == tag]
        found = bootstrap(mine, clusters=np.arange(len(mine)), resampling=resampling)
        low, high = found.interval()
        rows.append(
            {"lens": name, "language": str(tag), "k": k, "score": found.mean[0], "low": low[0]}
            | {"high": high[0], "control": found.mean[1], "control_low": low[1]}
            | {"control_high": high[1], "n": len(mine)}
        )
    return rows
