"""Several processes write one thing at once, some of them stopped or killed on the way."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import commands
import psutil
from commands import Ground, ended, forked, left
from row import Row
from writers import FOLDERS, WRITERS

# Longer than a wait may be silent, shorter than until one is overtaken.
_STOPPED_SECONDS, _LOOKED_SECONDS = 2.5, 1.5
_BUSY_SECONDS = 0.1


def results(kind: str, n: int, folder: Path, times: int) -> Row:
    """Processes that save one result over and over; who reads gets a whole one."""
    row, dice = Row(f"{n} processes save one {kind}"), random.Random(kind)
    writer, place, said = WRITERS[kind], folder / "shared" / "a", folder / "shared.said"
    place.parent.mkdir()
    writer.save(1, place)

    def save(which: int) -> None:
        for _ in range(20):
            writer.save(which, place)

    for row.tried in range(1, times + 1):
        pids = [forked(lambda w=k % 2 + 1: save(w), said) for k in range(n)]
        time.sleep(dice.random() * 0.1)
        os.kill(pids[0], signal.SIGSTOP)
        if n > 2:
            os.kill(pids[1], signal.SIGKILL)
        for _ in range(10):
            if not writer.one_or_two(place):
                row.faults.append("who reads gets neither the one nor the other")
        codes = [ended(pid) for pid in pids[1:]]
        os.kill(pids[0], signal.SIGCONT)
        codes.append(ended(pids[0]))
        if any(code not in (0, -signal.SIGKILL) for code in codes):
            row.faults.append(f"ended with {codes}: {said.read_text()[-500:]}")
    if not writer.saved_alone(place):
        row.faults.append("the last one is not right, or not alone")
    return row


def holds(pid: int, place: Path) -> bool:
    """Whether a process has a claim or a lock in a store."""
    signs = [*place.glob("cache/**/*.claim"), *place.glob("cache/**/*.holder")]
    texts = [path.read_bytes() for path in signs if path.exists()]
    return any(b'"owner": "%d-' % pid in text for text in texts)


def stopped(pid: int, place: Path, seconds: float) -> bool:
    """Stop a process when it has a claim or a lock, or else after some time; whether it has one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not holds(pid, place):
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    return holds(pid, place)


def idle(pids: Sequence[int], seconds: float) -> list[bool]:
    """Which of some processes live and do nothing meanwhile."""

    def spent() -> list[float | None]:
        found: list[float | None] = []
        for pid in pids:
            process = psutil.Process(pid)  # not waited for yet, so that its number is its own
            dead = process.status() == psutil.STATUS_ZOMBIE
            found.append(None if dead else sum(process.cpu_times()[:2]))
        return found

    before = spent()
    time.sleep(seconds)
    pairs = zip(before, spent(), strict=True)
    return [a is not None and b is not None and b - a < _BUSY_SECONDS for a, b in pairs]


def runs(name: str, line: Sequence[str], n: int, folder: Path, times: int) -> Row:
    """Processes that run one command into one folder; one stops for a while, one is killed."""
    row, dice = Row(f"{n} processes run {name} into one folder"), random.Random(name)
    whole, place = folder / name / "whole", folder / name / "shared"
    start = time.monotonic()
    first = folder / f"{name}.said"
    assert ended(forked(lambda: commands.run(line, whole), first)) == 0, first.read_text()
    took, wanted = time.monotonic() - start, left(whole)
    for row.tried in range(1, times + 1):
        told = [folder / f"{name}-{row.tried}-{k}.said" for k in range(n)]
        pids = [forked(lambda: commands.run(line, place), path) for path in told]
        held = stopped(pids[0], place, 2 * took if row.tried % 2 else dice.random() * took)
        if n > 2:
            os.kill(pids[1], signal.SIGKILL)
        # What waits from now on has said so when it was seen to do nothing.
        time.sleep(_STOPPED_SECONDS)
        waits = idle(pids[1:], _LOOKED_SECONDS)
        lines = ["Waiting for" in path.read_text() for path in told[1:]]
        silent = sum(wait and not said for wait, said in zip(waits, lines, strict=True))
        row.faults += [f"{silent} wait without a line"] * bool(silent)
        row.counts["stopped with a claim or a lock"] += held
        row.counts["lines of who waits"] += sum(lines)
        os.kill(pids[0], signal.SIGCONT)
        codes = [ended(pid) for pid in pids]
        if any(code not in (0, -signal.SIGKILL) for code in codes):
            texts = " | ".join(path.read_text()[-300:] for path in told)
            row.faults.append(f"ended with {codes}: {texts}")
        code = ended(forked(lambda: commands.run(line, place), told[0]))
        found = left(place)
        other = [k for k in sorted({*found, *wanted}) if found.get(k) != wanted.get(k)]
        if code or other:
            row.faults.append(f"afterwards {code}, others are {other[:3]}")
        shutil.rmtree(place)
    return row


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    for n in (2, 4):
        for kind in FOLDERS:
            yield results(kind, n, folder, times)
        for name in ("harvest", "choices", "xmrc", "lens", "facts", "series"):
            if not only or name in only:
                yield runs(name, ground.lines()[name], n, folder, times)
