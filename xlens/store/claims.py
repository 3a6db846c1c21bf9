"""Who computes which shard of an entry: claims, each a lease that its holder keeps alive."""

import logging
from collections.abc import Sequence
from pathlib import Path

from xlens import files
from xlens.store.errors import listed
from xlens.store.shards import claim_name

_log = logging.getLogger(__name__)


class Claims:
    """The claims of one entry, as this process sees them.

    Attributes:
        waiting: Tells a person whom this process waits for.
        leases: This process's own, by shard.
        lost: Shards of which others took over this process's claim.
    """

    def __init__(self, path: Path, lock: files.Lock) -> None:
        self.waiting = files.Waiting()
        self.leases: dict[int, files.Lease] = {}
        self.lost: set[int] = set()
        self._path = path
        self._lock = lock
        self._watch = files.Watch()

    def take(self, shard: int) -> bool:
        """Claim a shard, with the store's lock held; False if another live process has it."""
        path = self._path / claim_name(shard)
        holder = self._watch.holder(path)
        if holder is not None and holder.owner != files.me():
            return False
        if holder is not None:  # given twice: the same lease
            self.leases[shard] = files.Lease(path, holder.token)
        else:
            if (before := self._watch.last(path)) is not None and before.state != "gone":
                _log.warning(
                    "Shard %s of %s is taken over from %s.", shard, self._path.name, before
                )
            self.leases[shard] = files.Lease.take(path)
        self.lost.discard(shard)
        return True

    def give_back(self, shard: int) -> None:
        """Remove this process's claim, with the lock held; another's stays."""
        path = self._path / claim_name(shard)
        there = files.lease_at(path)
        if there is not None and there.owner == files.me():
            files.remove(path)

    def overtaken(self, shard: int) -> bool:
        """Whether this process stood still for so long that another computes its shard. Told."""
        lease = self.leases.get(shard)
        if not self._lock.lost() and (lease is None or not lease.overtaken()):
            return False
        self.lost.add(shard)
        _log.warning(
            "Shard %s of store entry %s is not written: this process stood still for so long that "
            "another took it over.",
            shard,
            self._path.name,
        )
        return True

    def tell_wait(self, shards: Sequence[int]) -> None:
        """Say on stderr who has these shards."""
        held: dict[files.Owner, list[int]] = {}
        for shard in shards:
            if (seen := self._watch.last(self._path / claim_name(shard))) is not None:
                held.setdefault(seen.owner, []).append(shard)
        for numbers in held.values():
            seen = self._watch.last(self._path / claim_name(numbers[0]))
            assert seen is not None
            self.waiting.tell(f"shards {listed(numbers)} of store entry {self._path.name}", seen)
