"""The folder of all entries: find, list, verify, prune."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from xlens import files
from xlens.checks import wrong_type
from xlens.errors import InputError
from xlens.store import journal, seen
from xlens.store.entry import Entry
from xlens.store.errors import DamagedShardError, StoreError, explained
from xlens.store.journal import MANIFEST, contents_of
from xlens.store.keys import EPOCH, entry_id, plain
from xlens.store.listing import in_use, listing, without_collecting
from xlens.store.reports import Damage, EntryInfo, Pruned, Verification
from xlens.store.seen import headless, is_empty
from xlens.store.shards import Shard

LOCK_SECONDS = 120.0  # it is held for a rename and a line of the journal at a time
_ID = re.compile("[0-9a-f]{32}")


class Store:
    """A folder of entries, one for each thing that was computed; several processes may share it.

    Attributes:
        root: The folder; made when something is first written.
    """

    def __init__(self, root: str | Path | None = None):
        """Open the store.

        Args:
            root: Its folder. None: `store` in `$XLENS_CACHE`, or in the user's cache of xlens.

        Raises:
            ValueError: `root` is a file.
        """
        if not isinstance(cast(Any, root), str | Path | None):
            raise wrong_type("Store: root", root, "a folder, or None for xlens's own")
        if root is not None and not str(root).strip():
            raise InputError("The store's folder is empty; name a folder, or None for xlens's own.")
        self.root = (
            files.cache_root() / "store" if root is None else Path(root).expanduser()
        ).absolute()
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"The store {str(self.root)!r} is a file; name a folder.")
        self._lock = files.Lock(
            self.root / ".lock",
            f"the lock of the store {str(self.root)!r}, for {LOCK_SECONDS:.0f} s at most",
            LOCK_SECONDS,
        )
        self._watch = files.Watch()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def entry(
        self,
        key: Mapping[str, Any],
        *,
        shards: int,
        about: Mapping[str, Any] | None = None,
    ) -> Entry:
        """The entry of `key`: the same key, the same entry, in any process.

        A whole entry is only read, so the store may be read-only; any other is made ready to be
        written to, before anything expensive is computed.

        Args:
            key: All that decides the bytes, and how they are split into shards. JSON values; a
                `digest` for what is long.
            shards: How many shards the whole has.
            about: What a list shows beside the key: `model`, `prompts`. Decides nothing.

        Raises:
            ValueError: a key that isn't JSON; less than one shard; an entry with another number.
            StoreError: the store can't be written to, or holds something else under this id.
        """
        if shards < 1:
            raise InputError(f"An entry has at least one shard, not {shards}.")
        entry = Entry(
            self.root / entry_id(key), self._lock, key=plain(key), shards=shards, about=about
        )
        with explained(f"opening entry {entry.id}", self.root):
            # How work is split isn't in the id: an entry split
            # otherwise has other shards under this id.
            found = contents_of(entry.path).head.get("shards", shards)
            if found != shards:
                raise InputError(
                    f"Entry {entry.id} has {found} shards, not {shards}: its key says everything "
                    "but how the work is split. Put that into the key too."
                )
            if entry.complete:
                with suppress(OSError):  # a read-only store has no last use
                    os.utime(entry.path / MANIFEST)
                    seen.remember(entry.path)
            else:
                entry.prepare()
        return entry

    def open(self, id: str) -> Entry:
        """An entry by its id or the beginning of it, as `entries` lists it.

        Raises:
            ValueError: none or several have it.
            StoreError: its key can't be read, or belongs to another xlens.
        """
        return self._open(self._find(id))

    def entries(self) -> list[EntryInfo]:
        """Every entry, the last used first."""
        with explained("listing the entries", self.root), without_collecting():
            return listing(self.root, self._names())

    def verify(
        self, id: str | None = None, *, full: bool = True, repair: bool = False
    ) -> Verification:
        """Look for shards that are missing, truncated or changed.

        Args:
            id: An entry's id or the beginning of it; None for all.
            full: Read every byte; else only the lengths of the files.
            repair: Drop what is damaged, so that the next run computes it again.

        Raises:
            ValueError: no such entry.
            StoreError: files can't be read, or not be dropped.
        """
        paths = list(self._folders()) if id is None else [self._find(id)]
        shards, size = 0, 0
        damage: list[Damage] = []
        for path in paths:
            with explained(f"verifying entry {path.name}", self.root):
                entry, unsound = self._sound(path, repair)
                damage += unsound
                if entry is None:
                    continue
                records = contents_of(path).records
                found = [(n, _problem(Shard(path, records[n]), full)) for n in sorted(records)]
                bad = {n: problem for n, problem in found if problem is not None}
                if bad and repair:
                    entry.drop(list(bad))
                damage += [
                    Damage(entry=path.name, shard=n, problem=p, repaired=repair, repairable=True)
                    for n, p in bad.items()
                ]
                shards += len(records)
                size += sum(Shard(path, record).size for record in records.values())
        return Verification(entries=len(paths), shards=shards, size=size, damage=tuple(damage))

    def prune(
        self,
        *,
        ids: Sequence[str] | None = None,
        older_than: timedelta | None = None,
        larger_than: int | None = None,
        incomplete: bool = False,
        old: bool = False,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Delete the entries that meet every condition given. Entries in use are spared.

        Args:
            ids: These, by id or the beginning of it.
            older_than: Last used longer ago than this.
            larger_than: With more bytes than this.
            incomplete: Not whole.
            old: Of another epoch of the engine than this one, or of none: never served again.
            keep_bytes: The longest unused, until the store has no more bytes than this.
            dry_run: Only say what would be deleted.

        Raises:
            ValueError: no condition, or no such id.
            StoreError: an entry can't be deleted.
        """
        conditions = (ids, older_than, larger_than, keep_bytes)
        if not (incomplete or old) and all(x is None for x in conditions):
            raise InputError(
                "prune needs at least one of ids, older_than, larger_than, incomplete, old and "
                "keep_bytes; keep_bytes=0 deletes everything."
            )
        infos = self.entries()
        chosen = None if ids is None else {self._find(i).name for i in ids}
        now = datetime.now(UTC)
        wanted = [
            info
            for info in reversed(infos)  # the longest unused first
            if (chosen is None or info.id in chosen)
            and (older_than is None or now - info.used > older_than)
            and (larger_than is None or info.size > larger_than)
            and not (incomplete and info.complete)
            and not (old and (info.problem is not None or info.about["epoch"] == EPOCH))
        ]
        # Of all entries, not only of those that meet the conditions: the whole store is to fit.
        left = sum(info.size for info in infos)
        removed: list[EntryInfo] = []
        spared: list[EntryInfo] = []
        with explained("pruning", self.root):
            if not dry_run:
                # All at once: half a minute of looking, and not half a minute for each.
                claims = [p for info in wanted if info.in_use for p in info.path.glob("*.claim")]
                files.wait_for_signs(self._watch, claims)
            for info in wanted:
                _ = info.key  # read while it is there, for who asks what was removed
                if keep_bytes is not None and left <= keep_bytes:
                    break
                if (info.in_use and dry_run) or not (dry_run or self._delete(info.path)):
                    spared.append(info)
                    continue
                removed.append(info)
                left -= info.size
            if not dry_run:
                files.sweep(self.root)  # after a prune that was killed
        size = sum(info.size for info in removed)
        return Pruned(removed=tuple(removed), in_use=tuple(spared), size=size)

    # --- inside ---

    def _names(self) -> list[str]:
        return sorted(filter(_ID.fullmatch, os.listdir(self.root))) if self.root.is_dir() else []

    def _folders(self) -> Iterator[Path]:
        yield from (self.root / name for name in self._names())

    def _find(self, id: str) -> Path:
        found = [path for path in self._folders() if path.name.startswith(id)]
        if len(found) != 1 or not id:
            raise InputError(
                f"{len(found) or 'No'} entries of the store {str(self.root)!r} begin with {id!r}; "
                "give an id, or enough of its beginning, as `xlens store ls` prints it."
            )
        return found[0]

    def _open(self, path: Path) -> Entry:
        head = contents_of(path).head
        if not head:
            raise StoreError(headless(path))
        return Entry(path, self._lock, key=head["key"], shards=head["shards"])

    def _sound(self, path: Path, repair: bool) -> tuple[Entry | None, list[Damage]]:
        """An entry whose journal or manifest can be read, mended first if that is asked for."""
        damage: list[Damage] = []
        while True:
            try:
                return self._open(path), damage
            except StoreError as error:
                mend = self._mend(path)
                done = repair and mend is not None and mend()
                damage.append(
                    Damage(
                        entry=path.name,
                        shard=None,
                        problem=str(error),
                        repaired=done,
                        repairable=mend is not None,
                    )
                )
                if not done or not path.exists():
                    return None, damage

    def _mend(self, path: Path) -> Callable[[], bool] | None:
        """What makes an entry readable; None where only a run, another xlens or `prune` helps."""
        try:
            if journal.read_manifest(path / MANIFEST) is not None:
                return None
        except StoreError:  # what the journal knows of is kept
            return lambda: self._drop_manifest(path)
        return (lambda: self._delete(path, only_empty=True)) if is_empty(path) else None

    def _drop_manifest(self, path: Path) -> bool:
        with self._lock:
            files.remove(path / MANIFEST)
            files.sync(path)
        return True

    def _delete(self, path: Path, *, only_empty: bool = False) -> bool:
        """Out of sight in one step, then away; False if somebody has begun to use it."""
        away = files.unique(self.root / f"pruned-{path.name}")
        with self._lock:
            if in_use(path, self._watch) or (only_empty and not is_empty(path)):
                return False
            os.replace(path, away)
            files.sync(self.root)
        files.remove(away)
        return True


def _problem(shard: Shard, full: bool) -> str | None:
    try:
        if full:
            shard.check()
        else:
            shard.check_sizes()
    except DamagedShardError as error:
        return str(error)
    return None
