"""Folders that carry the digests of their files in a JSON header, and files that carry their own.

The header names size and SHA-256 of every other file, and the SHA-256 of itself. They are checked
when it is read: what a disk, a copy or an editor changed is an error that says which file it is and
what to do.
"""

import json
import logging
import os
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

from xlens import strict
from xlens.errors import DataError, XlensError
from xlens.files.disk import digest, is_draft, replacing, settle, write

T = TypeVar("T")
_FILES, _OWN = "files", "sha256"
_READS = 50  # a folder that is replaced while it is read is read again
_log = logging.getLogger(__name__)


class DamagedError(DataError):
    """A kept file is not what was written; the message says which, and how to make it anew."""


def damaged(path: Path, wrong: str, again: str) -> DamagedError:
    """The error for people: `path` is `wrong`; `again` says what to do."""
    return DamagedError(f"{str(path)!r} is damaged: {wrong}. {again}")


# --- folders ---


@contextmanager
def saving(folder: Path, header: str, own: Collection[str], what: str) -> Generator[Path]:
    """A new folder to fill and to `seal`, which takes the place of `folder` at the end, whole.

    Args:
        folder: Where it goes.
        header: The name of its header.
        own: The names that its files may have.
        what: How to call it in an error: "a result".

    Raises:
        ValueError: `folder` is a file, or holds files of somebody else, which would be lost.
        OSError: it can't be written; what was there is as it was.
    """
    place = folder.resolve()  # a link stays a link
    with told(folder, what):
        _require_own(place, header, own)
        with replacing(place) as draft:
            yield draft


@contextmanager
def told(place: Path, what: str) -> Generator[None]:
    """Errors of the disk from inside say what isn't saved where, also those of libraries.

    Args:
        place: Where it goes: the block puts it there whole, or not at all.
        what: How to call it in an error: "a result".

    Raises:
        OSError: it can't be written.
    """
    try:
        yield
    except Exception as error:
        # How the writers of safetensors and Parquet say that the disk is full.
        if not isinstance(error, OSError) and "os error" not in str(error).casefold():
            raise
        failure = OSError(
            f"{what.capitalize()} cannot be saved to {str(place)!r}: {error}. What was there "
            "before is as it was. Make room, or give a folder that can be written to, and save "
            "again."
        )
        failure.errno = getattr(error, "errno", None)
        raise failure from error


def _require_own(folder: Path, header: str, own: Collection[str]) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is a file: give the name of a folder.")
    if folder == Path.cwd():
        raise DataError(f"{str(folder)!r} is the folder you are in: give a folder within it.")
    known = {header, *own}
    try:
        known |= json.loads((folder / header).read_text(encoding="utf-8"))[_FILES].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if (folder / header).exists():  # without a list, or not readable
            known |= {path.name for path in folder.glob("*.parquet")}
    others = sorted(p.name for p in folder.iterdir() if p.name not in known and not is_draft(p))
    if others:
        raise DataError(
            f"{str(folder)!r} holds other files ({', '.join(others[:4])}), which saving there "
            "would delete: give a new or an empty folder."
        )


