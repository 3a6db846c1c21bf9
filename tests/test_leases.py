"""Leases: who is waited for, who is overtaken, and what is said meanwhile."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from test_store import KEY, as_process, fill, same, tensors

from xlens import files
from xlens.files import leases, owners
from xlens.store import Store

FOREIGN = {"host": "cafe"}
CLAIM = "shard-00000.claim"


class Clock:
    """An observer's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def look_for(watch: files.Watch, clock: Clock, path: Path, seconds: float, step: float = 1.0):
    """Look again and again; who is seen at the end."""
    found = watch.holder(path)
    for _ in range(round(seconds / step)):
        clock.now += step
        found = watch.holder(path)
    return found


@pytest.fixture
def foreign(tmp_path: Path) -> files.Lease:
    """A lease of a process that can't be seen from here."""
    with as_process(0, **FOREIGN):
        return files.Lease.take(tmp_path / "x.claim")


def still(lease: files.Lease) -> Any:
    """Inside, this process moves no counter."""
    return mock.patch.object(files.Lease, "beat", lambda _: True)


def test_a_lease_whose_counter_stands_still_ends_by_the_observers_clock(
    foreign: files.Lease,
) -> None:
    clock = Clock()
    watch = files.Watch(clock)
    with still(foreign):
        # The dates of files say nothing, nor does the other machine's clock.
        for date in (0, 2e9):
            os.utime(foreign.path, (date, date))
            assert files.Watch(clock).holder(foreign.path) is not None
        held = look_for(watch, clock, foreign.path, leases.OVERTAKEN_SECONDS - 2)
        assert held is not None and held.state == "unseen"
        assert look_for(watch, clock, foreign.path, 3) is None
    # Somebody else's long look is not this one's.
    assert files.Watch(clock).holder(foreign.path) is not None


def test_a_counter_that_moves_keeps_a_lease(foreign: files.Lease) -> None:
    clock = Clock()
    watch = files.Watch(clock)
    for _ in range(5):
        assert foreign.beat()
        assert look_for(watch, clock, foreign.path, leases.OVERTAKEN_SECONDS - 2) is not None


def test_an_observer_that_was_stopped_itself_has_seen_nothing(foreign: files.Lease) -> None:
    clock = Clock()
    watch = files.Watch(clock)
    assert look_for(watch, clock, foreign.path, 36_000, step=3600) is not None


def test_the_counter_moves_by_itself_and_stops_with_the_lease(tmp_path: Path) -> None:
    with mock.patch.object(leases, "BEAT_SECONDS", 0.02):
        lease = files.Lease.take(tmp_path / "x")
        end = time.monotonic() + 10
        while (found := files.lease_at(lease.path)) is not None and found.count < 3:
            assert time.monotonic() < end, "the counter stands still"
            time.sleep(0.01)
        other = files.Lease.take(tmp_path / "x")
        assert lease.overtaken() and not lease.beat() and not other.overtaken()
        files.remove(other.path)
        assert not other.beat() and not other.path.exists(), "a lease came back"


def test_what_a_child_inherits_is_no_lease_of_its(tmp_path: Path) -> None:
    lease = files.Lease.take(tmp_path / "x")
    pid = os.fork()
    if pid == 0:
        os._exit(len(leases._heart._leases) + 10 * (files.lease_at(lease.path).owner == files.me()))  # type: ignore[union-attr]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_late_write_of_an_overtaken_process_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the other writes counts; the late process waits for it and ends whole."""
    store = Store(tmp_path / "store")
    late = store.entry(KEY, shards=2)
    loop = late.todo(poll=0.01)
    with as_process(1, **FOREIGN):
        assert next(loop) == 0
        with as_process(2, **FOREIGN):
            other = Store(store.root).entry(KEY, shards=2)
            files.Lease.take(other.path / CLAIM)  # it waited long enough
            other._claims.leases[0] = files.Lease(
                other.path / CLAIM,
                files.lease_at(other.path / CLAIM).token,  # type: ignore[union-attr]
            )
        late.write(0, tensors(7))
        assert late.done == frozenset() and not list(late.path.glob("*.tmp"))
        assert "another took it over" in caplog.text
        assert next(loop) == 1
        late.write(1, tensors(1))
        with as_process(2, **FOREIGN):
            other.write(0, tensors(0))
        assert list(loop) == []
        late.finish()
    assert same(late.read(0), tensors(0))


# --- processes that are stopped for real ---

WORKER = """
import sys
import torch
from test_store import KEY, fill, tensors
from xlens.store import Store
from xlens.files import leases
torch.set_num_threads(1)
root, what = sys.argv[1:3]
leases.OVERTAKEN_SECONDS = float(sys.argv[3])
store = Store(root)
if what == "lock":
    with store._lock:
        print("ready", flush=True)
        sys.stdin.readline()
    sys.exit()
if what == "idle":
    print("ready", flush=True)
    sys.stdin.readline()
entry = store.entry(KEY, shards=2)
for shard in entry.todo(poll=0.05):
    print("has", shard, flush=True)
    if what == "hold" and sys.stdin.readline() == "":
        break
    entry.write(shard, tensors(shard))
entry.finish()
print("whole", flush=True)
"""


