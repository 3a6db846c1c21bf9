"""Whether the answers hang on how options of unequal length are compared."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.consistency.options import OptionScores
from xlens.consistency.per_item import option_ranks
from xlens.stats import Resampling, bootstrap


def ways_table(scores: OptionScores, resampling: Resampling) -> pd.DataFrame:
    """How often the best option is the right one, by every way of comparing them.

    Returns:
        `language by accuracy low high changed n`, as `ConsistencyResult.ways`.
    """
    if len(scores.ways) < 2:
        return pd.DataFrame()
    said = _said(scores)
    codes = resampling.codes(scores.meta)
    tables: list[pd.DataFrame] = []
    for way, best in zip(scores.ways, said, strict=True):
        right = np.full(best.shape, np.nan) if scores.gold is None else (best == scores.gold) * 1.0
        booted = bootstrap(right.T, clusters=codes, resampling=resampling, bounds=(0.0, 1.0))
        low, high = booted.interval()
        columns = {"accuracy": booted.mean, "low": low, "high": high}
        counts = {"changed": (best != said[0]).sum(1), "n": len(scores.ids)}
        tables.append(
            pd.DataFrame({"language": list(scores.languages), "by": way, **columns, **counts})
        )
    return pd.concat(tables, ignore_index=True)


def unsettled(scores: OptionScores) -> Float[np.ndarray, " language"]:
    """Items whose best option is not the same by all ways; NaN where one way only is known."""
    if len(scores.ways) < 2:
        return np.full(len(scores.languages), np.nan)
    said = _said(scores)
    return (said != said[0]).any(0).sum(1).astype(float)


def _said(scores: OptionScores) -> Int[np.ndarray, "way language item"]:
    return np.stack([option_ranks(values).argmin(-1) for values in scores.ways.values()])
