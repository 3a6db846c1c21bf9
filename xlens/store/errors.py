"""What can go wrong with a folder of files, said so that the reader knows what to do."""

import errno
import shlex
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from xlens import files
from xlens.errors import StoreError

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_RIGHT = {errno.EROFS, errno.EACCES, errno.EPERM}
_RESUME = "What was written before is safe, and the next run goes on from there."


class DamagedShardError(StoreError):
    """A shard is missing, truncated or changed since it was written."""


def command(root: Path, words: str) -> str:
    """`xlens store WORDS` as it has to be typed to act on this store."""
    default = files.cache_root().absolute() / "store"
    place = "" if root == default else f" --root {shlex.quote(str(root))}"
    return f"`xlens store {words}{place}`"


@contextmanager
def explained(doing: str, root: Path) -> Generator[None]:
    """Turn an `OSError` inside into a `StoreError` that names the folder and the fix."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        told = StoreError(_explain(error, doing, root))
        told.errno = error.errno
        raise told from error


def _explain(error: OSError, doing: str, root: Path) -> str:
    if isinstance(error, Timeout):
        return (
            f"Another process has kept the store {str(root)!r} locked ({error.lock_file}), so "
            f"{doing} was given up. See whether that process hangs, then run again. {_RESUME}"
        )
    if error.errno in _NO_ROOM:
        return (
            f"No room for {doing} in the store {str(root)!r}{_free(root)}. {_RESUME} Make room, "
            f"for instance with {command(root, 'prune --older-than 30d')}, or set XLENS_CACHE "
            f"to a folder on a larger disk. ({error.strerror})"
        )
    if error.errno in _NO_RIGHT:
        return (
            f"{doing.capitalize()} failed: the store {str(root)!r} cannot be written to "
            f"({error.strerror}: {error.filename}). Set XLENS_CACHE to a folder of your own, pass "
            f"another store, or have the rights of this one changed. {_RESUME}"
        )
    if error.errno == errno.ENOENT:
        return (
            f"{doing.capitalize()} failed: {error.filename} is gone from the store {str(root)!r}, "
            "perhaps pruned by another process. Run again: what is missing is computed again."
        )
    return f"{doing.capitalize()} failed in the store {str(root)!r}: {error}. {_RESUME}"


def _free(root: Path) -> str:
    try:
        return f" ({shutil.disk_usage(root).free / 1e6:,.0f} MB free)"
    except OSError:
        return ""


def listed(numbers: Sequence[int]) -> str:
    """Numbers of shards in words, the first eight of many."""
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown
