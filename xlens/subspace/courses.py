"""How similarity, the probe and the map go from layer to layer, in the few numbers that are said.

A highest layer is picked among many, so what is read there is rather too high: whoever says it says
among how many.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.subspace.maps import LanguageMap
from xlens.subspace.pairs import LanguagePairs
from xlens.subspace.probe import LanguageProbe


@dataclass(frozen=True)
class SimilarityCourse:
    """A measure of similarity over layers, the mean over pairs of languages.

    Attributes:
        n_pairs: Pairs that have a number at the highest layer.
        n_layers: Layers that have a number.
        peak: Where the mean over pairs is highest.
        at_peak: That mean; `control` is that of mismatched items there.
        control: As it says.
        first: The mean at the lowest layer that has one, `lowest`.
        lowest: That layer.
        last: The mean at the highest layer, `highest`.
        highest: That layer.
        above: Pairs whose interval at the peak lies above the range of mismatched items there.
        fallen: Pairs whose interval at the highest layer lies below that at the peak.
        risen: Pairs whose interval at the lowest layer lies below that at the peak.
    """

    n_pairs: int
    n_layers: int
    peak: int
    at_peak: float
    control: float
    lowest: int
    first: float
    highest: int
    last: float
    above: int
    fallen: int
    risen: int


def similarity_course(pairs: LanguagePairs, measure: str) -> SimilarityCourse | None:
    """How alike languages are over layers; None where the measure has no number anywhere.

    Args:
        pairs: From `language_similarity`.
        measure: One of its measures, for which more is more alike.

    Raises:
        ValueError: it was not computed, or has no control of mismatched items.
    """
    keys = ["a", "b"]
    table = pairs.pick(measure).dropna(subset=["mean"])
    if table.empty:
        return None
    control = pairs.pick(measure, "mismatched")
    means = table.groupby("layer")["mean"].mean()
    peak = _where(means, np.argmax)
    lowest, highest = int(means.index.min()), int(means.index.max())

    def at(rows: pd.DataFrame, layer: int) -> pd.DataFrame:
        return rows[rows["layer"] == layer].set_index(keys)

    here, null = at(table, peak), at(control, peak)
    # By pair, not by mean: how many pairs have moved for sure.
    away = {
        layer: int((at(table, layer)["high"].reindex(here.index) < here["low"]).sum())
        for layer in (lowest, highest)
    }
    return SimilarityCourse(
        n_pairs=len(here),
        n_layers=len(means),
        peak=peak,
        at_peak=float(means[peak]),
        control=float(null["mean"].mean()),
        lowest=lowest,
        first=float(means[lowest]),
        highest=highest,
        last=float(means[highest]),
        above=int((here["low"] > null["high"].reindex(here.index)).sum()),
        # At the peak itself nothing has fallen from it.
        fallen=away[highest] if highest != peak else 0,
        risen=away[lowest] if lowest != peak else 0,
    )


@dataclass(frozen=True)
class ProbeCourse:
    """Telling the language by layer.

    Attributes:
        n_layers: Layers probed.
        above: Layers at which the whole state tells it more than shuffled languages do.
        low: The layer where it is told least, and `lowest`, how often.
        lowest: As it says.
        high: The layer where it is told most, and `highest`, how often.
        highest: As it says.
        without: Lowest and highest share told without the languages' subspace; None without one.
        random: The same without random subspaces of its rank.
        less: Layers at which it is told less without the languages' subspace than without these.
        gone: Layers at which without the languages' subspace it isn't told from shuffled languages.
    """

    n_layers: int
    above: int
    low: int
    lowest: float
    high: int
    highest: float
    without: tuple[float, float] | None
    random: tuple[float, float] | None
    less: int
    gone: int


def probe_course(probe: LanguageProbe) -> ProbeCourse | None:
    """How well the language is told over layers; None where nothing was probed."""

    def of(features: str, kind: str) -> pd.DataFrame:
        rows = probe.table[(probe.table["features"] == features) & (probe.table["kind"] == kind)]
        return rows.dropna(subset=["mean"]).set_index("layer")

    whole, null = of("all", "value"), of("all", "shuffled")
    if whole.empty:
        return None
    out, random, dealt = (of("outside", kind) for kind in ("value", "random", "shuffled"))
    ends = [
        (float(rows["mean"].min()), float(rows["mean"].max())) if len(rows) else None
        for rows in (out, random)
    ]
    return ProbeCourse(
        n_layers=len(whole),
        above=int((whole["low"] > null["high"].reindex(whole.index)).sum()),
        low=_where(whole["mean"], np.argmin),
        lowest=float(whole["mean"].min()),
        high=_where(whole["mean"], np.argmax),
        highest=float(whole["mean"].max()),
        without=ends[0],
        random=ends[1],
        less=int((out["high"] < random["low"].reindex(out.index)).sum()),
        # Asked so that a layer without an interval counts as neither told nor gone.
        gone=int((out["low"] <= dealt["high"].reindex(out.index)).sum()),
    )


@dataclass(frozen=True)
class MapCourse:
    """How much of the states' variance lies between languages, by layer.

    Attributes:
        n_layers: Layers mapped.
        most: Where that share is highest, `at_most`; `shuffled` with the languages dealt out anew.
        at_most: As it says.
        shuffled: As it says.
        least: Where it is lowest, `at_least`.
        at_least: As it says.
        last: The share at the highest layer, `highest`.
        highest: That layer.
        above: Layers at which the share is above the range of shuffled languages.
    """

    n_layers: int
    most: int
    at_most: float
    shuffled: float
    least: int
    at_least: float
    highest: int
    last: float
    above: int


def map_course(result: LanguageMap) -> MapCourse | None:
    """How far apart languages lie over layers, in the whole space; None where nothing varies."""
    table = result.separation[result.separation["where"] == "space"]
    value, null = (
        table[table["kind"] == kind].dropna(subset=["mean"]).set_index("layer")
        for kind in ("value", "shuffled")
    )
    if value.empty:
        return None
    share = value["mean"]
    most, least = (_where(share, extreme) for extreme in (np.argmax, np.argmin))
    highest = int(share.index.max())
    null = null.reindex(share.index)
    return MapCourse(
        n_layers=len(share),
        most=most,
        at_most=float(share[most]),
        shuffled=float(null["mean"][most]),
        least=least,
        at_least=float(share[least]),
        highest=highest,
        last=float(share[highest]),
        above=int((share > null["high"]).sum()),
    )


def _where(values: "pd.Series[Any]", extreme: Callable[[np.ndarray], Any]) -> int:
    """The layer at which values by layer are at their extreme."""
    return int(values.index[int(extreme(values.to_numpy()))])
