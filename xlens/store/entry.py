"""One run on disk: shards that are written once each, by one process or several."""

import importlib.metadata
import logging
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlens import files
from xlens.errors import InputError
from xlens.store import journal, seen
from xlens.store.claims import Claims
from xlens.store.errors import DamagedShardError, StoreError, explained, listed
from xlens.store.journal import Contents, ShardRecord
from xlens.store.keys import FORMAT
from xlens.store.parts import Parts
from xlens.store.records import Records, stamp_of
from xlens.store.shards import (
    Shard,
    claim_name,
    pack_rows,
    pack_tensors,
    record_of,
    rows_name,
    tensors_name,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_log = logging.getLogger(__name__)


class Entry:
    """One run's results, shard by shard; made by `Store.entry`.

    Safe for threads and for several processes. A shard is done once the journal says so, and the
    journal says so only when its files are on the disk: a kill loses at most the shard that is
    being written.

    Attributes:
        id: 32 hexadecimal digits that follow from the key.
        key: What the entry holds, as plain JSON.
        path: Its folder.
        shards: How many there are when it is whole.
        about: What a list shows beside the key: `model`, `prompts`.
    """

    def __init__(
        self,
        path: Path,
        lock: files.Lock,
        *,
        key: Mapping[str, Any],
        shards: int,
        about: Mapping[str, Any] | None = None,
    ):
        self.id = path.name
        self.path = path
        self.key = dict(key)
        self.shards = shards
        self.about = dict(about or {})
        self._lock = lock
        self._claims = Claims(path, lock)
        self._records = Records(path)
        self._parts: dict[int, Parts] = {}
        self._verified: dict[tuple[int, ...], set[str]] = {}
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"Entry({self.id[:12]}, {len(self.done)} of {self.shards} shards, {self.path})"

    # --- what is there ---

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that computed it; several of one where a run with another went on."""
        from xlens import results

        found = self._records.contents().versions
        return {name: ", ".join(found[name]) for name in results.versions() if name in found}

    @property
    def hosts(self) -> frozenset[str]:
        """Other machines' names that computed shards of it; none where each writer computed."""
        return self._records.journalled().hosts

    @property
    def done(self) -> frozenset[int]:
        """Shards that were written and whose files are there, of full length.

        A shard that lost its file or a part of it is not done: it is computed again.
        """
        return frozenset(n for n in self._records.contents().records if self._is_done(n))

    @property
    def complete(self) -> bool:
        """Whether `finish` was called and every shard's files are there."""
        return self._records.manifest.exists() and len(self.done) == self.shards

    def read(
        self,
        shard: int,
        names: Sequence[str] | None = None,
        *,
        verify: Literal["full", "size"] = "full",
    ) -> dict[str, "Tensor"]:
        """Tensors of a shard; what isn't asked for isn't read.

        Args:
            shard: 0 to `shards` - 1.
            names: Which tensors; None for all.
            verify: "full" also compares the hash of every tensor when this object first reads
                it; "size" looks only at the length of the files and the hash of the header.

        Raises:
            ValueError: no such shard or tensor, or the shard has not been written yet.
            DamagedShardError: missing, truncated or changed.
        """
        found = self._shard(shard)
        with self._reading():
            if verify == "size":
                return found.read(names, verified=None)
            found.check_sizes()
            # What was verified holds for this file: one that took its place is verified anew.
            stamp = (shard, *stamp_of(found.tensors_path))
            return found.read(names, verified=self._verified.setdefault(stamp, set()))

    def rows_of(self, shard: int) -> "pd.DataFrame":
        """The rows of a shard.

        Raises:
            ValueError: no such shard, one without rows, or one that has not been written yet.
            DamagedShardError: missing, truncated or changed.
        """
        with self._reading():
            found = self._shard(shard).rows()
        if found is None:
            raise InputError(f"Shard {shard} of entry {self.id} has no rows.")
        return found

    def rows(self) -> "pd.DataFrame":
        """The rows of every shard, in the order of the shards.

        Raises:
            ValueError: a shard has not been written yet.
            DamagedShardError: missing, truncated or changed.
        """
        import pandas as pd

        with self._reading():
            tables = [self._shard(n).rows() for n in range(self.shards)]
        kept = [table for table in tables if table is not None]
        return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame()

    # --- writing ---

    def todo(self, *, poll: float = 0.2) -> Iterator[int]:
        """The shards that this process should compute, claimed one by one.

        Several processes that loop over the same entry share the work. The loop ends when every
        shard is done or was given out here: the others' are waited for, with a line on stderr that
        says whom, and taken over if their process dies or stands still for half a minute. If it was
        this process that stood still, its shard is the other's, and waited for too. Whatever isn't
        written when the loop is left early is free again.

            for shard in entry.todo():
                entry.write(shard, compute(shard))
            entry.finish()

        Args:
            poll: Seconds between two looks at what the others did.
        """
        given: set[int] = set()
        try:
            self._claims.waiting.reset()
            while waiting := self._waiting(given - self._claims.lost):
                claimed = False
                for shard in waiting:
                    if self.claim(shard):
                        given.add(shard)
                        claimed = True
                        yield shard
                        self._claims.waiting.reset()
                if not claimed:
                    self._claims.tell_wait(waiting)
                    time.sleep(poll)
        except BaseException:  # an error in the caller's loop closes the generator
            for shard in given:
                self.release(shard)
            raise

    def claim(self, shard: int) -> bool:
        """Reserve a shard for this process.

        False if it is done or another live process has it. A dead process's claim is taken over.

        Raises:
            ValueError: no such shard.
            StoreError: the store can't be written to.
        """
        self._check_number(shard)
        with self._writing(f"claiming shard {shard} of entry {self.id}"):
            return not self._is_done(shard) and self._claims.take(shard)

    def release(self, shard: int) -> None:
        """Give a claim back; nothing happens if it isn't this process's."""
        if not (self.path / claim_name(shard)).exists():
            return
        with suppress(StoreError), self._locked(f"releasing shard {shard}"):
            self._claims.give_back(shard)

    def parts(self, shard: int) -> Parts:
        """What is kept of a shard while it is computed, by this process or one before.

        Raises:
            ValueError: no such shard.
        """
        self._check_number(shard)
        if shard not in self._parts:
            self._parts[shard] = Parts(self.path, shard)
        return self._parts[shard]

    def write(
        self,
        shard: int,
        tensors: Mapping[str, "Tensor"],
        rows: "pd.DataFrame | None" = None,
        *,
        host: str | None = None,
    ) -> None:
        """Write a shard, for good when this returns. A shard that is done stays as it is.

        Args:
            shard: 0 to `shards` - 1; need not be claimed.
            tensors: By name; a name can be read without the others.
            rows: A table that goes with it; its index is not kept.
            host: What computed it, where that is told; the journal keeps the name.

        Raises:
            ValueError: no such shard, or what a shard can't hold.
            StoreError: no room, no right to write; nothing half-written is left.
        """
        self._check_number(shard)
        if not self._is_done(shard):
            header, chunks = pack_tensors(tensors, entry=self.id, shard=shard)
            table = None if rows is None else pack_rows(rows)
            record = record_of(shard, header, chunks, table)
            self._commit(record, [header, *chunks], table, host)
        if shard in self._parts:
            self._parts.pop(shard).clear()
        self.release(shard)

    def finish(self) -> None:
        """Write the manifest: the entry is whole. Nothing happens if it is already.

        Raises:
            ValueError: shards are missing.
            StoreError: the store can't be written to.
        """
        if self.complete:
            return
        with self._writing(f"finishing entry {self.id}"):
            if missing := sorted(set(range(self.shards)) - self.done):
                raise InputError(
                    f"Entry {self.id} can't be finished: shards {listed(missing)} of "
                    f"{self.shards} have not been written. Write them first."
                )
            # Of writers that died, stand still, or can't be seen: all they could write is there.
            for path in [
                path for kind in ("*.claim", "*.tmp", "*.part-*") for path in self.path.glob(kind)
            ]:
                files.remove(path)
            if not self._records.manifest.exists():
                found = self._records.contents()
                whole = Contents(self._head(), found.records, found.versions)
                text = journal.manifest_bytes(whole)
                files.publish({self._records.manifest: files.draft(self._records.manifest, [text])})
                journal.write_event(self._records.journal, "finish")
                seen.remember(self.path)

    def drop(self, shards: Sequence[int]) -> None:
        """Forget shards and delete their files, so that they are computed again.

        Raises:
            ValueError: no such shard.
            StoreError: the store can't be written to.
        """
        for shard in shards:
            self._check_number(shard)
        with self._writing(f"dropping shards of entry {self.id}"):
            self._records.reopen()
            # The journal first: a file without a line is computed again,
            # a line without its file is damage.
            for shard in shards:
                journal.write_event(self._records.journal, "drop", shard=shard)
            for shard in shards:
                files.remove(self.path / tensors_name(shard))
                files.remove(self.path / rows_name(shard))
            files.sync(self.path)
            seen.forget(self.path)

    def prepare(self) -> None:
        """Make the folder and begin the journal; clean up after dead writers.

        Raises:
            StoreError: the store can't be written to.
        """
        with self._locked(f"opening entry {self.id}"):
            files.make(self.path)
            found = self._records.contents()
            if not self._records.journalled().head:
                journal.write_event(self._records.journal, "entry", **self._head())
            if journal.joined(found.versions, mine := _versions()) != found.versions:
                journal.write_event(self._records.journal, "versions", versions=mine)
            if self.about and not self._records.journalled().about:
                journal.write_event(self._records.journal, "about", about=self.about)
            files.sweep(self.path)

    # --- inside ---

    def _commit(
        self,
        record: ShardRecord,
        chunks: Sequence[bytes | memoryview],
        rows: bytes | None,
        host: str | None,
    ) -> None:
        """Drafts first, without the lock; then names and journal line in one go, with it."""
        doing = f"writing shard {record.shard} of entry {self.id} ({record.size / 1e6:,.1f} MB)"
        tensors_path, rows_path = Shard(self.path, record).paths
        drafts: dict[Path, Path] = {}
        with explained(doing, self.path.parent):
            if not self._records.journal.exists():
                self.prepare()
            try:
                drafts[tensors_path] = files.draft(tensors_path, chunks)
                if rows is not None:
                    drafts[rows_path] = files.draft(rows_path, [rows])
                with self._writing(doing):
                    if self._is_done(record.shard):  # another process was quicker: same bytes
                        return
                    if self._claims.overtaken(record.shard):
                        return
                    self._records.reopen()
                    for final in drafts:  # what is no file has no place there
                        if final.is_dir():
                            files.remove(final)
                    files.publish(drafts)
                    told = {} if host is None else {"host": host}
                    journal.write_event(self._records.journal, "shard", record=vars(record), **told)
                    files.remove(self.path / claim_name(record.shard))  # whoever has it
            finally:
                for left in drafts.values():
                    files.remove(left)

    def _waiting(self, given: set[int]) -> list[int]:
        """Shards that are neither done nor given out here."""
        return sorted(set(range(self.shards)) - given - self.done)

    def _is_done(self, shard: int) -> bool:
        record = self._records.contents().records.get(shard)
        if record is None:
            return False
        try:
            Shard(self.path, record).check_sizes()
        except DamagedShardError as error:
            self._tell(str(error), logging.WARNING)
            return False
        return True

    def _shard(self, shard: int) -> Shard:
        self._check_number(shard)
        record = self._records.contents().records.get(shard)
        if record is None:
            raise InputError(
                f"Shard {shard} of entry {self.id} has not been written yet; done are "
                f"{listed(sorted(self.done)) or 'none'} of {self.shards}. Run again to resume."
            )
        return Shard(self.path, record)

    def _check_number(self, shard: int) -> None:
        if not 0 <= shard < self.shards:
            raise InputError(
                f"Entry {self.id} has {self.shards} shards, 0 to {self.shards - 1}; not {shard}."
            )

    def _head(self) -> dict[str, Any]:
        return {"format": FORMAT, "id": self.id, "key": self.key, "shards": self.shards}

    @contextmanager
    def _reading(self) -> Generator[None]:
        with explained(f"reading entry {self.id}", self.path.parent):
            yield

    @contextmanager
    def _writing(self, doing: str) -> Generator[None]:
        """The lock, with the folder there."""
        with self._locked(doing):
            if not self._records.journal.exists():  # first write, or pruned meanwhile
                self.prepare()
            yield

    @contextmanager
    def _locked(self, doing: str) -> Generator[None]:
        with explained(doing, self.path.parent):
            files.make(self.path.parent)
            with self._lock:
                yield

    def _tell(self, message: str, level: int = logging.INFO) -> None:
        if message not in self._told:
            self._told.add(message)
            _log.log(level, message)


@cache
def _versions() -> journal.Versions:
    """Packages that shape the bytes: those of a result, and the writer of Parquet."""
    from xlens import results

    found = results.versions() | {"pyarrow": importlib.metadata.version("pyarrow")}
    return {name: [version] for name, version in sorted(found.items())}
