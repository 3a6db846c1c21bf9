"""The consistency panel: every measure of agreement from one table of option scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.consistency.options import OptionScores
from xlens.consistency.per_item import Weights, option_ranks, rank_c, unit_ranks
from xlens.consistency.ways import unsettled, ways_table
from xlens.errors import InputError
from xlens.results import Result, versions
from xlens.stats import Bootstrap, Resampling, bootstrap, generator, holm, middle

# What each measure is; those without gold answers come first.
METRICS = {
    "spearman": "Spearman's rho of the options' order, mean over items",
    "rank_c": "RankC: agreement of the best options, weighted to the top",
    "top1": "the same option is best in both",
    "transfer": "right in the second language, given right in the first",
    "lift": "transfer less the second language's accuracy",
    "same_wrong": "the same wrong option in the second, given wrong in the first",
    "any_wrong": "wrong in the second, given wrong in the first",
    "jaccard": "right in both over right in either",
    "jaccard_lift": "right in both over right in either, less what unrelated answers give",
}
_DIRECTED = frozenset({"transfer", "lift", "same_wrong", "any_wrong"})
_WITHOUT_GOLD = ("spearman", "rank_c", "top1")


@dataclass(frozen=True, kw_only=True)
class ConsistencyResult(Result):
    """Accuracy by language, agreement by pair of languages.

    Attributes:
        languages: One row per language: `language accuracy low high chance ties unsettled n`.
            `chance` is the mean of one over the number of options; `ties` the share of items with
            two equal scores; `unsettled` the number of items whose best option depends on how
            options of unequal length are compared (NaN where one way only is known).
        pairs: One row per measure and ordered pair: `metric source target value low high n control
            control_low control_high`. `n` is the number of items for which it is defined (right in
            the source, say). `control` is the same measure with the items of the target language
            permuted, among those of as many options and the same right one: what unrelated answers
            of the same accuracy and the same liking for a place give; the mean, and the middle
            95 %, over permutations. NaN where nothing is defined.
        dependence: One row per two languages: `a b both expected p n p_adjusted`. Items right in
            `both` and how many were `expected` of their accuracies (`lift` is 0 there); `p`, by an
            exact one-sided test, of as many or more, and adjusted by Holm over all pairs. It takes
            items for independent, also where several are about one passage. Empty without gold
            answers.
        ways: One row per language and way of comparing options of unequal length
            (`xlens.lengths`): `language by accuracy low high changed n`. First the way of all else
            here; `changed` is the number of items whose best option is another than by that one.
            Empty where one way only is known.
    """

    languages: pd.DataFrame
    pairs: pd.DataFrame
    dependence: pd.DataFrame = field(default_factory=pd.DataFrame)
    ways: pd.DataFrame = field(default_factory=pd.DataFrame)

    def to_frame(self) -> pd.DataFrame:
        """`pairs`."""
        return self.pairs

    def matrix(self, metric: str, *, column: str = "value") -> pd.DataFrame:
        """A measure as a table, sources down and targets across; NaN on the diagonal.

        Raises:
            ValueError: an unknown measure, or one that was not computed.
        """
        there = list(dict.fromkeys(self.pairs["metric"]))
        if metric not in there:
            raise InputError(f"There is no measure {metric!r} here; there are {', '.join(there)}.")
        found = self.pairs[self.pairs["metric"] == metric]
        order = list(self.languages["language"])
        table = found.pivot(index="source", columns="target", values=column)
        return table.reindex(index=order, columns=order)

    def means(self) -> pd.DataFrame:
        """Every measure over all pairs (arXiv 2505.13141, Eq. 4-6), its control beside it."""
        columns = ["value", "control"]
        return self.pairs.groupby("metric", sort=False)[columns].mean().reset_index()

    def dependent(self, level: float) -> int:
        """In how many pairs of languages right answers fall together, by tests at that level."""
        return int((self.dependence["p_adjusted"] < level).sum())

    def changed(self) -> dict[str, int]:
        """By way of comparing options, how many answers are others than by the way used here."""
        counts = self.ways.groupby("by", sort=False)["changed"].sum()
        return {str(way): int(n) for way, n in counts.items()}

    @property
    def n_answers(self) -> int:
        """Answers, of all languages."""
        return int(self.languages["n"].sum())

    @property
    def n_unsettled(self) -> int:
        """Of these, how many depend on how options of unequal length are compared."""
        return int(self.languages["unsettled"].sum())


@typed
def consistency(
    scores: OptionScores,
    *,
    weights: Weights = "softmax",
    resampling: Resampling = Resampling(),
    n_permutations: int = 20,
) -> ConsistencyResult:
    """Every measure of agreement between every two languages, from the same scores.

    Spearman, positive and negative transfer: arXiv 2505.13141, Eq. 1-6, as third parties report
    them; of its loosely printed Eq. 3 both readings are given (`same_wrong`, `any_wrong`). RankC:
    Qi et al. 2023. Jaccard: `CO` of arXiv 2505.14824. Transfer and Jaccard rise with accuracy
    alone, so read `lift` and `jaccard_lift`, and the permuted control, beside them.

    Args:
        scores: From `option_scores`.
        weights: Of RankC.
        resampling: Of the intervals; its seed is that of the controls too.
        n_permutations: Of the control.

    Raises:
        ValueError: a number of permutations below 1.
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}; it must be at least 1.")
    answers = _answers(scores)
    names = list(_WITHOUT_GOLD if scores.gold is None else METRICS)
    # Lifts are differences of means, not means: they are made of resampled columns (`_number`).
    drawn = [name for name in names if name not in ("lift", "jaccard_lift")]
    pairs = list(permutations(range(len(scores.languages)), 2))
    columns = [_items(answers, answers, a, b, drawn, weights) for a, b in pairs]
    # [item, column]: right answers by language, then the measures pair by pair. All in one table,
    # so that one resample of items serves every number.
    cells = np.concatenate([answers.right.T, *(np.stack(c, 1) for c in columns)], axis=1)
    signed = [False] * len(scores.languages) + [name == "spearman" for name in drawn] * len(pairs)
    clusters = resampling.codes(scores.meta)
    booted = bootstrap(
        cells,
        clusters=clusters,
        resampling=resampling,
        bounds=(np.where(signed, -1.0, 0.0), 1.0),
    )
    chance = _permuted(answers, pairs, drawn, weights, n_permutations, resampling.seed)
    rows: list[dict[str, Any]] = []
    for p, (a, b) in enumerate(pairs):
        # Where the pair's columns begin in `cells`.
        at = len(scores.languages) + p * len(drawn)
        own, control = {name: at + i for i, name in enumerate(drawn)}, chance[p]
        for name in names:
            value, low, high = _number(booted, own, name, a, b)
            below, above = middle(control[name])
            rows.append(
                {
                    "metric": name,
                    "source": scores.languages[a],
                    "target": scores.languages[b],
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": int(booted.n[own[_BASE.get(name, name)]]),
                    "control": float(np.mean(control[name])),
                    "control_low": float(below),
                    "control_high": float(above),
                }
            )
    options = {
        "weights": weights,
        "by": next(iter(scores.ways), None),
        **resampling.provenance(),
        "n_permutations": n_permutations,
        "n_items": len(scores.ids),
        "n_clusters": int(clusters.max()) + 1,
        "versions": versions(),
    }
    return ConsistencyResult(
        provenance=options,
        languages=_languages(scores, answers, booted),
        pairs=pd.DataFrame(rows),
        dependence=_dependence(answers, scores.languages),
        ways=ways_table(scores, resampling),
    )


