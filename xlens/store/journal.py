"""What an entry holds: the journal while it grows, the manifest when it is whole.

The journal is a JSON object a line, only ever added to. A line that can't be read (cut off by a
crash) counts as never written: its shard is computed again. The manifest holds no dates, owners or
order of events, so that it is the same bytes whatever happened on the way.
"""

import json
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from xlens import files
from xlens.errors import InputError
from xlens.store.errors import StoreError, command
from xlens.store.keys import FORMAT, entry_id

JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"
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

    def __post_init__(self) -> None:
        numbers: tuple[Any, ...] = (self.shard, self.size, self.rows_size or 0)
        if not all(isinstance(n, int) for n in numbers):
            raise InputError("a number was changed")


@dataclass(frozen=True)
class Contents:
    """The state of an entry.

    Attributes:
        head: `format`, `id`, `key` and `shards`; empty if a journal's first line is lost.
        records: Shards that were written, by number.
        versions: Every version of every package that had a part in it.
        created: ISO date; None from a manifest.
        about: What people want to see of it in a list, beside the key; empty from a manifest.
        hosts: Names of what computed shards, where that is told; empty from a manifest.
    """

    head: Mapping[str, Any] = field(default_factory=dict[str, Any])
    records: Mapping[int, ShardRecord] = field(default_factory=dict[int, ShardRecord])
    versions: Versions = field(default_factory=dict[str, list[str]])
    created: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hosts: frozenset[str] = frozenset()

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
                f"it with {command(path.parent.parent, f'prune {name}')}."
            )
        key = self.head["key"]
        if not isinstance(key, Mapping) or {self.head["id"], entry_id(key)} != {name}:
            raise StoreError(
                f"The key in {path} does not belong to store entry {name}: the file was changed or "
                "the folder renamed. Delete it with "
                f"{command(path.parent.parent, f'prune {name}')}, then run again."
            )
        return self


class Journal:
    """A journal that is read once, and then only what was added to it.

    Attributes:
        path: Its file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self._stamp: tuple[int, ...] = ()
        self._read = 0
        self._head: dict[str, Any] = {}
        self._records: dict[int, ShardRecord] = {}
        self._versions: Versions = {}
        self._created: str | None = None
        self._about: dict[str, Any] = {}
        self._hosts: set[str] = set()

    def contents(self) -> Contents:
        """The events, added up; empty if there is no journal."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._forget()
            return Contents()
        if stat.S_ISDIR(found.st_mode):
            return Contents()
        stamp = found.st_ino, found.st_size, found.st_mtime_ns
        if stamp != self._stamp:
            # Only ever added to; whatever else became of it is read anew.
            if self._stamp[:1] != stamp[:1] or found.st_size <= self._read:
                self._forget()
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            for line in new.split(b"\n"):
                self._take(line)
            self._read += new.rfind(b"\n") + 1  # a line without end may still grow
            self._stamp = stamp
        shards = self._head.get("shards", 0)
        return Contents(
            head=dict(self._head),
            # A number that the entry doesn't have comes from a line that was changed.
            records={n: r for n, r in self._records.items() if not shards or 0 <= n < shards},
            versions=dict(self._versions),
            created=self._created,
            about=dict(self._about),
            hosts=frozenset(self._hosts),
        )

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            seal = event.pop("blake2b", None)
            if event.get("format", FORMAT) == FORMAT and _changed(event, seal):
                return
            match event["event"]:
                case "entry":
                    head, created = {k: event[k] for k in _HEAD}, str(event["date"])
                    self._head, self._created = head, created
                case "about":
                    self._about = dict(event["about"])
                case "versions":
                    self._versions = joined(self._versions, event["versions"])
                case "shard":
                    record = ShardRecord(**event["record"])
                    self._records[record.shard] = record
                    if "host" in event:
                        self._hosts.add(str(event["host"]))
                case "drop":
                    self._records.pop(event["shard"], None)
                case _:
                    pass
        except _BROKEN:
            return


def read_journal(path: Path) -> Contents:
    """The events of a journal, added up; empty if there is none."""
    return Journal(path).contents()


def write_event(path: Path, event: str, **fields: Any) -> None:
    """Add an event, with date, writer and digest, to a journal. Needs the store's lock."""
    line = {"event": event, "date": files.now(), "writer": str(files.me()), **fields}
    line["blake2b"] = _seal(line)
    if path.is_dir():
        files.remove(path)
    files.append(path, json.dumps(line, separators=(",", ":"), allow_nan=False))


def _seal(values: Mapping[str, Any]) -> str:
    """Digest of a line or a manifest, by its values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _changed(values: Mapping[str, Any], seal: Any) -> bool:
    """Whether values aren't those that were written; what has no digest is taken as it is."""
    return seal is not None and seal != _seal(values)


def read_manifest(path: Path) -> Contents | None:
    """What a manifest says; None if there is none.

    Raises:
        StoreError: it can't be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        text = b""
    try:
        manifest = json.loads(text)
        seal = manifest.pop("blake2b", None)
        if manifest["format"] == FORMAT and _changed(manifest, seal):
            raise InputError("its digest is another")
        records = [ShardRecord(**record) for record in manifest["shards"]]
        if [r.shard for r in records] != list(range(manifest["n_shards"])):
            raise InputError("shards are missing")
        return Contents(
            head={"shards": manifest["n_shards"]}
            | {k: manifest[k] for k in _HEAD if k != "shards"},
            records={r.shard: r for r in records},
            versions=joined({}, manifest["versions"]),
        )
    except _BROKEN as error:
        raise StoreError(
            f"The manifest {path} is damaged ({error}). Run "
            f"{command(path.parent.parent, 'verify --repair')}: the shards that are whole are kept."
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
    manifest["blake2b"] = _seal(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogatepass")


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> Versions:
    """Every version of either, sorted."""
    return {
        name: sorted({*first.get(name, ()), *second.get(name, ())})
        for name in sorted({*first, *second})
    }


def contents_of(path: Path) -> Contents:
    """What an entry's folder holds, by its manifest, or by its journal while there is none.

    Raises:
        StoreError: see `read_manifest` and `Contents.checked`.
    """
    whole = read_manifest(path / MANIFEST)
    if whole is not None:
        return whole.checked(path / MANIFEST)
    return read_journal(path / JOURNAL).checked(path / JOURNAL)
