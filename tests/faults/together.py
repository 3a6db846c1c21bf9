"""Several processes write one thing at once, some of them stopped or killed on the way."""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import commands
from commands import Ground, ended, forked, left
from row import Row
from writers import FOLDERS, WRITERS

_STOPPED_SECONDS = 4.0  # longer than a wait may be silent, shorter than until one is overtaken


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
            found = writer.read(place)
            if not writer.right(found, 1) and not writer.right(found, 2):
                row.faults.append("who reads gets neither the one nor the other")
        codes = [ended(pid) for pid in pids[1:]]
        os.kill(pids[0], signal.SIGCONT)
        codes.append(ended(pids[0]))
        if any(code not in (0, -signal.SIGKILL) for code in codes):
            row.faults.append(f"ended with {codes}: {said.read_text()[-500:]}")
    writer.save(3, place)
    if not writer.right(writer.read(place), 3) or len(list(place.parent.iterdir())) > 1:
        row.faults.append("the last one is not right, or not alone")
    shutil.rmtree(place.parent)
    return row


def holds(pid: int, place: Path) -> bool:
    """Whether a process has a claim or a lock in a store."""
    signs = [*place.glob("cache/**/*.claim"), *place.glob("cache/**/*.holder")]
    texts = [path.read_bytes() for path in signs if path.exists()]
    return any(b'"owner": "%d-' % pid in text for text in texts)


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
        time.sleep(dice.random() * took)
        os.kill(pids[0], signal.SIGSTOP)
        if n > 2:
            os.kill(pids[1], signal.SIGKILL)
        held = holds(pids[0], place)
        time.sleep(_STOPPED_SECONDS)
        lines = [path.read_text() for path in told[1:]]
        row.counts["stopped with a claim or a lock"] += held
        row.counts["lines of who waits"] += sum("Waiting for" in text for text in lines)
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
        for name in ("harvest", "choices", "xmrc", "lens"):
            if not only or name in only:
                yield runs(name, ground.lines()[name], n, folder, times)
