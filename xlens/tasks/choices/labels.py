"""Words of classes from a file, for items whose options are classes (topics, yes and no)."""

from pathlib import Path

from xlens.checks import typed
from xlens.languages import standardize
from xlens.records import read_records

_ACCEPTED = (".tsv", ".csv", ".jsonl", ".ndjson", ".json")


@typed
def read_labels(path: str | Path) -> dict[str, dict[str, str]]:
    """For `Choices.with_labels`: by language, the word of each class.

    Args:
        path: Rows `language label word`: a table with a header, JSON Lines or a JSON list. `label`
            is the option as the items have it.

    Raises:
        ValueError: what the readers refuse, or a class that has two words in a language.
    """
    file = Path(path)
    found: dict[str, dict[str, str]] = {}
    for row in read_records(file, _ACCEPTED, what="a table of labels"):
        tag, label = standardize(row.text("language")), row.text("label").strip()
        word = row.text("word").strip()
        if found.setdefault(tag, {}).setdefault(label, word) != word:
            row.wrong("word", f"the one of an earlier row, {found[tag][label]!r}")
    return found
