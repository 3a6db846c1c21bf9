"""Saved results on disks that change them, under kills, beside other writers, without room."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import damage
from pandas import DataFrame
from writers import FOLDERS, WRITERS, Writer

from xlens import files
from xlens.files import DamagedError, is_draft
from xlens.runs import RunDirectory
from xlens.studies.running.kept import LeftOut, MadeFrom
from xlens.studies.study import Step

# Forked: a child starts in milliseconds, with everything imported.
fork = multiprocessing.get_context("fork")


def few_or_many(few: int, many: int) -> Any:
    return pytest.mark.parametrize("times", [few, pytest.param(many, marks=pytest.mark.slow)])


# --- corruption ---


@few_or_many(25, 300)
@pytest.mark.parametrize("kind", WRITERS)
def test_no_corruption_passes(kind, times, tmp_path, caplog):
    """None is silently wrong; nearly all errors name the file and how to make it anew."""
    writer, dice = WRITERS[kind], random.Random(kind)
    whole, folder = tmp_path / "whole", tmp_path / "a"
    writer.save(1, whole)
    tried = named = right = 0
    while tried < times:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        what = damage(sorted(p for p in folder.rglob("*") if p.is_file()), dice)
        if what is None:
            continue
        tried += 1
        caplog.clear()
        path, _ = what
        try:
            found = writer.read(folder)
        except ValueError as error:
            missing = path.name in ("result.json", "activations.json", "subspace.json")
            place = path.parent if missing else path
            named += str(place) in str(error) and any(
                fix in str(error) for fix in ("new", "again", "save(", "own class")
            )
        else:
            # A blank in a header, say, changes nothing.
            told = "is missing" in caplog.text and str(path) in caplog.text
            assert writer.right(found, 1) or told, what
            right += 1
    assert named >= 0.95 * (tried - right)
    assert right <= 0.2 * tried


@pytest.mark.parametrize("kind", FOLDERS)
def test_verification_can_be_skipped(kind, tmp_path):
    writer = WRITERS[kind]
    writer.save(1, tmp_path / "a")
    (path,) = (tmp_path / "a").glob("*.json")
    text = path.read_text()
    path.write_text(text.replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(DamagedError, match=r"is damaged.*verify=False"):
        writer.read(tmp_path / "a")
    found: Any = writer.read
    assert writer.right(found(tmp_path / "a", verify=False), 1)


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_has_no_digests_is_read_with_one_warning(kind, tmp_path, caplog):
    writer = WRITERS[kind]
    writer.save(1, tmp_path / "a")
    assert caplog.text == ""
    (path,) = (tmp_path / "a").glob("*.json")
    header = json.loads(path.read_text())
    del header["files"], header["sha256"]
    path.write_text(json.dumps(header))
    assert writer.right(writer.read(tmp_path / "a"), 1)
    (record,) = caplog.records
    assert str(path) in record.getMessage() and "without digests" in record.getMessage()


def test_what_others_wrote_is_not_deleted(tmp_path):
    for kind in FOLDERS:
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "thesis.parquet").write_text("mine")
        with pytest.raises(ValueError, match=r"other files \(thesis\.parquet\)"):
            WRITERS[kind].save(1, folder)
        assert (folder / "thesis.parquet").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        WRITERS["result"].save(1, tmp_path / "file")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for n in (1, 2):
        WRITERS["result"].save(n, tmp_path / "link")
        assert WRITERS["result"].right(WRITERS["result"].read(tmp_path / "there"), n)
    assert (tmp_path / "link").is_symlink()


def test_a_damaged_run_can_be_made_anew(tmp_path):
    from xlens.runs import RunDirectory

    for name in ("config.yaml", "provenance.json"):
        WRITERS["run"].save(1, tmp_path / "run")
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace("tiny", "huge").replace('"now"', '"then"'))
        with pytest.raises(DamagedError, match=rf"{name}.*--overwrite"):
            RunDirectory.create(tmp_path / "run", {"lens": {}}, {})
        WRITERS["run"].save(2, tmp_path / "run")
        assert WRITERS["run"].right(WRITERS["run"].read(tmp_path / "run"), 2)


# --- kills ---


def save_on(writer: Writer, folder: Path, ready: Any) -> None:
    for n in range(1, 10_000):
        writer.save(n % 2 + 1, folder)
        ready.set()


@few_or_many(5, 40)
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_kill_leaves_the_old_or_the_new(kind, times, tmp_path):
    writer, dice, folder = WRITERS[kind], random.Random(kind), tmp_path / "a"
    for _ in range(times):
        ready = fork.Event()
        child = fork.Process(target=save_on, args=(writer, folder, ready))
        child.start()
        assert ready.wait(60)
        time.sleep(dice.random() * 0.02)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        found = writer.read(folder)
        assert writer.right(found, 1) or writer.right(found, 2)
    writer.save(3, folder)
    assert writer.right(writer.read(folder), 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]  # what the killed left is cleared


# --- several at once ---


def save_some(writer: Writer, folder: Path, n: int, times: int, failed: Any) -> None:
    try:
        for _ in range(times):
            writer.save(n, folder)
    except BaseException as error:
        failed.put(repr(error))
        raise


@few_or_many(4, 25)
@pytest.mark.parametrize("kind", FOLDERS)
def test_several_save_one_result(kind, times, tmp_path):
    """All end well, and whoever reads meanwhile gets the one or the other, whole."""
    writer, folder = WRITERS[kind], tmp_path / "a"
    failed = fork.SimpleQueue()
    children = [
        fork.Process(target=save_some, args=(writer, folder, n, times, failed))
        for n in (1, 2, 1, 2)
    ]
    for child in children:
        child.start()
    reads = 0
    while any(child.is_alive() for child in children):
        if folder.exists():
            found = writer.read(folder)
            assert writer.right(found, 1) or writer.right(found, 2)
            reads += 1
    for child in children:
        child.join()
    assert failed.empty() or failed.get() == ""
    assert [child.exitcode for child in children] == [0] * 4 and reads
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# --- disks that fail ---

FAULTS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EDQUOT)
CALLS = ("write", "fsync", "replace", "mkdir", "open")


class Failing:
    """Calls of `os` that change the disk, of which one fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int):
        self.n, self.at, self.number = 0, at, number
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name: str, call: Any) -> Any:
        def counted(*args: Any, **how: Any) -> Any:
            if name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR):
                self.n += 1
                if self.n == self.at:
                    raise OSError(self.number, os.strerror(self.number))
            return call(*args, **how)

        return counted


