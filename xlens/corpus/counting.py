"""The count of one file, with a state from which it goes on after a kill."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from xlens import files
from xlens.corpus.pairs import COLUMNS, Pairs
from xlens.corpus.sources import Block, Layout, Problem, blocks, documents
from xlens.errors import DataError

SAVE_SECONDS = 10.0
_AGAIN = "Delete it, and run the same command again: its file is counted anew."


@dataclass(frozen=True, eq=False)
class State:
    """How far the count of one file has come.

    Attributes:
        counts: By `COLUMNS` and pair.
        blocks: That were counted.
        bytes: Of them, unpacked.
        documents: Of them.
        digest: SHA-256 of these bytes.
        problems: By kind.
        done: Whether that is all of the file.
    """

    counts: np.ndarray
    blocks: int = 0
    bytes: int = 0
    documents: int = 0
    digest: str = sha256().hexdigest()
    problems: Mapping[str, Problem] = field(default_factory=dict[str, Problem])
    done: bool = False

    def after(self, path: Path, block: Block, pairs: Pairs, how: Layout) -> "State":
        """The state when this block, the next one, is counted too."""
        found = documents(path, block, how)
        problems = dict(self.problems)
        for problem in found.problems:
            before = problems.get(problem.kind)
            whole = problem if before is None else replace(before, n=before.n + problem.n)
            problems[problem.kind] = whole
        return State(
            counts=self.counts + pairs.count(found.lines),
            blocks=self.blocks + 1,
            bytes=block.end,
            documents=self.documents + found.n,
            digest=block.digest,
            problems=problems,
        )

    def plain(self) -> dict[str, Any]:
        """As JSON; of the counts those that aren't 0."""
        # Most pairs stand in no document of a file.
        held = np.flatnonzero(self.counts.any(axis=0))
        counts = {name: row[held].tolist() for name, row in zip(COLUMNS, self.counts, strict=True)}
        own = {name: getattr(self, name) for name in ("blocks", "bytes", "documents", "digest")}
        problems = [asdict(problem) for problem in self.problems.values()]
        counts["pair"] = held.tolist()
        return {**own, "done": self.done, "problems": problems, "counts": counts}

    @classmethod
    def of(cls, plain: Mapping[str, Any], n: int) -> "State":
        """From what `plain` gave."""
        counts = np.zeros((len(COLUMNS), n), dtype=np.int64)
        known = plain["counts"]
        counts[:, known["pair"]] = [known[name] for name in COLUMNS]
        problems = [Problem(**problem) for problem in plain["problems"]]
        own = {name: plain[name] for name in ("blocks", "bytes", "documents", "digest", "done")}
        return cls(counts=counts, problems={p.kind: p for p in problems}, **own)


@dataclass(frozen=True, eq=False)
class Job:
    """What all files have in common.

    Attributes:
        pairs: What is counted.
        how: How documents are found.
        key: All that shapes a count.
    """

    pairs: Pairs
    how: Layout
    key: Mapping[str, Any]

    def run(self, path: Path, kept: Path | None, state: State | None = None) -> State:
        """Count one file, from where it was stopped.

        Args:
            path: The file.
            kept: Where its state is kept; None: nowhere.
            state: From which to go on; None: the one that is kept.

        Raises:
            ValueError: the state is of another count, or the file has changed since.
        """
        state = self.state(path, kept) if state is None else state
        if state.done:
            return state
        start = state.blocks
        saved = time.monotonic()
        for number, block in enumerate(blocks(path, self.how), 1):
            if number <= start:
                # The digest is of all content so far, so this one
                # comparison vouches for every block before.
                if number == start and block.digest != state.digest:
                    raise _changed(path, kept)
                continue
            state = state.after(path, block, self.pairs, self.how)
            if kept is not None and time.monotonic() - saved > SAVE_SECONDS:
                self.keep(path, kept, state)
                saved = time.monotonic()
        state = replace(state, done=True)
        if kept is not None:
            self.keep(path, kept, state)
        return state

    def state(self, path: Path, kept: Path | None) -> State:
        """How far the count of a file has come.

        Raises:
            ValueError: as `run`.
        """
        n = len(self.pairs)
        if kept is None or not kept.is_file():
            return State(np.zeros((len(COLUMNS), n), dtype=np.int64))
        known = files.unsealed_json(kept, kept.read_bytes(), _AGAIN)
        # Told apart: another count (a mistake of the call) and a file that has changed since.
        if {name: known["key"].get(name) for name in self.key} != self.key:
            raise DataError(
                f"{str(kept.parent.parent)!r} holds a count of other facts, or with other options: "
                "give another folder (out=, --out), or the facts and options of that count."
            )
        if known["key"] != self._key(path):
            raise _changed(path, kept)
        return State.of(known["state"], n)

    def keep(self, path: Path, kept: Path, state: State) -> None:
        """Write down how far the count of a file has come."""
        fields = {"file": str(path), "key": self._key(path), "state": state.plain()}
        files.write(kept, files.sealed_json(fields))

    def _key(self, path: Path) -> dict[str, Any]:
        found = path.stat()
        return {**self.key, "size": found.st_size, "changed": found.st_mtime_ns}


def _changed(path: Path, kept: Path | None) -> ValueError:
    return DataError(
        f"{str(path)!r} has changed since its count in {str(kept)!r} began. Delete that file to "
        "count it anew, or give another folder (out=, --out)."
    )
