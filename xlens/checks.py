"""Values of the wrong type are refused, never printed into a text or rounded into a number."""

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, wraps
from itertools import chain
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from xlens.errors import InputError

_SEEDS = 1 << 63
P = ParamSpec("P")
T = TypeVar("T")
# Texts, numbers and what holds them are looked into; anything else must be an instance.
_PLAIN = (str, int, float, bool, bytes, NoneType)
_HOLDERS: tuple[Any, ...] = (Sequence, Mapping, list, tuple, dict, set, frozenset)
_PATH: Any = PathLike
_ITERATOR: Any = Iterator


class WrongType(InputError, TypeError):
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
        raise InputError(f"seed is {seed!r:.30}; accepted are whole numbers from 0 to 2**63 - 1.")


def check_least(instance: object, **least: int) -> None:
    """Refuse numbers that are too small, given with the least of each; None is none.

    Raises:
        ValueError: one is, by name.
    """
    for name, n in least.items():
        given = getattr(instance, name)
        if given is not None and given < n:
            raise InputError(f"{name} is {given}; accepted are whole numbers, at least {n}.")


def check_shape(what: str, given: Any, axes: str, **sizes: int) -> None:
    """See that an array has these axes, always: a wrong one would be read as if all were well.

    Args:
        what: Its name.
        given: A tensor or array.
        axes: Names of its axes, `layer row d_model`.
        **sizes: Of those axes whose size is known.

    Raises:
        ValueError: another number of axes, or another size.
    """
    shape, names = list(given.shape), axes.split()
    wanted = [sizes.get(name) for name in names]
    if len(shape) != len(names) or any(
        size is not None and size != here for here, size in zip(shape, wanted, strict=True)
    ):
        known = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        raise InputError(
            f"{what} has the shape {shape}; accepted is [{', '.join(names)}]"
            f"{known and f' with {known}'}."
        )


def check_fields(instance: Any) -> None:
    """See that a frozen dataclass's values have the types of its fields; lists become tuples.

    A text is no sequence of texts, a truth value no number, and 12.7 no whole number.

    Raises:
        WrongType: another type, with the field's name and what it accepts.
    """
    # What nobody gave is right, and a command's help shows nothing else: pydantic isn't needed.
    # By identity: a value that only equals the default may be of another type (True and 1).
    given = [f for f in fields(instance) if getattr(instance, f.name) is not f.default]
    names = [f.name for f in given if not _is_made(f, getattr(instance, f.name))]
    if not names:
        return
    from pydantic import ValidationError

    for name in names:
        adapter, accepted = _adapters(type(instance))[name]
        value = _plain(getattr(instance, name))
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as problem:
            error = problem.errors()[0]
            raise _wrong_field(type(instance).__name__, name, value, error, accepted) from None
        if name == "seed":
            check_seed(value)
        object.__setattr__(instance, name, value)


def _is_made(field: Field[Any], value: Any) -> bool:
    """Whether a value is what the field's factory makes, empty as a rule."""
    return field.default_factory is not MISSING and value == field.default_factory()


def _wrong_field(owner: str, name: str, value: Any, error: Any, accepted: str) -> WrongType:
    at, _ = _place(name, error)
    fix = ""
    if isinstance(value, str) and "tuple" in accepted:
        fix = f"Write [{value!r}]."
    elif isinstance(error["input"], bool):
        fix = "Where YAML made a truth value of it (yes, no, on, off), write it in quotes."
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
        adapter: Any = TypeAdapter(hint, config=config)
        found[field.name] = adapter, _words(hint)
    return found


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's, and lists as the tuples that fields hold."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Argument:
    """One argument of a function, and what is accepted for it.

    Attributes:
        owner: The function's name.
        name: The argument's.
        accepted: Its type, as one writes it: `Sequence[str] | None`.
        adapter: What checks it.
    """

    owner: str
    name: str
    accepted: str
    adapter: Any

    def check(self, value: Any) -> None:
        """See that a value has the type.

        Raises:
            WrongType: it has another.
            ValueError: it is a seed, and none that every source of chance takes.
        """
        from pydantic import ValidationError

        try:
            self.adapter.validate_python(value, strict=True)
        except ValidationError:
            # What NumPy, pandas and torch hold is no Python number, though it prints as one.
            try:
                self.adapter.validate_python(_unpacked(value), strict=True)
            except ValidationError as problem:
                raise self._wrong(value, problem.errors()[0]) from None
        if self.name == "seed" and value is not None:
            check_seed(value)

    def _wrong(self, value: Any, error: Any) -> WrongType:
        at, inside = _place(self.name, error)
        alone = isinstance(value, str) and "Sequence[str]" in self.accepted
        fix = f"Write [{value!r}]." if alone else ""
        found = error["input"] if inside else value
        return wrong_type(f"{at} of {self.owner}", found, self.accepted, fix)


