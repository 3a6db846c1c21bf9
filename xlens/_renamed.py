"""Keywords that changed their names: the old ones work for one release, with a warning."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

Named = TypeVar("Named", bound=Callable[..., Any])

_CALLED = "RENAMED"


def renamed(**now: str) -> Callable[[Named], Named]:
    """Let a function or a dataclass take keywords, and show attributes, by their old names, too.

    Type checkers see the new names only.

    Args:
        **now: The name of today by the old one.
    """

    def mended(named: Named) -> Named:
        kind = named if isinstance(named, type) else None
        made = kind.__init__ if kind else named

        @functools.wraps(made)
        def called(*args: Any, **given: Any) -> Any:
            return made(*args, **todays(named.__name__, now, given))

        if kind is None:
            return cast("Named", called)
        # Of subclasses too: a dataclass below writes an __init__ of its own, which is mended anew.
        setattr(kind, _CALLED, {**names_of(kind), **now})
        kind.__init__ = called
        for old, new in now.items():
            shown = functools.partial(_shown, kind.__name__, old, new)
            setattr(kind, old, property(shown, doc=f"The old name of `{new}`."))
        return cast("Named", kind)

    return mended


def names_of(kind: type) -> Mapping[str, str]:
    """The names of today by the old ones, of a dataclass and what it is made from."""
    return getattr(kind, _CALLED, {})


def todays(owner: str, now: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, by the names of today.

    Raises:
        TypeError: one thing by both its names.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in now:
            if now[name] in given:
                raise TypeError(f"{owner} got {now[name]!r} and its old name {name!r}: give one.")
            warn(owner, name, now[name], level=4)
        found[now.get(name, name)] = value
    return found


def warn(owner: str, old: str, new: str, *, level: int = 3) -> None:
    """Say what an old name is called from now on."""
    said = (
        f"{owner}: {old!r} is called {new!r} from now on; the old name goes with the next release."
    )
    warnings.warn(said, DeprecationWarning, stacklevel=level)


def _shown(owner: str, old: str, new: str, this: Any) -> Any:
    warn(owner, old, new)
    return getattr(this, new)
