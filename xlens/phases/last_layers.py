"""What the last layers do: language gaps by lens and by patching, late relevance, swaps."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn

from xlens.engine import RelevanceScores, harvest
from xlens.models import HookedModel
from xlens.phases.asked import Asked, answer_tokens
from xlens.phases.curves import Curves
from xlens.phases.evidence.sweep import patched, read_answers
from xlens.phases.resample import cluster_of, percentiles, shared_rows
from xlens.prompts import Prompts
from xlens.results import Result, versions
from xlens.stats import ClusterSums, bootstrap_weights, check_draws


@dataclass(frozen=True, kw_only=True)
class LayerEffects(Result):
    """Numbers by layer and language, with a control beside them.

    Attributes:
        table: `language layer mean low high control n`. What they are, `effect` says; `control` is
            NaN where there is none. Of swapped blocks `layer` is the number of blocks swapped.
        effect: `lens gap`, `recovered`, `late relevance` or `swapped blocks`.
        n_layers: Blocks of the model.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    effect: str
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def lens_gap(
    curves: Curves,
    *,
    pivot: str = "en",
    kind: str = "readable",
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> LayerEffects:
    """How much better the answer can be read after the pivot's question, layer by layer.

    Value of the pivot's prompt less that of the other language's with the same id; the control is
    the same for the wrong answer. Where the gap opens in the last layers only, the answer was found
    and lost again.

    Args:
        curves: With that kind of evidence.
        pivot: The language of the baseline.
        kind: Of the evidence.
        cluster: Meta column that is resampled whole.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.

    Raises:
        ValueError: no such kind, no such language, or none besides it.
    """
    check_draws(confidence, n_boot=n_boot)
    value, control = curves.get(kind, "values"), curves.get(kind, "control")
    clusters = cluster_of(curves.meta, cluster)
    parts: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    for language, (rows, base) in _pairs(curves.meta, pivot).items():
        gaps = [x[base] - x[rows] for x in (value, control)]
        parts.append((language, gaps[0], gaps[1], clusters[rows]))
    table = _table(parts, curves.layers, int(clusters.max()) + 1, confidence, n_boot, seed)
    return _effects(table, "lens gap", curves.n_layers, confidence, curves.provenance)


def recovered(
    model: HookedModel,
    asked: Asked,
    *,
    pivot: str = "en",
    layers: str | int | Sequence[int] = "all",
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
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
        cluster: Meta column that is resampled whole.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Raises:
        ValueError: no such language, none besides it, or what `harvest` refuses.
    """
    check_draws(confidence, n_boot=n_boot)
    meta = asked.meta
    clusters = cluster_of(meta, cluster)
    parts: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    points = model.layers(layers)
    for language, (rows, base) in _pairs(meta, pivot).items():
        if len(rows) < 2:
            raise ValueError(f"{language!r} and {pivot!r} share {len(rows)} ids; two are needed.")
        taker = asked.take(rows)
        gains = [
            patched(
                model,
                taker,
                _dressed(asked, givers, taker),
                kind="patch_last_question",
                slot="last",
                layers=layers,
                progress=progress,
                **harvesting,
            ).get("patch_last_question", "values")
            for givers in (base, np.roll(base, -1))
        ]
        parts.append((language, gains[0], gains[1], clusters[rows]))
    table = _table(parts, points, int(clusters.max()) + 1, confidence, n_boot, seed)
    return _effects(table, "recovered", model.n_layers, confidence, model.provenance())


def late_share(
    scores: RelevanceScores,
    *,
    segments: Sequence[str] = ("question", "context"),
    last: int = 2,
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of a segment's relevance, `sum |R|` over layers above 0, that lies in the last layers.

    Args:
        scores: With the slots `NAME:sum` (or `last`).
        segments: Names of spans, or `last`.
        last: How many layers.
        cluster: Meta column that is resampled whole.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.

    Returns:
        `language segment share low high uniform n`; `uniform` is the share if all layers had the
        same.

    Raises:
        ValueError: a slot that the scores lack, or as many layers as there are.
    """
    check_draws(confidence, n_boot=n_boot)
    above = np.array(scores.layers) > 0
    if not 1 <= last < above.sum():
        raise ValueError(f"last is {last}; accepted are 1 to {int(above.sum()) - 1} layers here.")
    clusters = cluster_of(scores.meta, cluster)
    weights = bootstrap_weights(int(clusters.max()) + 1, n_boot, seed)
    rows: list[dict[str, Any]] = []
    for segment in segments:
        size = np.abs(scores.get("last" if segment == "last" else f"{segment}:sum"))[:, above]
        total = size.sum(1)
        share = np.where(total > 0, size[:, -last:].sum(1) / np.where(total > 0, total, 1), np.nan)
        for language in scores.meta["language"].unique():
            here = np.where(scores.meta["language"] == language, share, np.nan)[:, None]
            sums = ClusterSums.of(here, clusters)
            low, high = percentiles(sums.draws(weights)[:, 0], confidence)
            rows.append(
                {
                    "language": language,
                    "segment": segment,
                    "share": float(sums.mean()[0]),
                    "low": low,
                    "high": high,
                    "uniform": last / int(above.sum()),
                    "n": int(np.isfinite(here).sum()),
                }
            )
    return pd.DataFrame(rows)


@contextmanager
def swapped_blocks(model: HookedModel, other: HookedModel, last: int) -> Generator[None]:
    """`model` with the last blocks' weights of `other` inside; its own are back afterwards, always.

    No weight is copied: parameters point to the other's for the time being.

    Args:
        model: Changed inside.
        other: Of the same shape; stays as it is.
        last: How many blocks, from the top.

    Raises:
        ValueError: blocks of another shape, or more than there are.
    """
    if not 0 <= last <= min(model.n_layers, other.n_layers):
        raise ValueError(f"last is {last}; accepted are 0 to {model.n_layers} blocks.")
    pairs: list[tuple[nn.Parameter, torch.Tensor]] = []
    chosen = zip(model.blocks[::-1][:last], other.blocks[::-1][:last], strict=True)
    for number, (mine, theirs) in enumerate(chosen):
        ours, given = dict(mine.named_parameters()), dict(theirs.named_parameters())
        shapes = [{k: tuple(v.shape) for k, v in x.items()} for x in (ours, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Block {model.n_layers - 1 - number} of {model.name} and of {other.name} differ "
                "in shape; blocks can be swapped between models of one architecture and size."
            )
        pairs += [(ours[k], given[k].data.to(ours[k].device, ours[k].dtype)) for k in ours]
    own = [(parameter, parameter.data) for parameter, _ in pairs]
    try:
        for parameter, data in pairs:
            parameter.data = data
        yield
    finally:
        for parameter, data in own:
            parameter.data = data


def layer_swap(
    model: HookedModel,
    other: HookedModel,
    asked: Asked,
    *,
    last: Sequence[int] | None = None,
    cluster: str | None = None,
    confidence: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    progress: bool = True,
    **harvesting: Any,
) -> LayerEffects:
    """Log-probability of the answers with the other model's last blocks in place.

    Args:
        model: Whose lower blocks, embedding and readout are kept.
        other: Whose last blocks are used.
        asked: Prompts.
        last: Numbers of blocks; None for 0 to all.
        cluster: Meta column that is resampled whole.
        confidence: Of the intervals.
        n_boot: Resamples.
        seed: Of the bootstrap.
        progress: Show bars.
        **harvesting: Further options of `harvest`.

    Returns:
        `layer` is the number of blocks swapped; `mean` the right answer's log-probability (nats),
        `control` the wrong one's.

    Raises:
        ValueError: models of different shape, or what `harvest` refuses.
    """
    check_draws(confidence, n_boot=n_boot)
    numbers = list(range(model.n_layers + 1)) if last is None else list(last)
    tokens = answer_tokens(model, asked)
    top = model.n_layers
    said: list[Float[np.ndarray, "prompt 2"]] = []
    for number in numbers:
        with swapped_blocks(model, other, number):
            states = harvest(model, asked.prompts, layers=top, progress=progress, **harvesting)
            said.append(read_answers(model, states.slot("last").values, tokens)[:, 0])
    found = np.stack(said, axis=1)
    meta = asked.meta
    clusters = cluster_of(meta, cluster)
    languages = meta["language"].to_numpy()
    parts = [
        (str(tag), found[here][..., 0], found[here][..., 1], clusters[here])
        for tag in dict.fromkeys(languages)
        for here in [languages == tag]
    ]
    table = _table(parts, numbers, int(clusters.max()) + 1, confidence, n_boot, seed)
    origin = {"model": model.provenance(), "other": other.provenance()}
    return _effects(table, "swapped blocks", model.n_layers, confidence, origin)


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
        raise ValueError(
            f"pivot={pivot!r} is compared with other languages, but the prompts are in {tags}."
        )
    pairs = {tag: shared_rows(meta, tag, pivot) for tag in tags if tag != pivot}
    found = {tag: rows for tag, rows in pairs.items() if len(rows[0])}
    if not found:
        raise ValueError(f"No prompt in another language shares an id with one in {pivot!r}.")
    return found


def _table(
    parts: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    layers: Sequence[int],
    n_clusters: int,
    confidence: float,
    n_boot: int,
    seed: int,
) -> pd.DataFrame:
    weights = bootstrap_weights(n_clusters, n_boot, seed)
    rows: list[dict[str, Any]] = []
    for language, values, control, clusters in parts:
        sums = ClusterSums.of(values, clusters, n_clusters)
        beside = ClusterSums.of(control, clusters, n_clusters).mean()
        draws, mean = sums.draws(weights), sums.mean()
        for i, layer in enumerate(layers):
            low, high = percentiles(draws[:, i], confidence)
            rows.append(
                {
                    "language": language,
                    "layer": layer,
                    "mean": float(mean[i]),
                    "low": low,
                    "high": high,
                    "control": float(beside[i]),
                    "n": int(np.isfinite(values[:, i]).sum()),
                }
            )
    return pd.DataFrame(rows)


def _effects(
    table: pd.DataFrame, effect: str, n_layers: int, confidence: float, origin: dict[str, Any]
) -> LayerEffects:
    return LayerEffects(
        provenance={**origin, "effect": effect, "source": "our reading", "versions": versions()},
        table=table,
        effect=effect,
        n_layers=n_layers,
        confidence=confidence,
    )
