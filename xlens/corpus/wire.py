"""Asking a server over HTTP with bounds: tries, seconds and bytes are known beforehand."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from xlens.checks import check_fields

MAX_BYTES = 1 << 20
"""The largest answer that is read; a count takes a few hundred."""
_CHUNK = 1 << 14
_TRIED_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 60.0
_SHOWN = 300


class IndexFailure(RuntimeError):
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
            raise ValueError(f"{self}: accepted are 1 try or more, and seconds from 0 on.")


class _Stays(HTTPRedirectHandler):
    """A question, and the key that may go with it, goes where it was sent and nowhere else."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


_opener = build_opener(_Stays)


def post(
    url: str, body: Mapping[str, Any], headers: Mapping[str, str], bounds: Bounds
) -> dict[str, Any]:
    """The JSON object that a server answers with.

    Raises:
        IndexFailure: none, after all tries; the message has the server's own words.
    """
    data = json.dumps(body, ensure_ascii=False).encode()
    for number in range(1, bounds.tries + 1):
        try:
            return _once(url, data, headers, bounds.timeout)
        except _Passing as error:
            if number == bounds.tries:
                tries = f" after {number} tries" if number > 1 else ""
                raise IndexFailure(f"{url} gave no count{tries}: {error}.") from None
            wait = max(error.pause, bounds.pause * 1.5 ** (number - 1))
            time.sleep(min(wait, _LONGEST_PAUSE))
    raise AssertionError  # the last try returns or raises


def _once(url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> dict[str, Any]:
    request = Request(url, data, {"Content-Type": "application/json", **headers})
    end = time.monotonic() + timeout
    try:
        with _opener.open(request, timeout=timeout) as response:
            parts: list[bytes] = []
            # A server that sends a byte now and then must not hold the count for ever.
            while part := response.read1(_CHUNK):
                parts.append(part)
                if time.monotonic() > end:
                    raise _Passing(f"its answer took longer than {timeout:g} s")
                if len(parts) * _CHUNK > MAX_BYTES and sum(map(len, parts)) > MAX_BYTES:
                    raise IndexFailure(f"{url} answers with more than {MAX_BYTES >> 20} MB.")
    except HTTPError as error:
        said = _shown(error.read(_SHOWN * 4)) if error.fp else ""
        what = f"status {error.code}{': ' if said else ''}{said}"
        if error.code not in _TRIED_AGAIN:
            raise IndexFailure(
                f"{url} gave no count: {what}. Is it the address of such an index, and is the "
                "index's name (and the key, if it needs one) right?"
            ) from None
        raise _Passing(what, _asked_pause(error)) from None
    except (OSError, HTTPException) as error:
        raise _Passing(f"no answer ({getattr(error, 'reason', error)})") from None
    try:
        found: Any = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IndexFailure(f"{url} answers with no JSON object: {_shown(b''.join(parts))}")
    return cast(dict[str, Any], found)


def _asked_pause(error: HTTPError) -> float:
    with suppress(ValueError):
        return max(0.0, float(error.headers.get("Retry-After", "")))
    return 0.0


def _shown(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())[:_SHOWN]
