"""`Pathway`: what is lost with the pivot's text is what came through it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.acquisition.recall import ALL
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, versions
from xlens.stats import Bootstrap, Resampling, bootstrap

HIDDEN, CONTROL = "hidden", "control"


@dataclass(frozen=True, kw_only=True)
class Pathway(Result):
    """Recall of two trainings of one model, with the pivot's side of some facts and without it.

    Attributes:
        table: One row per group of facts and language (and `all` but the pivot): `group language n
            whole without fall low high`. `fall` is the recall that is lost, with its interval; of
            groups whose text is the same it is what another training alone changes.
        sizes: One row per language but the pivot, and `all`: `language n whole without control fall
            low high share share_low share_high`, of the hidden facts. `fall` is the pathway's size
            as a share of the facts, `share` as a share of what the hidden facts have over those
            that no language states (`control`, of the whole model): 1 where they fall to it. NaN
            where they have nothing over it.
        pivot: The language whose text is withheld.
        rule: By which an answer is right.
    """

    table: pd.DataFrame
    sizes: pd.DataFrame
    pivot: str
    rule: str

    def to_frame(self) -> pd.DataFrame:
        """`sizes`."""
        return self.sizes


@typed
def pathway(
    whole: pd.DataFrame,
    without: pd.DataFrame,
    *,
    rule: str,
    pivot: str = "en",
    resampling: Resampling = Resampling(),
) -> Pathway:
    """Compare the answers of a model with those of one that was trained without some text.

    Args:
        whole: One row per fact and language: `id language group` and a column of truth values
            called like the rule (`FactAnswers.table`). The groups `hidden`, facts that the
            language's own text never states, and `control`, facts that nothing states, are needed.
        without: The answers of the other model to the same facts, of the same groups.
        rule: That column.
        pivot: The language whose text is withheld.
        resampling: Of intervals, over facts: a fact is drawn in all its languages.

    Raises:
        ValueError: a missing column, answers to other facts, or no hidden or no control facts.
    """
    for name, table in (("whole", whole), ("without", without)):
        if lacking := sorted({"id", "language", "group", rule} - set(table.columns)):
            raise InputError(f"The answers {name!r} lack the columns {lacking}; give those of "
                             "FactAnswers.table, of facts that have groups.")  # fmt: skip
    keys = ["id", "language", "group"]
    both = whole[[*keys, rule]].merge(
        without[[*keys, rule]], on=keys, how="outer", suffixes=("_whole", "_without")
    )
    if (alone := both.isna().any(axis=1)).any():
        row = both[alone].iloc[0]
        raise InputError(
            f"{int(alone.sum())} facts were answered by one of the two models only, or are of "
            f"another group there, first {row['id']!r} ({row['language']}): ask both the same."
        )
    abroad = both[both["language"] != pivot]
    for group in (HIDDEN, CONTROL):
        if not (abroad["group"] == group).any():
            raise InputError(f"No fact of the group {group!r}; there are {set(abroad['group'])}.")
    columns = [f"{rule}_whole", f"{rule}_without"]
    rows: list[dict[str, Any]] = []
    for (group, tag), some in _by_language(both, pivot):
        right = some[columns].to_numpy(float)
        found = _drawn(np.column_stack([right, right[:, 0] - right[:, 1]]), some, resampling)
        (*_, low), (*_, high) = found.interval()
        n, mean = len(some), found.mean
        own = {"group": group, "language": tag, "n": n, "whole": mean[0], "without": mean[1]}
        rows.append({**own, "fall": mean[2], "low": low, "high": high})
    tags = (ALL, *dict.fromkeys(abroad["language"]))
    sizes = [
        {"language": tag, **_size(abroad[(abroad["language"] == tag) | (tag == ALL)], columns,
                                  resampling)}
        for tag in tags
    ]  # fmt: skip
    return Pathway(
        provenance={**resampling.provenance(), "versions": versions()},
        table=pd.DataFrame(rows),
        sizes=pd.DataFrame(sizes),
        pivot=pivot,
        rule=rule,
    )


def _by_language(both: pd.DataFrame, pivot: str) -> Any:
    """Each group in each language, and in all but the pivot together."""
    # A second time under the name `all`: then one grouping gives every row.
    every = both[both["language"] != pivot].assign(language=ALL)
    return pd.concat([every, both]).groupby(["group", "language"], sort=False)


def _size(some: pd.DataFrame, columns: list[str], resampling: Resampling) -> dict[str, Any]:
    right = some[columns].to_numpy(float)
    hidden = (some["group"] == HIDDEN).to_numpy()[:, None]
    control = (some["group"] == CONTROL).to_numpy()[:, None]
    fall = right[:, :1] - right[:, 1:]
    # Four columns: hidden in the whole model, hidden in the
    # other, control in the whole model, fall.
    cells = [np.where(hidden, right, np.nan), np.where(control, right[:, :1], np.nan)]
    cells.append(np.where(hidden, fall, np.nan))
    found = _drawn(np.concatenate(cells, axis=1), some, resampling)

    def share(means: np.ndarray) -> np.ndarray:
        over = means[..., 0] - means[..., 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(over > 1e-9, means[..., 2] / over, np.nan)

    low, high = found.interval()
    ends = found.interval(share, [0, 2, 3])
    return {
        "n": int(hidden.sum()),
        **dict(zip(("whole", "without", "control", "fall"), found.mean.tolist(), strict=True)),
        "low": float(low[3]),
        "high": float(high[3]),
        "share": float(share(found.mean[[0, 2, 3]])),
        "share_low": float(ends[0]),
        "share_high": float(ends[1]),
    }


def _drawn(cells: np.ndarray, some: pd.DataFrame, resampling: Resampling) -> Bootstrap:
    n = cells.shape[1]
    # The last column is a difference of two rates.
    bounds = (np.array([0.0] * (n - 1) + [-1.0]), np.array([1.0] * n))
    clusters = pd.factorize(some["id"])[0]
    return bootstrap(cells, clusters=clusters, resampling=resampling, bounds=bounds)
