"""A run of `xlens choices` in a minute: are answers above guessing, and do they agree?"""

from collections.abc import Mapping, Sequence
from typing import Any

from xlens.consistency import ConsistencyResult
from xlens.engine import Scores
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import interval, number
from xlens.report.minute import Minute, of_each, of_first, prompt_of
from xlens.report.sentences import listed
from xlens.results import Result
from xlens.wording import number_of

ABOVE, GUESSING, BELOW, UNKNOWN = "above guessing", "not told from guessing", "below guessing", "–"
_HEAD = ("", "accuracy", "chance", "items", "verdict")
Names = Mapping[str, str]


def above_guessing(row: Mapping[Any, Any]) -> str:
    """Whether answers in a language are more than guesses, in a few words."""
    if row["accuracy"] != row["accuracy"]:
        return UNKNOWN
    if row["low"] > row["chance"]:
        return ABOVE
    return BELOW if row["high"] < row["chance"] else GUESSING


def choices_minute(
    panels: Mapping[str, ConsistencyResult],
    parts: Mapping[str, Mapping[str, Result]],
    names: Names,
    level: float,
) -> Minute:
    """What is read first of a model's answers.

    Args:
        panels: By set of items.
        parts: All parts of each set.
        names: English names of languages.
        level: Of the tests.
    """
    said = of_each({key: choices_lead(panel, names, level) for key, panel in panels.items()})
    example = next(filter(None, (_example(parts[key], panels[key]) for key in panels)), ())
    return Minute(" ".join(said), accuracy_rows(panels, names), example)


def accuracy_rows(panels: Mapping[str, ConsistencyResult], names: Names) -> Table:
    """A row per language: its accuracy beside guessing, each by itself."""
    several = len(panels) > 1
    rows = [
        [
            f"{names[row['language']]}{f', {key}' if several else ''}",
            interval(row, "accuracy"),
            number(row["chance"]),
            str(row["n"]),
            above_guessing(row),
        ]
        for key, panel in panels.items()
        for row in panel.languages.to_dict("records")
    ]
    caption = "Share of right answers by language; the verdict is of each by itself."
    return Table(caption, _HEAD, rows)


def done_in(panel: ConsistencyResult, names: Names) -> str:
    """In how many languages the task is done: the beginning of a sentence."""
    rows = panel.languages.to_dict("records")
    above = [str(row["language"]) for row in rows if above_guessing(row) == ABOVE]
    n = len(rows)
    if not above:
        what = "one language" if n == 1 else f"any of {n} languages"
        return f"The task isn't shown to be done: answers are not above guessing in {what}"
    which = f" ({listed(names, above)})" if len(above) < n else ""
    return f"Answers are above guessing in {len(above)} of {number_of(n, 'language')}{which}"


def choices_lead(panel: ConsistencyResult, names: Names, level: float) -> str:
    """One sentence: first whether the task is done, then whether answers agree."""
    done = done_in(panel, names)
    tested = len(panel.dependence)
    if not tested:
        return f"{done}; whether right answers go together isn't tested."
    found = panel.dependent(level)
    pairs = number_of(tested, "pair")
    if not found:
        return f"{done}; in none of {pairs} of languages are right answers shown to go together."
    return (
        f"{done}; being right in one goes with being right in the other in {found} of {pairs} of "
        "languages, beyond accuracy."
    )


def _example(parts: Mapping[str, Result], panel: ConsistencyResult) -> Sequence[Block]:
    """The first prompt with its options: how probable each is, and which is the answer."""
    scores = parts.get("scores")
    prompt = prompt_of(scores)
    if not isinstance(scores, Scores) or not prompt:
        return ()
    by = str(panel.provenance.get("consistency", {}).get("by", "logprob"))
    said = of_first(scores, scores.best(by=by))["text"].tolist()
    offered = of_first(scores, scores.table).to_dict("records")
    rows = [[str(row["text"]), number(row["logprob"])] for row in offered]
    told = f"The model's answer: {str(said[0]).strip()}." if said else ""
    return (
        *prompt,
        Paragraph(told),
        Table("Log-probability of each option after the prompt, in nats.", ["", "nats"], rows),
    )
