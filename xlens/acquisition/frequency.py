"""How recall follows frequency: shares by bins, and fits. Zeros are kept in sight."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.acquisition.association import Counts, Right, bin_of, same
from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import Resampling, bootstrap

N_EDGES = 30


@typed
def edges(most: int, *, n: int = N_EDGES) -> Float[np.ndarray, " edge"]:
    """Edges of logarithmic bins from 1 to the largest count (arXiv 2505.14824's code: 29 bins).

    Args:
        most: Largest count, over all languages that are compared.
        n: How many edges.

    Raises:
        ValueError: a largest count below 1, or fewer than two edges.
    """
    if most < 1 or n < 2:
        raise InputError(
            f"most is {most} and n {n}: bins take counts of 1 and more, and two edges or more."
        )
    # One more than the largest, which would else lie on the last edge but for rounding.
    return np.logspace(0, np.log10(most + 1), n)


@typed
def binned(
    frequency: Counts,
    right: Right,
    at: Float[np.ndarray, " edge"],
    *,
    clusters: Int[np.ndarray, " fact"] | None = None,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Share of right answers by frequency.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        at: From `edges`.
        clusters: What is drawn whole: one fact in several languages, say. None: every row.
        resampling: Of the intervals.

    Returns:
        One row for the facts that nothing states (`least` and `most` 0) and one per bin, also
        empty ones: `least most centre n share low high`. The paper's code leaves out zeros, and
        gives empty bins of all languages together the share 0; here it is NaN.

    Raises:
        ValueError: unequal numbers of facts.
    """
    same(frequency, right)
    codes = np.arange(len(right)) if clusters is None else clusters
    rows = [_share(frequency == 0, right, 0.0, 0.0, codes, resampling)]
    where = bin_of(frequency, at)
    for n, (least, most) in enumerate(pairwise(at)):
        rows.append(_share(where == n, right, float(least), float(most), codes, resampling))
    return pd.DataFrame(rows)


@typed
def logistic(
    frequency: Counts,
    right: Right,
    *,
    clusters: Int[np.ndarray, " fact"] | None = None,
    confidence: float = 0.95,
) -> dict[str, float]:
    """A logistic curve of recall over log10(1 + f), its slope with Wald's interval.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        clusters: Whose facts hang together: the error is then that of clusters (the sandwich).
        confidence: Of the interval.

    Returns:
        `slope low high half`: by how much the log-odds rise with tenfold frequency, and the
        frequency at which half is recalled. NaN where one kind of answer is missing, and where a
        threshold parts the two kinds entirely: then any steep slope fits. `half` is NaN too where
        recall doesn't rise, or so little that no number is large enough.

    Raises:
        ValueError: unequal numbers of facts.
    """
    from scipy.special import ndtri
    from sklearn.linear_model import LogisticRegression

    same(frequency, right)
    logs = np.log10(1.0 + frequency)
    none: dict[str, float] = dict.fromkeys(["slope", "low", "high", "half"], float("nan"))
    if not 0 < right.sum() < len(right) or _parted(logs, right):
        return none
    # C = inf is scikit-learn's word for no penalty: the plain maximum of the likelihood.
    fit = LogisticRegression(C=np.inf).fit(logs[:, None], right)
    slope, start = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    share = fit.predict_proba(logs[:, None])[:, 1]
    design = np.stack([logs, np.ones_like(logs)], axis=1)
    # Fisher's information; its inverse is the covariance of slope and start.
    information = design.T @ (design * (share * (1 - share))[:, None])
    bread = np.linalg.inv(information)
    if clusters is not None:
        scores = design * (right - share)[:, None]
        sums = pd.DataFrame(scores).groupby(clusters).sum().to_numpy()
        # Residuals of few clusters are too small: the usual factor G / (G - 1).
        few = len(sums) / max(len(sums) - 1, 1)
        bread = bread @ (few * sums.T @ sums) @ bread
    error = float(np.sqrt(bread[0, 0]))
    reach = float(ndtri((1 + confidence) / 2)) * error
    decades = -start / slope if slope > 0 else np.nan
    # Where log-odds are 0, back from log10(1 + f); a flat curve gets there beyond all numbers.
    half = 10**decades - 1 if decades < np.finfo(float).maxexp * np.log10(2) else np.nan
    return {"slope": slope, "low": slope - reach, "high": slope + reach, "half": float(half)}


@typed
def isotonic(frequency: Counts, right: Right) -> pd.DataFrame:
    """The best curve that never falls: `frequency share`, a row per frequency that occurs.

    Raises:
        ValueError: unequal numbers of facts.
    """
    from sklearn.isotonic import IsotonicRegression

    same(frequency, right)
    fit = IsotonicRegression(y_min=0, y_max=1).fit(frequency.astype(float), right.astype(float))
    there = np.unique(frequency)
    return pd.DataFrame({"frequency": there, "share": fit.predict(there.astype(float))})


def _share(
    inside: Right,
    right: Right,
    least: float,
    most: float,
    clusters: np.ndarray,
    resampling: Resampling,
) -> dict[str, Any]:
    n = int(inside.sum())
    row = {"least": least, "most": most, "centre": float(np.sqrt(least * most)), "n": n}
    if not n:
        return {**row, "share": np.nan, "low": np.nan, "high": np.nan}
    cells = right[inside].astype(float)[:, None]
    found = bootstrap(cells, clusters=clusters[inside], resampling=resampling, bounds=(0.0, 1.0))
    (low,), (high,) = found.interval()
    return {**row, "share": float(found.mean[0]), "low": float(low), "high": float(high)}


def _parted(logs: np.ndarray, right: Right) -> bool:
    """Whether some frequency parts right from wrong, facts at that very frequency aside.

    Those that tie there don't help: the likelihood still rises with every steeper slope, and a fit
    that stops somewhere would be given a narrow interval (Albert & Anderson 1984).
    """
    return bool(logs[right].min() >= logs[~right].max() or logs[right].max() <= logs[~right].min())
