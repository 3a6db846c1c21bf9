"""The list of a store's entries, which remembers what it saw: a hundred thousand in seconds.

What was read of an entry stands in `.index.json` with the dates of its folder and of its manifest
or journal, and is read again when one of them is another. The index may be deleted at any time.
Names stay plain strings as long as they can: a hundred thousand paths alone take a second.
"""

import gc
import json
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from xlens import files
from xlens.store.errors import StoreError, command
from xlens.store.journal import JOURNAL, MANIFEST, Contents, contents_of, read_journal
from xlens.store.reports import EntryInfo

_INDEX = ".index.json"
_FORMAT = 3
_ABOUT = ("verb", "model", "prompts", "languages", "epoch", "layers")
# A change within the resolution of a file's date doesn't show: what is so new isn't remembered.
_SETTLED_NS = 2 * 10**9


def listing(root: Path, names: Iterable[str]) -> list[EntryInfo]:
    """What is to be told of each entry, in the order of the names of their folders."""
    with _without_collecting():
        return _listed(root, names)


def _listed(root: Path, names: Iterable[str]) -> list[EntryInfo]:
    known = _remembered(root)
    seen: dict[str, Any] = {}
    infos: list[EntryInfo] = []
    new = False
    young = time.time_ns() - _SETTLED_NS
    inside = os.path.join(root, "")
    for name in names:
        try:
            stamp = _stamp(inside + name)
        except OSError:  # pruned this moment
            continue
        found = known.get(name)
        if found is None or found[0] != stamp:
            try:
                looked = _look(root / name)
            except FileNotFoundError:
                continue
            found = stamp, *looked
            new = True
        if max(stamp) < young:
            seen[name] = found
        infos.append(_info(root, name, *cast(Any, found)))
    if new or len(seen) < len(known):
        with suppress(OSError):  # it only saves time
            index = {"format": _FORMAT, "entries": seen}
            files.write(root / _INDEX, json.dumps(index, separators=(",", ":")))
    return infos


@contextmanager
def _without_collecting() -> Generator[None]:
    """No search for cycles meanwhile: millions of new objects hold none, and set it off."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _remembered(root: Path) -> Mapping[str, Sequence[Any]]:
    try:
        index = json.loads((root / _INDEX).read_bytes())
        return index["entries"] if index["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(folder: str) -> list[int]:
    """Dates of folder, manifest and, while there is none, journal; 0 for what isn't there."""
    finished = _changed(f"{folder}/{MANIFEST}")
    return [
        os.stat(folder).st_mtime_ns,
        finished,
        0 if finished else _changed(f"{folder}/{JOURNAL}"),
    ]


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _look(path: Path) -> tuple[Any, ...]:
    """What `_info` tells of an entry, after its stamp: JSON values in its order."""
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
    about = (
        key.get("kind"),
        begun.about.get("model") or str(key.get("fingerprint") or "")[:12] or None,
        begun.about.get("prompts"),
        begun.about.get("languages"),
        key.get("epoch"),
        len(key["layers"]) if isinstance(key.get("layers"), list) else None,
    )
    with os.scandir(path) as listed:
        sizes = {item.name: item.stat().st_size for item in listed}
    claims = any(name.endswith(".claim") for name in sizes)
    size, done = sum(sizes.values()), len(contents.records)
    return about, contents.head.get("shards"), done, size, begun.created, claims, problem


def _info(
    root: Path,
    name: str,
    stamp: list[int],
    about: Sequence[Any],
    shards: int | None,
    done: int,
    size: int,
    created: str | None,
    claims: bool,
    problem: str | None,
) -> EntryInfo:
    folder, finished, journalled = stamp
    return EntryInfo(
        id=name,
        root=root,
        about=dict(zip(_ABOUT, about, strict=True)),
        shards=shards,
        done=done,
        complete=finished > 0,
        size=size,
        created=None if created is None else datetime.fromisoformat(created),
        used=datetime.fromtimestamp((finished or journalled or folder) / 1e9, UTC),
        in_use=claims and in_use(root / name, files.Watch()),
        problem=problem,
    )


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


def in_use(path: Path, watch: files.Watch) -> bool:
    """Whether a process that may live has a claim in an entry."""
    return any(watch.holder(claim) is not None for claim in path.glob("*.claim"))
