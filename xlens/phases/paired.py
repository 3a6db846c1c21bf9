"""Two models side by side, say base and post-trained: the same prompts, paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.phases.curves import ALL, Curves
from xlens.phases.depth import DepthResult
from xlens.phases.effects import LayerEffects
from xlens.results import Result, analysed
from xlens.stats import (
    Bootstrap,
    ClusterSums,
    Resampling,
    adjusted_flips,
    cluster_of,
    random_signs,
)


@dataclass(frozen=True, kw_only=True)
class PairedCurves(Result):
    """Two models' curves and their difference, paired by prompt.

    Attributes:
        table: `kind language layer first second difference low high p n`: means of the excess,
            second less first, with an interval over clusters; `p` against random signs of the
            clusters' differences, adjusted over all that was looked at: layers, kinds and languages
            (largest standardised difference). `all` pools the languages.
        names: What the two are called.
        n_layers: Blocks of the models.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True, kw_only=True)
class PairedDepth(Result):
    """Two models' relevance depth and their difference, paired by prompt.

    Attributes:
        table: `segment language first second difference low high n`: means in shares of the blocks,
            so that models of different depth can be compared; second less first.
        names: What the two are called.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True, kw_only=True)
class PairedEffects(Result):
    """Two models' last-layer effects and their difference, paired by prompt.

    Attributes:
        table: `language layer first second difference low high p control n`: as in `PairedCurves`;
            `control` is the difference of the two models' controls. `all` pools the languages.
        effect: As in `LayerEffects`.
        options: What both were made with.
        change: Whether changes from 0 swapped blocks were compared, instead of levels.
        names: What the two are called.
        n_layers: Blocks of the models.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    effect: str
    options: dict[str, Any]
    change: bool
    names: tuple[str, ...]
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def compare_curves(
    first: Curves,
    second: Curves,
    *,
    kinds: Sequence[str] | None = None,
    names: tuple[str, str] = ("base", "post-trained"),
    resampling: Resampling = Resampling(),
    n_flips: int = 2000,
) -> PairedCurves:
    """Difference of two models' curves at every layer, on the prompts that both have.

    Args:
        first: One model's.
        second: The other's, of as many blocks.
        kinds: Which; None for all that both have.
        names: What the two are called.
        resampling: Of the intervals; its seed is that of the flips too.
        n_flips: Sign flips.

    Raises:
        ValueError: other layers, no prompt or kind in common, or no prompt that is whole.
    """
    if first.layers != second.layers or first.n_layers != second.n_layers:
        raise InputError(
            f"The curves have the layers {list(first.layers)} of {first.n_layers} and "
            f"{list(second.layers)} of {second.n_layers}; layer by layer, models of one shape can "
            "be compared. For others compare depths, as shares."
        )
    both = [kind for kind in first.kinds if kind in second.kinds]
    wanted = both if kinds is None else list(kinds)
    if not wanted or not set(wanted) <= set(both):
        raise InputError(f"kinds={kinds!r}; both models have {both}.")
    one, other = _shared(first.meta, second.meta)
    first, second = first.take(one, wanted), second.take(other, wanted)
    clusters = resampling.codes(first.meta)
    n = int(clusters.max()) + 1
    weights, signs = resampling.weights(n), random_signs(n, n_flips, resampling.seed)
    parts: list[tuple[pd.DataFrame, np.ndarray]] = []
    for kind in wanted:
        for tag, here in _languages(first.meta):
            a, b = (x.get(kind)[here] for x in (first, second))
            table, flipped = _paired(a, b, clusters[here], weights, signs, first.layers, resampling)
            if len(table):
                parts.append((table.assign(kind=kind, language=tag), flipped))
    if not parts:
        raise InputError(f"No prompt has evidence of {wanted} at every layer in both models.")
    columns = [
        "kind",
        "language",
        "layer",
        "first",
        "second",
        "difference",
        "low",
        "high",
        "p",
        "n",
    ]
    return PairedCurves(
        provenance=_provenance(first, second, names, resampling),
        table=_tested(parts)[columns],
        names=names,
        n_layers=first.n_layers,
        confidence=resampling.confidence,
    )


@typed
def compare_depth(
    first: DepthResult,
    second: DepthResult,
    *,
    names: tuple[str, str] = ("base", "post-trained"),
    resampling: Resampling = Resampling(),
) -> PairedDepth:
    """Difference of two models' relevance depth, as shares of their blocks, paired by prompt.

    Args:
        first: One model's.
        second: The other's, read in the same way.
        names: What the two are called.
        cluster: As for `compare_curves`.
        resampling: Of the intervals.

    Raises:
        ValueError: depths read with other switches, no prompt or segment in common.
    """
    if first.options != second.options or first.kind != second.kind:
        raise InputError(
            f"The depths are read differently: {first.options} ({first.kind}) and {second.options} "
            f"({second.kind}); read both with the same options."
        )
    segments = [s for s in first.segments if s in second.segments]
    if not segments:
        raise InputError(f"No common segment: {first.segments} and {second.segments}.")
    rows: list[dict[str, Any]] = []
    for segment in segments:
        tables = [
            d.table[d.table["segment"] == segment].reset_index(drop=True) for d in (first, second)
        ]
        one, other = _shared(*tables)
        a, b = tables[0].iloc[one].reset_index(drop=True), tables[1].iloc[other]
        clusters = resampling.codes(a)
        n = int(clusters.max()) + 1
        weights = resampling.weights(n)
        values = np.column_stack([a["share"], b["share"]])
        # In both or in neither, so that the two means are of the same prompts.
        values[~np.isfinite(values).all(1)] = np.nan
        for tag, here in _languages(a):
            sums = ClusterSums.of(values[here], clusters[here], n)
            found = Bootstrap.of(sums, weights, resampling)
            low, high = found.interval(lambda m: m[..., 1] - m[..., 0], [0, 1])
            rows.append(
                {
                    "segment": segment,
                    "language": tag,
                    "first": float(found.mean[0]),
                    "second": float(found.mean[1]),
                    "difference": float(found.mean[1] - found.mean[0]),
                    "low": float(low),
                    "high": float(high),
                    "n": int(np.isfinite(values[here, 0]).sum()),
                }
            )
    return PairedDepth(
        provenance=_provenance(first, second, names, resampling),
        table=pd.DataFrame(rows),
        names=names,
        confidence=resampling.confidence,
    )


