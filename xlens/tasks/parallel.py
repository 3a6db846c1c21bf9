"""What parallel items have in common: the same ids in every language, and what is asked of them.

`WordList`, `Choices` and `ReadingSet` are made of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.items import content
from xlens.tasks.sources import known

Fault = tuple[str, str, str, str]
"""`id language reason detail`: why an item can't be asked."""
DROPPED = ("id", "language", "reason", "detail")
MISSING = "missing language"


class Parallel:
    """Base of items in several languages, paired by id.

    Attributes:
        frame: The items, one row per item and language unless a subclass says otherwise.
        source: Where they come from.
        dropped: What was left out when they were made, with `id` and `reason`.
    """

    CALLED: ClassVar[tuple[str, str]] = ("item", "items")
    ADVICE: ClassVar[str] = "Ask for one of these."
    REASONS: ClassVar[tuple[str, ...]] = ()
    """Why items may have been left out, in the order in which `survival` counts them."""

    frame: pd.DataFrame
    source: str
    dropped: pd.DataFrame

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Language tags in order of first appearance."""
        return tuple(dict.fromkeys(self.frame["language"]))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids in order of first appearance."""
        return tuple(dict.fromkeys(self.frame["id"]))

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Of all that the items are: results of others are never taken for theirs."""
        return content(self.frame)

    def require(self, languages: Iterable[str]) -> tuple[str, ...]:
        """The standardised tags of `languages`, all of which are here.

        Raises:
            ValueError: a language that isn't.
        """
        tags = standardize_all(languages)
        if missing := [tag for tag in tags if tag not in self.languages]:
            raise InputError(
                f"No {self.CALLED[1]} in {', '.join(map(repr, missing))}: {self.source} has "
                f"{', '.join(self.languages)}. {self.ADVICE}"
            )
        return tuple(tags)

    def among(
        self,
        column: str,
        values: Iterable[str] | None,
        ids: Iterable[str] | None,
        languages: Iterable[str] | None,
        *,
        called: str,
    ) -> pd.DataFrame:
        """Rows of these values of a column, ids and languages, in their order here; None: all.

        Args:
            column: That sorts items: `kind`, say, one value an item.
            values: Of it.
            ids: Of the items.
            languages: Of the rows.
            called: What items of a value are, for the error: `of kind`.

        Raises:
            ValueError: something that doesn't occur, or nothing left.
        """
        tags = self.languages if languages is None else self.require(languages)
        wanted_ids = known(ids, self.ids, "id")
        wanted = known(values, tuple(self.frame[column]), column)
        frame = self.frame[
            self.frame["language"].isin(tags)
            & self.frame["id"].isin(wanted_ids)
            & self.frame[column].isin(wanted)
        ]
        if frame.empty:
            raise InputError(
                f"No {self.CALLED[0]} of {self.source} is both among these ids ({len(wanted_ids)}) "
                f"and {called} {', '.join(sorted(wanted))}; ask for fewer things at once."
            )
        return frame

    def select(self, *, ids: Iterable[str] | None = None) -> Self:
        """The items of these ids, in their order here."""
        raise NotImplementedError

    @typed
    def sample(self, n: int, *, seed: int = 0) -> Self:
        """`n` items, in every language; the choice depends on the ids and the seed only.

        Raises:
            ValueError: `n` below 1 or above the number of items.
        """
        self.check_number(n)
        return self.select(ids=sorted(self.ids, key=lambda id: seeded_rank(id, seed=seed))[:n])

    def check_number(self, n: int) -> None:
        """Refuse to draw more than there are.

        Raises:
            ValueError: `n` below 1 or above the number of items.
        """
        if not 1 <= n <= len(self):
            raise InputError(
                f"Can't sample {n} {self.CALLED[1]} of {len(self)} from {self.source}; ask for 1 "
                f"to {len(self)}."
            )

    def survival(self) -> pd.DataFrame:
        """How many were offered, how many are left, and why others are not: `reason n`."""
        # An item counts by its first reason: the numbers add up to what was offered.
        gone = self.dropped.drop_duplicates("id")
        counts = Counter(gone["reason"])
        rows = [("offered", len(self) + len(gone)), ("kept", len(self))]
        rows += [(reason, counts[reason]) for reason in dict.fromkeys([*self.REASONS, *counts])]
        return pd.DataFrame(rows, columns=["reason", "n"])


def nothing_dropped() -> pd.DataFrame:
    """The table of what was left out, where nothing was."""
    return pd.DataFrame(columns=list(DROPPED), dtype="object")


def rows_by_id(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Rows of each item; grouping by pandas is far slower."""
    found: dict[str, list[Any]] = {}
    for row in frame.itertuples(index=False):
        found.setdefault(str(row.id), []).append(row)
    return found


def first_faults(
    frame: pd.DataFrame,
    of_row: Callable[[Any, Any], Iterable[tuple[str, str]]],
    *,
    parallel: bool = True,
) -> list[Fault]:
    """The first fault of every item that has one.

    Args:
        frame: One row per item and language.
        of_row: `reason detail` of each fault of a row, given the item's first row as well.
        parallel: Whether a language that an item lacks is one.
    """
    languages = list(dict.fromkeys(frame["language"]))
    faults: list[Fault] = []
    for id, rows in rows_by_id(frame).items():
        there = {row.language for row in rows}
        found = [(t, MISSING, "") for t in languages if parallel and t not in there]
        found += [(row.language, *fault) for row in rows for fault in of_row(row, rows[0])]
        # The rest may follow from the first.
        faults += [(id, *fault) for fault in found[:1]]
    return faults


def told(fault: Sequence[str], what: str) -> str:
    """A fault in words: `item 'q1', de: gold differs (1, but 0 in en)`."""
    id, language, reason, detail = fault
    return f"{what} {id!r}, {language}: {reason}" + (f" ({detail})" if detail else "")


def refusal(faults: Sequence[Fault], source: str, called: tuple[str, str], advice: str) -> str:
    """The error for faults: the first three, how many more, and what to do."""
    one, several = called
    more = f" and {len(faults) - 3} more {several}" if len(faults) > 3 else ""
    return f"{source}: {'; '.join(told(fault, one) for fault in faults[:3])}{more}. {advice}"