def typed(function: Callable[P, T]) -> Callable[P, T]:
    """Refuse arguments of another type than the signature's, before anything runs.

    As `check_fields`: a text is no sequence of texts, a truth value no number, and of a `Literal`
    only its words are taken. Arrays and callables are left to the function, and so is a text for an
    `Iterable`.

    Raises:
        WrongType: from the function: another type, with the argument's name and what is accepted.
    """
    by_place = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        known = arguments_of(function)
        # Not by `Signature.bind`, which takes longer than all checks. Too many arguments, too few
        # and unknown ones are left to the call, whose own message names the function.
        for name, value in chain(zip(by_place, args, strict=False), kwargs.items()):
            if name in known:
                known[name].check(value)
        return function(*args, **kwargs)

    checked.__dict__["is_typed"] = True  # for the test that all public functions are
    return checked


@cache
def arguments_of(function: Callable[..., Any]) -> dict[str, Argument]:
    """The arguments of a function that `typed` checks, by name."""
    from pydantic import TypeAdapter

    found: dict[str, Argument] = {}
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        hint = None if variadic or name not in hints else _checkable(hints[name])
        if hint is not None:
            accepted, adapter = _words(hints[name]), TypeAdapter(hint)
            found[name] = Argument(function.__qualname__, name, accepted, adapter)
    return found


def refuse_text(what: str, asked: object) -> None:
    """See that a text isn't taken for the sequence of its letters.

    Raises:
        WrongType: it would be.
    """
    if isinstance(asked, str):
        raise wrong_type(what, asked, f"a sequence of {what}", f"Write [{asked!r}].")


def _place(name: str, error: Any) -> tuple[str, bool]:
    """Where pydantic found it, `name` or `name[2]`, and whether that is inside the value."""
    part = next((p for p in error["loc"] if isinstance(p, int)), None)
    return (name, False) if part is None else (f"{name}[{part}]", True)


def _unpacked(value: Any) -> Any:
    if isinstance(value, str | Mapping):
        return cast(Any, value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return tuple(map(_unpacked, value)) if isinstance(value, Collection) else value


def _checkable(hint: Any) -> Any:
    """The hint as pydantic is to check it; None for one that is left alone."""
    from pydantic import InstanceOf

    origin, parts = get_origin(hint), get_args(hint)
    if hint in _PLAIN or hint is Any:
        return hint
    if hint is Path:
        return str | InstanceOf[_PATH]
    if origin is Literal:
        return hint
    if origin in (Union, UnionType, Iterable, Collection, *_HOLDERS):
        inner = tuple(part if part is ... else _checkable(part) for part in parts)
        if None in inner:
            return None
        if origin in (Union, UnionType):
            return Union[inner]  # noqa: UP007
        if origin in _HOLDERS:
            return cast(Any, origin)[inner]
        several = Sequence[inner[0]] | set[inner[0]] | frozenset[inner[0]]
        return several if origin is Collection else several | str | InstanceOf[_ITERATOR]
    if isinstance(hint, type) and "jaxtyping" not in repr(hint):
        return InstanceOf[hint]
    return None


def _words(hint: Any) -> str:
    """A hint as one writes it, `Sequence[str] | None`; the words of a `Literal` by themselves."""
    if get_origin(hint) is Literal:
        words = ", ".join(map(repr, get_args(hint)))
        return f"one of {words}" if len(get_args(hint)) > 1 else words
    if get_origin(hint) in (Union, UnionType) and "Literal[" in str(hint):
        return ", ".join(map(_words, get_args(hint)))
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "None")
