"""How much of what is read is in which language, by relative depth: comparable between models."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.lens.result import LensResult
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap

DEPTHS = tuple(n / 10 for n in range(11))
INSIDE = (0.1, 0.9)
"""Between which depths the one number is of: neither the embedding nor the output."""


@dataclass(frozen=True, kw_only=True)
class LanguageShares(Result):
    """Whose words are read, as shares of all that is read of the item's words.

    Attributes:
        table: `name model source target task lens language depth share low high n`: at a relative
            depth (0 the embedding, 1 the output; between points by straight lines), and where
            `depth` is NaN, over all depths inside. A share is of the mean probabilities over
            prompts: a depth at which next to nothing can be read has one too, and it weighs little
            inside.
        pivot: The language suspected inside.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    pivot: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`inside`, by what is asked first: runs of two models are put side by side by that."""
        asked = ["source", "target", "task", "lens", "language"]
        numbers = ["share", "low", "high", "n"]
        return self.inside[[*asked, *numbers, "name", "model"]]

    @property
    def inside(self) -> pd.DataFrame:
        """The one number of each result and language."""
        return self.table[self.table["depth"].isna()].reset_index(drop=True)


@typed
def language_shares(
    results: Mapping[str, LensResult], *, resampling: Resampling = Resampling()
) -> LanguageShares:
    """Shares of the languages' words, by result; intervals over prompts.

    Args:
        results: Of several models, pairs, tasks or lenses, by names that no two share.
        resampling: Of the intervals.

    Raises:
        ValueError: no results.
    """
    if not results:
        raise InputError("Shares of what? There are no results.")
    tables = [_of(name, result, resampling) for name, result in results.items()]
    first = next(iter(results.values()))
    return LanguageShares(
        provenance=analysed(first.provenance, "shares", resampling.provenance()),
        table=pd.concat(tables, ignore_index=True),
        pivot=first.pivot,
        confidence=resampling.confidence,
    )


def _of(name: str, result: LensResult, resampling: Resampling) -> pd.DataFrame:
    languages = list(dict.fromkeys(result.rows["language"]))
    wide = result.rows.pivot(index="prompt", columns=["language", "layer"], values="prob")
    known = result.rows.drop_duplicates("prompt").set_index("prompt").loc[wide.index]
    # A word without tokens of its own is read nowhere.
    by_language = {tag: np.nan_to_num(wide[tag].to_numpy(float)) for tag in languages}
    points = np.array(sorted(result.rows["layer"].unique())) / result.n_layers
    at = np.array([_between(points, depth) for depth in DEPTHS])
    values = np.hstack([by_language[tag] @ np.nan_to_num(at).T for tag in languages])
    found = bootstrap(values, clusters=resampling.codes(known), resampling=resampling)
    there = np.array([not np.isnan(row).any() for row in at])
    inner = [n for n, d in enumerate(DEPTHS) if there[n] and INSIDE[0] <= d <= INSIDE[1]]
    rows: list[dict[str, str | float | int]] = []
    shown = {"source": result.source, "target": result.target, "task": result.task}
    model = str(result.provenance.get("model", ""))
    for k, tag in enumerate(languages):
        for depth, those in [*((d, [n]) for n, d in enumerate(DEPTHS)), (np.nan, inner)]:
            if not there[those].all():
                continue  # the lens lacks that depth
            own = len(those) * k
            columns = [j * len(DEPTHS) + n for j in range(len(languages)) for n in those]

            def share(means: np.ndarray, own: int = own, n: int = len(those)) -> np.ndarray:
                whole = means.sum(axis=-1)
                part = means[..., own : own + n].sum(axis=-1)
                return part / np.where(whole > 0, whole, np.nan)

            low, high = found.interval(share, columns)
            row = {"language": tag, "depth": depth, "share": float(share(found.mean[columns]))}
            row |= {"low": float(low), "high": float(high), "n": len(wide)}
            rows.append({"name": name, "model": model, **shown, "lens": result.lens, **row})
    return pd.DataFrame(rows)


def _between(points: np.ndarray, depth: float) -> np.ndarray:
    """Weights of the points by which a straight line gives the value at a depth; NaN outside."""
    if depth < points[0] - 1e-9 or depth > points[-1] + 1e-9:
        return np.full(len(points), np.nan)
    return np.array([np.interp(depth, points, unit) for unit in np.eye(len(points))])
