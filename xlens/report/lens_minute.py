"""A run of `xlens lens` in a minute: are words translated, and does the pivot come first?"""

import math
from collections.abc import Mapping, Sequence

from xlens.figures.theme import isolate
from xlens.lens.result import LensResult, LensSummary
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import rounded
from xlens.report.minute import Minute, prompt_of
from xlens.report.sentences import (
    NO_PHASE,
    PHASE,
    UNDONE,
    UNTOLD,
    WEAK,
    judged,
    landmark,
    probability,
    with_interval,
)
from xlens.results import Result

Pairs = Mapping[str, Mapping[str, LensSummary]]
_HEAD = ("pair", "right at the output", "target at the output", "pivot, highest", "at point")
_PEAK = ("pivot_peak_prob", "pivot_peak_layer")


def lens_minute(
    pairs: Pairs,
    parts: Mapping[str, Mapping[str, Result]],
    names: Mapping[str, str],
    titles: Mapping[str, str],
) -> Minute:
    """What is read first of a model's pairs.

    Args:
        pairs: Conditions by pair, the result first.
        parts: All parts of each pair, by their names in it.
        names: English names of languages.
        titles: Of each pair.
    """
    words = {key: judged(conditions, names=names)[0] for key, conditions in pairs.items()}
    pivots = list(dict.fromkeys(names[next(iter(c.values())).pivot] for c in pairs.values()))
    results = {key: _result(pairs[key], parts[key]) for key in pairs}
    rows = [
        [
            titles[key],
            _right(results[key]),
            *(_mark(pairs[key], name) for name in ("final_target_prob", *_PEAK)),
            words[key],
        ]
        for key in pairs
    ]
    caption = (
        "Right at the output: prompts in which nothing is more probable than the right word. Mean "
        "probabilities with their intervals. Phase: the pivot's words are above all controls, and "
        "ahead of the target's before these overtake them."
    )
    example = next((_example(one, names) for one in results.values() if one is not None), ())
    return Minute(
        lens_lead({titles[key]: word for key, word in words.items()}, " or ".join(pivots)),
        Table(caption, (*_HEAD, "verdict"), rows),
        example,
    )


def lens_lead(words: Mapping[str, str], pivot: str) -> str:
    """One sentence over all pairs: first whether the task is done.

    Args:
        words: The verdict of each pair in a word, by its title.
        pivot: The language suspected inside.
    """
    by = {
        word: [title for title, mine in words.items() if mine == word]
        for word in (PHASE, WEAK, NO_PHASE, UNDONE, UNTOLD)
    }
    n, untold, undone = len(words), by[UNTOLD], by[UNDONE]
    done = n - len(untold) - len(undone)
    if not words:
        return "No pair could be asked."
    if len(untold) == n:
        return f"Whether words of {pivot} come up inside can't be told in {_of(n, untold)}."
    if not done:
        more = f"; in {_of(n, untold)} nothing can be told" if untold else ""
        return (
            f"The task isn't done in {_of(n, undone)}: what is read inside says nothing of a "
            f"language on the way{more}."
        )
    found = [
        f"{what} in {_of(done, by[word], every='any of the' if word == NO_PHASE else 'all')}"
        for word, what in (
            (PHASE, f"words of {pivot} come first, above all controls,"),
            (WEAK, f"words of {pivot} come first, but in a part of the resamples only,"),
            (NO_PHASE, f"no {pivot} phase is found"),
        )
        if by[word]
    ]
    rest = [f"the task isn't done in {', '.join(undone)}"] if undone else []
    rest += [f"nothing can be told in {', '.join(untold)}"] if untold else []
    where = f" in {done} of {n} pairs" if n > 1 else ""
    return f"The task is done{where}: {'; '.join([*found, *rest])}."


def _of(n: int, which: Sequence[str], *, every: str = "any of the") -> str:
    """`1 of 2 (French → German)`; of every one, `all 2 pairs`, or after a no `any of the`."""
    if len(which) == n:
        return which[0] if n == 1 else f"{every} {n} pairs"
    return f"{len(which)} of {n} ({', '.join(which)})"


def _result(
    conditions: Mapping[str, LensSummary], parts: Mapping[str, Result]
) -> LensResult | None:
    found = parts.get(next(iter(conditions)))
    return found if isinstance(found, LensResult) else None


def _right(result: LensResult | None) -> str:
    right, n = (0, 0) if result is None else result.right_at_output()
    return f"{right} of {n}" if n else "–"


def _mark(conditions: Mapping[str, LensSummary], name: str) -> str:
    row = landmark(next(iter(conditions.values())), name)
    return "–" if row is None else with_interval(row)


def _example(result: LensResult, names: Mapping[str, str]) -> tuple[Block, ...]:
    """The first prompt with the lens at every layer."""
    read = result.first_read().to_dict("records")
    places = [k for k in range(1, 10) if f"label_{k}" in read[0]]
    rows = [
        [
            str(row["layer"]),
            *(
                f"{isolate(str(row[f'label_{k}']))} ({probability(row[f'prob_{k}'])})"
                for k in places
            ),
            *("–" if math.isnan(row[w]) else probability(row[w]) for w in ("pivot", "target")),
            rounded(row["entropy"], ".1f"),
        ]
        for row in read
    ]
    pivot, target = names[result.pivot], names[result.target]
    head = ["point", "most probable token", *("then" for _ in places[1:])]
    head += [f"{pivot} word", f"{target} word", "entropy, bits"]
    last = rows[-1][1]
    caption = "What the lens reads where the answer is to follow, with probabilities."
    prompt = prompt_of(result)
    return (
        *prompt,
        Paragraph(f"The model's most probable next token is {last}."),
        Table(caption, head, rows),
    )
