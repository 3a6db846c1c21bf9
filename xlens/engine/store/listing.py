"""The list of a store's entries, which remembers what it saw: a hundred thousand in seconds.

What was read of an entry stands in `.index.json` with the dates of its folder, journal and
manifest, and is read again when one of them is another. The index may be deleted at any time.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xlens import files
from xlens.engine.store.errors import StoreError, command
from xlens.engine.store.journal import JOURNAL, MANIFEST, Contents, contents_of, read_journal
from xlens.engine.store.reports import EntryInfo

_INDEX = ".index.json"
_FORMAT = 2
# A change within the resolution of a file's date doesn't show: what is so new isn't remembered.
_SETTLED_NS = 2 * 10**9


def listing(root: Path, folders: Iterable[Path]) -> list[EntryInfo]:
    """What is to be told of each entry, in the order of the folders."""
    known = _remembered(root)
    seen: dict[str, Any] = {}
    infos: list[EntryInfo] = []
    new = False
    young = time.time_ns() - _SETTLED_NS
    for path in folders:
        try:
            stamp = _stamp(path)
        except OSError:  # pruned this moment
            continue
        found = known.get(path.name)
        if found is None or found["stamp"] != stamp:
            try:
                found = {"stamp": stamp, **_look(path)}
            except FileNotFoundError:
                continue
            new = True
        if max(stamp) < young:
            seen[path.name] = found
        infos.append(_info(path, found))
    if new or len(seen) < len(known):
        with suppress(OSError):  # it only saves time
            files.write(root / _INDEX, json.dumps({"format": _FORMAT, "entries": seen}))
    return infos


def _remembered(root: Path) -> Mapping[str, Any]:
    try:
        index = json.loads((root / _INDEX).read_bytes())
        return index["entries"] if index["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stamp(path: Path) -> list[int]:
    """Dates of folder, journal and manifest; 0 for what isn't there."""
    folder = os.fspath(path)
    stamp = [os.stat(folder).st_mtime_ns]
    for name in (JOURNAL, MANIFEST):
        try:
            stamp.append(os.stat(f"{folder}/{name}").st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            stamp.append(0)
    return stamp


def _look(path: Path) -> dict[str, Any]:
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
    return {
        "about": about,
        "shards": contents.head.get("shards"),
        "done": len(contents.records),
        "size": sum(sizes.values()),
        "created": begun.created,
        "claims": any(name.endswith(".claim") for name in sizes),
        "problem": problem,
    }


def _info(path: Path, found: Mapping[str, Any]) -> EntryInfo:
    folder, journalled, finished = found["stamp"]
    created = found["created"]
    return EntryInfo(
        id=path.name,
        path=path,
        about=found["about"],
        shards=found["shards"],
        done=found["done"],
        complete=finished > 0,
        size=found["size"],
        created=None if created is None else datetime.fromisoformat(created),
        used=datetime.fromtimestamp((max(journalled, finished) or folder) / 1e9, UTC),
        in_use=found["claims"] and in_use(path, files.Watch()),
        problem=found["problem"],
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
