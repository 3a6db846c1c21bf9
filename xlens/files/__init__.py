"""Files that xlens keeps: written whole or not at all, with digests, by owners that can be told.

Everything that is written to be read back goes through here: `write` for a file, `replacing` for a
folder, `append` for a line. After a kill or a power cut the old content is there or the new one,
and what is on the disk under its final name has been synced.
"""

from xlens.files.disk import (
    append,
    cache_root,
    digest,
    draft,
    is_draft,
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

__all__ = [
    "Holding",
    "Lease",
    "Lock",
    "Owner",
    "Waiting",
    "Watch",
    "abandoned",
    "append",
    "cache_root",
    "digest",
    "draft",
    "is_draft",
    "lease_at",
    "me",
    "now",
    "publish",
    "remove",
    "replacing",
    "settle",
    "sweep",
    "sync",
    "unique",
    "wait_for_signs",
    "write",
]
