"""What listing, verifying and pruning tell."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from xlens.store.errors import StoreError
from xlens.store.journal import contents_of


@dataclass(frozen=True, kw_only=True)
class EntryInfo:
    """A line of `xlens store ls`.

    Attributes:
        id: 32 hexadecimal digits.
        root: The store's folder.
        about: What a list shows of it: `verb`, `model`, `prompts`, `languages`, `layers`, `epoch`,
            each None if it isn't known.
        shards: How many it has when whole; None if that can't be read.
        done: Shards that were written.
        complete: Whether it was finished; `verify` tells whether its files still are as they were.
        size: Bytes on disk.
        begun: When it was begun, as it was written down; None if that isn't known.
        used_ns: When it was last written to, or asked for when whole, in nanoseconds of the epoch.
        in_use: Whether a live process is computing a part of it.
        problem: Why it can't be used; None if it can.
    """

    id: str
    root: Path
    about: Mapping[str, Any]
    shards: int | None
    done: int
    complete: bool
    size: int
    begun: str | None
    used_ns: int
    in_use: bool
    problem: str | None

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.root / self.id

    @property
    def created(self) -> datetime | None:
        """When it was begun; None if that isn't known."""
        return None if self.begun is None else datetime.fromisoformat(self.begun)

    @property
    def used(self) -> datetime:
        """When it was last written to, or asked for when whole."""
        return datetime.fromtimestamp(self.used_ns / 1e9, UTC)

    @cached_property
    def key(self) -> Mapping[str, Any] | None:
        """What it holds, read when asked for; None if that can't be read."""
        try:
            return contents_of(self.path).head.get("key")
        except StoreError:
            return None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What `verify` found wrong.

    Attributes:
        entry: Id.
        shard: Its number; None if the entry as a whole is concerned.
        problem: What is wrong.
        repaired: Whether it was dropped, so that the next run computes it again.
        repairable: Whether `verify` can do that; else `problem` says what helps.
    """

    entry: str
    shard: int | None
    problem: str
    repaired: bool
    repairable: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` saw.

    Attributes:
        entries: Entries looked at.
        shards: Shards looked at.
        size: Bytes of these shards.
        damage: What is wrong; empty if all is well.
    """

    entries: int
    shards: int
    size: int
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return all(d.repaired for d in self.damage)


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What `prune` deleted, or would with `dry_run`.

    Attributes:
        removed: The entries.
        in_use: Entries that were spared because a live process is computing them.
        size: Bytes that were freed.
    """

    removed: tuple[EntryInfo, ...]
    in_use: tuple[EntryInfo, ...]
    size: int
