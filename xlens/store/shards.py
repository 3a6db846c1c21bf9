"""One shard: a safetensors file and, beside it, a Parquet file with a row per prompt.

Every tensor's hash stands in the header of its file, and the header's hash in the journal and the
manifest. So one tensor is verified without reading the others, and yet every byte is covered.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlens.errors import InputError
from xlens.store.errors import DamagedShardError, command
from xlens.store.journal import ShardRecord
from xlens.store.keys import tensor_bytes

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
_META = "__metadata__"


def tensors_name(shard: int) -> str:
    """The name of a shard's safetensors file."""
    return f"shard-{shard:05d}.safetensors"


def rows_name(shard: int) -> str:
    """The name of a shard's Parquet file."""
    return f"shard-{shard:05d}.parquet"


def claim_name(shard: int) -> str:
    """The name of the file that says who computes a shard."""
    return f"shard-{shard:05d}.claim"


def pack_tensors(
    tensors: Mapping[str, "Tensor"], *, entry: str, shard: int
) -> tuple[bytes, list[memoryview]]:
    """A safetensors file: its header and its data, which are views where they can be.

    Written by hand, not by the library, because the library can't hash on the way, makes copies,
    and reports a full disk as something else than an `OSError`. The same tensors give the same
    bytes, in any order.

    Raises:
        ValueError: no tensors, a name or a dtype that the format doesn't have.
    """
    if not tensors:
        raise InputError(f"Shard {shard} has no tensors; a shard holds at least one.")
    for name, tensor in tensors.items():
        if not name or name == _META:
            raise InputError(f"A tensor of shard {shard} has the name {name!r}; choose another.")
        if str(tensor.dtype) not in _DTYPES or str(tensor.layout) != "torch.strided":
            raise InputError(
                f"Tensor {name!r} of shard {shard} is {tensor.dtype}, {tensor.layout}; a shard "
                f"holds dense tensors of {', '.join(_DTYPES)}."
            )
    # Widest first, so that every tensor stands where its dtype may be mapped.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    chunks = {name: tensor_bytes(tensors[name]) for name in order}
    seal = {"entry": entry, "shard": shard, "blake2b": {n: _hash(chunks[n]) for n in order}}
    # A single name here: the library keeps them in no order.
    header: dict[str, Any] = {_META: {"xlens": json.dumps(seal, separators=(",", ":"))}}
    start = 0
    for name in order:
        stop = start + len(chunks[name])
        header[name] = {
            "dtype": _DTYPES[str(tensors[name].dtype)],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data after it begins at a multiple of 8 so, as the library writes it: it may be mapped.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, list(chunks.values())


def pack_rows(rows: "pd.DataFrame") -> bytes:
    """A table as a Parquet file, without its index.

    Raises:
        ValueError: Parquet can't hold it.
    """
    buffer = BytesIO()
    try:
        rows.to_parquet(buffer, index=False)
    except (ValueError, TypeError) as error:  # pyarrow's own errors are among them
        raise InputError(f"These rows can't be written as Parquet: {error}") from error
    return buffer.getvalue()


def record_of(
    shard: int, header: bytes, chunks: Iterable[memoryview], rows: bytes | None
) -> ShardRecord:
    """What journal and manifest keep of a packed shard."""
    return ShardRecord(
        shard=shard,
        size=len(header) + sum(map(len, chunks)),
        header_blake2b=_hash(header),
        rows_size=None if rows is None else len(rows),
        rows_blake2b=None if rows is None else _hash(rows),
    )


@dataclass(frozen=True)
class Shard:
    """A shard on the disk and what it should be.

    Attributes:
        folder: Of its entry.
        record: From journal or manifest.
    """

    folder: Path
    record: ShardRecord

    @property
    def tensors_path(self) -> Path:
        """Its safetensors file."""
        return self.folder / tensors_name(self.record.shard)

    @property
    def rows_path(self) -> Path:
        """Its Parquet file."""
        return self.folder / rows_name(self.record.shard)

    @property
    def paths(self) -> tuple[Path, Path]:
        """Its safetensors file and its Parquet file."""
        return self.tensors_path, self.rows_path

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self.record.size + (self.record.rows_size or 0)

    def check_sizes(self) -> None:
        """See that the files are there, of full length.

        Raises:
            DamagedShardError: they aren't.
        """
        sizes = [(self.tensors_path, self.record.size)]
        if self.record.rows_size is not None:
            sizes.append((self.rows_path, self.record.rows_size))
        for path, size in sizes:
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                raise self._damaged(path, "the file is missing") from None
            if found != size:
                how = "truncated" if found < size else "too long"
                raise self._damaged(path, f"it is {how}: {found:,} bytes instead of {size:,}")

    def check(self) -> None:
        """See that every byte of both files is as it was written.

        Raises:
            DamagedShardError: one isn't.
        """
        self.read(verified=set())
        if self.record.rows_size is not None:
            self._rows_bytes()

    def read(
        self, names: Sequence[str] | None = None, *, verified: set[str] | None
    ) -> dict[str, "Tensor"]:
        """Some or all tensors; nothing else is read.

        Args:
            names: Which; None for all.
            verified: Tensors whose hash was seen to be right; what is read is added. None
                checks sizes only.

        Raises:
            ValueError: a name that the shard doesn't have.
            DamagedShardError: the file isn't what was written.
        """
        from safetensors import safe_open

        self.check_sizes()
        header = self._header()
        hashes = json.loads(header.pop(_META)["xlens"])["blake2b"]
        if missing := sorted(set(names or ()) - set(header)):
            raise InputError(
                f"Shard {self.record.shard} of store entry {self.folder.name} has no tensor "
                f"{missing[0]!r}; it has {', '.join(sorted(header))}."
            )
        tensors: dict[str, Tensor] = {}
        with safe_open(self.tensors_path, framework="pt") as file:
            for name in sorted(header) if names is None else names:
                tensors[name] = file.get_tensor(name)
                if verified is None or name in verified:
                    continue
                if _hash(tensor_bytes(tensors[name])) != hashes[name]:
                    reason = f"the bytes of tensor {name!r} have changed"
                    raise self._damaged(self.tensors_path, reason)
                verified.add(name)
        return tensors

    def rows(self) -> "pd.DataFrame | None":
        """The table; None if the shard has none.

        Raises:
            DamagedShardError: the file isn't what was written.
        """
        import pandas as pd

        self.check_sizes()
        return None if self.record.rows_size is None else pd.read_parquet(self._rows_bytes())

    def _rows_bytes(self) -> BytesIO:
        content = self.rows_path.read_bytes()
        if _hash(content) != self.record.rows_blake2b:
            raise self._damaged(self.rows_path, "its bytes have changed")
        return BytesIO(content)

    def _header(self) -> dict[str, Any]:
        with self.tensors_path.open("rb") as file:
            length = file.read(8)
            # A flipped bit may ask for more than there is; the size of the file bounds it.
            text = file.read(min(int.from_bytes(length, "little"), self.record.size))
        if _hash(length + text) != self.record.header_blake2b:
            raise self._damaged(self.tensors_path, "the bytes of its header have changed")
        return json.loads(text)

    def _damaged(self, path: Path, reason: str) -> DamagedShardError:
        return DamagedShardError(
            f"Shard {self.record.shard} of store entry {self.folder.name} is damaged: {reason} "
            f"({path}). Run {command(self.folder.parent, 'verify --repair')}, which drops damaged "
            "shards, then run again: only they are computed again."
        )


def _hash(content: bytes | memoryview) -> str:
    return blake2b(content, digest_size=16).hexdigest()
