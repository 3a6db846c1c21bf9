"""Files that xlens keeps: written whole or not at all, with digests, by owners that can be told.

Everything that is written to be read back goes through here: `write` for a file, `replacing` for a
folder, `append` for a line; `saving`, `seal` and `unsealed` for folders whose header holds the
digests of their files. After a kill or a power cut the old content is there or the new one,
and what is on the disk under its final name has been synced.
"""

from xlens._lazy import listed
from xlens.files.disk import (
    append,
    cache_root,
    digest,
    draft,
    is_draft,
    make,
    publish,
    remove,
    replacing,
    settle,
    sweep,
    sync,
    unique,
    write,
)
from xlens.files.leases import Holding, Lease, Waiting, Watch, lease_at, wait_for_signs
from xlens.files.lock import Lock
from xlens.files.owners import Owner, abandoned, me, now
from xlens.files.sealed import (
    DamagedError,
    check_file,
    damaged,
    present,
    saving,
    seal,
    sealed_json,
    sealed_text,
    told,
    unsealed,
    unsealed_json,
    unsealed_text,
)

__all__ = [
    "DamagedError",
    "Holding",
    "Lease",
    "Lock",
    "Owner",
    "Waiting",
    "Watch",
    "abandoned",
    "append",
    "cache_root",
    "check_file",
    "damaged",
    "digest",
    "draft",
    "is_draft",
    "lease_at",
    "make",
    "me",
    "now",
    "present",
    "publish",
    "remove",
    "replacing",
    "saving",
    "seal",
    "sealed_json",
    "sealed_text",
    "settle",
    "sweep",
    "sync",
    "told",
    "unique",
    "unsealed",
    "unsealed_json",
    "unsealed_text",
    "wait_for_signs",
    "write",
]
__dir__ = listed(__all__)
