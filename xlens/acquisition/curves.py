"""How recall and consistency grow over the models or checkpoints of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.acquisition.recall import FactRecall
from xlens.checks import typed
from xlens.errors import InputError
from xlens.models.series import Checkpoint
from xlens.results import Result, versions


@dataclass(frozen=True, kw_only=True)
class FactCurves(Result):
    """Recall and consistency of several models, or of several revisions of one.

    Attributes:
        table: One row per model, measure and language, models in the order asked: `model step
            tokens metric language value low high control n`. `metric` is `accuracy` (its control
            the answers to other facts) or one of `overlap.MEASURES` (right and wrong permuted).
            `step` and `tokens` of training are NaN where they aren't known.
        groups: The accuracy of groups of facts, where they have some: `model step tokens group
            language value low high control n`.
        pivot: The language that others are compared with.
        rule: By which an answer is right.
    """

    table: pd.DataFrame
    groups: pd.DataFrame
    pivot: str
    rule: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def models(self) -> tuple[str, ...]:
        """In the order asked."""
        return tuple(dict.fromkeys(self.table["model"]))


@typed
def curves(
    recalls: Mapping[str, FactRecall], *, series: Mapping[str, Checkpoint] | None = None
) -> FactCurves:
    """The recalls of several models side by side.

    Args:
        recalls: By the model's name, in order.
        series: Of those that are checkpoints of one training, when.

    Raises:
        ValueError: none, or by different rules, pivots or languages.
    """
    if not recalls:
        raise InputError("No recall is given; there is nothing to draw over.")
    kinds = {(r.rule, r.pivot, tuple(r.accuracy["language"])) for r in recalls.values()}
    if len(kinds) > 1:
        raise InputError(
            f"These recalls differ in rule, pivot or languages: {sorted(map(str, kinds))}. Ask the "
            "same of every model."
        )
    tables: list[pd.DataFrame] = []
    groups: list[pd.DataFrame] = []
    for name, found in recalls.items():
        point = (series or {}).get(name)
        known: dict[str, Any] = {"model": name, "step": np.nan, "tokens": np.nan}
        if point is not None:
            when = {"step": point.step, "tokens": point.tokens}
            known |= {what: float(n) for what, n in when.items() if n is not None}
        own = found.accuracy.rename(columns={"accuracy": "value", "dealt": "control"})
        tables += [own.assign(metric="accuracy", **known), found.pairs.assign(**known)]
        if len(found.groups):
            mine = found.groups.rename(columns={"accuracy": "value", "dealt": "control"})
            groups.append(mine.assign(**known))
    columns = [
        "model",
        "step",
        "tokens",
        "metric",
        "language",
        "value",
        "low",
        "high",
        "control",
        "n",
    ]
    first = next(iter(recalls.values()))
    return FactCurves(
        provenance={"models": list(recalls), "versions": versions()},
        table=pd.concat(tables, ignore_index=True)[columns],
        groups=(
            pd.concat(groups, ignore_index=True)[[*columns[:3], "group", *columns[4:]]]
            if groups
            else pd.DataFrame()
        ),
        pivot=first.pivot,
        rule=first.rule,
    )
