"""Classification as published beside arXiv 2405.13816: one JSON list a language, parallel by row.

A row holds texts and an `answer` in its language's own word. Those words are not trusted: in two of
the released files they are not the ones that the evaluation looks for, and in a third two of them
are exchanged. The class of a row is that of the same row in English, and a language's words are
only looked at to see that each of them stands for one class.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from xlens.errors import InputError
from xlens.records import by_language, read_records
from xlens.tasks.choices.data import Choices, whole_items
from xlens.tasks.sources import Languages, choose, listed, plain_tag, tagged

_NAMED = re.compile(r"(?:.*_)?([a-z]{2,3})\d+k?_(\w+)")  # snli_no600_test, snli_en10k_train
_PIVOT = "en"


def read_classes(
    root: Path,
    languages: Languages,
    split: str,
    incomplete: Literal["error", "drop"],
    identical: Literal["keep", "drop"],
) -> Choices:
    """Rows as items whose options are the classes, by their English words, in every language.

    Raises:
        ValueError: no such files, none in English, other numbers of rows, a word that stands for
            two classes.
    """
    if root.is_file():
        raise InputError(f"{str(root)!r} is a file; this layout is a folder, a file per language.")
    every = sorted(root.glob("*.json"))
    named = {file: found for file in every if (found := _NAMED.fullmatch(file.stem))}
    files = by_language(
        [file for file, found in named.items() if found[2] == split],
        lambda file: named[file][1] if plain_tag(named[file][1]) else "",
        advice="give a folder with one task and split.",
    )
    if _PIVOT not in files:
        raise InputError(
            f"No {split} file in English in {str(root)!r}, by which rows are told their class; "
            f"there are {listed(every)}."
        )
    rows = {name: [r for file in own for r in read_records(file, (".json",))]
            for name, own in files.items()}  # fmt: skip
    gold = [row.text("answer").strip() for row in rows[_PIVOT]]
    classes = list(dict.fromkeys(gold))
    made: list[dict[str, Any]] = []
    for tag, name in choose(tagged({n: n for n in rows}), languages, str(root)).items():
        own = rows[name]
        if len(own) != len(gold):
            raise InputError(
                f"{str(root)!r}: {name} has {len(own)} rows and English {len(gold)}; rows are "
                "parallel by their place, so all files need the same."
            )
        _check_words(name, [row.text("answer").strip() for row in own], gold)
        made += [
            {
                "id": str(number),
                "language": tag,
                "question": "\n".join(row.text(key) for key in row if key != "answer"),
                "options": classes,
                "gold": classes.index(right),
                "mark": "→",
                "kind": root.name,
            }
            for number, (row, right) in enumerate(zip(own, gold, strict=True), 1)
        ]
    return whole_items(pd.DataFrame(made), root.name, incomplete=incomplete, identical=identical)


def _check_words(name: str, words: list[str], gold: list[str]) -> None:
    """See that each of a language's words stands for one class: else nobody can tell which."""
    meant: dict[str, Counter[str]] = {}
    for word, right in zip(words, gold, strict=True):
        meant.setdefault(word, Counter())[right] += 1
    for word, classes in meant.items():
        if len(classes) > 1:
            told = ", ".join(f"{right} ({n})" for right, n in classes.most_common())
            raise InputError(
                f"{name}: the answer {word!r} stands beside English rows of {told}; a word must "
                "stand for one class. Mend the file."
            )
