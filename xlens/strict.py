"""Files that people give, read so that nothing waits, is dropped, or is invented.

Python's `json` takes the last of two values of one key, reads `NaN`, and goes on for minutes with a
number of a million digits; opening a named pipe waits, without a word, until somebody writes to it.
"""

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

from xlens.errors import DataError

_MOST_DIGITS = 300  # more than any number that a table can hold


class UnclearError(DataError):
    """JSON that Python would read, dropping or inventing something."""


def require_regular(path: Path) -> None:
    """Refuse what can be opened but is no file: it may never end, or never begin.

    Raises:
        OSError: nothing there, or it can't be looked at.
        ValueError: a pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise DataError(
            f"{str(path)!r} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file: "
            "what comes from it can't be read twice, and may never come. Save it to a file, and "
            "give that."
        )


def read_bytes(path: Path) -> bytes:
    """What is in a regular file.

    Raises:
        OSError: nothing there, or it can't be read.
        ValueError: a pipe, a socket or a device.
    """
    require_regular(path)
    return path.read_bytes()


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, each of whose keys occurs once: `object_pairs_hook` of `json.loads`.

    Raises:
        UnclearError: a key twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnclearError(f'"{twice}" occurs twice in one object; keep one.')
    return found


def loads(text: str) -> Any:
    """The value of a JSON text that says one thing.

    Raises:
        json.JSONDecodeError: it is no JSON.
        UnclearError: a key twice, NaN or infinity, a number of very many digits, or lists in lists
            too deep to be data.
    """
    try:
        return json.loads(
            text, object_pairs_hook=once, parse_constant=_no_constant, parse_int=_whole
        )
    except RecursionError:
        raise UnclearError("objects or lists lie in each other too deep to be data.") from None


def _no_constant(name: str) -> NoReturn:
    raise UnclearError(f"{name} is no JSON; write a number, or null.")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise UnclearError(
            f"a number of {len(digits)} digits; accepted are {_MOST_DIGITS} at most."
        )
    return int(digits)
