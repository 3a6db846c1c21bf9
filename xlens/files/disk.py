"""Writing such that a kill or a power cut at any instant leaves the old file or the new one.

Every change of the disk goes through a function of `os`, one at a time: the crash tests kill the
process before each of them.
"""

import ctypes
import errno
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from hashlib import file_digest
from pathlib import Path

from xlens.files.owners import abandoned, me

_BINARY = getattr(os, "O_BINARY", 0)  # Windows
_PREFIX = ".xlens-"
_DRAFT, _OLD = ".tmp", ".old"
_count = itertools.count()


def cache_root() -> Path:
    """Where xlens keeps what it made: `$XLENS_CACHE`, or `xlens` in the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("XLENS_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("xlens")


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


# --- files ---


def write(path: Path, content: str | bytes | memoryview) -> None:
    """Give `path` this content, for good when this returns; a string in UTF-8, as it stands."""
    chunk = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    publish({path: draft(path, [chunk])})


def draft(path: Path, chunks: Iterable[bytes | memoryview]) -> Path:
    """Write chunks beside `path`, down to the disk; `publish` gives them their name."""
    temporary = unique(path)
    with _named(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk)
            os.fsync(descriptor)
        except BaseException:
            os.close(descriptor)
            remove(temporary)
            raise
    os.close(descriptor)
    return temporary


def publish(drafts: Mapping[Path, Path]) -> None:
    """Rename drafts to their final names (`{final: draft}`), for good.

    Should one fail, none of the drafts is left.
    """
    try:
        for final, temporary in drafts.items():
            with _named(final):
                os.replace(temporary, final)
    except BaseException:
        for temporary in drafts.values():
            remove(temporary)
        raise
    # A rename is for good only when the folder's list of
    # names is on the disk; once for each folder.
    for folder in {final.parent for final in drafts}:
        sync(folder)


def append(path: Path, line: str) -> None:
    """Add a line to a file, down to the disk. A line cut off by a crash is ended first."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY
    with _named(path):
        descriptor = os.open(path, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = False
            if size:
                os.lseek(descriptor, -1, os.SEEK_END)
                # O_APPEND writes at the end wherever this has sought to.
                torn = os.read(descriptor, 1) != b"\n"
            _write_all(descriptor, ("\n" * torn + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    # A new file: its name must reach the disk too.
    if not size:
        sync(path.parent)


# --- folders ---


@contextmanager
def replacing(folder: Path) -> Generator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end, whole.

    Whatever was in `folder` goes with it. If the block raises, `folder` stays as it was.

        with files.replacing(folder) as draft:
            table.to_parquet(draft / "table.parquet")
    """
    make(folder.parent)
    settle(folder)
    temporary = unique(folder)
    os.mkdir(temporary)
    old = temporary
    try:
        yield temporary
        _sync_tree(temporary)
        if _moved(temporary, folder):
            pass
        elif not _exchange(temporary, folder):
            # Two steps: `settle` undoes the first if a kill prevents the second.
            old = temporary.with_suffix(_OLD)
            os.replace(folder, old)
            try:
                os.replace(temporary, folder)
            except BaseException:
                os.replace(old, folder)
                raise
        sync(folder.parent)
    finally:
        remove(temporary)
        if os.path.lexists(folder):  # else the old one is the only one: `settle` puts it back
            remove(old)


def _moved(temporary: Path, folder: Path) -> bool:
    """Give a draft its name if that is free; it may be taken by another process meanwhile."""
    if os.path.lexists(folder):
        return False
    try:
        os.replace(temporary, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def settle(folder: Path) -> None:
    """Put back a folder that a kill has left aside while it was replaced; clear what is left."""
    for left in folder.parent.glob(f"{_PREFIX}{escape(folder.name)}.*"):
        # `unique` puts owner, number and ending after the name.
        if left.name.rsplit(".", 3)[0] != f"{_PREFIX}{folder.name}":
            continue  # of "a.b", where `folder` is "a"
        if left.suffix in (_OLD, _DRAFT) and abandoned(left):
            if left.suffix == _OLD and not os.path.lexists(folder):
                with suppress(OSError):
                    os.replace(left, folder)
            else:
                remove(left)


def make(folder: Path) -> None:
    """Make a folder, and those above it that are not there, for good.

    What is saved in a folder whose own name was never synced is gone after a power cut.
    """
    if folder.is_dir():
        return
    make(folder.parent)
    try:
        with _named(folder):
            os.mkdir(folder)
    except FileExistsError:  # by another process this moment; or it is a file
        if not folder.is_dir():
            raise
    sync(folder.parent)


# --- names, removal, syncing ---


def unique(path: Path) -> Path:
    """A name beside `path` that nobody else takes.

    It says who writes it, so that what a dead process left can be told.
    """
    return path.with_name(f"{_PREFIX}{path.name}.{me()}.{next(_count)}{_DRAFT}")


def is_draft(path: Path) -> bool:
    """Whether a name was made by `unique`: what it holds is not yet, or no longer, there."""
    return path.name.startswith(_PREFIX)


def remove(path: Path) -> None:
    """Delete a file or a folder if it is there and can be deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def sweep(folder: Path) -> None:
    """Delete the drafts that dead writers left in a folder."""
    for path in folder.glob(f"*{_DRAFT}"):
        if abandoned(path):
            remove(path)


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, down to the disk."""
    if os.name == "nt":
        return  # Windows can't for a folder, and doesn't need to
    with _named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _named(path: Path) -> Generator[None]:
    """Errors from inside name `path`: a write or a sync knows no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def _write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    rest = memoryview(chunk)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where system or file system can't."""
    call = _exchanger()
    if call is None:
        return False
    return call(os.fsencode(one), os.fsencode(other)) == 0


@cache
def _exchanger() -> Callable[[bytes, bytes], int] | None:
    """Linux: renameat2 with RENAME_EXCHANGE; macOS: renamex_np with RENAME_SWAP; both 2."""
    here = -100  # AT_FDCWD: names are as the process sees them
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if sys.platform == "linux":
            rename = library.renameat2
            return lambda one, other: rename(here, one, here, other, 2)
        if sys.platform == "darwin":
            swap = library.renamex_np
            return lambda one, other: swap(one, other, 2)
    return None
