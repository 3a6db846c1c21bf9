"""A power cut: only what was synced is there afterwards, and what was saved is.

A disk is watched at every call that changes it. Two disks are told from what was synced: one that
forgets every name and byte that was not, and one that keeps names in their order, as most do, but
of files that were not synced only the name.
"""

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from commands import Ground
from disk_errors import Place, answers, conversion, saved, stored
from row import Row
from writers import FOLDERS, WRITERS

from xlens.files import disk, owners

_WATCHED = ("fsync", "replace", "mkdir", "unlink", "rmdir", "open")


class Disk:
    """What a folder's disk holds for good.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path):
        self.root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[bool, int]]] = {}
        self._open: dict[int, int] = {}  # kept open: no number of a file is given out again
        for folder, _, names in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                self.sync(path)

    def sync(self, path: str) -> None:
        """Note what a synced file or folder holds now."""
        found = os.stat(path)
        if found.st_ino not in self._open:
            self._open[found.st_ino] = os.open(path, os.O_RDONLY)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = {
                item.name: (item.is_dir(), item.inode()) for item in os.scandir(path)
            }
        else:
            self._bytes[found.st_ino] = Path(path).read_bytes()

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def forgetful(self, into: Path) -> Path:
        """The folder as synced names and bytes make it."""

        def fill(number: int, folder: Path) -> None:
            folder.mkdir(parents=True)
            for name, (is_folder, inside) in self._names.get(number, {}).items():
                if is_folder:
                    fill(inside, folder / name)
                else:
                    (folder / name).write_bytes(self._bytes.get(inside, b""))

        shutil.rmtree(into, ignore_errors=True)
        fill(os.stat(self.root).st_ino, into)
        return into

    def in_order(self, into: Path) -> Path:
        """The folder with the names of this moment; bytes only of what was synced."""
        shutil.rmtree(into, ignore_errors=True)
        for folder, _, names in os.walk(self.root):
            here = into / os.path.relpath(folder, self.root)
            here.mkdir(parents=True, exist_ok=True)
            for name in names:
                number = os.stat(os.path.join(folder, name)).st_ino
                (here / name).write_bytes(self._bytes.get(number, b""))
        return into


@contextmanager
def watched(there: Disk, before: Callable[[], None]) -> Iterator[None]:
    """Inside, what is synced is noted, and `before` is called before every change."""
    real = {name: getattr(os, name) for name in _WATCHED}
    busy = [False]

    def wrapped(name: str) -> Callable[..., object]:
        def call(*args: object, **how: object) -> object:
            if busy[0] or (name == "open" and not int(str(args[1])) & os.O_CREAT):
                return real[name](*args, **how)
            busy[0] = True
            try:
                before()
                if name == "fsync":
                    there.sync(os.readlink(f"/proc/self/fd/{args[0]}"))
                    return None
                return real[name](*args, **how)
            finally:
                busy[0] = False

        return call

    with mock.patch.multiple(os, **{name: wrapped(name) for name in _WATCHED}):
        yield


def as_dead() -> object:
    """Inside, this process is one that no longer runs, as after the cut."""
    here = owners.me()
    gone = owners.Owner(10**7, 1, here.host, here.boot)
    return mock.patch.object(owners, "_owner", lambda _: gone)


def as_alive(look: Callable[..., None]) -> Callable[..., None]:
    """Who reads after the cut is another process than who wrote."""
    return mock.patch.object(owners, "_owner", owners._owner)(look)


def cut(place: Place, folder: Path, whole: Callable[[Path], bool], every: int) -> Row:
    """Written to a new folder, then over what is there; cut off at every change and at the end.

    Args:
        place: What is written.
        folder: For files of the test.
        whole: Whether what a cut left is one of those that it may leave.
        every: Every how many changes the disks are looked at.
    """
    row, dice = Row(f"power cuts, {place.what}"), random.Random(place.what)
    for exchange in (True, False):
        root = folder / "power" / "disk"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        there, saved_once = Disk(root), [False]
        target = root / "new" / "folders" / "there"

        @as_alive
        def look(told: str, there: Disk = there, saved_once: list[bool] = saved_once) -> None:
            for disk_of in (there.forgetful, there.in_order):
                row.tried += 1
                found = disk_of(folder / "power" / "after") / "new" / "folders" / "there"
                try:
                    if told == "at the end":
                        fine = place.right(found)
                    else:
                        fine = whole(found) if saved_once[0] or found.exists() else True
                except Exception as error:
                    fine, told = False, f"{told}: {type(error).__name__}: {error}"
                if not fine:
                    row.faults.append(f"{disk_of.__name__}, {told}")

        def now_and_then(look: Callable[[str], None] = look) -> None:
            if dice.randrange(every) == 0:
                look("meanwhile")

        patched = [] if exchange else [mock.patch.object(disk, "_exchanger", lambda: None)]
        for patch in patched:
            patch.start()
        try:
            for _ in range(2):
                with as_dead(), watched(there, now_and_then):  # type: ignore[attr-defined]
                    place.write(target)
                look("at the end")
                saved_once[0] = True
        finally:
            for patch in patched:
                patch.stop()
            there.close()
    shutil.rmtree(folder / "power")
    return row


def rows(ground: Ground, folder: Path, times: int, only: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of the table, as they come."""
    for kind in WRITERS:
        if only and kind not in only:
            continue
        writer, place = WRITERS[kind], saved(kind)
        if kind in FOLDERS:
            yield cut(place, folder, lambda f, w=writer: w.right(w.read(f), 2), max(1, 20 // times))
        else:  # a run that is begun anew is none until it is whole; saved is saved all the same
            yield cut(place, folder, lambda _: True, 1000)
    for place in (answers(), stored()):
        if not only or place.what in only:
            yield cut(place, folder, lambda _: True, 1000)
    if not only or "conversion" in only:
        yield cut(conversion(ground), folder, lambda _: True, 1000)
