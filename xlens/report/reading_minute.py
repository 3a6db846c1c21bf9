"""A run of `xlens xmrc` in a minute: are texts read, and in which languages?"""

from collections.abc import Mapping
from typing import Any

from xlens.languages import english_name
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import interval, number
from xlens.report.minute import Minute, prompt_of
from xlens.report.reading_tables import controls_of, scores_of, summary_of
from xlens.results import Result
from xlens.tasks.xmrc import ReadingResult
from xlens.wording import number_of

_SETTINGS = ("en-en", "en-x", "x-en", "x-x")
_ABOVE, _NOT = "above chance", "not above chance"


def reading_minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model's answers."""
    result = scores_of(parts)
    rows = _rows(result)
    table = [
        [
            name,
            interval(row["f1"]),
            number(row["f1"]["chance"]),
            interval(row["em"]),
            interval(row["f1"], "ratio", "ratio_low", "ratio_high") if result.reads else "–",
            _word(row["f1"]),
        ]
        for name, row in rows.items()
    ]
    caption = (
        "F1 and exact match by combination of languages, means over languages where there are "
        "several; by chance: right answers to other questions. What is left of the pivot's F1 is "
        "told only where that is more than with another text."
    )
    head = ("", "F1", "by chance", "exact match", "of the pivot's", "verdict")
    return Minute(
        reading_lead(
            {name: _word(row["f1"]) == _ABOVE for name, row in rows.items()},
            reads=result.reads,
            controlled="mismatched" in controls_of(parts),
            pivot=english_name(result.pivot, variant=True),
        ),
        Table(caption, head, table),
        _example(parts),
    )


def reading_lead(above: Mapping[str, bool], *, reads: bool, controlled: bool, pivot: str) -> str:
    """One sentence over all combinations: first whether texts are read at all.

    Args:
        above: By combination, whether F1 is above chance.
        reads: Whether the pivot's F1 is more than with another text.
        controlled: Whether another text was tried.
        pivot: The language of the yardstick.
    """
    done = [name for name, found in above.items() if found]
    n = number_of(len(above), "combination")
    if not done:
        return (
            "The task isn't shown to be done: F1 isn't above that of right answers to other "
            f"questions in any of {n}."
        )
    which = f" ({', '.join(done)})" if len(done) < len(above) else ""
    said = f"F1 is above chance in {len(done)} of {n}{which}"
    if not controlled:
        return f"{said}; whether the text is read for it wasn't tried."
    if not reads:
        return (
            f"{said}, but in {pivot} no more than with another text: that texts are read isn't "
            "shown."
        )
    return f"{said}, and in {pivot} more than with another text: texts are read."


def _rows(result: ReadingResult) -> dict[str, dict[str, Mapping[Any, Any]]]:
    """F1 and exact match by setting, or by combination of languages where none has a name."""
    rows: dict[str, dict[str, Mapping[Any, Any]]] = {}
    for row in result.summary.to_dict("records"):
        if row["setting"] in _SETTINGS:
            name = result.setting_name(str(row["setting"]))
            rows.setdefault(name, {})[str(row["metric"])] = row
    if rows:
        return rows
    for row in result.scores[result.scores["control"] == ""].to_dict("records"):
        name = "-".join(str(row[f"{part}_language"]) for part in ("context", "question", "answer"))
        rows.setdefault(name, {})[str(row["metric"])] = row
    return rows


def _word(row: Mapping[Any, Any]) -> str:
    return _ABOVE if row["low"] > row["chance"] else _NOT


def _example(parts: Mapping[str, Result]) -> tuple[Block, ...]:
    """The first prompt, and what the model answered to the first question."""
    prompt = prompt_of(parts.get("predictions")) or prompt_of(parts["scores"])
    said = [
        Paragraph(
            f"Asked: {row['question']} The model's answer: {row['prediction'] or '(nothing)'}. "
            f"Right: {row['reference']}. F1 {number(row['f1'])}."
        )
        for row in summary_of(parts).examples.to_dict("records")[:1]
    ]
    return (*prompt, *said)
