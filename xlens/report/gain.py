"""A comparison of answers before and after, or of two models: a sentence, a table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xlens.gain import ALL, BEFORE, SEEN, UNSEEN, Gain
from xlens.languages import english_names
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import ends, interval, number, rounded, signed
from xlens.report.minute import of_first, prompt_of
from xlens.report.sentences import listed
from xlens.results import Result
from xlens.tasks.choices import ChoiceAnswers
from xlens.tasks.choices.answers import NOTHING
from xlens.wording import number_of

Names = Mapping[str, str]
Row = Mapping[Any, Any]
MEANS = {ALL: "All languages", SEEN: "Languages in training", UNSEEN: "Languages never seen"}
SAID = {
    ALL: "in the mean over all languages",
    SEEN: "in the mean over the languages in training",
    UNSEEN: "in the mean over the languages never seen",
}


def gain_lead(
    result: Gain,
    condition: str,
    before: Result | None,
    names: Names,
    *,
    called: str = "",
) -> str:
    """One sentence over all languages: was the task done before, and are answers better after?

    Args:
        result: The comparison.
        condition: What the model went through, or the other model.
        before: The answers before, which know how often guessing is right.
        names: Of languages.
        called: The model that comes first, where before and after are two models.
    """
    rows = rows_of(result, condition)
    each = {tag: row for tag, row in rows.items() if tag not in MEANS}
    who = f"With {called}" if called else "Before"
    done = f"{who}, whether answers are above guessing isn't known"
    if isinstance(before, ChoiceAnswers):
        above = [t for t, row in each.items() if row["before_low"] > before.chance.get(t, math.inf)]
        n = number_of(len(each), "language")
        done = f"{who}, answers are above guessing in {len(above)} of {n}"
        if not above:
            done = (
                f"{who}, the task isn't shown to be done: answers are above guessing in no language"
            )
    changed = [
        f"{verdict} in {listed(names, tags)}"
        for verdict in ("better", "worse")
        if (tags := [tag for tag, row in each.items() if row["verdict"] == verdict])
    ]
    alone = ", ".join(changed) or "none of them shown to change"
    then = f"with {condition}" if called else "after"
    mean = f"{verdict_words(rows[ALL])} {SAID[ALL]} ({change(rows[ALL])})"
    return f"{done}; {then}, {mean}; by language, {alone}."


def answered(part: Result | None) -> tuple[Block, ...]:
    """The first prompt, and which option the model chose."""
    if not (prompt := prompt_of(part)) or not isinstance(part, ChoiceAnswers):
        return prompt
    options = part.provenance["answers"].get("first_options", ())  # older results have none
    said = [
        f"The model {_chosen(row['said'], options)}; right is {_option(row['gold'], options)}."
        for row in of_first(part, part.table).to_dict("records")
    ]
    return (*prompt, *map(Paragraph, said))


def _chosen(number: int, options: Sequence[str]) -> str:
    return "wrote none of the options" if number == NOTHING else f"chose {_option(number, options)}"


def _option(number: int, options: Sequence[str]) -> str:
    return f"“{options[number].strip()}”" if options else f"option {number + 1:d}"


def gain_names(result: Gain) -> dict[str, str]:
    """English names of the languages compared, told apart."""
    return english_names(dict.fromkeys(t for t in result.table["language"] if t not in MEANS))


def rows_of(result: Gain, condition: str, against: str = BEFORE) -> dict[str, Row]:
    """The rows of a comparison by language, means over languages among them."""
    return {str(row["language"]): row for row in result.of(condition, against).to_dict("records")}


def verdict_words(row: Row) -> str:
    """What became of answers, to be said before where."""
    return {
        "better": "better",
        "worse": "worse",
        "the same": "the same, within the bound that was set beforehand,",
        "undecided": "neither a change nor its absence is shown",
    }[row["verdict"]]


def change(row: Row) -> str:
    """`+2.1 points [0.4, 3.8], p 0.03`; without an interval where items are too few for one."""
    points, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    return f"{rounded(points, '+.1f')} points{ends(points, low, high, '.1f')}, p {_p(row['p'])}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else rounded(value, ".3f")


def gain_table(
    result: Gain, names: Names, condition: str, against: str, *, called: str | None = None
) -> Table:
    """A comparison, a row per language and mean; what it is against may be `called` otherwise."""
    called = called or against
    head = ["", "in training", called, condition, "difference", "p", "McNemar", "verdict"]
    rows = [
        [
            MEANS.get(tag) or names[tag],
            "–" if tag in MEANS else "yes" if row["seen"] else "no",
            interval(row, "before", "before_low", "before_high"),
            interval(row, "after", "after_low", "after_high"),
            signed(row, "difference", digits=3),
            _p(row["p"]),
            "–" if tag in MEANS else number(row["p_mcnemar"]),
            str(row["verdict"]),
        ]
        for tag, row in rows_of(result, condition, against).items()
    ]
    if not result.trained:
        head, rows = head[:1] + head[2:], [row[:1] + row[2:] for row in rows]
    n = result.of(condition, against)["n"].iloc[0]
    return Table(
        f"{condition[:1].upper()}{condition[1:]} against {called}, {number_of(int(n), 'item')}. p "
        f"is adjusted for all languages; McNemar's is not. The same: within ±{result.bound:g}.",
        head,
        rows,
    )
