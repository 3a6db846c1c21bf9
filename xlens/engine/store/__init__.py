"""The store: what the core computed, on disk, once.

A content-addressed folder per run (`Entry`), sharded safetensors and Parquet, an append-only
journal while it grows and a manifest when it is whole. No pickle.
"""

from xlens.engine.store.entry import Entry
from xlens.engine.store.errors import DamagedShardError, StoreError
from xlens.engine.store.keys import EPOCH, FORMAT, digest, entry_id
from xlens.engine.store.parts import Parts
from xlens.engine.store.reports import Damage, EntryInfo, Pruned, Verification
from xlens.engine.store.store import Store

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
