"""Parts of a shard that is being computed: what a kill would lose, kept every few seconds.

A part holds the rows of the sequences that were done since the one before; where a shard is a sum
over sequences, a part is the sum so far and takes the place of the one before. Its name is the
hash of its header, which holds the hash of every tensor: it needs no journal, and one that is
damaged counts as never written. When the shard is written, its parts go.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xlens import files
from xlens.store.errors import DamagedShardError, explained
from xlens.store.journal import ShardRecord
from xlens.store.shards import Shard, pack_tensors, record_of

if TYPE_CHECKING:
    from torch import Tensor

PART_SECONDS = 5.0
_WRITING = 0.05  # most of the time that may go into writing sums, which can be large
_SEQUENCES = "sequences"

# Rows of sequences in a slot's values.
RowsOf = Callable[[str, Sequence[int]], list[int]]


def part_name(shard: int, header: str) -> str:
    """The name of a part's file."""
    return f"shard-{shard:05d}.part-{header}"


class Parts:
    """The parts of one shard.

    Attributes:
        done: Sequences that need not be computed again.
    """

    def __init__(self, folder: Path, shard: int):
        self._folder, self._shard = folder, shard
        self._found: list[dict[str, Tensor]] = []
        self._paths: list[Path] = []
        self._since = time.monotonic()
        self._wait = PART_SECONDS
        self._new: list[int] = []
        for path in sorted(folder.glob(part_name(shard, "*"))):
            tensors = _read(path, shard)
            if tensors is None or _SEQUENCES not in tensors:
                files.remove(path)
                continue
            self._found.append(tensors)
            self._paths.append(path)
        self.done = {int(n) for found in self._found for n in found[_SEQUENCES]}

    def restore(self, sequences: Sequence[int], into: Mapping[str, "Tensor"], rows: RowsOf) -> None:
        """Copy rows of sequences that are done to where they belong.

        Args:
            sequences: Which, all of them in `done`.
            into: By slot, `[layer, row, d_model]`.
            rows: Rows of sequences, by slot.
        """
        wanted = set(sequences)
        for found in self._found:
            for name, values in into.items():
                # A part holds the rows of its sequences one after
                # another, in the order of its own list.
                start = 0
                for n in found[_SEQUENCES].tolist():
                    places = rows(name, [n])
                    if n in wanted:
                        values[:, places] = found[name][:, start : start + len(places)]
                    start += len(places)

    def keep(self, sequences: Sequence[int], values: Mapping[str, "Tensor"], rows: RowsOf) -> None:
        """Note that sequences are done; every few seconds, write what has been done since."""
        self._new += sequences
        if time.monotonic() - self._since < PART_SECONDS:
            return
        tensors = {name: kept[:, rows(name, self._new)] for name, kept in values.items()}
        self._paths.append(self._write(self._new, tensors))
        self._new = []
        self._since = time.monotonic()

    def sum(self) -> "dict[str, Tensor]":
        """Of a shard that is a sum over sequences: what it has come to so far; of none, nothing."""
        return max(self._found, key=lambda found: len(found[_SEQUENCES]), default={})

    def keep_sum(self, sequences: Sequence[int], tensors: Mapping[str, "Tensor"]) -> None:
        """Every now and then, write what the sum over sequences has come to.

        Args:
            sequences: All that are in it.
            tensors: The sum, and whatever says how it goes on.
        """
        if (begun := time.monotonic()) - self._since < self._wait:
            return
        earlier, self._paths = self._paths, [self._write(sequences, tensors)]
        for path in earlier:
            # A sum that hasn't changed has the same hash, and so the same name: it must not go.
            if path not in self._paths:
                files.remove(path)
        self._since = time.monotonic()
        # The longer it took, the longer until the next one:
        # writing stays below its share of the time.
        self._wait = max(PART_SECONDS, (self._since - begun) / _WRITING)

    def _write(self, sequences: Sequence[int], tensors: Mapping[str, "Tensor"]) -> Path:
        import torch

        tensors = {**tensors, _SEQUENCES: torch.tensor(list(sequences), dtype=torch.long)}
        doing = f"keeping a part of shard {self._shard} of entry {self._folder.name}"
        header, chunks = pack_tensors(tensors, entry=self._folder.name, shard=self._shard)
        record = record_of(self._shard, header, chunks, None)
        path = self._folder / part_name(self._shard, record.header_blake2b)
        with explained(doing, self._folder.parent):
            files.publish({path: files.draft(path, [header, *chunks])})
        return path

    def clear(self) -> None:
        """Delete them: the shard is written."""
        for path in self._paths:
            files.remove(path)


class _Part(Shard):
    """A part, read and checked as a shard is."""

    @property
    def tensors_path(self) -> Path:
        return self.folder / part_name(self.record.shard, self.record.header_blake2b)


def _read(path: Path, shard: int) -> "dict[str, Tensor] | None":
    record = ShardRecord(shard, path.stat().st_size, path.name.rpartition("-")[2])
    try:
        return _Part(path.parent, record).read(verified=set())
    except (DamagedShardError, json.JSONDecodeError, OSError, ValueError):
        return None