class Worker:
    """A process that works on an entry; killed at the end."""

    def __init__(self, root: Path, what: str, name: str) -> None:
        here = Path(__file__).parent
        paths = os.pathsep.join([str(here.parent), str(here), *sys.path])
        self.err = root.with_name(f"{name}.err")
        with self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(root), what, "3.0"],
                env=os.environ | {"PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        self.pid = self.process.pid

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self, lines: int = 1) -> None:
        """Let it go on from where it reads a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n" * lines)
        self.process.stdin.flush()

    def says(self, words: str, seconds: float) -> str:
        """The first line on stderr that holds these words, which has to come in time.

        Time is counted in short sleeps: a machine with too much to do is slow for both.
        """
        for _ in range(round(seconds / 0.05)):
            for text in self.err.read_text().splitlines():
                if words in text:
                    return text
            time.sleep(0.05)
        raise AssertionError(f"nothing about {words!r} within {seconds} s: {self.err.read_text()}")


def test_a_stopped_process_is_told_overtaken_and_refused_when_it_wakes(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Worker(root, "hold", "first") as stopped, Worker(root, "idle", "second") as second:
        assert stopped.line() == "has 0" and second.line() == "ready"
        os.kill(stopped.pid, signal.SIGSTOP)
        second.go()
        assert second.line() == "has 1"
        told = second.says("Waiting for", 2.0)
        assert f"process {stopped.pid} on {os.uname().nodename}, since 20" in told
        assert "shards 0 of store entry" in told
        assert f"kill -CONT {stopped.pid}" in told and "overtaken in" in told
        assert second.line() == "has 0" and second.line() == "whole"
        assert "taken over from process" in second.says("taken over", 1)
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.go(3)
        assert stopped.line() == "whole" and stopped.process.wait(60) == 0
    store = Store(root)
    assert store.verify().ok and store.entries()[0].complete
    assert same(store.open(store.entries()[0].id).read(0), tensors(0))


@pytest.mark.slow
def test_a_lock_that_a_stopped_process_holds_is_told_and_broken(tmp_path: Path) -> None:
    root = tmp_path / "store"
    Store(root).entry(KEY, shards=2)
    with Worker(root, "lock", "first") as stopped, Worker(root, "idle", "second") as second:
        # Only now has the one the lock, and the other, which would have been done before, none.
        assert stopped.line() == "ready" and second.line() == "ready"
        os.kill(stopped.pid, signal.SIGSTOP)
        second.go()
        told = second.says("Waiting for the lock of the store", 2.0)
        assert f"process {stopped.pid} on" in told
        assert [second.line() for _ in range(3)] == ["has 0", "has 1", "whole"]
        assert second.process.wait(60) == 0
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.go()
        assert stopped.process.wait(60) == 0
    assert Store(root).entries()[0].complete and not (root / ".lock.holder").exists()


def test_a_lock_that_is_released_while_one_waits_is_taken_at_once(tmp_path: Path) -> None:
    lock = files.Lock(tmp_path / ".lock", "it", 60.0)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with files.Lock(tmp_path / ".lock", "it", 60.0):
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    timer = threading.Timer(0.3, go.set)
    timer.start()
    begin = time.monotonic()
    with lock, lock:
        assert time.monotonic() - begin < 5
        assert not lock.lost()
    thread.join()
    assert not (tmp_path / ".lock.holder").exists()


@pytest.mark.parametrize("at", ["on the way in", "on the way out"])
def test_a_lock_is_given_back_where_its_holder_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A kernel lives on after Ctrl-C, and what was interrupted stays alive in its traceback."""

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    lock = files.Lock(tmp_path / ".lock", "it", 60.0)
    with monkeypatch.context() as patch:
        if at == "on the way in":
            patch.setattr(leases.Lease, "sign", interrupted)
        else:
            patch.setattr("xlens.files.lock.remove", interrupted)
        with pytest.raises(KeyboardInterrupt), lock:
            assert at == "on the way out", "nobody is inside a lock that was not taken"
    with files.Lock(tmp_path / ".lock", "it", 0.0):
        pass  # who does not wait has it at once
    with lock, lock:
        pass
    assert not (tmp_path / ".lock.holder").exists(), "it no longer knows when it is left"


# --- lines and pruning ---


def test_who_waits_says_for_whom_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    held = leases.Holding(owners.me(), "host-a", "2026-01-01T00:00:00+00:00", "t", 1, "unseen")
    waiting = files.Waiting()
    with caplog.at_level(logging.WARNING):
        waiting.tell("it", held)
        assert caplog.text == "", "a wait of an instant needs no line"
        waiting._since -= 1
        for state in ("unseen", "unseen", "stopped", "running", "running"):
            waiting.tell("it", leases.replace(held, state=state))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all("Waiting for it: process" in line and "host-a, since 2026" in line for line in lines)
    assert "no sign of life for 30 s" in lines[0] and "overtaken" in lines[0]
    assert "is overtaken in 30 s" in lines[1] and "taken at once" in lines[2]


@pytest.mark.parametrize("moves", [True, False])
def test_prune_finds_out_whether_an_unseen_process_lives(tmp_path: Path, moves: bool) -> None:
    store = Store(tmp_path)
    entry = fill(store.entry({"other": 1}, shards=1))
    entry.drop([0])
    with as_process(0, **FOREIGN):
        assert entry.claim(0)
        lease = entry._claims.leases[0]
    assert store.entries()[0].in_use
    assert not store.prune(incomplete=True, dry_run=True).removed
    with mock.patch.object(leases, "OVERTAKEN_SECONDS", 1.0), still(lease):
        if moves:
            text = (entry.path / CLAIM).read_text()
            timer = threading.Timer(
                0.4, lambda: (entry.path / CLAIM).write_text(f"{99:020}{text[20:]}")
            )
            timer.start()
        done = store.prune(incomplete=True)
    assert bool(done.in_use) == moves and bool(done.removed) == (not moves)
