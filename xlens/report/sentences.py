"""What the numbers of a language pair say, in plain words and no stronger than they are."""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from xlens.checks import typed
from xlens.languages import english_names
from xlens.lens.result import LensSummary
from xlens.report.cells import rounded
from xlens.wording import number_of, percent

_TINY = "below 0.001"
PHASE, WEAK, NO_PHASE, UNDONE, UNTOLD = "phase", "weak", "no phase", "not done", "can't be told"
"""What a pair comes to, in a word."""
NULLS = {"shuffled": "with shuffled words", "random-init": "with random weights"}
"""Controls in which no language's word should become probable."""


def used(survival: Mapping[str, int], what: str) -> str:
    """How many of what was offered can be used, and why the rest can't; nothing if all can."""
    # A run and its file order them differently: the most frequent reason first.
    order = sorted(survival.items(), key=lambda one: (-one[1], one[0]))
    reasons = ", ".join(f"{why} {n}" for why, n in order if n and why not in ("offered", "kept"))
    return (
        f"{survival['kept']} of {survival['offered']} {what} can be used; of the others: {reasons}."
        if reasons
        else ""
    )


def probability(value: float) -> str:
    """A probability in words of two or three digits: `0.28`, `0.034`, `below 0.001`."""
    if math.isnan(value):
        return "unknown"
    if value < 0.0005:
        return _TINY
    return rounded(value, ".2f") if value >= 0.0995 else rounded(value, ".3f")


def layer(value: float) -> str:
    """A residual point; bootstrap intervals may lie between two."""
    return "none" if math.isnan(value) else rounded(value, ".3g")


def landmark(summary: LensSummary, name: str) -> pd.Series | None:
    """A row of the landmarks, or None where the summary hasn't got it."""
    rows = summary.landmarks[summary.landmarks["name"] == name]
    return None if rows.empty else rows.iloc[0]


def landmark_value(row: pd.Series) -> str:
    """A landmark: a probability, a layer, or the difference of two probabilities with its sign."""
    return _writer(row)(row["value"])


def with_interval(row: pd.Series) -> str:
    """A landmark as `0.28 [0.24, 0.33]`; layers as `13 [12, 14]`, differences as `-0.120 […]`."""
    write, value = _writer(row), landmark_value(row)
    if math.isnan(row["low"]) or math.isnan(row["high"]):
        return value
    if write is probability:
        if probability(row["high"]) == _TINY:
            return value
        write = _short
    return f"{value} [{write(row['low'])}, {write(row['high'])}]"


def _writer(row: pd.Series) -> Callable[[float], str]:
    name = str(row["name"])
    return _signed if "_over_" in name else layer if name.endswith("_layer") else probability


def _signed(value: float) -> str:
    return "unknown" if math.isnan(value) else rounded(value, "+.3f")


@typed
def verdict(
    conditions: Mapping[str, LensSummary], *, names: Mapping[str, str] | None = None
) -> str:
    """One sentence: whether the pivot language showed up inside, judged against the controls.

    An interval that reaches down to a control's is no finding: then the sentence says that none was
    made. The same holds where no control was run, or too few prompts for intervals.

    Args:
        conditions: Summaries by condition, the result first.
        names: Of the languages of the whole run; by default those of this pair, told apart.
    """
    return judged(conditions, names=names)[1]


