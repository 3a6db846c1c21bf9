"""`FrequencyResponse`: how much of recall the frequency of facts explains, and what it doesn't."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.acquisition.association import associations
from xlens.acquisition.frequency import binned, edges, isotonic, logistic
from xlens.acquisition.recall import ALL
from xlens.acquisition.threshold import carried_over, four_groups, threshold
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, versions
from xlens.stats import Resampling

EVERY, DIFFERENT, OTHER_OBJECT = "every", "different", "other object"
VIEWS = {DIFFERENT: "identical", OTHER_OBJECT: "identical_object"}
"""All facts (`EVERY`); without pairs that are the pivot's strings, whose count is the pivot's; and
without facts whose object is the pivot's string, which can be said without the language. By the
column that says which are left out."""


@dataclass(frozen=True, kw_only=True)
class FrequencyResponse(Result):
    """Recall by frequency, in each language and (`all`) in all together.

    In every table `facts` is `every` or one of `VIEWS`. Intervals draw facts whole, with their
    languages (or what `resampling` names).

    Attributes:
        bins: `language facts least most centre n share low high`; the first row of each is that of
            the facts that nothing states.
        measures: `language facts n zeros estimates accuracy`, of each of `association.MEASURES`
            what `associations` says (frequencies are shuffled within languages and relations), and
            `slope low high half` of the logistic curve. `estimates`: counts that the index that was
            asked calls so.
        thresholds: `language facts` and the fields of `Threshold`.
        carried: Rare facts that are right: `language facts n share low high expected control_n
            control control_low control_high p`. See `carried_over`; facts are compared within
            relations, those of the most frequent object by themselves, as it is guessed.
        curves: The isotonic fit: `language facts frequency share`.
        cells: `id language relation frequency right group`: what each fact is in its language, by
            the threshold of `every`.
        pivot: The language that rare facts can be carried over from.
        rule: By which an answer is right.
    """

    bins: pd.DataFrame
    measures: pd.DataFrame
    thresholds: pd.DataFrame
    carried: pd.DataFrame
    curves: pd.DataFrame
    cells: pd.DataFrame
    pivot: str
    rule: str

    def to_frame(self) -> pd.DataFrame:
        """`measures`."""
        return self.measures


@typed
def frequency_response(
    answers: pd.DataFrame,
    *,
    rule: str,
    pivot: str,
    resampling: Resampling = Resampling(),
) -> FrequencyResponse:
    """What the frequency of facts says about their recall (arXiv 2505.14824, with its controls).

    Args:
        answers: One row per fact and language: `id language relation frequency`, a column of truth
            values called like the rule and, if known, `identical` (subject and object are the
            pivot's strings), `identical_object`, and `approx` (its frequency is an estimate). Facts
            that weren't counted (-1) are left out.
        rule: That column.
        pivot: The language that facts can be carried over from.
        resampling: Of intervals, over facts.

    Raises:
        ValueError: a missing column, no fact that was counted in the pivot or at all.
    """
    if lacking := sorted({"id", "language", "relation", "frequency", rule} - set(answers.columns)):
        raise InputError(f"The answers lack the columns {lacking}; give FactAnswers.table.")
    counted = answers[answers["frequency"] >= 0]
    most = int(counted["frequency"].max()) if len(counted) else 0
    if most < 1 or pivot not in set(answers["language"]):
        raise InputError(
            f"Nothing can be said of frequency: {len(counted)} facts were counted, the most "
            f"frequent {most} times, and there must be answers in the pivot {pivot!r}."
        )
    # One set of bins for all languages, or their curves could not be laid over each other.
    at = edges(most)
    # Counted or not: whether the pivot knows a fact doesn't hang on its count.
    home = answers[answers["language"] == pivot].set_index("id")[rule]
    found: dict[str, list[Any]] = {name: [] for name in _TABLES}
    thetas: dict[str, float] = {}
    for tag, facts, rows in _views(counted):
        f, y = rows["frequency"].to_numpy(np.int64), rows[rule].to_numpy(bool)
        key = {"language": tag, "facts": facts}
        how: dict[str, Any] = {"clusters": resampling.codes(rows), "resampling": resampling}
        found["bins"].append(binned(f, y, at, **how).assign(**key))
        found["curves"].append(isotonic(f, y).assign(**key))
        fit = logistic(f, y, clusters=how["clusters"], confidence=resampling.confidence)
        own = {"n": len(y), "zeros": int((f == 0).sum()), "accuracy": float(y.mean())}
        own["estimates"] = int(rows["approx"].sum()) if "approx" in rows else 0
        # Also within languages: of `all`, some are both richer in text and better answered.
        among = list(zip(rows["language"], rows["relation"], strict=True))
        both = associations(f, y, at, strata=among, **how)
        found["measures"].append({**key, **own, **both, **fit})
        # A threshold of documents is one language's: amounts of text differ.
        if tag == ALL:
            continue
        best = threshold(f, y, **how)
        found["thresholds"].append({**key, **asdict(best)})
        if facts == EVERY:
            thetas[tag] = best.theta
        if tag != pivot:
            there = home.reindex(rows["id"], fill_value=False).to_numpy(bool)
            told = carried_over(f, y, there, best.theta, strata=_strata(rows), **how)
            found["carried"].append({**key, **told})
    cells = counted[["id", "language", "relation", "frequency"]].assign(right=counted[rule])
    cells["group"] = ""
    for tag, rows in cells.groupby("language", sort=False):
        f, y = rows["frequency"].to_numpy(np.int64), rows["right"].to_numpy(bool)
        cells.loc[rows.index, "group"] = four_groups(f, y, thetas[str(tag)])
    return FrequencyResponse(
        provenance={**resampling.provenance(), "versions": versions()},
        bins=pd.concat(found["bins"], ignore_index=True),
        measures=pd.DataFrame(found["measures"]),
        thresholds=pd.DataFrame(found["thresholds"]),
        carried=pd.DataFrame(found["carried"], columns=[*_CARRIED]),
        curves=pd.concat(found["curves"], ignore_index=True),
        cells=cells.reset_index(drop=True),
        pivot=pivot,
        rule=rule,
    )


_TABLES = ("bins", "measures", "thresholds", "carried", "curves")
_CARRIED = ("language", "facts", "n", "share", "low", "high", "expected", "control_n", "control",
            "control_low", "control_high", "p")  # fmt: skip


def _strata(rows: pd.DataFrame) -> list[str]:
    """The relation of each fact, and whether its object is the most frequent of it."""
    kinds = rows["relation"].astype(str)
    if "object" not in rows:
        return kinds.tolist()
    most = rows.groupby("relation")["object"].agg(lambda said: said.value_counts().index[0])
    usual = rows["object"] == rows["relation"].map(most)
    return (kinds + usual.map({True: "/usual", False: ""})).tolist()


def _views(counted: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The facts of each language and of all, in each view that leaves some."""
    tags = list(dict.fromkeys(counted["language"]))
    for tag in (*tags, ALL):
        rows = counted if tag == ALL else counted[counted["language"] == tag]
        yield tag, EVERY, rows
        for view, column in VIEWS.items():
            if column in rows and not rows[column].all():
                yield tag, view, rows[~rows[column].astype(bool)]
