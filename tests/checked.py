"""beartype as jaxtyping's import hook applies it: to functions and methods one by one."""

import builtins
import inspect
import re
from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[Any, Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype`, less `Self`: it has no meaning to beartype before the class is made.

    Nor have names that a light module imports for type checkers only.
    """
    hints = getattr(function, "__annotations__", {})
    for name, hint in hints.items():
        if "typing.Self" in repr(hint) or not _known(hint, function):
            hints[name] = Any
    if "<locals>" not in function.__qualname__ or function.__defaults__ or function.__kwdefaults__:
        return beartype(function)
    # A function inside another is made, and would be analysed anew, each time that one is called;
    # what comes here are empty functions of the same signature, so one check serves them all.
    key = (function.__module__, function.__qualname__, function.__code__, *hints.items())
    try:
        if key not in _made:
            _made[key] = beartype(function)
        return _made[key]
    except TypeError:  # a hint that can't be hashed
        return beartype(function)


def _known(hint: Any, function: Callable[..., Any]) -> bool:
    """Whether every name that a hint quotes is there."""
    quoted = [hint] if isinstance(hint, str) else re.findall(r"ForwardRef\('([^']+)'", repr(hint))
    own = getattr(inspect.unwrap(function), "__globals__", {})
    names = {name for text in quoted for name in re.findall(r"(?<![\w.])[A-Z]\w*", text)}
    return all(name in own or hasattr(builtins, name) for name in names)
