"""What the last layers do: language gaps by lens and by patching, and late relevance."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.engine import RelevanceScores
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.phases.asked import Asked
from xlens.phases.curves import Curves
from xlens.phases.effects import LayerEffects, layer_effects
from xlens.phases.evidence.sweep import patched
from xlens.phases.resample import shared_rows
from xlens.prompts import Prompts
from xlens.stats import Resampling


@typed
def lens_gap(
    curves: Curves,
    *,
    pivot: str = "en",
    kind: str = "readable",
    resampling: Resampling = Resampling(),
) -> LayerEffects:
    """How much better the answer can be read after the pivot's question, layer by layer.

    Value of the pivot's prompt less that of the other language's with the same id; the control is
    the same for the wrong answer. Where the gap opens in the last layers only, the answer was found
    and lost again.

    Args:
        curves: With that kind of evidence.
        pivot: The language of the baseline.
        kind: Of the evidence.
        resampling: Of the intervals.

    Raises:
        ValueError: no such kind, no such language, or none besides it.
    """
    value, control = curves.get(kind, "values"), curves.get(kind, "control")
    pairs = _pairs(curves.meta, pivot).values()
    rows, base = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return layer_effects(
        # [pair, layer], the rows of every language besides the pivot's; a baseline serves several.
        value[base] - value[rows],
        control[base] - control[rows],
        layers=curves.layers,
        meta=curves.meta.iloc[rows],
        effect="lens gap",
        options={"pivot": pivot, "kind": kind},
        n_layers=curves.n_layers,
        resampling=resampling,
        provenance=curves.provenance,
    )


@typed
def recovered(
    model: HookedModel,
    asked: Asked,
    *,
    pivot: str = "en",
    layers: str | int | Sequence[int] = "all",
    resampling: Resampling = Resampling(),
    progress: bool = True,
    **harvesting: Any,
) -> LayerEffects:
    """What the last position's state after the pivot's question does for other languages' prompts.

    At each layer the state of the pivot's prompt with the same id is put in; the value is what the
    prompt's own right answer gains (nats). The control takes the state of another question about
    the pivot's prompts: the next one in order.

    Args:
        model: From `xlens.load`.
        asked: Prompts in several languages, the pivot among them.
        pivot: The language that states are taken from.
        layers: Residual points at which to patch.
        resampling: Of the intervals.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Raises:
        ValueError: no such language, none besides it, or what `harvest` refuses.
    """
    meta = asked.meta
    resampling.codes(meta)
    points = model.layers(layers)
    pairs = _pairs(meta, pivot)
    for language, (rows, _) in pairs.items():
        if len(rows) < 2:
            raise InputError(f"{language!r} and {pivot!r} share {len(rows)} ids; two are needed.")
    gains: list[list[np.ndarray]] = [[], []]
    for rows, base in pairs.values():
        taker = asked.take(rows)
        # Rolled by one, each gets the pivot's state of another id: the control.
        for kept, givers in zip(gains, (base, np.roll(base, -1)), strict=True):
            found = patched(
                model,
                taker,
                # `patched` wants donors of the takers' ids and
                # languages, and these are the pivot's.
                _dressed(asked, givers, taker),
                kind="patch_last_question",
                slot="last",
                layers=layers,
                progress=progress,
                **harvesting,
            )
            kept.append(found.get("patch_last_question", "values"))
    return layer_effects(
        *(np.concatenate(kept) for kept in gains),
        layers=points,
        meta=meta.iloc[np.concatenate([rows for rows, _ in pairs.values()])],
        effect="recovered",
        options={"pivot": pivot},
        n_layers=model.n_layers,
        resampling=resampling,
        provenance=model.provenance(),
    )


@typed
def late_share(
    scores: RelevanceScores,
    *,
    segment: str = "question",
    last: int | Sequence[int] = 2,
    n_layers: int | None = None,
    resampling: Resampling = Resampling(),
) -> LayerEffects:
    """Share of a segment's relevance, `sum |R|` over layers above 0, that lies in the last layers.

    Of a span, the output of the last block is not counted: the scalar is read at the last position,
    so every other token's relevance is 0 there whatever the model. Of `last` it is.

    Args:
        scores: With the slot `SEGMENT:sum`, or `last`.
        segment: Name of a span, or `last`.
        last: How many of the layers that count, from the top; several are looked at one by one.
        n_layers: Blocks of the model; None: the deepest layer of the scores.
        resampling: Of the intervals.

    Returns:
        `layer` is the number of layers; `control` the share if all layers had the same. A prompt
        without any relevance in the segment is NaN.

    Raises:
        ValueError: a slot that the scores lack, or as many layers as there are.
    """
    blocks = max(scores.layers) if n_layers is None else n_layers
    points = np.array(scores.layers)
    counted = (points > 0) & ((points < blocks) | (segment == "last"))
    numbers = [last] if isinstance(last, int) else list(last)
    most = int(counted.sum()) - 1
    if not numbers or not all(1 <= number <= most for number in numbers):
        raise InputError(
            f"last is {last}; accepted are 1 to {most} of the {most + 1} layers that count here."
        )
    slot = "last" if segment == "last" else f"{segment}:sum"
    size = np.abs(scores.get(slot)[:, counted].astype(np.float64))
    total = size.sum(1, keepdims=True)
    late = np.stack([size[:, -number:].sum(1) for number in numbers], axis=1)
    share = np.where(total > 0, late / np.where(total > 0, total, 1), np.nan)
    # `most` is one less than the layers that count.
    even = np.broadcast_to(np.array(numbers) / (most + 1), share.shape)
    return layer_effects(
        share,
        even,
        layers=numbers,
        meta=scores.meta,
        effect="late relevance",
        options={"segment": segment, "rule": scores.rule, "scalar": scores.scalar},
        n_layers=blocks,
        resampling=resampling,
        provenance=scores.provenance,
    )


def _dressed(asked: Asked, givers: np.ndarray, taker: Asked) -> Asked:
    """The givers' prompts under the takers' ids, languages and answers."""
    prompts = [
        replace(asked.prompts[int(g)], id=p.id, language=p.language)
        for g, p in zip(givers, taker.prompts, strict=True)
    ]
    return Asked(Prompts(prompts), taker.answers, taker.others)


def _pairs(meta: pd.DataFrame, pivot: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By language: rows, and those of the pivot with the same ids."""
    tags = list(dict.fromkeys(meta["language"]))
    if pivot not in tags or len(tags) < 2:
        raise InputError(
            f"pivot={pivot!r} is compared with other languages, but the prompts are in {tags}."
        )
    pairs = {tag: shared_rows(meta, tag, pivot) for tag in tags if tag != pivot}
    found = {tag: rows for tag, rows in pairs.items() if len(rows[0])}
    if not found:
        raise InputError(f"No prompt in another language shares an id with one in {pivot!r}.")
    return found
