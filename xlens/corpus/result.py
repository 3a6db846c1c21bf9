"""`FactCounts`: how often each fact stands in a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from xlens.corpus.pairs import COLUMNS
from xlens.corpus.sources import DAMAGED
from xlens.results import Result
from xlens.wording import number_of

if TYPE_CHECKING:
    from xlens.corpus.counting import State


@dataclass(frozen=True, kw_only=True)
class FactCounts(Result):
    """How many documents of a corpus hold each fact.

    Attributes:
        facts: One row per fact, language and object: `id relation language subject object`,
            `documents` that hold both phrases, `apart`: those in which they stand at places of
            their own, so that one phrase is never a pair, and where a window was given `windowed`:
            those of them in which at most so many words stand between.
        files: One row per file: `file`, `bytes` (unpacked) and `documents` that were read, `digest`
            of these bytes, and whether it was `damaged`, so that not all of it was.
        problems: One row per file and kind: `file problem first n`.
    """

    facts: pd.DataFrame
    files: pd.DataFrame
    problems: pd.DataFrame

    @classmethod
    def of(
        cls,
        facts: pd.DataFrame,
        paths: Sequence[Path],
        states: "Sequence[State]",
        key: Mapping[str, Any],
    ) -> "FactCounts":
        """The sum of the counts of all files.

        Args:
            facts: In the order of the counts.
            paths: Of the files.
            states: Of the files, done.
            key: What shaped the counts.
        """
        counted = COLUMNS if key["window"] is not None else COLUMNS[:2]
        total = np.sum([state.counts for state in states], axis=0)
        rows = [
            {
                "file": str(path),
                "bytes": state.bytes,
                "documents": state.documents,
                "digest": state.digest,
                "damaged": DAMAGED in state.problems,
            }
            for path, state in zip(paths, states, strict=True)
        ]
        problems = [
            {"file": str(path), "problem": problem.kind, "first": problem.what, "n": problem.n}
            for path, state in zip(paths, states, strict=True)
            for problem in state.problems.values()
        ]
        names = ("xlens-interp", "hyperscan", "regex", "pyarrow")
        known = {"counter": dict(key), "versions": {name: version(name) for name in names}}
        return cls(
            facts=facts.assign(**{name: total[n] for n, name in enumerate(counted)}),
            files=pd.DataFrame(rows),
            problems=pd.DataFrame(problems, columns=pd.Index(["file", "problem", "first", "n"])),
            provenance=known,
        )

    def to_frame(self) -> pd.DataFrame:
        """The facts with their counts."""
        return self.facts

    def __str__(self) -> str:
        """What was read, what was found, and what could not be read."""
        found = int((self.facts["documents"] > 0).sum())
        size = self.files["bytes"].sum() / 1e6
        lines = [
            f"{number_of(int(self.files['documents'].sum()), 'document')} of "
            f"{number_of(len(self.files), 'file')} ({size:,.1f} MB): {found:,} of "
            f"{number_of(len(self.facts), 'fact')} occur in at least one"
        ]
        for kind, rows in self.problems.groupby("problem", sort=False):
            lines.append(
                f"{int(rows['n'].sum()):,} {kind}: {', '.join(rows['file'].head(3))}"
                f"{' …' if len(rows) > 3 else ''} ({rows['first'].iloc[0]})"
            )
        return "\n".join(lines)