def judged(
    conditions: Mapping[str, LensSummary], *, names: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """The verdict in a word, for a table, and in a sentence."""
    summary = _first(conditions)
    names = names or named([summary])
    pivot, target = names[summary.pivot], names[summary.target]
    if landmark(summary, "pivot_peak_layer") is None:
        return (
            UNTOLD,
            f"{pivot} is the language asked for, so nothing can be said of it as a pivot.",
        )
    reached = _reached(conditions)
    if reached is None:
        return UNTOLD, (
            f"No control was run, so it can't be told whether the probability of {pivot} words "
            "is more than chance."
        )
    if (few := _too_few(conditions)) is not None:
        return UNTOLD, (
            f"{number_of(few, 'prompt is', 'prompts are')} too few for intervals, so it can't be "
            f"told whether the probability of {pivot} words is more than chance."
        )
    missing = undone(conditions)
    word, said = _on_the_way(summary, pivot, target, reached, done=not missing)
    if not missing:
        return word, said
    return UNDONE, f"The task isn't done: at the output {target} words {missing}. {said}"


def pivot_shows(conditions: Mapping[str, LensSummary]) -> bool | None:
    """Whether the pivot's words are more probable than in every control; None: can't be told."""
    reached = _reached(conditions)
    return None if reached is None or _too_few(conditions) is not None else not reached


def undone(conditions: Mapping[str, LensSummary]) -> str:
    """Why the model doesn't do what it is asked, as the end of a sentence; nothing if it does.

    It does where the right word is more probable at the output than another prompt's word: prompt
    by prompt where the summary was made so, else by the two intervals.
    """
    summary = _first(conditions)
    final = landmark(summary, "final_target_prob")
    more = landmark(summary, "target_over_shuffled")
    if final is None:
        return ""
    if more is not None and not more["low"] > 0:
        return (
            f"are no more probable than {NULLS['shuffled']} ({with_interval(more)}), within the "
            "interval"
        )
    for name, words in NULLS.items():
        row = landmark(conditions[name], "final_target_prob") if name in conditions else None
        paired = name == "shuffled" and more is not None
        if row is not None and not paired and not final["low"] > row["high"]:
            return f"are no more probable than {words}, within the intervals"
    return ""


def _on_the_way(
    summary: LensSummary, pivot: str, target: str, reached: list[str], *, done: bool
) -> tuple[str, str]:
    """What the pivot's words do, once it is known whether the target's arrive."""
    if reached:
        return NO_PHASE, (
            f"No {pivot} phase was found: {pivot} words are no more probable than "
            f"{' or '.join(reached)}, within the intervals."
        )
    above = f"{pivot} words are more probable than in the controls"
    if summary.source == summary.pivot:
        return NO_PHASE, (
            f"{above}, but {pivot} is the language of the word in the prompt: this may be copying "
            "and shows no inner language."
        )
    peak = summary.landmark("pivot_peak_layer")["value"]
    if peak >= summary.n_layers:
        own, right = (summary.landmark(f"final_{what}_prob") for what in ("pivot", "target"))
        if own["low"] > right["high"]:
            return NO_PHASE, (
                f"{above}, most of all at the output: the model answers in {pivot} rather than "
                "passing through it."
            )
        ahead = f"ahead of {target} ones"
        told = (
            f"{ahead} within the intervals only"
            if own["value"] > right["value"]
            else f"not {ahead}"
        )
        return NO_PHASE, f"{above}, but most of all at the output, and {told}: no phase."
    crossover = landmark(summary, "crossover_layer")
    if crossover is None or math.isnan(crossover["value"]):
        if _target_leads(summary, peak):
            return NO_PHASE, f"{above}, but never ahead of {target} ones where they peak."
        return NO_PHASE, f"{above}, but {target} doesn't overtake them for good."
    if not done:
        return NO_PHASE, f"{above}, but on no way to {target} ones: no phase."
    share = float(crossover.get("share_of_draws", 1.0))
    if share < summary.confidence:
        return WEAK, (
            f"{above} and ahead of {target} ones before these overtake them, though in "
            f"{percent(share)} of the resamples only: a weak finding."
        )
    article = "an" if pivot[:1] in "AEIOU" else "a"
    # Not "lead": the prompt's own word may be ahead of both.
    before = f"ahead of {target} ones before these overtake them"
    return PHASE, f"{above} and {before}: {article} {pivot} phase."


@typed
def pair_sentences(
    conditions: Mapping[str, LensSummary], *, names: Mapping[str, str] | None = None
) -> list[str]:
    """The numbers behind the verdict: peaks, crossover, output, controls; plain text.

    The crossover is left out where the pivot isn't known to be above controls, and where the task
    isn't done: lines of noise cross too.

    Args:
        conditions: Summaries by condition, the result first.
        names: Of the languages of the whole run; by default those of this pair, told apart.
    """
    summary = _first(conditions)
    names = names or named([summary])
    pivot, target = names[summary.pivot], names[summary.target]
    said: list[str] = []
    peak, at = landmark(summary, "pivot_peak_prob"), landmark(summary, "pivot_peak_layer")
    if peak is not None and at is not None:
        said.append(
            f"The mean probability of the {pivot} word is highest, {with_interval(peak)}, at "
            f"residual point {with_interval(at)} of {summary.n_layers}."
        )
    shown, where = landmark(summary, "source_peak_prob"), landmark(summary, "source_peak_layer")
    if shown is not None and where is not None and peak is not None:
        said.append(
            f"The {names[summary.source]} word of the prompt itself peaks at "
            f"{with_interval(shown)}, at point {with_interval(where)}: "
            f"{_against(shown, peak, landmark(summary, 'source_over_pivot'))} its {pivot} "
            "translation."
        )
    crossover = landmark(summary, "crossover_layer")
    if (
        crossover is not None
        and _reached(conditions) == []
        and (math.isnan(crossover["value"]) or not undone(conditions))
    ):
        said.append(_crossover(crossover, pivot, target))
    final, other = landmark(summary, "final_target_prob"), landmark(summary, "final_pivot_prob")
    if final is not None:
        rest = "" if other is None else f", the {pivot} one {with_interval(other)}"
        said.append(f"At the output the {target} word has {with_interval(final)}{rest}.")
    tops = {words: conditions[name].highest for name, words in NULLS.items() if name in conditions}
    if tops:
        highest = [f"{probability(top)} {words}" for words, top in tops.items()]
        said.append(f"Controls: the highest mean of any language is {', '.join(highest)}.")
    return said


def named(summaries: Iterable[LensSummary]) -> dict[str, str]:
    """English names of the languages and pivots of some pairs, told apart."""
    return english_names(tag for s in summaries for tag in (s.source, s.target, s.pivot))


def listed(names: Mapping[str, str], tags: Iterable[str]) -> str:
    """`English, Thai and Hindi`; `no language` of none."""
    *rest, last = [names[tag] for tag in tags] or ["no language"]
    return f"{', '.join(rest)} and {last}" if rest else last


def _against(one: pd.Series, other: pd.Series, difference: pd.Series | None) -> str:
    """`less than`, as far as their difference tells, or else the two intervals."""
    if one["value"] == other["value"]:
        return "as much as"
    than = "more than" if one["value"] > other["value"] else "less than"
    if difference is not None and not math.isnan(difference["low"]):
        apart = difference["low"] > 0 or difference["high"] < 0
        return than if apart else f"{than}, though within the interval of the difference,"
    if any(math.isnan(row[end]) for row in (one, other) for end in ("low", "high")):
        return f"{than}, though of too few prompts for intervals,"
    apart = one["low"] > other["high"] or one["high"] < other["low"]
    return than if apart else f"{than}, though within the intervals,"


def _reached(conditions: Mapping[str, LensSummary]) -> list[str] | None:
    """The controls, in words, whose intervals the pivot's peak doesn't clear; None without any."""
    peak = landmark(_first(conditions), "pivot_peak_prob")
    nulls = {
        name: row
        for name in NULLS
        if name in conditions and (row := landmark(conditions[name], "pivot_peak_prob")) is not None
    }
    if peak is None or not nulls:
        return None
    return [NULLS[name] for name, row in nulls.items() if not peak["low"] > row["high"]]


def _too_few(conditions: Mapping[str, LensSummary]) -> int | None:
    """The prompts of a condition that has no intervals; None where all have some."""
    needed = ("pivot_peak_prob", "final_target_prob", "target_over_shuffled")
    rows = [
        row
        for name, summary in conditions.items()
        if name in NULLS or summary is _first(conditions)
        for each in needed
        if (row := landmark(summary, each)) is not None
    ]
    few = [int(row["n"]) for row in rows if math.isnan(row["low"]) or math.isnan(row["high"])]
    return min(few, default=None)


def _crossover(row: pd.Series, pivot: str, target: str) -> str:
    share = float(row.get("share_of_draws", 1.0))
    if math.isnan(row["value"]):
        seen = f", and in {percent(share)} of the resamples there is one" if share > 0 else ""
        return f"There is no point from which on {target} is ahead after {pivot} was{seen}."
    rare = f" (in {percent(share)} of the resamples)" if share < 1 else ""
    return f"{target} is ahead of {pivot} for good from point {with_interval(row)} on{rare}."


def _target_leads(summary: LensSummary, at: float) -> bool:
    here = summary.curves[summary.curves["layer"] == at].set_index("language")["mean"]
    return float(here[summary.target]) >= float(here[summary.pivot])


def _first(conditions: Mapping[str, LensSummary]) -> LensSummary:
    return next(iter(conditions.values()))


def _short(value: float) -> str:
    return probability(value).replace(_TINY, "<0.001")
