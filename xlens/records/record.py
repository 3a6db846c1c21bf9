"""A row that knows where it stands, and whose texts are texts."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from xlens.errors import DataError

_KINDS: Mapping[type, str] = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True)
class Record(Mapping[str, Any]):
    """One row of a file or a data set.

    Attributes:
        source: The file's or data set's name.
        place: Where it stands there: `line 3`.
        cells: Its values by name.
    """

    source: str
    place: str
    cells: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.cells[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def refuse(self, what: str) -> NoReturn:
        """Raise what is wrong with this row, after where it stands."""
        raise DataError(f"{self.source!r}, {self.place}: {what}")

    def wrong(self, name: str, accepted: str, *, fix: str = "") -> NoReturn:
        """Raise that a cell's value isn't what is accepted."""
        value = self.cells.get(name)
        self.refuse(f'"{name}" is {shown(value)}; accepted is {accepted}.{fix and " " + fix}')

    def require(self, names: Iterable[str], fix: str = "Is this the right layout?") -> None:
        """See that the row has these cells; alternatives are separated by `|`.

        Raises:
            ValueError: it lacks one.
        """
        if lacking := [n for n in names if not any(x in self.cells for x in n.split("|"))]:
            has = ", ".join(map(str, self.cells)) or "nothing"
            self.refuse(f"lacks {', '.join(lacking)}; it has {has}. {fix}")

    def text(self, name: str, *, default: str | None = None) -> str:
        """The text of a cell; of null or an absent one `default`, where there is one.

        Raises:
            ValueError: anything else, or half a character that no encoding can write.
        """
        value = self.cells.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.wrong(name, "a text", fix=_quoted(value))
        if (half := surrogate(value)) is not None:
            self.refuse(
                f'"{name}" holds half a character, {half} (a lone surrogate), which no file in '
                "UTF-8 can hold and no model reads. Mend the text where it was made."
            )
        return value

    def name(self, name: str, *, default: str | None = None) -> str:
        """The text of a cell that names something: whole numbers count as their digits.

        Raises:
            ValueError: anything else, or nothing.
        """
        value = self.cells.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            # Ids are often written as numbers; one digit string stands for each.
            return str(value)
        if value is not None and not isinstance(value, str):
            self.wrong(name, "a text or a whole number")
        found = self.text(name, default=default)
        if not found.strip():
            self.wrong(name, "a text or a whole number")
        return found

    def whole(self, name: str) -> int:
        """The whole number of a cell, or of its text.

        Raises:
            ValueError: anything else.
        """
        value = self.cells.get(name)
        if isinstance(value, str) and re.fullmatch(r"\s*[-+]?[0-9]+\s*", value):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)  # a column with gaps, from Parquet
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, "a whole number")
        return value

    def texts(self, name: str) -> list[str]:
        """The list of texts of a cell.

        Raises:
            ValueError: anything else.
        """
        value = self.cells.get(name)
        if not isinstance(value, list):
            self.wrong(name, "a list of texts")
        found: list[Any] = value
        return [Record(self.source, f"{self.place}, {name}", {str(n): v}).text(str(n))
                for n, v in enumerate(found)]  # fmt: skip


def shown(value: Any) -> str:
    """A value and its kind, for a message."""
    kind = next((k for t, k in _KINDS.items() if type(value) is t), type(value).__name__)
    written = json.dumps(value, ensure_ascii=False, default=str) if kind != "null" else ""
    return kind if kind == "null" else f"{written[:60]}{'…' if len(written) > 60 else ''} ({kind})"


def surrogate(text: str) -> str | None:
    """The first lone surrogate of a text, as `U+D800`; None where all characters are whole."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"U+{ord(text[error.start]):04X}"
    return None


def _quoted(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return f'If it is meant as a text, write "{json.dumps(value)}" in quotes.'
    if value is None:
        return "Write the text, or leave the row out."
    return "Write one text."
