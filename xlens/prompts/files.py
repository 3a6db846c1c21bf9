"""Prompts from a file: one JSON object a line."""

from pathlib import Path
from typing import Any

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts.prompt import Prompt, Prompts
from xlens.records import JSON, Record, read_records

_KEYS = ("text", "language", "id", "spans", "meta")


@typed
def read_prompts(path: str | Path) -> Prompts:
    """Read prompts from JSON Lines: `{"text": …, "language": "de", "id": "1"}` on each line.

    Optional keys are `spans` (`{"question": [0, 12]}`, character ranges) and `meta` (an object of
    plain values). Without `id`, the number of the row is the id. Texts are sent as they stand.

    Raises:
        ValueError: no such file, not UTF-8, a line that is no such object (the line is named), or
            what `Prompt` and `Prompts` refuse.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"No file {str(file)!r}: give a JSON Lines file of prompts.")
    rows = read_records(file, JSON, what="a file of prompts")
    return Prompts(_prompt(row, number) for number, row in enumerate(rows, 1))


def _prompt(row: Record, number: int) -> Prompt:
    row.require(
        ("text", "language"),
        'A prompt is an object such as {"text": "Wo ist Rom?", "language": "de", "id": "1"}.',
    )
    if unknown := sorted(set(row) - set(_KEYS)):
        row.refuse(f"unknown keys {unknown}; accepted are {list(_KEYS)}.")
    spans: Any = row.get("spans", {})
    if not isinstance(spans, dict) or not all(map(_is_range, spans.values())):
        row.wrong("spans", 'an object such as {"name": [start, stop]}, whole numbers')
    meta: Any = row.get("meta", {})
    if not isinstance(meta, dict):
        row.wrong("meta", "an object of plain values")
    id = row.name("id") if "id" in row else str(number)
    text, language = row.text("text"), row.text("language")
    try:
        return Prompt(
            text,
            language,
            id,
            {name: (start, stop) for name, (start, stop) in spans.items()},
            meta,
        )
    except ValueError as error:
        raise InputError(f"{row.source!r}, {row.place}: {error}") from None


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)
