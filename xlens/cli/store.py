"""`xlens store`: what the core has computed and kept."""

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App

from xlens.errors import InputError
from xlens.studies.study import Switch
from xlens.terminal import show_table
from xlens.wording import number_of

if TYPE_CHECKING:
    from xlens.store import EntryInfo, Store

app = App(name="store", help="List, check and clear what the core has computed and kept.")
_UNITS = {"h": 1 / 24, "d": 1.0, "w": 7.0}
_MANY = 1_000  # entries that a table is made of
_SIZES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@app.command
def ls(*, root: Path | None = None) -> None:
    """List the entries of the store, the last used first.

    ```
    xlens store ls
    ```

    Args:
        root: Folder of the store; default: the one in the user's cache (`XLENS_CACHE` moves it).
    """
    from xlens.store import EPOCH
    from xlens.store.listing import without_collecting

    store = _store(root)
    with without_collecting():
        entries = store.entries()
        rows = _rows(entries, time.time_ns(), EPOCH)
        if len(entries) > _MANY:  # to lay them out as a table would take minutes
            print("\n".join(map("\t".join, rows)))
        elif entries:
            head = ("entry", "size", "used", "verb", "model", "prompts", "layers", "state")
            show_table(head, list(rows))
    print(f"{number_of(len(entries), 'entry', 'entries')} in {store.root}")


@app.command
def verify(
    entry: str | None = None,
    *,
    repair: Annotated[bool, Switch] = False,
    root: Path | None = None,
) -> None:
    """Read every shard and compare its checksums.

    ```
    xlens store verify
    xlens store verify 3fa94c --repair
    ```

    Args:
        entry: Beginning of an entry's id; default all.
        repair: Drop damaged shards; the next run computes only these again.
        root: Folder of the store.
    """
    from xlens.store.errors import command

    store = _store(root)
    found = store.verify(entry, repair=repair)
    for damage in found.damage:
        done = "Dropped; the next run computes it again. " if damage.repaired else ""
        print(f"{damage.entry[:12]}: {done}{damage.problem}")
    good = "all good" if found.shards else "nothing to look at"
    state = good if not found.damage else "mended" if found.ok else "damaged"
    shards, entries = number_of(found.shards, "shard"), number_of(found.entries, "entry", "entries")
    print(f"{shards} in {entries}: {state}")
    if any(d.repairable and not d.repaired for d in found.damage):
        raise InputError(f"Damage: {command(store.root, 'verify --repair')} drops what is damaged.")
    if not found.ok:
        raise InputError("What is wrong can't be mended here; the lines above say what helps.")


@app.command
def prune(
    entries: tuple[str, ...] = (),
    *,
    older_than: str | None = None,
    larger_than: str | None = None,
    keep: str | None = None,
    incomplete: Annotated[bool, Switch] = False,
    old: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    root: Path | None = None,
) -> None:
    """Remove entries. Several conditions must all hold; entries in use are spared.

    ```
    xlens store prune --older-than 30d
    xlens store prune --keep 20G --dry-run
    ```

    Args:
        entries: Beginnings of ids.
        older_than: Not used for so long: 12h, 30d, 8w.
        larger_than: At least this size: 500M, 2G.
        keep: Remove what was used longest ago until no more than this is left.
        incomplete: Only entries that were never finished.
        old: Only entries that an earlier xlens computed in another way: they are never served.
        dry_run: Only say what would go.
        root: Folder of the store.
    """
    store = _store(root)
    done = store.prune(
        ids=entries or None,
        older_than=None if older_than is None else timedelta(days=_number(older_than, _UNITS)),
        larger_than=None if larger_than is None else int(_number(larger_than, _SIZES)),
        keep_bytes=None if keep is None else int(_number(keep, _SIZES)),
        incomplete=incomplete,
        old=old,
        dry_run=dry_run,
    )
    verb = "would remove" if dry_run else "removed"
    print(f"{verb} {number_of(len(done.removed), 'entry', 'entries')}, {done.size / 1e6:.1f} MB")
    for info in done.in_use:
        print(f"spared {info.id[:12]}: a process is computing it; prune it when that has ended")


def _store(root: Path | None) -> "Store":
    """The store in a folder; where none is named there may be none yet."""
    from xlens.store import Store

    if root is not None and not root.is_dir():
        raise InputError(f"No folder {str(root)!r}: --root takes that of a store, or leave it out.")
    return Store(root)


def _rows(
    entries: Iterable["EntryInfo"], now: int, current: int
) -> Iterator[tuple[str, str, str, str, str, str, str, str]]:
    known: dict[int, tuple[str, str, str, str, str]] = {}  # entries of one kind share what is told
    for entry in entries:
        found = known.get(id(entry.about))
        if found is None:
            found = known[id(entry.about)] = _about(entry.about, current)
        verb, model, asked, layers, note = found
        state = entry.problem or ("whole" if entry.complete else f"{entry.done}/{entry.shards}")
        if note and entry.problem is None:
            state += note
        size, used = f"{entry.size / 1e6:.1f} MB", _age(now - entry.used_ns)
        yield entry.id[:12], size, used, verb, model, asked, layers, state


def _about(about: Mapping[str, Any], current: int) -> tuple[str, str, str, str, str]:
    """Verb, model, prompts, layers, and what is to be said of an epoch that isn't this one's."""
    epoch, n, n_layers = about["epoch"], about["prompts"], about["layers"]
    old = f", of epoch {epoch or 'none'}: never served (prune --old)"
    asked = "? prompts" if n is None else number_of(n, "prompt")
    if about["languages"]:
        asked += f" ({', '.join(about['languages'])})"
    return (
        about["verb"] or "?",
        about["model"] or "?",
        asked,
        "" if n_layers is None else number_of(n_layers, "layer"),
        "" if epoch == current else old,
    )


def _age(since: int) -> str:
    """How many nanoseconds ago something was used, in one unit."""
    hours = max(since, 0) / 3.6e12
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"


def _number(text: str, units: dict[str, float] | dict[str, int]) -> float:
    unit = text[-1:].lower()
    try:
        return float(text[:-1]) * units[unit]
    except (KeyError, ValueError):
        raise InputError(
            f"{text!r} is no amount; write a number and one of {', '.join(units)}, as in "
            f"'30{next(iter(units))}'."
        ) from None
