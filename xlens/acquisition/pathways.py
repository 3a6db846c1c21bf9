"""Two pathways as a tested statement: read often, or known in the pivot? A logistic model."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError

FREQUENCY, PIVOT, SIMILARITY, BOTH = "log frequency", "right in the pivot", "similarity", "both"
TERMS = (FREQUENCY, PIVOT, SIMILARITY)
COLUMNS = ("slot", "language", "term", "coefficient", "low", "high", "p", "n", "facts", "left_out")
_NONE = {"coefficient": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
_STEEPEST = 15.0
"""Log-odds beyond which nothing but separation leads."""


@typed
def pathways(cells: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """`right ~ log10(1 + frequency) + right in the pivot + similarity + relation (+ language)`.

    Fitted by maximum likelihood with statsmodels; covariances are clustered by fact, as a fact is
    asked in several languages. There are two pathways where frequency and knowing the fact in the
    pivot each help while the other is held: `both` has the p of that, the larger of the two
    one-sided ones (an intersection-union test).

    That a fact is easy in every language makes it right in the pivot and here too, and no model of
    answers tells that from carrying over; neither does holding the share of further languages in
    which it is right, which is too rough a measure of ease.

    Args:
        cells: One row per fact and language but the pivot: `id language relation right frequency
            pivot_right similarity`.
        confidence: Of the intervals.

    Returns:
        One row per term (`TERMS`, `both`): `term coefficient low high p n facts left_out`. In
        log-odds: per tenfold frequency, for being right in the pivot, per standard deviation of
        similarity; p is two-sided. Left out are relations and languages in which all are right or
        all wrong, as these fit any steepness. No number where too little varies, or where a term
        parts right from wrong.

    Raises:
        ValueError: a missing column, or a frequency that is negative.
    """
    from scipy.special import ndtri

    lacking = {"id", "language", "relation", "right", "frequency", "pivot_right", "similarity"}
    if lacking := sorted(lacking - set(cells.columns)):
        raise InputError(f"The cells lack the columns {lacking}.")
    if (cells["frequency"] < 0).any():
        raise InputError("A frequency is negative; leave out the facts that were not counted.")
    rows = _varying(cells)
    known = {"n": len(rows), "facts": rows["id"].nunique(), "left_out": len(cells) - len(rows)}
    reach = float(ndtri((1 + confidence) / 2))
    told = _told(_fitted(rows), reach)
    # One-sided towards helping; without a fit p is NaN, and so is the largest.
    sides = [row["p"] / 2 if row["coefficient"] > 0 else 1 - row["p"] / 2 for row in told[:2]]
    told.append({"term": BOTH, **_NONE, "p": float(np.max(sides))})
    return pd.DataFrame([{**row, **known} for row in told])


def _told(found: Any, reach: float) -> list[dict[str, Any]]:
    if found is None:
        return [{"term": term, **_NONE} for term in TERMS]
    rows: list[dict[str, Any]] = []
    # The terms stand first in the design; the constant and the dummies after them are not told.
    for term, value, error, p in zip(TERMS, found.params, found.bse, found.pvalues, strict=False):
        ends = {"low": value - reach * error, "high": value + reach * error}
        rows.append({"term": term, "coefficient": float(value), **ends, "p": float(p)})
    return rows


def _varying(cells: pd.DataFrame) -> pd.DataFrame:
    """Without relations and languages whose answers are all alike, until there are none."""
    while len(cells):
        # Leaving out a relation may leave a language all alike, so it goes round again.
        mixed = np.ones(len(cells), dtype=bool)
        for name in ("relation", "language"):
            mixed &= (cells.groupby(name)["right"].transform("nunique") > 1).to_numpy()
        if mixed.all():
            break
        cells = cells[mixed]
    return cells


def _fitted(rows: pd.DataFrame) -> Any:
    """What statsmodels fits; None where there is no best fit."""
    terms = pd.DataFrame(
        {
            FREQUENCY: np.log10(1.0 + rows["frequency"].to_numpy(float)),
            PIVOT: rows["pivot_right"].to_numpy(float),
            SIMILARITY: rows["similarity"].to_numpy(float),
        }
    )
    spread = terms.std(ddof=0)
    if not len(terms) or (spread < 1e-9).any():
        return None
    terms[SIMILARITY] = (terms[SIMILARITY] - terms[SIMILARITY].mean()) / spread[SIMILARITY]
    kinds = rows[["relation", "language"]].astype(str).reset_index(drop=True)
    dummies = pd.get_dummies(kinds, drop_first=True, dtype=float)
    design = np.column_stack([terms, np.ones(len(terms)), dummies])
    # A relation asked in one language alone, say: two columns say the same.
    if len(design) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what isn't fitted is told by its numbers
            found: Any = sm.Logit(rows["right"].to_numpy(float), design).fit(
                disp=0,
                maxiter=100,
                cov_type="cluster",
                cov_kwds={"groups": pd.factorize(rows["id"])[0]},
            )
    except (PerfectSeparationError, np.linalg.LinAlgError):
        return None
    spread[[PIVOT, SIMILARITY]] = 1.0  # the first is 0 or 1, the other was divided by its own
    # By a standard deviation of each term, so that one bound is for all.
    main = found.params[: len(TERMS)] * spread.to_numpy()
    good = found.mle_retvals["converged"] and np.isfinite(found.bse[: len(TERMS)]).all()
    return found if good and (np.abs(main) < _STEEPEST).all() else None
