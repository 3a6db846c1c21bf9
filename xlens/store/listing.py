"""The list of a store's entries: what was seen of each, or a new look at it.

Names stay plain strings as long as they can: a hundred thousand paths alone take a second.
"""

import gc
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

from xlens import files
from xlens.store import seen
from xlens.store.reports import EntryInfo

_blank = object.__new__
# A change within the resolution of a file's date doesn't show: what is so new isn't remembered.
_SETTLED_NS = 2 * 10**9


def listing(root: Path, names: Iterable[str]) -> list[EntryInfo]:
    """What is to be told of each entry, the last used first."""
    known, added = seen.remembered(root)
    now: dict[str, seen.Seen] = {}
    infos: list[EntryInfo] = []
    new = bool(added)
    young = time.time_ns() - _SETTLED_NS
    inside = os.path.join(root, "")
    for name in names:
        try:
            stamp = seen.stamp_of(inside + name)
        except OSError:  # pruned this moment
            continue
        found = known.get(name)
        if found is None or found[0] != stamp:
            try:
                found = stamp, *seen.look(root / name)
            except FileNotFoundError:
                continue
            new = True
        folder, finished, journalled = stamp
        if folder < young and finished < young and journalled < young:
            now[name] = found
        _, about, shards, done, size, begun, claims, problem = found
        info = _blank(EntryInfo)
        # All at once: the frozen class sets field by field, which takes longer than all the rest.
        info.__dict__.update(
            id=name,
            root=root,
            about=about,
            shards=shards,
            done=done,
            complete=finished > 0,
            size=size,
            begun=begun,
            used_ns=finished or journalled or folder,
            in_use=claims and in_use(root / name, files.Watch()),
            problem=problem,
        )
        infos.append(info)
    if new or len(now) < len(known):
        seen.keep(root, now, added)
    # Sorting is stable: by use, and of the same instant by id.
    infos.sort(key=attrgetter("id"), reverse=True)
    infos.sort(key=attrgetter("used_ns"), reverse=True)
    return infos


@contextmanager
def without_collecting() -> Generator[None]:
    """No search for cycles meanwhile: millions of new objects hold none, and set it off."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def in_use(path: Path, watch: files.Watch) -> bool:
    """Whether a process that may live has a claim in an entry."""
    return any(watch.holder(claim) is not None for claim in path.glob("*.claim"))
