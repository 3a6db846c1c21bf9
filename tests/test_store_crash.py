"""The store under kill -9 and with several writers: real processes, forked by a small driver.

The driver is this file run as a script: it imports once and forks for every trial, so that the
suite can kill at every single change of the disk.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import torch

from xlens.store import Store

KEY = {"model": "0f" * 16, "layers": [0, 1], "slots": ["last"], "dtype": "float16"}
CHANGES = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir", "utime")
Hook = Callable[[str, tuple[Any, ...]], None]


@contextmanager
def intercepted(hook: Hook, *, sync: bool = False) -> Iterator[None]:
    """Call `hook(name, args)` before every change of the disk; without `sync`, fsync does nothing.

    A power cut needs fsync, a killed process doesn't.
    """

    def before(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name != "open" or args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                hook(name, args)
            return None if name == "fsync" and not sync else real(*args, **kwargs)

        return call

    with mock.patch.multiple(os, **{name: before(name) for name in CHANGES}):
        yield


def tensors(shard: int) -> dict[str, torch.Tensor]:
    values = torch.arange(24.0).view(2, 12) + 100 * shard
    return {"last/0": values.half(), "last/1": -values.half(), "last/offsets": torch.arange(3)}


def rows(shard: int) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"{shard}/a", f"{shard}/b"], "tokens": [[1, 2], [shard]]})


def files(folder: Path) -> dict[str, bytes]:
    """What must not depend on what happened: everything but the journal."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "journal.jsonl"}


# --- the driver: forked processes ---


def fork(work: Callable[[], None]) -> int:
    """Start a process; its number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    """0, an exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(work: Callable[[], None]) -> int:
    return wait(fork(work))


def note(log: Path, what: object) -> None:
    """Add a line to a log, past any interception."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def notes(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").split() if log.exists() else []


def fill(
    root: Path, log: Path | None = None, *, shards: int = 2, seconds: float = 0, claims: bool = True
) -> None:
    """Compute an entry, or what is missing of it, as the engine would."""
    entry = Store(root).entry(KEY, shards=shards)
    for shard in entry.todo(poll=0.01) if claims else range(shards):
        time.sleep(seconds)
        entry.write(shard, tensors(shard), rows(shard))
        if log is not None:
            note(log, shard)
    entry.finish()


def mend(root: Path, log: Path | None = None) -> None:
    Store(root).verify(repair=True)
    fill(root, log)


def the_entry(root: Path) -> Path:
    return next(p for p in root.iterdir() if len(p.name) == 32)


def kill_at(point: int, half: bool) -> Hook:
    """A hook that kills this process before the n-th change, or in the middle of the n-th write."""
    steps = count()
    real_write = os.write

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if (name == "write" or not half) and next(steps) == point:
            if half:
                real_write(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def kill_everywhere(folder: Path, start: Path | None, work: Callable[..., None]) -> dict[str, Any]:
    """Kill `work` at every change of the disk, let it run again, and compare with `fill`."""
    assert run(lambda: fill(folder / "whole")) == 0
    expected = files(the_entry(folder / "whole"))
    faults: list[str] = []
    trials: list[Path] = []
    for half in (False, True):
        for point in count():
            trial = make(folder / f"{'half' if half else 'before'}-{point}")
            if start is not None:
                shutil.copytree(start, trial / "root")

            def killed(trial: Path = trial, point: int = point, half: bool = half) -> None:
                with intercepted(kill_at(point, half)):
                    work(trial / "root", trial / "log")

            if (code := run(killed)) == 0:  # past the last change
                break
            trials.append(trial)
            if code != -signal.SIGKILL:
                faults.append(f"{trial.name}: ended with {code}")

    def resume() -> None:
        with intercepted(lambda *_: None):
            for trial in trials:
                work(trial / "root", trial / "again")

    if (code := run(resume)) != 0:
        faults.append(f"resume: ended with {code}")
    for trial in trials:
        if files(the_entry(trial / "root")) != expected:
            faults.append(f"{trial.name}: other files")
        if lost := {*notes(trial / "log")} & {*notes(trial / "again")}:
            faults.append(f"{trial.name}: shards {lost} were written and lost")
    return {"trials": len(trials), "faults": faults}


def drive(folder: Path) -> dict[str, Any]:
    """Every scenario; what came of it."""
    mend(folder / "warm")  # what is imported and looked up once, before the forks
    out: dict[str, Any] = {"resume": kill_everywhere(make(folder / "resume"), None, fill)}

    broken = folder / "broken"
    run(lambda: fill(broken))
    shard = the_entry(broken) / "shard-00001.safetensors"
    shard.write_bytes(flipped(shard.read_bytes(), -1))
    out["mend"] = kill_everywhere(make(folder / "mend"), broken, mend)

    def together(name: str, *work: Callable[[Path, Path], None]) -> None:
        """Two processes on one store, against one process alone."""
        alone, root = folder / f"{name}-alone", folder / name
        run(lambda: fill(alone, shards=12))
        logs = [folder / f"{name}-{i}.log" for i in range(len(work))]
        pids = [fork(lambda w=w, log=log: w(root, log)) for w, log in zip(work, logs, strict=True)]
        out[name] = {
            "codes": [wait(pid) for pid in pids],
            "shards": [sorted(map(int, notes(log))) for log in logs],
            "same": files(the_entry(root)) == files(the_entry(alone)),
        }

    def share(root: Path, log: Path) -> None:
        fill(root, log, shards=12, seconds=0.05)

    def race(root: Path, log: Path) -> None:
        fill(root, log, shards=12, claims=False)

    def die(root: Path, log: Path) -> None:
        entry = Store(root).entry(KEY, shards=12)
        for shard in entry.todo():
            note(log, shard)
            with intercepted(last if shard > 2 else lambda *_: None):
                entry.write(shard, tensors(shard), rows(shard))

    def last(name: str, args: tuple[Any, ...]) -> None:
        if name == "replace":  # with a claim and two drafts on the disk
            os.kill(os.getpid(), signal.SIGKILL)

    together("share", share, share)
    together("race", race, race)
    together("takeover", die, share)
    return out


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def flipped(content: bytes, at: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


# --- the tests ---

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("crash")
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, str(here), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent.parent), *sys.path])},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", ["resume", "mend"])
def test_a_kill_at_any_write_loses_nothing_and_resumes_to_the_same_bytes(
    outcome: dict[str, Any], scenario: str
) -> None:
    assert outcome[scenario]["faults"] == []
    assert outcome[scenario]["trials"] > 60


def test_two_processes_share_the_work(outcome: dict[str, Any]) -> None:
    first, second = outcome["share"]["shards"]
    assert outcome["share"]["codes"] == [0, 0] and outcome["share"]["same"]
    assert sorted(first + second) == list(range(12))
    assert first and second


def test_two_processes_that_write_the_same_shards_leave_a_whole_entry(
    outcome: dict[str, Any],
) -> None:
    assert outcome["race"]["codes"] == [0, 0] and outcome["race"]["same"]


def test_the_claims_of_a_killed_process_are_taken_over(outcome: dict[str, Any]) -> None:
    died, lived = outcome["takeover"]["shards"]
    assert outcome["takeover"]["codes"] == [-signal.SIGKILL, 0] and outcome["takeover"]["same"]
    assert died[-1] in lived  # computed by one, written by the other
    assert sorted({*died, *lived}) == list(range(12))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(drive(Path(sys.argv[1]))))
