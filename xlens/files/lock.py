"""A lock that says whom it waits for, and that a stopped process can't keep for ever.

The system's lock on a file ends with its process, but not while that process is stopped. Who holds
it stands beside it, as a lease; a stopped holder is overtaken after a stated time by putting a new
file in the place of the locked one.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from xlens.files.disk import remove
from xlens.files.leases import Lease, Waiting, Watch

_TRY_SECONDS = 0.5


class Lock:
    """A lock between processes and threads; a thread may take it several times.

    Attributes:
        path: Of the locked file.
        what: How to call what is locked, in a line to who waits.
        seconds: After how long waiting is given up, with `filelock.Timeout`.
    """

    def __init__(self, path: Path, what: str, seconds: float):
        self.path, self.what, self.seconds = path, what, seconds
        self._lock = FileLock(path, poll_interval=0.01)
        self._mine = threading.local()

    def __enter__(self) -> "Lock":
        depth = getattr(self._mine, "depth", 0)
        # filelock counts how often its holder took it: further times it is there at once.
        self._lock.acquire(timeout=0) if depth else self._wait()
        self._mine.depth = depth + 1
        if not depth:
            self._mine.lease = None
            try:
                with suppress(OSError):  # it only serves those who wait
                    self._mine.lease = Lease.sign(self._sign)
            except BaseException:  # Ctrl-C: `with` isn't entered, so nobody else gives it back
                self._mine.depth = 0
                self._lock.release()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._mine.depth -= 1
        try:
            if not self._mine.depth and not self.lost():
                remove(self._sign)
        finally:  # also at Ctrl-C: this process lives on, and would wait for itself for ever
            self._lock.release()

    def lost(self) -> bool:
        """Whether this process was stopped for so long, with the lock, that another broke it."""
        lease: Lease | None = self._mine.lease
        return lease is not None and lease.overtaken()

    @property
    def _sign(self) -> Path:
        return self.path.with_name(f"{self.path.name}.holder")

    def _wait(self) -> None:
        watch, waiting, end = Watch(), Waiting(), time.monotonic() + self.seconds
        while True:
            left = end - time.monotonic()
            try:
                self._lock.acquire(timeout=max(0.0, min(_TRY_SECONDS, left)))
                return
            except Timeout:
                if left <= _TRY_SECONDS:
                    raise
            found = watch.holder(self._sign)
            seen = watch.last(self._sign)
            if found is not None:
                waiting.tell(self.what, found)
            elif seen is not None and seen.state == "stopped":
                self._break(seen.token)

    def _break(self, token: str) -> None:
        """Put the locked file away, unless another did so already."""
        # Only one of those who wait may break it: a second one
        # would put away the new holder's file.
        breaking = FileLock(self.path.with_name(f"{self.path.name}.break"), timeout=_TRY_SECONDS)
        with suppress(Timeout), breaking:
            now = Watch().holder(self._sign)
            if now is not None and now.token == token:
                Lease.sign(self._sign)  # from here on, the stopped process has lost it
                with suppress(FileNotFoundError):
                    os.unlink(self.path)
