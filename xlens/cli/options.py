"""How options of several commands are written."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from cyclopts import Parameter, Token, convert


def strictly(hint: Any, tokens: Sequence[Token]) -> Any:
    """A value as cyclopts reads it, but that a whole number is written as one: 12.7 is none.

    Raises:
        ValueError: a number with a fraction where a whole one is wanted.
    """
    said = str(hint)
    if hint is int or ("int" in said and "float" not in said and "str" not in said):
        for token in tokens:
            if token.value and re.fullmatch(r"[-+]?[0-9]*\.[0-9]*", token.value):
                raise ValueError(f"{token.value!r} is no whole number")
    return convert(hint, tokens)


Flat = Parameter(name="*")
# Of every command: several values after one option (--controls shuffled repetition).
DEFAULT = Parameter(consume_multiple=True, negative_iterable=(), converter=strictly)
Switch = Parameter(negative=())
Dtype = Literal["float32", "bfloat16", "float16"]
