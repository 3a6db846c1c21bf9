"""Answers on disk: one line each, added when it comes, never changed.

A line that can't be read (cut off by a crash) counts as never written: its prompt is asked again.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from xlens import files
from xlens.engine.store import Store, digest
from xlens.engine.store.errors import explained

LOCK_SECONDS = 60.0


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
        self.path: Path | None = None
        if store is None:
            return
        root = (store if isinstance(store, Store) else Store(store)).root
        self.path = root / "served" / f"{digest(self._kind)}.jsonl"
        with explained("reading answers", root):
            if self.path.exists():
                self._found = _read(self.path)

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
        with explained("keeping answers", self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._append({"kind": self._kind})

    def keep(self, request: str, answer: Answer) -> None:
        """Add an answer, down to the disk.

        Raises:
            StoreError: it can't be written.
        """
        self._found[request] = answer
        if self.path is not None:
            with explained("keeping an answer", self.path.parent):
                self._append({"request": request, "answer": asdict(answer), "date": files.now()})

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self.path is not None
        # For folders where adding to a file is not one step, on a network.
        with FileLock(self.path.parent / ".lock", timeout=LOCK_SECONDS):
            files.append(self.path, json.dumps(line, separators=(",", ":"), allow_nan=False))


def _read(path: Path) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            record = cast(dict[str, Any], json.loads(line))
            request, answer = str(record["request"]), Answer(**record["answer"])
        except (ValueError, KeyError, TypeError):
            continue  # the head, or cut off
        # The first: two runs that asked at the same time then end with the same.
        found.setdefault(request, answer)
    return found