@pytest.mark.parametrize(
    "number", [FAULTS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in FAULTS[1:])]
)
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow if k == "run" else ()) for k in WRITERS]
)
def test_every_call_may_fail(kind, number, tmp_path):
    """A clear error, the old one as it was, nothing left, and the next save is right."""
    writer, folder = WRITERS[kind], tmp_path / "a"
    writer.save(1, folder)
    at = 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, number)
            try:
                writer.save(2, folder)
                if failing.n < at:
                    break
            except (OSError, ValueError) as error:
                assert str(folder) in str(error), error
                assert os.strerror(number) in str(error)
        if kind in FOLDERS:
            found = writer.read(folder)
            assert writer.right(found, 1) or writer.right(found, 2)
            assert not [p for p in tmp_path.rglob("*") if is_draft(p)]
        writer.save(1, folder)
        assert writer.right(writer.read(folder), 1)
    assert at > 5


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: [*a, *a]\n",
        "lens: [\n",
        "lens: " + "[" * 9_000 + "\n",
        "lens: !!python/object/apply:os.system ['true']\n",
    ],
    ids=["names", "broken", "deep", "code"],
)
def test_a_run_whose_config_means_harm_is_refused_by_name(text: str, tmp_path: Path) -> None:
    """A digest finds accidents; who makes a folder makes the digest, too."""
    run = RunDirectory.create(tmp_path / "run", {"lens": {"n_items": 3}}, {})
    run.config_file.write_text(files.sealed_text(text))
    with pytest.raises(files.DamagedError, match=r"config\.yaml.*no YAML of ours.*new"):
        _ = RunDirectory.open(run.path).config


def test_what_a_kill_left_of_a_step_stays(tmp_path: Path) -> None:
    def made(_: Any) -> dict[str, LeftOut]:
        return {n: LeftOut(provenance={}, table=DataFrame({"n": [n]})) for n in ("a", "b")}

    step, known = Step({"a": LeftOut, "b": LeftOut}, made), MadeFrom({"of": 1}, (), tmp_path / "m")
    known.take(step, {})
    before = (tmp_path / "m" / "a" / "result.json").stat().st_ino
    shutil.rmtree(tmp_path / "m" / "b")
    assert [*known.take(step, {})] == ["a", "b"]
    assert (tmp_path / "m" / "a" / "result.json").stat().st_ino == before
    assert LeftOut.load(tmp_path / "m" / "b").table["n"].tolist() == ["b"]
    shutil.rmtree(tmp_path / "m" / "b")
    with pytest.raises(ValueError, match="of changed since"):
        replace(known, known={"of": 2}).take(step, {})
