"""Recall of facts by language, relation and group, and its consistency with the pivot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from xlens.acquisition.overlap import MEASURES
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, versions
from xlens.stats import Bootstrap, Resampling, bootstrap, generator, middle

COLUMNS = ("id", "language", "relation", "object")
ALL = "all"
"""In place of a language, for all together."""
_SHARES = ("co", "given_pivot", "pivot_given")


@dataclass(frozen=True, kw_only=True)
class FactRecall(Result):
    """How many facts are recalled, and whether the same ones are in several languages.

    Attributes:
        languages: One row per rule and language, that of `rule` first: `rule language accuracy low
            high n`; of `rule` also `majority` (by always giving the most frequent object of the
            relation) and `dealt` (by the answers to other facts of the relation), the controls.
        relations: One row per relation and language: `relation language accuracy low high n
            objects majority dealt co j0`; the last two with the pivot (NaN in it).
        groups: One row per group of facts and language, and for `all` together, where facts have
            groups: `group language accuracy low high n dealt`.
        pairs: One row per measure and language but the pivot: `metric language value low high n
            control control_low control_high`. The control permutes a language's right and wrong
            answers within relations: mean and middle 95 %. See `overlap.MEASURES`.
        false_credits: One row per language: `language prefix_only n`: answers that the paper's rule
            counts as right and `word` doesn't (`Niger` for `Nigeria`).
        pivot: The language that others are compared with.
        rule: By which an answer is right in all tables but the first.
    """

    languages: pd.DataFrame
    relations: pd.DataFrame
    pairs: pd.DataFrame
    false_credits: pd.DataFrame
    pivot: str
    rule: str
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self) -> pd.DataFrame:
        """`languages`."""
        return self.languages

    @property
    def accuracy(self) -> pd.DataFrame:
        """The rows of `languages` by the rule of all else."""
        return self.languages[self.languages["rule"] == self.rule]

    def matrix(self, metric: str) -> dict[str, float]:
        """A measure by language.

        Raises:
            ValueError: an unknown measure.
        """
        rows = self.pairs[self.pairs["metric"] == metric]
        if rows.empty:
            raise InputError(f"There is no measure {metric!r}; there are {', '.join(MEASURES)}.")
        return dict(zip(rows["language"], rows["value"], strict=True))

    @property
    def prefix_only(self) -> tuple[int, int]:
        """Answers that the paper's rule alone counts as right, and of how many; 0 of 0 untold."""
        table = self.false_credits
        return (int(table["prefix_only"].sum()), int(table["n"].sum())) if len(table) else (0, 0)

    def mean_co(self, *, with_pivot: bool = False) -> float:
        """Mean of CO over languages; the paper's code counts the pivot with itself, as 1.

        NaN where no language has one.
        """
        values = np.array([*self.matrix("co").values(), *([1.0] if with_pivot else [])])
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else float("nan")