@typed
def compare_effects(
    first: LayerEffects,
    second: LayerEffects,
    *,
    change: bool = False,
    names: tuple[str, str] = ("base", "post-trained"),
    resampling: Resampling = Resampling(),
    n_flips: int = 2000,
) -> PairedEffects:
    """Difference of two models' last-layer effects, on the prompts that both have.

    Prompts are paired by id and language; the difference is the second less the first.

    Args:
        first: One model's.
        second: The other's: the same effect, made with the same options at the same layers.
        change: Of swapped blocks: compare the changes from 0 swapped blocks, not the levels.
        names: What the two are called.
        resampling: Of the intervals, its seed that of the flips too; without `clusters` those that
            `first` was made with.
        n_flips: Sign flips.

    Raises:
        ValueError: other effects, options or layers, no prompt in common, or none that is whole.
    """
    for words, mine, theirs in (
        ("the effects", first.effect, second.effect),
        ("the options", first.options, second.options),
        ("the layers", first.layers, second.layers),
        ("the numbers of blocks", first.n_layers, second.n_layers),
    ):
        if mine != theirs:
            raise InputError(
                f"These have {words} {mine} and {theirs}; make both in the same way, with models "
                "of one shape."
            )
    one, other = _shared(first.meta, second.meta)
    sides = [x.changes if change else (x.values, x.control) for x in (first, second)]
    (a, a_beside), (b, b_beside) = (
        [part[rows] for part in side] for side, rows in zip(sides, (one, other), strict=True)
    )
    meta = first.meta.iloc[one].reset_index(drop=True)
    clusters = cluster_of(meta, resampling.clusters or first.cluster)
    n = int(clusters.max()) + 1
    weights, signs = resampling.weights(n), random_signs(n, n_flips, resampling.seed)
    parts: list[tuple[pd.DataFrame, np.ndarray]] = []
    for tag, here in _languages(meta):
        table, flipped = _paired(
            a[here], b[here], clusters[here], weights, signs, first.layers, resampling
        )
        beside = ClusterSums.of((b_beside - a_beside)[here], clusters[here]).mean()
        if len(table):
            parts.append((table.assign(language=tag, control=beside), flipped))
    if not parts:
        raise InputError(f"No prompt has a {first.effect} at every layer in both models.")
    columns = ["language", "layer", "first", "second", "difference", "low", "high", "p"]
    return PairedEffects(
        provenance=_provenance(first, second, names, resampling),
        table=_tested(parts)[[*columns, "control", "n"]],
        effect=first.effect,
        options=first.options,
        change=change,
        names=names,
        n_layers=first.n_layers,
        confidence=resampling.confidence,
    )


def _paired(
    first: np.ndarray,
    second: np.ndarray,
    clusters: np.ndarray,
    weights: np.ndarray,
    signs: np.ndarray,
    layers: Sequence[int],
    resampling: Resampling,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Means of prompts that both have whole, second less first; and under random signs."""
    whole = np.isfinite(first).all(1) & np.isfinite(second).all(1)
    if not whole.any():
        return pd.DataFrame(), np.empty((len(signs), 0))
    a, b = first[whole], second[whole]
    # All clusters, though some have no prompt here: weights and signs are shared by all parts.
    sums = ClusterSums.of(b - a, clusters[whole], weights.shape[1])
    found = Bootstrap.of(sums, weights, resampling)
    low, high = found.interval()
    table = pd.DataFrame(
        {
            "layer": list(layers),
            "first": a.mean(0),
            "second": b.mean(0),
            "difference": found.mean,
            "low": low,
            "high": high,
            "n": int(whole.sum()),
        }
    )
    return table, sums.flipped(signs)


def _tested(parts: Sequence[tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    """The tables as one, with p adjusted over all of them."""
    adjusted = adjusted_flips([flipped for _, flipped in parts])
    tables = [table.assign(p=p) for (table, _), p in zip(parts, adjusted, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Rows of the same (id, language) in both, in the first's order."""
    keys = [list(zip(x["id"], x["language"], strict=True)) for x in (first, second)]
    where = {key: i for i, key in enumerate(keys[1])}
    rows = [i for i, key in enumerate(keys[0]) if key in where]
    if not rows:
        raise InputError("The two results share no prompt (id and language); run the same ones.")
    return rows, [where[keys[0][i]] for i in rows]


def _languages(meta: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    languages = meta["language"].to_numpy()
    tags = list(dict.fromkeys(languages))
    every = [(ALL, np.ones(len(languages), dtype=bool))]
    return every + ([(str(tag), languages == tag) for tag in tags] if len(tags) > 1 else [])


def _provenance(
    first: Result, second: Result, names: tuple[str, str], resampling: Resampling
) -> dict[str, Any]:
    parts = {name: x.provenance for name, x in zip(names, (first, second), strict=True)}
    return analysed(parts, "comparison", resampling.provenance())
