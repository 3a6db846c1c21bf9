"""How options of several commands are written."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cyclopts import Group, Parameter, Token, convert

from xlens.errors import InputError


def strictly(hint: Any, tokens: Sequence[Token] | Mapping[str, Sequence[Token]]) -> Any:
    """A value as cyclopts reads it, but that a whole number is written as one: 12.7 is none.

    Nor is an empty text a file or folder: it would be the folder one is in.

    Args:
        hint: Its type.
        tokens: As written; by key where an option is a table (`--names.tlh`).

    Raises:
        ValueError: a number with a fraction where a whole one is wanted; an empty path.
    """
    said = str(hint)
    lists = list(tokens.values() if isinstance(tokens, Mapping) else [tokens])
    written = [token.value for token in itertools.chain(*lists)]
    if "Path" in said and "" in written:
        raise InputError("an empty text is the name of no file or folder")
    if hint is int or ("int" in said and "float" not in said and "str" not in said):
        for value in filter(None, written):
            if re.fullmatch(r"[-+]?[0-9]*\.[0-9]*", value):
                raise InputError(f"{value!r} is no whole number")
    return convert(hint, tokens)  # pyright: ignore[reportArgumentType] (it says less than it takes)


# Help in parts: a study's own options first, then those that all commands have.
MODELS, SERVED, RUN = (
    Group(name, sort_key=n) for n, name in enumerate(("Models", "Endpoints", "Run"), 3)
)
Flat = Parameter(name="*")


def as_written(default: Any) -> str | None:
    """A default as it would be given on the line; None: nothing is, as for an empty list."""
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or None  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    return None if default is None or default is False or default == {} else str(default)


# Of every command: several values after one option (--controls shuffled repetition).
DEFAULT = Parameter(
    consume_multiple=True,
    negative_iterable=(),
    converter=strictly,
    show_default=as_written,  # pyright: ignore[reportArgumentType] (None is taken, too)
)
