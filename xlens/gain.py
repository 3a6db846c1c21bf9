"""Before and after: did answers to the same items get better, in which languages, how surely?"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import binomtest

from xlens._lazy import listed
from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import written
from xlens.results import Result, analysed
from xlens.stats import ClusterSums, Resampling, adjusted_flips, bootstrap, random_signs

__all__ = ["Gain", "gain"]
__dir__ = listed(__all__)
ALL, SEEN, UNSEEN = "all", "seen", "unseen"
BEFORE = "before"
VERDICTS = ("better", "worse", "the same", "undecided")
_FLIPS = 4000


@dataclass(frozen=True, kw_only=True)
class Gain(Result):
    """What changed from before to after, paired by item.

    Attributes:
        table: `condition against language seen before before_low before_high after after_low
            after_high difference low high p p_mcnemar better worse verdict n clusters`. One row per
            condition (what a model went through), what it is compared with (`before`, or another
            condition) and language, and for the means over languages: `all`, `seen` in training and
            `unseen`, every language the same weight. Values are shares of right answers (or mean
            scores), the mean over training runs. Intervals are over clusters of items. `p` is
            against random signs of the clusters' differences, adjusted over all languages of a
            comparison (largest standardised difference), and over the means for these.
            `p_mcnemar` is McNemar's exact test of a single run, which takes items for independent
            and looks at one language; NaN elsewhere. `better` and `worse` count items.
            `verdict`: `the same` where the interval of the equivalence test lies within the bound;
            else `better` or `worse` where p is below the level; else `undecided`.
        runs: `condition run language value`: every training by itself, `all` included.
        bound: Differences below it count as none; stated beforehand.
        trained: Languages in training.
        confidence: Of the intervals; tests have the level of what is left.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    bound: float
    trained: tuple[str, ...]
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def of(self, condition: str, against: str = BEFORE) -> pd.DataFrame:
        """The rows of a comparison."""
        table = self.table
        return table[(table["condition"] == condition) & (table["against"] == against)]


@typed
def gain(
    before: pd.DataFrame,
    after: Mapping[str, Sequence[pd.DataFrame]],
    *,
    trained: Collection[str],
    bound: float = 0.03,
    controls: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    resampling: Resampling = Resampling(),
) -> Gain:
    """Compare answers before and after, by language.

    Args:
        before: `id language value`, and what clusters are named by (`paragraph`): one row per item
            and language.
        after: The same by condition, a table for each training run.
        trained: Languages in training, in whatever script (`zh` is that of `zh-Hans` too); none:
            there are no means over those seen and unseen.
        bound: Of equivalence, in the units of `value`.
        controls: Conditions that the first one is compared with as well: same compute, nothing to
            learn.
        provenance: Of the answers.
        resampling: Of the intervals and tests.

    Raises:
        ValueError: no condition, a bound that isn't above 0, or tables of other items.
    """
    if not after or not bound > 0:
        raise InputError(f"{len(after)} conditions and a bound of {bound}: give some, above 0.")
    if missing := [name for name in controls if name not in after]:
        raise InputError(
            f"controls holds {', '.join(missing)}; the conditions are {', '.join(after)}."
        )
    if not resampling.confidence > 0.5:
        raise InputError(
            f"confidence is {resampling.confidence}; equivalence is judged by an interval of twice "
            "that less 1, so that it takes more than 0.5."
        )
    first = _wide(before)
    wide = {name: [_wide(table, first) for table in runs] for name, runs in after.items()}
    means = {name: np.mean([t.to_numpy() for t in runs], axis=0) for name, runs in wide.items()}
    meta = before.drop_duplicates("id").set_index("id").loc[first.index].reset_index()
    codes = resampling.codes(meta)
    main = next(iter(after))
    # Controls are conditions too: each is compared with before, and the first one with each.
    pairs = [(name, BEFORE) for name in after] + [(main, other) for other in controls]
    values = {BEFORE: first.to_numpy(), **means}
    rows: list[pd.DataFrame] = []
    for name, against in pairs:
        # Before is one run. Means of several runs are no right and
        # wrong answers, as McNemar's test needs.
        single = len(wide[name]) == 1 and len(wide.get(against, [0])) == 1
        compared = _compared(
            values[against], values[name], list(first.columns), trained, codes, bound, resampling
        )
        if not single:
            compared["p_mcnemar"] = np.nan
        rows.append(compared.assign(condition=name, against=against))
    table = pd.concat(rows, ignore_index=True)
    head = ["condition", "against", "language", "seen"]
    runs = [("", 0, BEFORE, first), *((name, n, name, t) for name in wide
            for n, t in enumerate(wide[name], 1))]  # fmt: skip
    each = [
        (condition, run, tag, float(value))
        for _, run, condition, t in runs
        for tag, value in [*t.mean().items(), (ALL, t.to_numpy().mean())]
    ]
    return Gain(
        provenance=analysed(
            provenance or {},
            "gain",
            {**resampling.provenance(), "bound": bound, "flips": _FLIPS},
        ),
        table=table[[*head, *(c for c in table.columns if c not in head)]],
        runs=pd.DataFrame(each, columns=["condition", "run", "language", "value"]),
        bound=bound,
        trained=tuple(trained),
        confidence=resampling.confidence,
    )