@typed
def recall(
    answers: pd.DataFrame,
    *,
    rules: Sequence[str],
    rule: str,
    pivot: str,
    resampling: Resampling = Resampling(),
    n_permutations: int = 200,
) -> FactRecall:
    """Accuracy and consistency of answers to parallel facts (arXiv 2505.14824: ACC, CO).

    Args:
        answers: One row per fact and language: `id language relation object`, a column of truth
            values for each rule and, if known, `dealt` and `group`: `FactAnswers.table`.
        rules: Those columns.
        rule: The one that decides in all tables but the first.
        pivot: The language to compare with.
        resampling: Of the intervals, over facts.
        n_permutations: Of the control.

    Raises:
        ValueError: a missing column, an unknown pivot or rule, a fact that lacks a language.
    """
    if lacking := sorted({*COLUMNS, *rules} - set(answers.columns)):
        raise InputError(f"The answers lack the columns {lacking}; give FactAnswers.table.")
    if rule not in rules:
        raise InputError(f"rule={rule!r}: accepted are {', '.join(rules)}.")
    tags = list(dict.fromkeys(answers["language"]))
    if pivot not in tags:
        raise InputError(f"The pivot {pivot!r} isn't among the languages {', '.join(tags)}.")
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}; it must be at least 1.")
    home = answers[answers["language"] == pivot]
    ids = list(home["id"])
    right = {name: _table(answers, name, ids, tags) for name in rules}
    relation = home["relation"].to_numpy()
    clusters = resampling.codes(_meta(home))
    mine = right[rule]
    dealt = _table(answers, "dealt", ids, tags) if "dealt" in answers else None
    majority = np.stack([_majority(answers[answers["language"] == t], ids) for t in tags])

    def booted(cells: np.ndarray, which: np.ndarray | None = None) -> Bootstrap:
        rows = slice(None) if which is None else which
        return bootstrap(
            cells[rows].astype(float),
            clusters=clusters[rows],
            resampling=resampling,
            bounds=(0.0, 1.0),
        )

    at = tags.index(pivot)
    both = mine & mine[at]
    # Shares of some of the facts, fact by fact: so the interval of a share of 1 is no point.
    # What `co`, `given_pivot` and `pivot_given` are shares of, in the order of `_SHARES`.
    some = (mine | mine[at], np.broadcast_to(mine[at], mine.shape), mine)
    shares = [np.where(which, both, np.nan) for which in some]
    # [fact, column]: each of the five by language, so that `len(tags)` steps from one to the next.
    whole = booted(np.concatenate([mine, both, *shares]).T)
    languages: list[dict[str, Any]] = []
    # Stable: the rule that decides first, the others in their order.
    for name in sorted(rules, key=lambda name: name != rule):
        found = whole if name == rule else booted(right[name].T)
        for n, row in enumerate(_shares(found, tags)):
            own = {"majority": float(majority[n].mean())}
            own["dealt"] = np.nan if dealt is None else _mean(dealt[n])
            languages.append({"rule": name, **row, **(own if name == rule else {})})
    relations: list[dict[str, Any]] = []
    for kind in dict.fromkeys(relation):
        inside = relation == kind
        found = booted(mine.T, inside)
        golds = answers[answers["relation"] == kind].groupby("language")["object"].nunique()
        for n, row in enumerate(_shares(found, tags)):
            a, b, ab = (x[inside].mean() for x in (mine[at], mine[n], both[n]))
            own = {name: float(MEASURES[name][1](a, b, ab)) for name in ("co", "j0")}
            relations.append(
                {
                    "relation": kind,
                    **row,
                    "objects": int(golds[row["language"]]),
                    "majority": float(majority[n, inside].mean()),
                    "dealt": np.nan if dealt is None else _mean(dealt[n, inside]),
                    **(own if n != at else dict.fromkeys(own, np.nan)),
                }
            )
    return FactRecall(
        provenance={**resampling.provenance(), "n_permutations": n_permutations,
                    "n_facts": len(ids), "versions": versions()},
        languages=pd.DataFrame(languages),
        relations=pd.DataFrame(relations),
        pairs=_pairs(whole, mine, at, tags, relation, n_permutations, resampling.seed),
        false_credits=_false_credits(right, tags),
        pivot=pivot,
        rule=rule,
        groups=_groups(answers, rule, resampling),
    )  # fmt: skip


def _meta(home: pd.DataFrame) -> pd.DataFrame:
    """What intervals can draw whole: facts, or all facts about a subject."""
    return home[["id", "subject"]] if "subject" in home else home[["id"]]


def _table(
    answers: pd.DataFrame, column: str, ids: Sequence[str], tags: Sequence[str]
) -> np.ndarray:
    """A column by language and fact.

    Raises:
        ValueError: a fact that lacks a language.
    """
    wide = answers.pivot(index="language", columns="id", values=column).reindex(list(tags))
    # Both ways: facts that only the pivot has, and facts that it lacks.
    lacking = sorted(set(ids) ^ set(wide.columns)) or sorted(wide.columns[wide.isna().any()])
    if lacking and column != "dealt":
        raise InputError(
            f"{len(lacking)} facts aren't answered in every language, first {lacking[0]!r}: "
            "answers are compared fact by fact."
        )
    kind = float if column == "dealt" else bool
    return wide.reindex(columns=list(ids)).to_numpy().astype(kind)


