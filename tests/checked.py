"""What jaxtyping's import hook puts around functions and methods: beartype, and shapes if any."""

import builtins
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype

_shaped = jaxtyping.jaxtyped

_made: dict[Any, Callable[..., Any]] = {}


def jaxtyped(thing: Any = None, *, typechecker: Any) -> Any:
    """As `jaxtyping.jaxtyped`, but where no argument is an array: there beartype alone.

    Binding arguments anew for shapes that no one has is most of what the checks cost, and half of
    what importing xlens does.
    """
    if thing is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    inside = "<locals>" in getattr(thing, "__qualname__", "")  # `checked` says how it serves these
    if inside or not inspect.isfunction(thing) or "jaxtyping." in repr(thing.__annotations__):
        return _shaped(thing, typechecker=typechecker)
    hints = dict(thing.__annotations__)
    try:
        guarded = checked(thing)
    except Exception:  # hints that beartype doesn't take whole; jaxtyping hands them over singly
        return _shaped(thing, typechecker=typechecker)
    finally:
        thing.__annotations__ = hints  # which the command line is made of
    config = jaxtyping.config

    @functools.wraps(thing)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (thing if config.jaxtyping_disable else guarded)(*args, **kwargs)

    return either


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
    written = re.sub(r"(Literal|jaxtyping\.\w+)\[[^\]]*\]", "", repr(hint))
    quoted = [hint] if isinstance(hint, str) else re.findall(r"'([^']+)'", written)
    own = getattr(inspect.unwrap(function), "__globals__", {})
    names = {name for text in quoted for name in re.findall(r"(?<![\w.])[A-Za-z_]\w*", text)}
    return all(name in own or hasattr(builtins, name) for name in names)
