"""What an entry holds: the journal while it grows, the manifest when it is whole.

The journal is a JSON object a line, only ever added to. A line that can't be read (cut off by a
crash) counts as never written: its shard is computed again. The manifest holds no dates, owners or
order of events, so that it is the same bytes whatever happened on the way.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from xlens import files
from xlens.engine.store.errors import StoreError
from xlens.engine.store.keys import FORMAT, entry_id

Versions = dict[str, list[str]]
_HEAD = ("format", "id", "key", "shards")
_BROKEN = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class ShardRecord:
    """What to expect of a shard's two files.

    Attributes:
        shard: Its number.
        size: Bytes of the safetensors file.
        header_blake2b: Of its header, which holds the hash of every tensor.
        rows_size: Bytes of the Parquet file; None if the shard has no rows.
        rows_blake2b: Of the whole Parquet file.
    """

    shard: int
    size: int
    header_blake2b: str
    rows_size: int | None = None
    rows_blake2b: str | None = None


@dataclass(frozen=True)
class Contents:
    """The state of an entry.

    Attributes:
        head: `format`, `id`, `key` and `shards`; empty if a journal's first line is lost.
        records: Shards that were written, by number.
        versions: Every version of every package that had a part in it.
        created: ISO date; None from a manifest.
    """

    head: Mapping[str, Any] = field(default_factory=dict[str, Any])
    records: Mapping[int, ShardRecord] = field(default_factory=dict[int, ShardRecord])
    versions: Versions = field(default_factory=dict[str, list[str]])
    created: str | None = None

    def checked(self, path: Path) -> Self:
        """Itself, if its head can be trusted for the folder that `path` lies in.

        Raises:
            StoreError: another format, or a key that doesn't belong to the folder's id.
        """
        if not self.head:
            return self
        name = path.parent.name
        if self.head.get("format") != FORMAT:
            raise StoreError(
                f"Store entry {name} has format {self.head.get('format')!r}; this xlens reads "
                f"{FORMAT} ({path}). Use the xlens that made it, another XLENS_CACHE, or delete "
                f"it with `xlens store prune {name}`."
            )
        key = self.head["key"]
        if not isinstance(key, Mapping) or {self.head["id"], entry_id(key)} != {name}:
            raise StoreError(
                f"The key in {path} does not belong to store entry {name}: the file was changed or "
                f"the folder renamed. Delete it with `xlens store prune {name}`, then run again."
            )
        return self


def read_journal(path: Path) -> Contents:
    """The events of a journal, added up; empty if there is none."""
    head: dict[str, Any] = {}
    records: dict[int, ShardRecord] = {}
    versions: Versions = {}
    created = None
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            event = json.loads(line)
            match event["event"]:
                case "entry":
                    head, created = {k: event[k] for k in _HEAD}, str(event["date"])
                case "versions":
                    versions = joined(versions, event["versions"])
                case "shard":
                    record = ShardRecord(**event["record"])
                    records[record.shard] = record
                case "drop":
                    records.pop(event["shard"], None)
                case _:
                    pass
        except _BROKEN:
            continue
    return Contents(head=head, records=records, versions=versions, created=created)


def write_event(path: Path, event: str, **fields: Any) -> None:
    """Add an event, with date and writer, to a journal. Needs the store's lock."""
    line = {"event": event, "date": files.now(), "writer": str(files.me()), **fields}
    files.append(path, json.dumps(line, separators=(",", ":"), allow_nan=False))


def read_manifest(path: Path) -> Contents | None:
    """What a manifest says; None if there is none.

    Raises:
        StoreError: it can't be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        manifest = json.loads(text)
        records = [ShardRecord(**record) for record in manifest["shards"]]
        if [r.shard for r in records] != list(range(manifest["n_shards"])):
            raise ValueError("shards are missing")
        return Contents(
            head={"shards": manifest["n_shards"]}
            | {k: manifest[k] for k in _HEAD if k != "shards"},
            records={r.shard: r for r in records},
            versions=joined({}, manifest["versions"]),
        )
    except _BROKEN as error:
        raise StoreError(
            f"The manifest {path} is damaged ({error}). Run `xlens store verify --repair`: the "
            "shards that are whole are kept."
        ) from error


def manifest_bytes(contents: Contents) -> bytes:
    """The manifest of a whole entry; the same contents give the same bytes."""
    head = contents.head
    manifest = {
        "format": head["format"],
        "id": head["id"],
        "key": head["key"],
        "n_shards": head["shards"],
        "shards": [asdict(record) for _, record in sorted(contents.records.items())],
        "versions": contents.versions,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> Versions:
    """Every version of either, sorted."""
    return {
        name: sorted({*first.get(name, ()), *second.get(name, ())})
        for name in sorted({*first, *second})
    }
