"""Who is writing: processes that can be told apart, on this machine and on others."""

import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Self

import psutil

# A process on another machine can't be seen from here: its files count as left behind after this
# long without a change. A shard takes seconds or minutes.
FOREIGN_SECONDS = 900.0
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

    def alive(self, idle: float) -> bool:
        """Whether the process still runs.

        Args:
            idle: Seconds since its file was last written to. Decides where the process can't be
                seen from here: another machine, another container.
        """
        here = me()
        if self == here:
            return True
        if self.host != here.host:
            return idle < FOREIGN_SECONDS
        if self.boot != here.boot:
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) <= _CLOCK_SECONDS
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True


def me() -> Owner:
    """The running process."""
    return _owner(os.getpid())  # a forked child is another one


@cache
def _owner(pid: int) -> Owner:
    return Owner(
        pid=pid,
        started=round(psutil.Process(pid).create_time()),
        # Two containers may share a name but not their process numbers.
        host=_short(platform.node() + _read_link("/proc/self/ns/pid")),
        boot=_short(_read_text("/proc/sys/kernel/random/boot_id")),
    )


def abandoned(path: Path) -> bool:
    """Whether `path`, a draft with its writer in its name, was left behind."""
    owner = Owner.parse(path.name.split(".")[-3])
    try:
        return owner is None or not owner.alive(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return False


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
