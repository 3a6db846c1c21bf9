"""Who is writing: processes that can be told apart, on this machine and on others."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Self

import psutil

State = Literal["running", "stopped", "gone", "unseen"]
_STATES: dict[str, State] = {
    psutil.STATUS_ZOMBIE: "gone",
    psutil.STATUS_DEAD: "gone",
    psutil.STATUS_STOPPED: "stopped",
    psutil.STATUS_TRACING_STOP: "stopped",
}
_CLOCK_SECONDS = 2.0  # by how much a start time may differ between two readings


@dataclass(frozen=True)
class Owner:
    """A process, told apart from any other that ever had its number.

    Attributes:
        pid: Its number.
        started: When it started, in seconds since 1970: numbers are given out again.
        host: Hash of the machine's name and of the space that its process numbers belong to.
        boot: Hash that changes when the machine restarts; "0" where there is none.
    """

    pid: int
    started: int
    host: str
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.host}-{self.boot}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What `str()` wrote; None if it is anything else."""
        match text.split("-"):
            case [pid, started, host, boot] if pid.isdecimal() and started.isdecimal():
                return cls(int(pid), int(started), host, boot)
            case _:
                return None

    def state(self) -> State:
        """What can be told of the process from here.

        `unseen` where its number means nothing here: another machine, another container.
        """
        here = me()
        if self == here:
            return "running"
        if self.host != here.host:
            return "unseen"
        if self.boot != here.boot:
            return "gone"
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > _CLOCK_SECONDS:
                return "gone"
            return _STATES.get(process.status(), "running")
        except psutil.NoSuchProcess:
            return "gone"
        except psutil.AccessDenied:
            return "running"


def me() -> Owner:
    """The running process."""
    return _owner(os.getpid())  # a forked child is another one


@cache
def _owner(pid: int) -> Owner:
    return Owner(
        pid=pid,
        started=round(psutil.Process(pid).create_time()),
        # Two machines may share a name, and two containers name and machine, but not all three.
        host=_short(
            platform.node() + _read_text("/etc/machine-id") + _read_link("/proc/self/ns/pid")
        ),
        boot=_short(_read_text("/proc/sys/kernel/random/boot_id")),
    )


def abandoned(path: Path) -> bool:
    """Whether `path`, a draft with its writer in its name, was left by a process that is gone.

    One that can't be seen from here may live: its drafts stay until what they were for is there.
    """
    parts = path.name.split(".")
    if len(parts) < 3:
        return False  # somebody else's file, which only ends like a draft
    owner = Owner.parse(parts[-3])
    return owner is None or owner.state() == "gone"


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest() if text else "0"


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
