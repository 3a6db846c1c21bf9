"""Leases: who works on what, across processes, containers and machines.

A lease is a small file that holds a counter, which its holder moves every two seconds. Others judge
by their own clock how long they have seen it stand still; no file's date and no other machine's
clock counts. A process that can be seen from here is also looked up: its lease ends with it, and
stands as long as it runs.

Each lease has a token of its own. A holder that was stopped, and wakes when another has taken its
place, finds the other's token, and writes nothing any more.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from xlens.files.owners import Owner, State, me, now

BEAT_SECONDS = 2.0
# A lease whose holder is stopped, or can't be seen from here, ends after this long without a move.
OVERTAKEN_SECONDS = 30.0
# An observer that was itself stopped has seen nothing meanwhile: no look counts for more.
_LOOK_SECONDS = 1.0
_DIGITS = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holding:
    """A lease as an observer sees it.

    Attributes:
        owner: The process that holds it.
        host: Name of its machine.
        since: When it was taken, by that machine's clock; only to be read by people.
        token: Tells this lease from all others on the same file.
        count: The counter.
        state: `running`, `stopped`, or `unseen` where it can't be seen from here.
        idle: Seconds that the observer has seen the counter stand still.
    """

    owner: Owner
    host: str
    since: str
    token: str
    count: int
    state: State = "unseen"
    idle: float = 0.0

    def __str__(self) -> str:
        return f"process {self.owner.pid} on {self.host}, since {self.since}"

    @property
    def outlook(self) -> str:
        """What will happen, for who waits."""
        left = max(OVERTAKEN_SECONDS - self.idle, 0)
        match self.state:
            case "stopped":
                return (
                    f"it is stopped (`kill -CONT {self.owner.pid}` lets it go on) and is overtaken "
                    f"in {left:.0f} s"
                )
            case "unseen":
                return (
                    "it runs on another machine or in another container and is overtaken if it "
                    f"gives no sign of life for {OVERTAKEN_SECONDS:.0f} s"
                )
            case _:
                return "it is running and is waited for; if it ends, its place is taken at once"


@dataclass(frozen=True)
class Lease:
    """A lease of this process.

    Attributes:
        path: Its file.
        token: What the file holds as long as nobody has overtaken this process.
    """

    path: Path
    token: str

    @classmethod
    def take(cls, path: Path) -> "Lease":
        """Write the file, whoever had it. Needs a lock, and a look by `Watch` before."""
        lease, text = cls._new(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(descriptor, text)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        _heart.add(lease)
        return lease

    @classmethod
    def sign(cls, path: Path) -> "Lease":
        """A lease whose counter stands still: it says who is there, beside a lock."""
        lease, text = cls._new(path)
        path.write_bytes(text)
        return lease

    @classmethod
    def _new(cls, path: Path) -> tuple["Lease", bytes]:
        lease = cls(path, uuid.uuid4().hex)
        body = {"owner": str(me()), "host": platform.node(), "since": now(), "token": lease.token}
        # The counter has a fixed width: a beat writes over it in place and touches nothing else.
        return lease, f"{0:0{_DIGITS}}\n{json.dumps(body)}\n".encode()

    def overtaken(self) -> bool:
        """Whether another has taken the lease; one that was given up is nobody's."""
        there = lease_at(self.path)
        return there is not None and there.token != self.token

    def beat(self) -> bool:
        """Move the counter; False if the lease is over."""
        try:
            # Opened anew each time: on a network, others see what was written when it is closed.
            with self.path.open("r+b") as file:
                there = _parse(file.read())
                if there is None or there.token != self.token:
                    return False
                file.seek(0)
                file.write(f"{there.count + 1:0{_DIGITS}}".encode())
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the next beat may succeed; else others will overtake
        return True


def lease_at(path: Path) -> Holding | None:
    """What a lease's file says; None if there is none, or one that was cut off."""
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return None


def _parse(text: bytes) -> Holding | None:
    try:
        count, body = text.split(b"\n", 1)
        said = json.loads(body)
        owner = Owner.parse(str(said["owner"]))
        if owner is None:
            return None
        return Holding(owner, str(said["host"]), str(said["since"]), said["token"], int(count))
    except (ValueError, KeyError, TypeError):
        return None


class Watch:
    """What one observer has seen of leases, by its own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._seen: dict[Path, tuple[Holding, float]] = {}

    def holder(self, path: Path) -> Holding | None:
        """Who has a lease; None if nobody, or one that may be overtaken."""
        found = lease_at(path)
        if found is None:
            self._seen.pop(path, None)
            return None
        instant = self._clock()
        before, looked = self._seen.get(path, (None, instant))
        idle = 0.0
        if before is not None and (before.token, before.count) == (found.token, found.count):
            idle = before.idle + min(instant - looked, _LOOK_SECONDS)
        found = replace(found, idle=idle, state=found.owner.state())
        self._seen[path] = found, instant
        if found.state == "gone" or (found.state != "running" and idle >= OVERTAKEN_SECONDS):
            return None
        return found

    def last(self, path: Path) -> Holding | None:
        """What was seen at the last look."""
        return self._seen[path][0] if path in self._seen else None


class _Heart:
    """Moves the counters of this process's leases, in a thread that ends when there are none."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):  # a child holds nothing, and has no such thread
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._leases: set[Lease] = set()
        self._guard = threading.Lock()
        self._beats = False

    def add(self, lease: Lease) -> None:
        with self._guard:
            self._leases.add(lease)
            if not self._beats:
                self._beats = True
                threading.Thread(target=self._run, name="xlens leases", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._guard:
                # Beats go to the disk, which may take long: not with the guard held.
                leases = set(self._leases)
            over = {lease for lease in leases if not lease.beat()}
            with self._guard:
                self._leases -= over
                if not self._leases:
                    self._beats = False
                    return


_heart = _Heart()


class Waiting:
    """Says on stderr, once for each reason, whom this process waits for and what will happen."""

    def __init__(self) -> None:
        self._told: set[tuple[object, ...]] = set()
        self._since = time.monotonic()

    def reset(self) -> None:
        """The wait is over."""
        self._since = time.monotonic()
        self._told.clear()

    def tell(self, what: str, holding: Holding) -> None:
        """A line, from the second second on."""
        reason = (holding.token, holding.state)
        if reason not in self._told and time.monotonic() - self._since >= 1.0:
            self._told.add(reason)
            _log.warning("Waiting for %s: %s has it; %s.", what, holding, holding.outlook)


def wait_for_signs(watch: Watch, paths: list[Path]) -> None:
    """Look at leases until each has moved or may be overtaken; seconds, and half a minute at most.

    For holders that can't be seen from here: only time tells whether they live.
    """
    waiting, first = Waiting(), {path: watch.holder(path) for path in paths}
    unseen = {path: held for path, held in first.items() if held and held.state == "unseen"}
    while unseen:
        time.sleep(0.2)
        for path, before in list(unseen.items()):
            found = watch.holder(path)
            if found is None or (found.token, found.count) != (before.token, before.count):
                del unseen[path]
            else:
                with suppress(OSError):
                    waiting.tell(path.parent.name, found)
