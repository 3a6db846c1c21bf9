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
from xlens.files.owners import Owner, abandoned, me, now

__all__ = [
    "Owner",
    "abandoned",
    "append",
    "cache_root",
    "digest",
    "draft",
    "is_draft",
    "me",
    "now",
    "publish",
    "remove",
    "replacing",
    "settle",
    "sweep",
    "sync",
    "unique",
    "write",
]
