"""Does one frequency part what is recalled from what isn't? And what is recalled without it?"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens.acquisition.association import Counts, Right, Totals
from xlens.checks import typed
from xlens.errors import InputError
from xlens.stats import Resampling, bootstrap, generator, jumping

FOLDS, PARTITIONS = 5, 10
GROUPS = {
    (True, True): "frequent, right",
    (True, False): "frequent, wrong",
    (False, True): "rare, right",
    (False, False): "rare, wrong",
}


@dataclass(frozen=True)
class Threshold:
    """The rule "right if stated at least `theta` times", and how good it is.

    Attributes:
        theta: The best threshold; inf where "always wrong" is best.
        low: Of its interval.
        high: Of its interval.
        accuracy: Of the rule, on the facts it was chosen on.
        held_out: On facts it was not chosen on, by cross-validation.
        majority: Of always saying what is true more often.
        beyond: By how much `held_out` is above `majority`: what knowing frequencies adds.
        beyond_low: Of its interval.
        beyond_high: Of its interval.
        balanced: Mean of the shares of right and of wrong facts that it tells.
        tp: Frequent and right.
        fp: Frequent and wrong.
        fn: Rare and right: what may have been carried over.
        tn: Rare and wrong.
    """

    theta: float
    low: float
    high: float
    accuracy: float
    held_out: float
    majority: float
    beyond: float
    beyond_low: float
    beyond_high: float
    balanced: float
    tp: int
    fp: int
    fn: int
    tn: int


@typed
def best_threshold(frequency: Counts, right: Right, *, wrong: bool = False) -> tuple[float, float]:
    """The most accurate threshold and its accuracy, by the rule of arXiv 2505.14824's code.

    Over the counts that occur, ascending; the smallest of equally good ones.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        wrong: Also try inf, "never right", which the paper's code can't say.

    Raises:
        ValueError: unequal numbers of facts, or none.
    """
    if len(frequency) != len(right) or not len(right):
        raise InputError(f"{len(frequency)} frequencies and {len(right)} answers: give as many.")
    tried, at = np.unique(frequency, return_inverse=True)
    n = np.bincount(at, minlength=len(tried))
    yes = np.bincount(at, weights=right, minlength=len(tried))
    # Told rightly by each threshold: right ones from it on, wrong ones below it.
    from_on = yes[::-1].cumsum()[::-1]
    below = np.concatenate([[0.0], (n - yes).cumsum()[:-1]])
    hits = from_on + below
    # The first of equals, which is the smallest threshold. Sums of whole numbers are exact.
    best = int(np.argmax(hits))
    theta, told = float(tried[best]), float(hits[best])
    never = float((~right).sum())
    if wrong and never > told:
        theta, told = float("inf"), never
    return theta, told / len(right)


@typed
def threshold(
    frequency: Counts,
    right: Right,
    *,
    wrong: bool = True,
    clusters: Int[np.ndarray, " fact"] | None = None,
    resampling: Resampling = Resampling(),
) -> Threshold:
    """The best threshold with its interval, baseline and held-out accuracy.

    Args:
        frequency: Documents that state each fact.
        right: Whether it is recalled.
        wrong: Allow "never right".
        clusters: What is drawn, and left out of a fold, whole. None: every fact.
        resampling: Of the intervals and the folds.

    Raises:
        ValueError: as `best_threshold`.
    """
    theta, accuracy = best_threshold(frequency, right, wrong=wrong)
    frequent = frequency >= theta
    tp, fp, fn, tn = (
        int((frequent & right).sum()),
        int((frequent & ~right).sum()),
        int((~frequent & right).sum()),
        int((~frequent & ~right).sum()),
    )
    codes = np.arange(len(right)) if clusters is None else pd.factorize(clusters)[0]
    n = int(codes.max()) + 1
    thetas = _thetas(Totals.of(frequency, right), resampling.weights(n), codes, wrong)
    low, high = jumping(thetas, clusters=n, confidence=resampling.confidence)
    told = _held_out(frequency, right, codes, wrong, resampling.seed)
    # Not what was true more often of the other folds: where half are right, that is wrong of this.
    usual = right == (right.mean() > 0.5)
    beyond = bootstrap(
        (told - usual)[:, None], clusters=codes, resampling=resampling, bounds=(-1.0, 1.0)
    )
    (beyond_low,), (beyond_high,) = beyond.interval()
    rates = [tp / (tp + fn) if tp + fn else np.nan, tn / (tn + fp) if tn + fp else np.nan]
    share = float(right.mean())
    return Threshold(
        theta=theta,
        low=low,
        high=high,
        accuracy=accuracy,
        held_out=float(told.mean()),
        majority=max(share, 1 - share),
        beyond=float(beyond.mean[0]),
        beyond_low=float(beyond_low),
        beyond_high=float(beyond_high),
        balanced=float(np.mean(rates)),
        **{"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    )


@typed
def carried_over(
    frequency: Counts,
    right: Right,
    right_in_pivot: Right,
    theta: float,
    *,
    strata: Sequence[Hashable] | None = None,
    clusters: Int[np.ndarray, " fact"] | None = None,
    resampling: Resampling = Resampling(),
) -> dict[str, Any]:
    """Of facts that are rare in a language, how many are right that are known in the pivot.

    Beside them, as their control, the rare facts that aren't known in the pivot; and what would be
    expected if, among facts of a stratum, being right had nothing to do with the pivot: what is
    easy to guess is right in all languages.

    Args:
        frequency: In the language.
        right: There.
        right_in_pivot: In the pivot.
        theta: What is rare: below it.
        strata: What each fact is compared within: its relation, say. None: with all.
        clusters: What is drawn whole. None: every fact.
        resampling: Of the intervals.

    Returns:
        `n share low high expected control_n control control_low control_high p`; p by an exact test
        within strata, one-sided (of one stratum, Fisher's). NaN where there are none.

    Raises:
        ValueError: unequal numbers of facts.
    """
    if not len(frequency) == len(right) == len(right_in_pivot):
        raise InputError("Frequencies and answers are of unequal numbers of facts; give as many.")
    rare = frequency < theta
    codes = np.arange(len(right)) if clusters is None else clusters
    mine, others = rare & right_in_pivot, rare & ~right_in_pivot
    n, share, low, high = _rate(right[mine], codes[mine], resampling)
    m, control, below, above = _rate(right[others], codes[others], resampling)
    expected = p = float("nan")
    if n and m:
        kinds = np.zeros(len(right), int) if strata is None else pd.factorize(pd.Series(strata))[0]
        expected, p = _within(rare, right, right_in_pivot, kinds)
    return {"n": n, "share": share, "low": low, "high": high, "expected": expected,
            "control_n": m, "control": control, "control_low": below, "control_high": above,
            "p": p}  # fmt: skip


def _within(
    rare: Right, right: Right, right_in_pivot: Right, strata: Int[np.ndarray, " fact"]
) -> tuple[float, float]:
    """Share expected by chance within strata, and the exact p of as many or more."""
    from scipy.stats import hypergeom

    chances, expected = np.ones(1), 0.0
    for stratum in np.unique(strata[rare]):
        inside = rare & (strata == stratum)
        size, known, yes = (int((inside & x).sum()) for x in (rare, right_in_pivot, right))
        # The number over all strata is a sum of independent ones: their convolution.
        chances = np.convolve(chances, hypergeom.pmf(np.arange(known + 1), size, known, yes))
        expected += known * yes / size
    both = int((rare & right_in_pivot & right).sum())
    n = int((rare & right_in_pivot).sum())
    return expected / n, float(min(chances[both:].sum(), 1.0))


def four_groups(frequency: Counts, right: Right, theta: float) -> list[str]:
    """Of each fact, whether it is frequent and whether it is right: one of `GROUPS`."""
    return [GROUPS[bool(f >= theta), bool(yes)] for f, yes in zip(frequency, right, strict=True)]


def _thetas(
    found: Totals, weights: Float[np.ndarray, "draw cluster"], codes: np.ndarray, wrong: bool
) -> Float[np.ndarray, " draw"]:
    """`best_threshold` of every resample."""
    yes, no = found.weighted(weights, codes)
    # Right from each frequency on, wrong below it (its own not counted): as in `best_threshold`.
    hits = yes[:, ::-1].cumsum(axis=1)[:, ::-1] + no.cumsum(axis=1) - no
    hits = np.where(yes + no > 0, hits, -1.0)  # what was not drawn is no threshold
    best = hits.argmax(axis=1)
    thetas = found.there[best].astype(float)
    if wrong:
        thetas[no.sum(axis=1) > hits.max(axis=1)] = np.inf
    return thetas


def _held_out(
    frequency: Counts, right: Right, codes: Int[np.ndarray, " fact"], wrong: bool, seed: int
) -> Float[np.ndarray, " fact"]:
    """Of each fact how often it is told rightly by a threshold that was chosen on others.

    Folds are drawn several times, so that one partition's luck is not in it.
    """
    random, n = generator(seed), int(codes.max()) + 1
    if n < FOLDS:
        return np.full(len(right), np.nan)
    told = np.zeros(len(right))
    for _ in range(PARTITIONS):
        # Clusters are dealt, not facts: folds of equally many, each whole in one.
        fold = random.permutation(np.arange(n) % FOLDS)[codes]
        for k in range(FOLDS):
            inside, out = fold != k, fold == k
            theta, _ = best_threshold(frequency[inside], right[inside], wrong=wrong)
            told[out] += (frequency[out] >= theta) == right[out]
    return told / PARTITIONS


def _rate(
    right: Right, clusters: np.ndarray, resampling: Resampling
) -> tuple[int, float, float, float]:
    if not len(right):
        return 0, float("nan"), float("nan"), float("nan")
    cells = right.astype(float)[:, None]
    found = bootstrap(cells, clusters=clusters, resampling=resampling, bounds=(0.0, 1.0))
    (low,), (high,) = found.interval()
    return len(right), float(right.mean()), float(low), float(high)
