"""What every kind of item is made of: ids and texts, in one form."""

from hashlib import blake2b
from typing import Any

import pandas as pd

from xlens.checks import wrong_type
from xlens.errors import DataError
from xlens.text import form


def content(frame: pd.DataFrame) -> str:
    """A digest of all that items are: a saved result of others is never taken for theirs."""
    text = frame.to_json(orient="split", default_handler=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def item_text(value: Any, what: str) -> str:
    """A text without space around it, in one form; nothing where it is missing.

    Raises:
        WrongType: something that is neither a text nor missing.
    """
    if isinstance(value, str):
        return form(value).strip()
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    raise wrong_type(what, value, "a text", "Numbers are texts in quotes.")


def item_texts(frame: pd.DataFrame, column: str, source: str, called: str) -> list[str]:
    """`item_text` of every row of a column; an error says of which `item` it is.

    Raises:
        WrongType: something that is neither a text nor missing.
    """
    rows = zip(frame[column], frame["id"], strict=True)
    return [item_text(value, f"{source}: {column} of {called} {id!r}") for value, id in rows]


def item_id(value: Any, source: str) -> str:
    """An id, in one form: a text, or a whole number's digits.

    Raises:
        WrongType: something else, or nothing.
    """
    if isinstance(value, str) and value.strip():
        return form(value)
    # NumPy's whole numbers too; a float has none, and 1.0 is no id.
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return str(int(value))
    raise wrong_type(f"{source}: id of an item", value, "a text or a whole number")


def refuse_twice(
    frame: pd.DataFrame, source: str, called: str, *, of: str = "language", also: str = ""
) -> None:
    """Refuse a second row with the same id and language.

    Args:
        frame: With the columns `id` and `language`.
        source: Where the rows come from.
        called: What one is: `item`.
        of: What a language is called here.
        also: What else may be done about it.

    Raises:
        ValueError: names the first.
    """
    if (twice := frame.duplicated(["id", "language"])).any():
        row = frame[twice].iloc[0]
        raise DataError(
            f"{called.capitalize()} {row['id']!r} occurs twice in {row['language']} in {source} "
            f"({int(twice.sum())} such rows); give every {called} of a {of} an id of its own{also}."
        )
