"""Asking a server over HTTP with bounds: tries, seconds and bytes are known beforehand."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from xlens.checks import check_fields
from xlens.errors import DataError, MachineError
from xlens.keys import Mask

MAX_BYTES = 1 << 20
"""The largest answer that is read; a count takes a few hundred."""
_CHUNK = 1 << 14
_TRIED_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0
_SHOWN = 300


class IndexFailure(MachineError):
    """An index gave no count; the message says which, why, and what was kept."""


class _Passing(Exception):
    """A failure that may not be there at the next try."""

    def __init__(self, what: str, pause: float = 0.0):
        super().__init__(what)
        self.pause = pause


@dataclass(frozen=True)
class Bounds:
    """What one question may cost.

    Attributes:
        tries: With growing pauses, or those the server asks for, after a busy server (408, 429,
            500, 502, 503, 504), a broken connection or a timeout.
        timeout: Seconds that a try may take, to the answer's last byte.
        pause: Seconds before the second try; half as long again before each further one.

    Raises:
        ValueError: no try, no time.
    """

    tries: int = 10
    timeout: float = 60.0
    pause: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.tries < 1 or not self.timeout > 0 or not self.pause >= 0:
            raise DataError(f"{self}: accepted are 1 try or more, and seconds from 0 on.")


class _Stays(HTTPRedirectHandler):
    """A question, and the key that may go with it, goes where it was sent and nowhere else."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


_opener = build_opener(_Stays)


def post(
    url: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    bounds: Bounds,
    mask: Mask,
) -> dict[str, Any]:
    """The JSON object that a server answers with.

    Args:
        url: Where to.
        body: What is asked, as JSON.
        headers: Of the request.
        bounds: What it may cost.
        mask: Blots the key out of whatever comes back.

    Raises:
        IndexFailure: none, after all tries; the message has the server's own words.
    """
    data = json.dumps(body, ensure_ascii=False).encode()
    for number in range(1, bounds.tries + 1):
        try:
            return _within(bounds.timeout, lambda: _once(url, data, headers, bounds.timeout, mask))
        except _Passing as error:
            if number == bounds.tries:
                tries = f" after {number} tries" if number > 1 else ""
                raise IndexFailure(f"{url} gave no count{tries}: {error}.") from None
            # Never sooner than the server asks for.
            wait = max(error.pause, bounds.pause * 1.5 ** (number - 1))
            time.sleep(min(wait, _LONGEST_PAUSE))
    raise AssertionError  # the last try returns or raises


def _within(seconds: float, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or no answer after so long, whatever a server does.

    A socket's timeout begins anew with every byte: of headers, too, or of a handshake. The thread
    that is left to such a server ends with it, or with the process.
    """
    found: list[dict[str, Any] | BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, name="xlens question", daemon=True)
    thread.start()
    thread.join(seconds)
    match found:
        case [BaseException() as error]:
            raise error
        case [dict() as answer]:
            return answer
        case _:
            raise _Passing(f"its answer took longer than {seconds:g} s")


def _once(
    url: str, data: bytes, headers: Mapping[str, str], timeout: float, mask: Mask
) -> dict[str, Any]:
    request = Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with _opener.open(request, timeout=timeout) as response:
            text = mask.kept(_read(url, response))
    except HTTPError as error:
        with error:
            said = _shown(_read(url, error), mask) if error.fp else ""
        what = f"status {error.code}{': ' if said else ''}{said}"
        if error.code not in _TRIED_AGAIN:
            raise IndexFailure(
                f"{url} gave no count: {what}. Is it the address of such an index, and is the "
                "index's name (and the key, if it needs one) right?"
            ) from None
        raise _Passing(what, _asked_pause(error)) from None
    except (OSError, HTTPException) as error:
        what = _shown(str(getattr(error, "reason", error)), mask)
        raise _Passing(f"no answer ({what})") from None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IndexFailure(f"{url} answers with no JSON object: {_shown(text, mask)}")
    return cast(dict[str, Any], found)


def _read(url: str, response: Any) -> str:
    """A body, as far as there is room for it."""
    parts: list[bytes] = []
    room = MAX_BYTES
    while part := response.read1(_CHUNK):
        parts.append(part)
        # Counted while it is read: a server may send without an end, and without saying how much.
        room -= len(part)
        if room < 0:
            raise IndexFailure(f"{url} answers with more than {MAX_BYTES >> 20} MB.")
    return b"".join(parts).decode("utf-8", "replace")


def _asked_pause(error: HTTPError) -> float:
    with suppress(ValueError):
        return max(0.0, float(error.headers.get("Retry-After", "")))
    return 0.0


def _shown(text: str, mask: Mask) -> str:
    """The beginning of a server's words, without the key: half of one is a key's half."""
    return " ".join(mask.text(text).split())[:_SHOWN]
