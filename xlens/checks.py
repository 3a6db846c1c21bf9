"""Values of the wrong type are refused, never printed into a text or rounded into a number."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np

_SEEDS = 1 << 63


class WrongType(TypeError, ValueError):
    """A value of a type that isn't accepted."""


def wrong_type(what: str, value: object, accepted: str, fix: str = "") -> WrongType:
    """The error for a value: what it is for, what was given and what is accepted."""
    given = f"{value!r:.60} ({type(value).__name__})"
    return WrongType(f"{what}: {given} given; accepted is {accepted}.{fix and ' ' + fix}")


def check_seed(seed: object) -> None:
    """Refuse what is no seed: another type, or a number that not every source of chance takes.

    Raises:
        ValueError: it is no whole number from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise wrong_type("seed", seed, "a whole number")
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"seed is {seed!r:.30}; accepted are whole numbers from 0 to 2**63 - 1.")


def check_fields(instance: Any) -> None:
    """See that a frozen dataclass's values have the types of its fields; lists become tuples.

    A text is no sequence of texts, a truth value no number, and 12.7 no whole number.

    Raises:
        WrongType: another type, with the field's name and what it accepts.
    """
    from pydantic import ValidationError

    for name, (adapter, accepted) in _adapters(type(instance)).items():
        value = _plain(getattr(instance, name))
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as problem:
            error = problem.errors()[0]
            raise _wrong_field(type(instance).__name__, name, value, error, accepted) from None
        if name == "seed":
            check_seed(value)
        object.__setattr__(instance, name, value)


def _wrong_field(owner: str, name: str, value: Any, error: Any, accepted: str) -> WrongType:
    part = next((p for p in error["loc"] if isinstance(p, int)), None)
    fix = ""
    if isinstance(value, str) and "tuple" in accepted:
        fix = f"Write [{value!r}]."
    elif isinstance(error["input"], bool):
        fix = "Where YAML made a truth value of it (yes, no, on, off), write it in quotes."
    at = name if part is None else f"{name}[{part}]"
    return wrong_type(f"{owner}.{at}", error["input"], accepted, fix)


@cache
def _adapters(kind: type) -> dict[str, tuple[Any, str]]:
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(kind)
    found: dict[str, tuple[Any, str]] = {}
    for field in fields(kind):
        hint: Any = hints[field.name]
        # Pydantic configures its own kinds of class by themselves.
        own = is_dataclass(cast(object, hint))
        config = None if own else ConfigDict(arbitrary_types_allowed=True)
        said = getattr(hint, "__name__", "") if get_origin(hint) is None else ""
        if get_origin(hint) is Literal:
            said = "one of " + ", ".join(map(repr, get_args(hint)))
        adapter: Any = TypeAdapter(hint, config=config)
        found[field.name] = adapter, said or str(hint)
    return found


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, and lists as the tuples that fields hold."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
