"""What an entry's journal and manifest say of it, read again only where a file has changed."""

import os
import threading
from pathlib import Path

from xlens import files
from xlens.store import journal
from xlens.store.journal import JOURNAL, MANIFEST, Contents


class Records:
    """Journal and manifest of one entry; safe for threads.

    Attributes:
        journal: The journal's file: a line for each thing that was done.
        manifest: The manifest's file, once the entry is whole.
    """

    def __init__(self, path: Path) -> None:
        self.journal = path / JOURNAL
        self.manifest = path / MANIFEST
        self._events = journal.Journal(self.journal)
        self._whole: tuple[tuple[int, ...], Contents] | None = None
        self._lock = threading.Lock()

    def contents(self) -> Contents:
        """What is in force: the manifest, else the journal."""
        return self._manifested() or self.journalled()

    def journalled(self) -> Contents:
        """What the journal says."""
        with self._lock:
            return self._events.contents().checked(self.journal)

    def reopen(self) -> None:
        """Go from manifest back to journal. A kill on the way leaves one of them in force."""
        whole = self._manifested()
        if whole is None:
            return
        journal.write_event(self.journal, "versions", versions=whole.versions)
        for record in whole.records.values():
            journal.write_event(self.journal, "shard", record=vars(record))
        # Last: while it is there it is in force, and the lines above say nothing new.
        os.unlink(self.manifest)
        files.sync(self.manifest.parent)

    def _manifested(self) -> Contents | None:
        """The manifest, checked against the id."""
        with self._lock:
            try:
                stamp = stamp_of(self.manifest)
            except FileNotFoundError:
                return None
            if self._whole is None or self._whole[0] != stamp:
                contents = journal.read_manifest(self.manifest)
                if contents is None:
                    return None
                self._whole = stamp, contents.checked(self.manifest)
            return self._whole[1]


def stamp_of(path: Path) -> tuple[int, ...]:
    """By which a file is known to be another than before."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