_BASE = {"lift": "transfer", "jaccard_lift": "jaccard"}


def _lift(means: np.ndarray) -> np.ndarray | float:
    """Of transfer and the second language's accuracy."""
    return means[..., 0] - means[..., 1]


def _jaccard_lift(means: np.ndarray) -> np.ndarray | float:
    """Of Jaccard's index and both accuracies."""
    jaccard, one, other = np.moveaxis(means, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of unrelated answers both are right in pq, and either in p + q - pq.
        return jaccard - one * other / (one + other - one * other)


def _number(
    booted: Bootstrap, own: dict[str, int], name: str, a: int, b: int
) -> tuple[float, float, float]:
    """A measure of a pair, with its interval."""
    if name in own:
        low, high = (ends[own[name]] for ends in booted.interval())
        return float(booted.mean[own[name]]), float(low), float(high)
    of, columns = (
        (_lift, [own["transfer"], b]) if name == "lift" else (_jaccard_lift, [own["jaccard"], a, b])
    )
    low, high = booted.interval(of, columns)
    return float(of(booted.mean[columns])), float(low), float(high)


def _dependence(answers: "_Answers", languages: Sequence[str]) -> pd.DataFrame:
    """Whether the right answers of two languages fall together, by exact tests.

    Among items of as many options and the same right one, both languages' right answers are fixed
    in number; were they dealt out blindly, those right in both would be a hypergeometric number.
    """
    from scipy.stats import hypergeom

    groups = [answers.kinds == kind for kind in np.unique(answers.kinds)]
    rows: list[dict[str, Any]] = []
    for a, b in combinations(range(len(languages)), 2):
        right, other = answers.right[a], answers.right[b]
        if not np.isfinite(right).all():
            continue
        chances, expected = np.ones(1), 0.0
        for group in groups:
            size, one, two = (int(x) for x in (group.sum(), right[group].sum(), other[group].sum()))
            # The number over all groups is a sum of independent ones: its probabilities are their
            # convolution, chances[k] that of k right in both.
            chances = np.convolve(chances, hypergeom.pmf(np.arange(one + 1), size, one, two))
            expected += one * two / size
        both = int((right * other).sum())
        rows.append(
            {
                "a": languages[a],
                "b": languages[b],
                "both": both,
                "expected": expected,
                "p": float(min(chances[both:].sum(), 1.0)),
                "n": len(right),
            }
        )
    table = pd.DataFrame(rows, columns=["a", "b", "both", "expected", "p", "n"])
    return table.assign(p_adjusted=holm(table["p"].to_numpy(float)))


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the measures look at, by language and item.

    Attributes:
        units: `unit_ranks`.
        ranks: `option_ranks`.
        said: The best option.
        right: 1.0 and 0.0; NaN without gold answers.
        kinds: Items of one kind have as many options and the same right one.
        counts: Options.
    """

    units: Float[np.ndarray, "language item option"]
    ranks: np.ndarray
    said: np.ndarray
    right: Float[np.ndarray, "language item"]
    kinds: np.ndarray
    counts: np.ndarray


def _answers(scores: OptionScores) -> _Answers:
    ranks = option_ranks(scores.values)
    said = ranks.argmin(-1)
    right = np.full(said.shape, np.nan) if scores.gold is None else (said == scores.gold) * 1.0
    gold = np.zeros(len(scores.ids), int) if scores.gold is None else scores.gold
    # One number for both: gold is below the largest number of options.
    kinds = scores.counts * scores.values.shape[-1] + gold
    return _Answers(unit_ranks(scores.values), ranks, said, right, kinds, scores.counts)


def _items(
    first: _Answers, second: _Answers, a: int, b: int, names: list[str], weights: Weights
) -> list[Float[np.ndarray, " item"]]:
    """Each measure item by item, of language `a` in the first answers and `b` in the second."""
    right, other = first.right[a], second.right[b]
    same = first.said[a] == second.said[b]
    found = {
        "spearman": lambda: np.einsum("io,io->i", first.units[a], second.units[b]),
        "rank_c": lambda: rank_c(first.ranks[a], second.ranks[b], first.counts, weights=weights),
        "top1": lambda: same * 1.0,
        "transfer": lambda: np.where(right == 1, other, np.nan),
        "same_wrong": lambda: np.where(right == 0, same * 1.0, np.nan),
        "any_wrong": lambda: np.where(right == 0, 1 - other, np.nan),
        "jaccard": lambda: np.where(right + other > 0, right * other, np.nan),
    }
    return [found[name]() for name in names]


def _all(values: np.ndarray, drawn: list[str], at: int, a: int, b: int) -> dict[str, np.ndarray]:
    """All measures of a pair from the last axis of some means; differences made here."""
    found = {name: values[..., at + i] for i, name in enumerate(drawn)}
    if "transfer" in found:
        one, other = values[..., a], values[..., b]
        found["lift"] = np.asarray(_lift(np.stack([found["transfer"], other], axis=-1)))
        three = np.stack([found["jaccard"], one, other], axis=-1)
        found["jaccard_lift"] = np.asarray(_jaccard_lift(three))
    return found


def _permuted(
    answers: _Answers,
    pairs: list[tuple[int, int]],
    drawn: list[str],
    weights: Weights,
    n: int,
    seed: int,
) -> list[dict[str, np.ndarray]]:
    """Every measure of every pair for each permutation of the items."""
    random = generator(seed)
    groups = [np.flatnonzero(answers.kinds == k) for k in np.unique(answers.kinds)]
    means: list[list[list[float]]] = []
    for _ in range(n):
        order = np.arange(len(answers.counts))
        for group in groups:
            # Within a kind only: then accuracy and each right option's place stay what they were.
            order[group] = random.permutation(group)
        shuffled = replace(
            answers,
            units=answers.units[:, order],
            ranks=answers.ranks[:, order],
            said=answers.said[:, order],
            right=answers.right[:, order],
        )
        means.append(
            [[_mean(x) for x in _items(answers, shuffled, a, b, drawn, weights)] for a, b in pairs]
        )
    # [draw, language]: permuting items moves no accuracy, so it
    # stands in front of every draw as in `cells`.
    accuracy = np.tile(answers.right.mean(1), (n, 1))
    tables = np.array(means).swapaxes(0, 1)  # by pair
    return [
        _all(np.concatenate([accuracy, table], axis=1), drawn, accuracy.shape[1], a, b)
        for (a, b), table in zip(pairs, tables, strict=True)
    ]


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else float("nan")


def _languages(scores: OptionScores, answers: _Answers, booted: Bootstrap) -> pd.DataFrame:
    low, high = booted.interval()
    # Options that an item lacks sort last, and inf - inf is NaN, which is no tie.
    last = np.sort(np.where(np.isnan(scores.values), np.inf, scores.values), axis=-1)
    with np.errstate(invalid="ignore"):
        ties = (np.diff(last, axis=-1) == 0).any(-1).mean(-1)
    n = len(scores.languages)
    return pd.DataFrame(
        {
            "language": list(scores.languages),
            "accuracy": booted.mean[:n],
            "low": low[:n],
            "high": high[:n],
            "chance": float((1 / answers.counts).mean()),
            "ties": ties,
            "unsettled": unsettled(scores),
            "n": len(scores.ids),
        }
    )
