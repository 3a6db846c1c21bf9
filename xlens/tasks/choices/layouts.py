"""How published data sets write an item down: one function from a row to an item, each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xlens.tasks.sources import Row
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
    item: Callable[[Row, int, str], dict[str, Any]]
    hub: str | None = None
    split: str = "test"


def _plain(row: Row, line: int, split: str) -> dict[str, Any]:
    return {name: row[name] for name in row if name != "language"} | {
        "id": str(row.get("id", line))
    }


def _xcopa(row: Row, line: int, split: str) -> dict[str, Any]:
    # The mark says which way it goes, without a word: what followed, or what came before.
    kind = str(row["question"])
    return {
        "id": f"{split}/{row['idx']}",
        "question": row["premise"],
        "options": [row["choice1"], row["choice2"]],
        "gold": row["label"],
        "mark": {"effect": "→", "cause": "←"}.get(kind, ""),
        "kind": kind,
    }


def _belebele(row: Row, line: int, split: str) -> dict[str, Any]:
    return {
        "id": f"{row['link']}#{row['question_number']}",
        "context": row["flores_passage"],
        "question": row["question"],
        "options": [row[f"mc_answer{n}"] for n in (1, 2, 3, 4)],
        "gold": int(row["correct_answer_num"]) - 1,
    }


def _mmlu(row: Row, line: int, split: str) -> dict[str, Any]:
    id = str(row["sample_id"] if "sample_id" in row else row["id"])
    return {
        "id": id,
        "question": row["question"] if "question" in row else row["instruction"],
        "options": [row[f"option_{letter}"] for letter in "abcd"],
        "gold": _letter(row["answer"]),
        "kind": row.get("subject") or id.partition("/")[0] or "choice",
    }


def _bmlama(row: Row, line: int, split: str) -> dict[str, Any]:
    # Parallel by line; the blank may stand anywhere, so the sentence is shown with it.
    answer, options = form(str(row["Ans"])).strip(), form(str(row["Candidate Ans"])).split(", ")
    options = [option.strip() for option in options]
    return {
        "id": str(line),
        "question": str(row["Prompt"]).replace("<mask>", "___"),
        "options": options,
        "gold": options.index(answer) if answer in options else -1,
        "mark": "→",
    }


def _letter(answer: Any) -> Any:
    text = str(answer).strip().upper()
    return _LETTERS.index(text) if len(text) == 1 and text in _LETTERS else answer


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
    "bmlama": Layout(("Prompt", "Ans", "Candidate Ans"), _bmlama),
}
