"""The room of files: whole or not at all, wherever a kill falls or the disk refuses."""

import errno
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from test_store_crash import intercepted

from xlens import files
from xlens.files import disk, owners


class Killed(BaseException):
    """From here on, nothing reaches the disk."""


def dying(point: int) -> Any:
    """A hook: the process is gone from the n-th change of the disk on."""
    steps = count()

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if next(steps) >= point:
            raise Killed

    return hook


@pytest.fixture(params=["exchange", "two steps"])
def exchanging(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With and without a system call that lets two names change places."""
    if request.param == "exchange":
        yield True
    else:
        with mock.patch.object(disk, "_exchanger", lambda: None):
            yield False


def as_dead() -> Any:
    """Inside, this process is one that no longer runs."""
    here = owners.me()
    gone = owners.Owner(10**7, 1, here.host, here.boot)
    return mock.patch.object(owners, "_owner", lambda _: gone)


def fill(folder: Path, what: str) -> None:
    files.write(folder / "a.txt", what)
    (folder / "sub").mkdir()
    files.write(folder / "sub" / "b.txt", what)


def held(folder: Path) -> set[str]:
    return {p.read_text(encoding="utf-8") for p in folder.rglob("*.txt")}


@pytest.mark.usefixtures("exchanging")
def test_a_folder_is_the_old_one_or_the_new_one_wherever_a_kill_falls(tmp_path: Path) -> None:
    for point in count():
        folder = tmp_path / str(point) / "result [1]"
        folder.mkdir(parents=True)
        fill(folder, "old")
        try:
            # What a killed process would not do: undo and clean up.
            with (
                as_dead(),
                mock.patch.object(shutil, "rmtree"),
                intercepted(dying(point), sync=True),
                files.replacing(folder) as draft,
            ):
                fill(draft, "new")
        except Killed:
            done = False
        else:
            done = True
        files.settle(folder)
        assert held(folder) in ({"old"}, {"new"}), point
        assert os.listdir(folder.parent) == [folder.name], point
        if done:
            break
    assert point > 15 and held(folder) == {"new"}


@pytest.mark.usefixtures("exchanging")
def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    with files.replacing(folder) as draft:
        fill(draft, "old")
    with pytest.raises(OSError, match="no room"), files.replacing(folder) as draft:
        fill(draft, "new")
        raise OSError("no room")
    assert held(folder) == {"old"} and os.listdir(tmp_path) == ["result"]


def test_everything_in_a_new_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    synced: list[str] = []

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == "fsync":
            synced.append(Path(os.readlink(f"/proc/self/fd/{args[0]}")).name)
        elif name == "replace" and Path(args[1]).name == "result":
            synced.append("named")

    with intercepted(hook, sync=True), files.replacing(tmp_path / "result") as draft:
        (draft / "plain.bin").write_bytes(b"1")  # as a library would write it
        (draft / "sub").mkdir()
        (draft / "sub" / "deep.bin").write_bytes(b"2")
    before, after = synced[: synced.index("named")], synced[synced.index("named") + 1 :]
    assert {"plain.bin", "deep.bin", "sub", draft.name} <= set(before)
    assert after == [tmp_path.name]


@pytest.mark.parametrize("on", ["open", "write", "fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, on: str) -> None:
    path = tmp_path / "a.json"
    files.write(path, "old")

    def refuse(name: str, args: tuple[Any, ...]) -> None:
        if name == on:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    with intercepted(refuse), pytest.raises(OSError, match="No space left"):
        files.write(path, b"new")
    assert path.read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["a.json"]
    files.write(path, b"new")
    assert path.read_bytes() == b"new"


def test_drafts_have_names_of_their_own_and_are_swept_when_their_writer_is_dead(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    assert len({files.unique(path) for _ in range(50)}) == 50
    mine = files.draft(path, [b"x"])
    with as_dead():
        dead = files.draft(path, [b"x"])
    files.sweep(tmp_path)
    assert mine.exists() and not dead.exists()
    assert files.is_draft(mine) and not files.is_draft(path)
    foreign = [tmp_path / name for name in ("foo.tmp", ".tmp", "old")]
    for other in foreign:
        other.write_bytes(b"")
    files.sweep(tmp_path)
    assert all(other.exists() for other in foreign)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    files.write(tmp_path / "a", "abc")
    assert files.digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.mark.parametrize("said", ["Io error: No space left on device (os error 28)", "Other"])
def test_a_library_that_meets_a_full_disk_is_told_with_the_place(tmp_path: Path, said: str) -> None:
    kind = RuntimeError if said == "Other" else OSError
    with pytest.raises(kind) as caught, files.told(tmp_path / "a", "a model"):
        raise RuntimeError(said)
    named = f"A model cannot be saved to {str(tmp_path / 'a')!r}: {said}. What was there"
    assert str(caught.value).startswith("Other" if said == "Other" else named)