def seal(folder: Path, header: str, fields: Mapping[str, Any]) -> None:
    """Write the header, with the digests of all that is in `folder`, down to the disk."""
    listed = {
        path.name: {"size": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(folder.iterdir())
        if path.name != header and not is_draft(path)
    }
    write(folder / header, sealed_json({**fields, _FILES: listed}))


def unsealed(
    folder: Path,
    header: str,
    read: Callable[[dict[str, Any]], T],
    *,
    known: Callable[[dict[str, Any]], None],
    again: str,
    verify: bool,
) -> T:
    """What `read` makes of a folder's header and files, all of them as they were written.

    Args:
        folder: The folder; its header is there.
        header: The header's name.
        read: Reads the files, and gets the header; `OSError` and the like mean damage.
        known: Raises where the header is of another format, whose digests may mean something else.
        again: How to make it anew, for errors.
        verify: Whether to compare digests.

    Raises:
        DamagedError: a file is missing, changed or not readable.
    """
    path = folder / header
    for _ in range(_READS - 1):
        # Looked at before it is read and after: if it is the same
        # file, all in between was of one writing.
        before, raw = _written(path), strict.read_bytes(path)
        try:
            found = _read(folder, header, raw, read, known, again, verify)
        except DamagedError:
            if _same(path, before):
                raise
        else:
            if _same(path, before):
                return found
    return _read(folder, header, strict.read_bytes(path), read, known, again, verify)


def _same(path: Path, before: tuple[int, int] | None) -> bool:
    return before is not None and _written(path) == before


def _written(path: Path) -> tuple[int, int] | None:
    """Which file it is and when it was written: other writers may put the same bytes there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read(
    folder: Path,
    header: str,
    raw: bytes,
    read: Callable[[dict[str, Any]], T],
    known: Callable[[dict[str, Any]], None],
    again: str,
    verify: bool,
) -> T:
    known(unsealed_json(folder / header, raw, again, verify=False))
    fields = unsealed_json(folder / header, raw, again, verify=verify)
    listed = fields.pop(_FILES, None)
    if verify and listed is not None:
        for name, entry in listed.items():
            check_file(folder / name, entry, again)
    try:
        return read(fields)
    except Exception as error:
        # A value of a wrong type is no refusal in the reader's own words, but damage.
        if isinstance(error, XlensError) and not isinstance(error, TypeError):
            raise
        raise damaged(
            folder, f"it can't be read ({type(error).__name__}: {error})", again
        ) from error


def check_file(path: Path, entry: Mapping[str, Any], again: str) -> None:
    """Compare a file with its size and SHA-256.

    Raises:
        DamagedError: it is missing, or differs.
    """
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            raise damaged(path, f"it has {size:,} bytes, not {entry['size']:,}", again)
        if digest(path) != entry["sha256"]:
            raise damaged(path, "its bytes are not those that were written (SHA-256)", again)
    except FileNotFoundError:
        raise damaged(path, "it is missing", again) from None
    except OSError as error:
        raise damaged(path, f"it can't be read ({error})", again) from error


def present(folder: Path, header: str) -> bool:
    """Whether a folder with this header is there; one that a kill left aside is put back."""
    if not (folder / header).is_file() and folder.parent.is_dir():
        settle(folder)
    return (folder / header).is_file()


# --- single files ---


def sealed_json(fields: Mapping[str, Any], *, sort: bool = True, indent: int | None = 1) -> str:
    """`fields` as JSON with its own SHA-256, sorted or in their order; a line without `indent`."""
    own = sha256(_plain(fields).encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps(
        {**fields, _OWN: own}, indent=indent, sort_keys=sort, ensure_ascii=False, allow_nan=False
    )


def unsealed_json(path: Path, raw: bytes, again: str, *, verify: bool = True) -> dict[str, Any]:
    """The fields in `sealed_json`'s text; those of an older xlens, without digest, with a warning.

    Raises:
        DamagedError: it is not what was written.
    """
    try:
        fields = cast(
            dict[str, Any],
            json.loads(raw.decode("utf-8", "surrogatepass"), object_pairs_hook=strict.once),
        )
        own = fields.pop(_OWN, None)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise damaged(path, f"it is no JSON of ours ({error})", again) from None
    if not verify:
        return fields
    if own is None and _FILES not in fields:
        _log.warning("%s was written by an older xlens, without digests: it is not checked", path)
    elif own != sha256(_plain(fields).encode("utf-8", "surrogatepass")).hexdigest():
        raise damaged(path, "it is not what was written (SHA-256)", again)
    return fields


def _plain(fields: Mapping[str, Any]) -> str:
    # One text for the same values, however the file is indented and whatever its order.
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


_LINE = b"# sha256: "


def sealed_text(text: str) -> str:
    """`text` with its SHA-256 in a last line, as a comment."""
    own = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text}{_LINE.decode()}{own}\n"


def unsealed_text(path: Path, again: str) -> str:
    """The text in what `sealed_text` gave; that of an older xlens, without digest, with a warning.

    Raises:
        DamagedError: it is not what was written.
    """
    raw = strict.read_bytes(path)
    body, mark, own = raw.rpartition(_LINE)
    try:
        if not mark and b"sha256" not in raw:
            text = raw.decode("utf-8")
            _log.warning("%s was written by an older xlens, without digests: not checked", path)
            return text
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is no text ({error})", again) from None
    if own.decode("ascii", "replace").strip() != sha256(body).hexdigest():
        raise damaged(path, "it is not what was written (SHA-256)", again)
    return text
