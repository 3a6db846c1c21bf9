"""What was seen of entries, kept so that a list of a hundred thousand takes seconds.

`.index.json` holds what a list knew, `.index.new` what writers have added since: a line for each
entry that was finished or asked for. Both carry digests; what can't be read is looked at again, as
is whatever has other dates than when it was seen. They may be deleted at any time.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from xlens import files
from xlens.store.errors import StoreError, command
from xlens.store.journal import JOURNAL, MANIFEST, Contents, contents_of, read_journal

_INDEX, _NEW = ".index.json", ".index.new"
_FORMAT = b"seen 2"  # of what `look` gives; part of every digest
_MOST = 1 << 26  # bytes of lines until a list takes them up: of a store that nobody lists
_DIGITS = 16
Seen = Sequence[Any]
"""A stamp, and what `look` saw: a list where it comes from a file."""


def stamp_of(folder: str) -> list[int]:
    """Dates of folder, manifest and, while there is none, journal; 0 for what isn't there."""
    changed = os.stat(folder).st_mtime_ns
    try:
        return [changed, os.stat(f"{folder}/{MANIFEST}").st_mtime_ns, 0]
    except (FileNotFoundError, NotADirectoryError):
        try:
            return [changed, 0, os.stat(f"{folder}/{JOURNAL}").st_mtime_ns]
        except (FileNotFoundError, NotADirectoryError):
            return [changed, 0, 0]


def look(
    path: Path,
) -> tuple[dict[str, Any], int | None, int, int, str | None, bool, str | None]:
    """What a list tells of an entry, as JSON values."""
    contents, problem = Contents(), None
    try:
        contents = contents_of(path)
        if not contents.head:
            problem = headless(path)
    except StoreError as error:
        problem = str(error)
    # A manifest holds neither dates nor names that people give.
    begun = contents if contents.created else read_journal(path / JOURNAL)
    key = contents.head.get("key") or {}
    about = {
        "verb": key.get("kind"),
        "model": begun.about.get("model") or str(key.get("fingerprint") or "")[:12] or None,
        "prompts": begun.about.get("prompts"),
        "languages": begun.about.get("languages"),
        "epoch": key.get("epoch"),
        "layers": len(key["layers"]) if isinstance(key.get("layers"), list) else None,
    }
    with os.scandir(path) as listed:
        sizes = {item.name: item.stat().st_size for item in listed}
    claims = any(name.endswith(".claim") for name in sizes)
    size, done = sum(sizes.values()), len(contents.records)
    return about, contents.head.get("shards"), done, size, begun.created, claims, problem


def remember(path: Path) -> None:
    """Note what is there of an entry that is whole, for the next list; nothing where it can't."""
    with suppress(OSError):  # it only saves time
        _add(path, [path.name, stamp_of(str(path)), *look(path)])


def forget(path: Path) -> None:
    """Have an entry looked at again: it has changed, perhaps within one tick of a file's date."""
    with suppress(OSError):
        _add(path, [path.name, None])


def remembered(root: Path) -> tuple[dict[str, Seen], int]:
    """What is known of entries by name; and how many bytes are new."""
    found: dict[str, Any] = {}
    with suppress(OSError):
        own, _, text = (root / _INDEX).read_bytes().partition(b"\n")
        # Before it is parsed: what a kill cut off may fail anywhere.
        if own == _digest(text):
            abouts, found = json.loads(text)
            for kept in found.values():
                kept[1] = abouts[kept[1]]
    try:
        added = (root / _NEW).read_bytes()
    except OSError:
        return found, 0
    for line in added.split(b"\n"):
        own, text = line[:_DIGITS], line[_DIGITS:]
        if text and own == _digest(text):
            name, *kept = json.loads(text)
            found[name] = kept
    return found, len(added)


def keep(root: Path, seen: Mapping[str, Seen], added: int) -> None:
    """Write down what a list saw, in which the first `added` bytes of what is new are taken up."""
    # Many entries are of one model and one set of prompts, which is told, and read, once.
    numbers: dict[str, int] = {}
    number_of: dict[int, int] = {}  # what was read already shares it
    rows: dict[str, Any] = {}
    for name, (stamp, about, *rest) in seen.items():
        if id(about) not in number_of:
            text = json.dumps(about, separators=(",", ":"))
            number_of[id(about)] = numbers.setdefault(text, len(numbers))
        rows[name] = [stamp, number_of[id(about)], *rest]
    with suppress(OSError):
        told = json.dumps(rows, separators=(",", ":"))
        whole = f"[[{','.join(numbers)}],{told}]".encode()
        files.write(root / _INDEX, _digest(whole) + b"\n" + whole)
        if added and os.stat(root / _NEW).st_size == added:  # else it is read once more
            os.unlink(root / _NEW)


def _add(path: Path, line: Sequence[Any]) -> None:
    text = json.dumps(line, separators=(",", ":")).encode()
    with open(path.parent / _NEW, "ab") as file:
        if file.tell() < _MOST:
            # One write, so that lines of several processes don't mix; the end of the line before
            # it, so that one that a kill cut off takes no other with it.
            file.write(b"\n" + _digest(text) + text)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGITS // 2, person=_FORMAT).hexdigest().encode()


def is_empty(path: Path) -> bool:
    """Whether an entry has neither a key nor a shard that could be found again."""
    found = read_journal(path / JOURNAL)
    return not found.head and not found.records and not (path / MANIFEST).exists()


def headless(path: Path) -> str:
    """Of an entry whose key is lost: what is wrong and what helps."""
    name, file = path.name, path / JOURNAL
    begin = f"What store entry {name} holds can't be read: {file} has lost its first line"
    clear = command(path.parent, "verify --repair")
    delete = command(path.parent, f"prune {path.name}")
    if is_empty(path):
        return f"{begin} and all that came after. {clear} clears it away; a run begins it anew."
    return f"{begin}. A run with the same key mends it; or delete it with {delete}."
