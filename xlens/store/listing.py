"""The list of a store's entries: what was seen of each, or a new look at it.

Names stay plain strings as long as they can: a hundred thousand paths alone take a second.
"""

import gc
import os
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from xlens import files
from xlens.store import seen
from xlens.store.reports import EntryInfo

_ABOUT = ("verb", "model", "prompts", "languages", "epoch", "layers")
# A change within the resolution of a file's date doesn't show: what is so new isn't remembered.
_SETTLED_NS = 2 * 10**9


def listing(root: Path, names: Iterable[str]) -> list[EntryInfo]:
    """What is to be told of each entry, in the order of the names of their folders."""
    known, added = seen.remembered(root)
    now: dict[str, Any] = {}
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
                looked = seen.look(root / name)
            except FileNotFoundError:
                continue
            found = stamp, *looked
            new = True
        if max(stamp) < young:
            now[name] = found
        infos.append(_info(root, name, *cast(Any, found)))
    if new or len(now) < len(known):
        seen.keep(root, now, added)
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
    info = object.__new__(EntryInfo)
    # All at once: the frozen class sets field by field, which takes longer than all the rest.
    info.__dict__.update(
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
    return info


def in_use(path: Path, watch: files.Watch) -> bool:
    """Whether a process that may live has a claim in an entry."""
    return any(watch.holder(claim) is not None for claim in path.glob("*.claim"))
