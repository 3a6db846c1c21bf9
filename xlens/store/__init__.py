"""The store: what the core computed, on disk, once.

A content-addressed folder per run (`Entry`), sharded safetensors and Parquet, an append-only
journal while it grows and a manifest when it is whole. No pickle. Torch and pandas are imported
where tensors and rows are touched, so that what lists, checks and clears a store starts at once.
"""

from xlens._lazy import listed
from xlens.store.entry import Entry
from xlens.store.errors import DamagedShardError, StoreError
from xlens.store.keys import EPOCH, FORMAT, digest, entry_id
from xlens.store.parts import Parts
from xlens.store.reports import Damage, EntryInfo, Pruned, Verification
from xlens.store.store import Store

__all__ = [
    "EPOCH",
    "FORMAT",
    "Damage",
    "DamagedShardError",
    "Entry",
    "EntryInfo",
    "Parts",
    "Pruned",
    "Store",
    "StoreError",
    "Verification",
    "digest",
    "entry_id",
]
__dir__ = listed(__all__)