def _wide(table: pd.DataFrame, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """Item × language; the same items and languages as `like`."""
    wide = table.pivot(index="id", columns="language", values="value")
    if like is None:
        wide = wide.loc[list(dict.fromkeys(table["id"])), list(dict.fromkeys(table["language"]))]
    elif set(wide.index) != set(like.index) or set(wide.columns) != set(like.columns):
        raise InputError(
            f"Before are {len(like)} items in {', '.join(like.columns)}, after {len(wide)} in "
            f"{', '.join(wide.columns)}: pairs need the same ones."
        )
    else:
        wide = wide.loc[like.index, like.columns]
    if wide.isna().to_numpy().any():
        raise InputError("An item has no answer in some language: pairs need all of them.")
    return wide


def _compared(
    first: Float[np.ndarray, "item language"],
    second: Float[np.ndarray, "item language"],
    tags: Sequence[str],
    trained: Collection[str],
    codes: np.ndarray,
    bound: float,
    resampling: Resampling,
) -> pd.DataFrame:
    """A row per language, and for the means over those seen, unseen and all."""
    # Questions in `zh` train the language of items in `zh-Hans`.
    languages = {written(tag)[0] for tag in trained}
    seen = np.array([written(tag)[0] in languages for tag in tags])
    groups = {ALL: np.ones(len(tags), bool)}
    if seen.any():  # else all are unseen
        groups |= {SEEN: seen, UNSEEN: ~seen}
    groups = {name: which for name, which in groups.items() if which.any()}
    one, two = (
        # [item, language and groups]: an item's mean over languages is one number, since its
        # answers in several languages hang together.
        np.column_stack([v, *(v[:, which].mean(axis=1) for which in groups.values())])
        for v in (first, second)
    )
    change = two - one
    # Two one-sided tests at the level: an interval that leaves the level out on either side.
    equal = replace(resampling, confidence=2 * resampling.confidence - 1)
    low, high = _ends(change, codes, resampling, (-1, 1))
    inner_low, inner_high = _ends(change, codes, equal, (-1, 1))
    ends = [_ends(values, codes, resampling, (0, 1)) for values in (one, two)]
    sums = ClusterSums.of(change, codes)
    signs = random_signs(len(sums.sums), _FLIPS, resampling.seed)
    flipped = sums.flipped(signs)
    # Apart, as means are made of the languages: together, each would pay for the other.
    (p_each,) = adjusted_flips([flipped[:, : len(tags)]])
    (p_means,) = adjusted_flips([flipped[:, len(tags) :]])
    table = pd.DataFrame(
        {
            "language": [*tags, *groups],
            "seen": [*map(bool, seen), *([False] * len(groups))],
            "before": one.mean(axis=0),
            "before_low": ends[0][0],
            "before_high": ends[0][1],
            "after": two.mean(axis=0),
            "after_low": ends[1][0],
            "after_high": ends[1][1],
            "difference": change.mean(axis=0),
            "low": low,
            "high": high,
            "p": [*p_each, *p_means],
            "p_mcnemar": [
                *(_mcnemar(first[:, k], second[:, k]) for k in range(len(tags))),
                *([np.nan] * len(groups)),
            ],
            "better": (change > 0).sum(axis=0),
            "worse": (change < 0).sum(axis=0),
            "n": len(change),
            "clusters": len(sums.sums),
        }
    )
    # First in `select`: a difference may be sure, and still too small to count.
    same = (inner_low >= -bound) & (inner_high <= bound)
    sure = table["p"].to_numpy() < resampling.level
    up = table["difference"].to_numpy() > 0
    table["verdict"] = np.select(
        [same, sure & up, sure & ~up], ["the same", "better", "worse"], "undecided"
    )
    return table


def _ends(
    values: np.ndarray, codes: np.ndarray, resampling: Resampling, bounds: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    return bootstrap(values, clusters=codes, resampling=resampling, bounds=bounds).interval()


def _mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """Exact, of right and wrong answers; NaN of scores in between."""
    if not np.isin(np.concatenate([before, after]), (0.0, 1.0)).all():
        return float("nan")
    better, worse = int((after > before).sum()), int((after < before).sum())
    # Only items that changed say anything; under chance half of them got better.
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
