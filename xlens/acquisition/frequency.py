"""How recall follows frequency: shares by bins, correlations, fits. Zeros are kept in sight."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from xlens.checks import typed
from xlens.stats import Resampling, bootstrap

N_EDGES = 30
Counts = Int[np.ndarray, " fact"]
Right = Bool[np.ndarray, " fact"]


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
        raise ValueError(
            f"most is {most} and n {n}: bins take counts of 1 and more, and two edges or more."
        )
    return np.logspace(0, np.log10(most + 1), n)


@typed
def binned(
    frequency: Counts,
    right: Right,
    at: Float[np.ndarray, " edge"],
    *,
    resampling: Resampling = Resampling(),
) -> pd.DataFrame:
    """Share of right answers by frequency.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        at: From `edges`.
        resampling: Of the intervals.

    Returns:
        One row for the facts that nothing states (`least` and `most` 0) and one per bin, also
        empty ones: `least most centre n share low high`. The paper's code leaves out zeros, and
        gives empty bins of all languages together the share 0; here it is NaN.

    Raises:
        ValueError: unequal numbers of facts.
    """
    _same(frequency, right)
    rows = [_share(frequency == 0, right, 0.0, 0.0, resampling)]
    where = np.digitize(frequency, at) - 1
    where[frequency == at[-1]] = len(at) - 2
    for n, (least, most) in enumerate(pairwise(at)):
        inside = (where == n) & (frequency > 0)
        rows.append(_share(inside, right, float(least), float(most), resampling))
    return pd.DataFrame(rows)


@typed
def correlations(
    frequency: Counts, right: Right, at: Float[np.ndarray, " edge"]
) -> dict[str, float]:
    """How frequency and recall go together, each measure by its name.

    `pearson_bins` is over the bins that hold facts (log of the centre, share right), `pearson` over
    facts (log10(1 + f), right or not), `spearman` over facts, `auc` how often a right fact is more
    frequent than a wrong one. Which of them the paper means by Pearson isn't known. NaN where
    nothing varies.

    Raises:
        ValueError: unequal numbers of facts.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    _same(frequency, right)
    table = binned(frequency, right, at, resampling=Resampling(draws=1)).iloc[1:]
    table = table[table["n"] > 0]
    logs = np.log10(1.0 + frequency)
    both = 0 < right.sum() < len(right) and frequency.min() < frequency.max()
    rho: Any = spearmanr(frequency, right) if both else (np.nan, np.nan)
    return {
        "pearson_bins": _pearson(np.log10(table["centre"].to_numpy(float)), table["share"]),
        "pearson": _pearson(logs, right),
        "spearman": float(rho[0]),
        "auc": float(roc_auc_score(right, frequency)) if both else float("nan"),
    }


@typed
def logistic(frequency: Counts, right: Right, *, confidence: float = 0.95) -> dict[str, float]:
    """A logistic curve of recall over log10(1 + f), its slope with Wald's interval.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        confidence: Of the interval.

    Returns:
        `slope low high half`: by how much the log-odds rise with tenfold frequency, and the
        frequency at which half is recalled. NaN where one kind of answer is missing, and where a
        threshold parts the two kinds entirely: then any steep slope fits.

    Raises:
        ValueError: unequal numbers of facts.
    """
    from scipy.special import ndtri
    from sklearn.linear_model import LogisticRegression

    _same(frequency, right)
    logs = np.log10(1.0 + frequency)
    none: dict[str, float] = dict.fromkeys(["slope", "low", "high", "half"], float("nan"))
    if not 0 < right.sum() < len(right) or _parted(logs, right):
        return none
    fit = LogisticRegression(C=np.inf).fit(logs[:, None], right)
    slope, start = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    share = fit.predict_proba(logs[:, None])[:, 1]
    design = np.stack([logs, np.ones_like(logs)], axis=1)
    information = design.T @ (design * (share * (1 - share))[:, None])
    error = float(np.sqrt(np.linalg.inv(information)[0, 0]))
    reach = float(ndtri((1 + confidence) / 2)) * error
    half = 10 ** (-start / slope) - 1 if slope > 0 else np.nan
    return {"slope": slope, "low": slope - reach, "high": slope + reach, "half": float(half)}


@typed
def isotonic(frequency: Counts, right: Right) -> pd.DataFrame:
    """The best curve that never falls: `frequency share`, a row per frequency that occurs.

    Raises:
        ValueError: unequal numbers of facts.
    """
    from sklearn.isotonic import IsotonicRegression

    _same(frequency, right)
    fit = IsotonicRegression(y_min=0, y_max=1).fit(frequency.astype(float), right.astype(float))
    there = np.unique(frequency)
    return pd.DataFrame({"frequency": there, "share": fit.predict(there.astype(float))})


def _share(
    inside: Right, right: Right, least: float, most: float, resampling: Resampling
) -> dict[str, Any]:
    n = int(inside.sum())
    row = {"least": least, "most": most, "centre": float(np.sqrt(least * most)), "n": n}
    if not n:
        return {**row, "share": np.nan, "low": np.nan, "high": np.nan}
    cells = right[inside].astype(float)[:, None]
    found = bootstrap(cells, resampling=resampling, bounds=(0.0, 1.0))
    (low,), (high,) = found.interval()
    return {**row, "share": float(found.mean[0]), "low": float(low), "high": float(high)}


def _pearson(x: Any, y: Any) -> float:
    a, b = np.asarray(x, float), np.asarray(y, float)
    if len(a) < 2 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _parted(logs: np.ndarray, right: Right) -> bool:
    """Whether some frequency parts right from wrong."""
    return bool(logs[right].min() > logs[~right].max() or logs[right].max() < logs[~right].min())


def _same(frequency: np.ndarray, right: np.ndarray) -> None:
    if len(frequency) != len(right) or not len(right):
        raise ValueError(
            f"{len(frequency)} frequencies and {len(right)} answers: give both of the same facts, "
            "at least one."
        )
    if frequency.min() < 0:
        raise ValueError("A frequency is negative; leave out the facts that were not counted.")
