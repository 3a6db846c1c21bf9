"""Answers on disk: one line each with its digest, added when it comes, never changed.

A line that can't be read, or is not what was written, counts as never written: its prompt is asked
again. That it was damaged is said, unless it is the file's end, cut off by a kill.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from xlens import files
from xlens.errors import InputError
from xlens.store import Store, digest
from xlens.store.errors import explained

LOCK_SECONDS = 60.0
_MOST = 1 << 31  # tokens
_LONGEST = {"finish": 100, "model": 500}
_FIELDS = {"request", "answer", "date", "digest"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came back for a request.

    Attributes:
        text: What was written, as it came: a stop string may still be in it.
        finish: Why it ended, in the server's word; empty if it did not say.
        read: Tokens of the prompt as the server counted them; None if it did not say.
        written: Tokens that were generated, likewise.
        model: What the server calls the model that answered; empty if it did not say.
    """

    text: str
    finish: str
    read: int | None
    written: int | None
    model: str


def check_answer(answer: Answer) -> None:
    """Refuse what can be no answer, from a server or from a file.

    Raises:
        ValueError: a field of another kind, or beyond all measure.
    """
    for name in ("text", "finish", "model"):
        value = getattr(answer, name)
        if not isinstance(value, str) or len(value) > _LONGEST.get(name, len(value)):
            raise InputError(f"{name} is {value!r:.80}, which is no {name}")
    for name in ("read", "written"):
        value = getattr(answer, name)
        if value is not None and (type(value) is not int or not 0 <= value < _MOST):
            raise InputError(f"the tokens {name} are {value!r:.80}, which is no number of tokens")


class Answers:
    """The answers to one kind of request: the same endpoint, model and options.

    Attributes:
        path: Their file; None if nothing is kept on disk.
    """

    def __init__(self, store: Store | str | Path | None, kind: Mapping[str, Any]):
        """Read what is there.

        Args:
            store: A `Store` or its folder; None keeps nothing on disk.
            kind: All that decides an answer but the prompt.

        Raises:
            StoreError: it can't be read.
        """
        self._kind = dict(kind)
        self._found: dict[str, Answer] = {}
        self._damaged = False
        self.path: Path | None = None
        if store is None:
            return
        self._root = (store if isinstance(store, Store) else Store(store)).root
        self.path = self._root / "served" / f"{digest(self._kind)}.jsonl"
        # For folders where adding to a file is not one step, on a network.
        self._lock = files.Lock(
            self.path.parent / ".lock", f"the answers kept in {str(self._root)!r}", LOCK_SECONDS
        )
        with explained("reading answers", self._root):
            if self.path.exists():
                self._read(self.path)

    def __contains__(self, request: str) -> bool:
        return request in self._found

    def get(self, request: str) -> Answer | None:
        """The answer to a request; None if there is none."""
        return self._found.get(request)

    def prepare(self) -> None:
        """Make sure that answers can be kept, before anything is paid for.

        Raises:
            StoreError: they can't.
        """
        if self.path is None:
            return
        with explained("keeping answers", self._root):
            files.make(self.path.parent)
            if not self.path.exists():
                self._append({"kind": self._kind})
            elif self._damaged:
                self._mend(self.path)

    def keep(self, request: str, answer: Answer) -> None:
        """Add an answer, down to the disk.

        Raises:
            StoreError: it can't be written.
        """
        self._found[request] = answer
        if self.path is not None:
            with explained("keeping an answer", self._root):
                body = _body(request, answer)
                self._append({**body, "date": files.now(), "digest": digest(body)})

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self.path is not None
        with self._lock:
            files.append(self.path, json.dumps(line, separators=(",", ":"), allow_nan=False))

    def _read(self, path: Path) -> None:
        lines = _lines(path)
        unchecked = 0
        for line in lines:
            if line.request is not None and line.answer is not None:
                # The first: two runs that asked at the same time then end with the same.
                self._found.setdefault(line.request, line.answer)
                unchecked += not line.checked
        self._damaged = not all(line.whole for line in lines)
        damaged = [n for n, line in enumerate(lines, start=1) if not line.whole and line.ended]
        if damaged:
            numbers = ", ".join(map(str, damaged[:5])) + ", …" * (len(damaged) > 5)
            _log.warning(
                "%s: damaged, and not used: line %s. What stood there is asked again, and taken "
                "out of the file; nothing else is to be done.",
                path,
                numbers,
            )
        if unchecked:
            _log.warning(
                "%s: %d answers were kept by an older xlens, without digests, and can't be "
                "checked. To have them checked, delete the file; they are then asked again.",
                path,
                unchecked,
            )

    def _mend(self, path: Path) -> None:
        """Take out the damaged lines, so that they are told of once."""
        with self._lock:
            whole = [line.raw + b"\n" for line in _lines(path) if line.whole]
            files.publish({path: files.draft(path, whole)})
        self._damaged = False


@dataclass(frozen=True)
class _Line:
    """A line of the file.

    Attributes:
        raw: Its bytes.
        ended: It has an end; without one, a kill cut it off.
        whole: It is what was written, as far as can be told.
        request: What it answers; None for the head.
        answer: The answer.
        checked: It has a digest, and that fits.
    """

    raw: bytes
    ended: bool
    whole: bool
    request: str | None = None
    answer: Answer | None = None
    checked: bool = False


def _body(request: str, answer: Answer) -> dict[str, Any]:
    return {"request": request, "answer": asdict(answer)}


def _lines(path: Path) -> list[_Line]:
    *ended, rest = path.read_bytes().split(b"\n")
    return [_parse(raw, True) for raw in ended] + ([_parse(rest, False)] if rest else [])


def _parse(raw: bytes, ended: bool) -> _Line:
    try:
        record = cast(dict[str, Any], json.loads(raw))
        if "kind" in record:
            return _Line(raw, ended, True)
        answer = Answer(**record["answer"])
        request, stated = record["request"], record.get("digest")
        if not isinstance(request, str) or record.keys() - _FIELDS:
            raise InputError("no answer of ours")
        check_answer(answer)
        if stated is not None and stated != digest(_body(request, answer)):
            raise InputError("another digest")
    except (ValueError, KeyError, TypeError, RecursionError):
        return _Line(raw, ended, False)
    return _Line(raw, ended, True, request, answer, checked=stated is not None)