def _majority(rows: pd.DataFrame, ids: Sequence[str]) -> Bool[np.ndarray, " fact"]:
    """Whether each fact's object is the most frequent one of its relation."""
    counts = rows.groupby(["relation", "object"], sort=False).size().reset_index(name="n")
    most = counts.sort_values("n", ascending=False, kind="stable").drop_duplicates("relation")
    best = dict(zip(most["relation"], most["object"], strict=True))
    by_id = dict(zip(rows["id"], rows["relation"].map(best) == rows["object"], strict=True))
    return np.array([by_id[id] for id in ids])


def _shares(found: Bootstrap, tags: Sequence[str]) -> list[dict[str, Any]]:
    low, high = found.interval()
    return [
        {
            "language": tag,
            "accuracy": float(found.mean[n]),
            "low": float(low[n]),
            "high": float(high[n]),
            "n": int(found.n[n]),
        }
        for n, tag in enumerate(tags)
    ]


def _pairs(
    whole: Bootstrap,
    right: Bool[np.ndarray, "language fact"],
    at: int,
    tags: Sequence[str],
    relation: np.ndarray,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    groups = [np.flatnonzero(relation == kind) for kind in dict.fromkeys(relation)]
    random = generator(seed)
    # The same orders for all languages: each is as good as chance.
    orders = np.tile(np.arange(right.shape[1]), (n_permutations, 1))
    for group in groups:
        orders[:, group] = random.permuted(orders[:, group], axis=1)
    rows: list[dict[str, Any]] = []
    for n, tag in enumerate(tags):
        if n == at:
            continue
        # Right in the pivot, in the language, in both.
        columns = [at, n, len(tags) + n]
        shared = (right[n][orders] & right[at]).mean(axis=1)
        a, b = whole.mean[at], whole.mean[n]
        for name, (_, of, least) in MEASURES.items():

            def measure(means: Float[np.ndarray, "*row k"], of: Any = of) -> np.ndarray:
                return of(means[..., 0], means[..., 1], means[..., 2])

            if name in _SHARES:
                own = (2 + _SHARES.index(name)) * len(tags) + n
                low, high = (end[own] for end in whole.interval())
            else:
                low, high = whole.interval(measure, columns)
                # Where no resample moves it nothing is known of its interval.
                low, high = (np.nan, np.nan) if low == high else (low, high)
            # Permuting moves neither accuracy, only what is shared. `j0` knows nothing of
            # that and gives one number: hence the broadcast.
            null = np.broadcast_to(of(a, b, shared), shared.shape)
            below, above = middle(null)
            rows.append(
                {
                    "metric": name,
                    "language": tag,
                    "value": float(measure(whole.mean[columns])),
                    "low": float(np.clip(low, least, 1)),
                    "high": float(np.clip(high, least, 1)),
                    "n": right.shape[1],
                    "control": _mean(null),
                    "control_low": float(below),
                    "control_high": float(above),
                }
            )
    return pd.DataFrame(rows)


def _false_credits(
    right: Mapping[str, Bool[np.ndarray, "language fact"]], tags: Sequence[str]
) -> pd.DataFrame:
    if not {"prefix", "word"} <= set(right):
        return pd.DataFrame(columns=["language", "prefix_only", "n"])
    only = right["prefix"] & ~right["word"]
    counts = {"language": list(tags), "prefix_only": only.sum(axis=1), "n": only.shape[1]}
    return pd.DataFrame(counts)


def _groups(answers: pd.DataFrame, rule: str, resampling: Resampling) -> pd.DataFrame:
    if "group" not in answers:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    # Under `all` a fact has a row for each language, which its id keeps in one cluster.
    every = answers.assign(language=ALL)
    for (group, tag), mine in pd.concat([answers, every]).groupby(
        ["group", "language"], sort=False
    ):
        cells = mine[rule].to_numpy(float)[:, None]
        clusters = resampling.codes(_meta(mine))
        found = bootstrap(cells, clusters=clusters, resampling=resampling, bounds=(0.0, 1.0))
        control = _mean(mine["dealt"].to_numpy(float)) if "dealt" in mine else np.nan
        rows.append({"group": group, **_shares(found, [str(tag)])[0], "dealt": control})
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
