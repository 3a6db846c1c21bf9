"""A run of `xlens facts` in a minute: what is recalled, and is it the same in other languages?"""

from collections.abc import Mapping
from typing import Any

from xlens.acquisition import FactRecall
from xlens.languages import english_names
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import interval, number
from xlens.report.minute import Minute, of_first, prompt_of
from xlens.report.sentences import listed
from xlens.tasks.facts import FactAnswers
from xlens.wording import number_of, percent

_RECALLED, _NOT = "recalled", "not above the most frequent object"
Names = Mapping[str, str]


def facts_minute(found: FactRecall, answers: FactAnswers | None) -> Minute:
    """What is read first of a model's recall.

    Args:
        found: What was recalled.
        answers: What was answered, for one of them; None: not kept.
    """
    names = english_names(found.accuracy["language"])
    co = {
        str(row["language"]): row
        for row in found.pairs[found.pairs["metric"] == "co"].to_dict("records")
    }
    rows = [
        [
            names[row["language"]],
            interval(row, "accuracy"),
            percent(row["majority"]),
            _with_pivot(co.get(str(row["language"]))),
            str(row["n"]),
            _recalled(row),
        ]
        for row in found.accuracy.to_dict("records")
    ]
    pivot = names[found.pivot]
    caption = (
        "Share of facts recalled, beside always giving the most frequent object of the relation; "
        f"CO with {pivot}: the same facts right in both, and with right and wrong permuted."
    )
    head = ("", "recalled", "most frequent object", f"CO with {pivot}", "facts", "verdict")
    return Minute(facts_lead(found, names), Table(caption, head, rows), _example(answers))


def facts_lead(found: FactRecall, names: Names) -> str:
    """One sentence over all languages: first whether anything is recalled at all."""
    rows = found.accuracy.to_dict("records")
    known = [str(row["language"]) for row in rows if _recalled(row) == _RECALLED]
    n = number_of(len(rows), "language")
    if not known:
        return (
            "The task isn't shown to be done: in none of "
            f"{n} are facts recalled more often than always giving the most frequent object."
        )
    which = f" ({listed(names, known)})" if len(known) < len(rows) else ""
    pairs = found.pairs[found.pairs["metric"] == "co"].dropna(subset=["value"])
    more = pairs[pairs["value"] > pairs["control_high"]]["language"].tolist()
    same = (
        f"the same facts as in {names[found.pivot]} are, more than permuted ones, in "
        f"{len(more)} of {number_of(len(pairs), 'other')}, each by itself"
        if len(pairs)
        else f"whether they are the same as in {names[found.pivot]} can't be told"
    )
    return (
        "Facts are recalled more often than by always giving the most frequent object in "
        f"{len(known)} of {n}{which}; {same}."
    )


def _recalled(row: Mapping[Any, Any]) -> str:
    return _RECALLED if row["low"] > row["majority"] else _NOT


def _with_pivot(row: Mapping[Any, Any] | None) -> str:
    return "–" if row is None else f"{interval(row)} ({number(row['control'])})"


def _example(answers: FactAnswers | None) -> tuple[Block, ...]:
    """The first prompt, and what the model answered."""
    prompt = prompt_of(answers)
    if answers is None or not prompt:
        return ()
    rows = of_first(answers, answers.table)
    said = [
        Paragraph(f"The model's answer: {str(row['answer']).strip()}. Right: {row['object']}.")
        for row in rows.to_dict("records")
    ]
    return (*prompt, *said)
