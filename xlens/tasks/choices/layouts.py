"""How published data sets write an item down: one function from a row to an item, each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xlens.records import Record
from xlens.text import form

_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out.

    Attributes:
        columns: What a row must have; alternatives are separated by `|`.
        item: A row, its number and its split to an item without a language.
        hub: Its name on the model hub, where it has one.
        split: Which part is read if none is named.
    """

    columns: tuple[str, ...]
    item: Callable[[Record, int, str], dict[str, Any]]
    hub: str | None = None
    split: str = "test"


def _plain(row: Record, line: int, split: str) -> dict[str, Any]:
    names, options = _options(row)
    gold = row["gold"]
    if isinstance(gold, str | int) and str(gold) in names:
        number = names.index(str(gold))
    elif names and not isinstance(gold, int):
        row.wrong("gold", f"one of the options' keys, {', '.join(names)}")
    else:
        number = row.whole("gold")
    return {
        "id": row.name("id") if "id" in row else str(line),
        "question": row.text("question"),
        "options": options,
        "gold": number,
        **{
            name: row.text(name)
            for name in ("context", "mark", "kind")
            if row.get(name) is not None
        },
    }


def _options(row: Record) -> tuple[list[str], list[str]]:
    """The options' keys, none for a list, and their texts in the order of the file."""
    options: Any = row["options"]
    if not isinstance(options, Mapping):
        return [], row.texts("options")
    named = Record(row.source, f"{row.place}, options", options)
    return [str(name) for name in named], [named.text(name) for name in named]


def _xcopa(row: Record, line: int, split: str) -> dict[str, Any]:
    # The mark says which way it goes, without a word: what followed, or what came before.
    kind = row.text("question")
    return {
        "id": f"{split}/{row.name('idx')}",
        "question": row.text("premise"),
        "options": [row.text("choice1"), row.text("choice2")],
        "gold": row.whole("label"),
        "mark": {"effect": "→", "cause": "←"}.get(kind, ""),
        "kind": kind,
    }


def _belebele(row: Record, line: int, split: str) -> dict[str, Any]:
    return {
        "id": f"{row.text('link')}#{row.name('question_number')}",
        "context": row.text("flores_passage"),
        "question": row.text("question"),
        "options": [row.text(f"mc_answer{n}") for n in (1, 2, 3, 4)],
        "gold": row.whole("correct_answer_num") - 1,
    }


def _mmlu(row: Record, line: int, split: str) -> dict[str, Any]:
    id = row.name("sample_id" if "sample_id" in row else "id")
    return {
        "id": id,
        "question": row.text("question" if "question" in row else "instruction"),
        "options": [row.text(f"option_{letter}") for letter in "abcd"],
        "gold": _letter(row),
        "kind": row.text("subject", default="") or id.partition("/")[0] or "choice",
    }


def _bmlama(row: Record, line: int, split: str) -> dict[str, Any]:
    # Parallel by line; the blank may stand anywhere, so the sentence is shown with it.
    answer = form(row.text("Ans")).strip()
    options = [option.strip() for option in form(row.text("Candidate Ans")).split(", ")]
    return {
        "id": str(line),
        "question": row.text("Prompt").replace("<mask>", "___"),
        "options": options,
        "gold": options.index(answer) if answer in options else -1,
        "mark": "→",
    }


TOPICS = (
    *("science/technology", "travel", "politics", "sports", "health", "entertainment"),
    "geography",
)
"""The classes of SIB-200, which are also their English words."""


def _sib200(row: Record, line: int, split: str) -> dict[str, Any]:
    topic = row.text("category").strip()
    if topic not in TOPICS:
        row.wrong("category", f"one of {', '.join(TOPICS)}")
    # index_id is the sentence's in every language and split, so none is in two splits.
    return {
        "id": row.name("index_id"),
        "question": row.text("text"),
        "options": list(TOPICS),
        "gold": TOPICS.index(topic),
        "mark": "→",
        "kind": "topic",
    }


def _paws_x(row: Record, line: int, split: str) -> dict[str, Any]:
    return {
        "id": row.name("id", default=str(line)),
        "question": f"{row.text('sentence1')}\n{row.text('sentence2')}",
        "options": ["different", "same"],
        "gold": row.whole("label"),
        "mark": "→",
        "kind": "paraphrase",
    }


def _xnli(row: Record, line: int, split: str) -> dict[str, Any]:
    return {
        "id": str(line),
        "question": f"{row.text('premise')}\n{row.text('hypothesis')}",
        "options": ["entailment", "neutral", "contradiction"],
        "gold": row.whole("label"),
        "mark": "→",
        "kind": "inference",
    }


def _letter(row: Record) -> int:
    answer = row["answer"]
    text = answer.strip().upper() if isinstance(answer, str) else ""
    return _LETTERS.index(text) if len(text) == 1 and text in _LETTERS else row.whole("answer")


LAYOUTS: Mapping[str, Layout] = {
    "jsonl": Layout(("question", "options", "gold"), _plain),
    "xcopa": Layout(
        ("premise", "choice1", "choice2", "question", "label", "idx"), _xcopa, "cambridgeltl/xcopa"
    ),
    "belebele": Layout(
        (
            "link",
            "question_number",
            "flores_passage",
            "question",
            *(f"mc_answer{n}" for n in (1, 2, 3, 4)),
            "correct_answer_num",
        ),
        _belebele,
        "facebook/belebele",
    ),
    "global-mmlu": Layout(
        ("sample_id", "question", *(f"option_{x}" for x in "abcd"), "answer"),
        _mmlu,
        "CohereLabs/Global-MMLU",
    ),
    "m-mmlu": Layout(
        ("id", "instruction|question", *(f"option_{x}" for x in "abcd"), "answer"),
        _mmlu,
        "alexandrainst/m_mmlu",
    ),
    "paws-x": Layout(
        ("sentence1", "sentence2", "label"), _paws_x, "google-research-datasets/paws-x"
    ),
    "xnli": Layout(("premise", "hypothesis", "label"), _xnli, "facebook/xnli"),
    "sib200": Layout(("index_id", "category", "text"), _sib200, "Davlan/sib200"),
    "bmlama": Layout(("Prompt", "Ans", "Candidate Ans"), _bmlama),
}
