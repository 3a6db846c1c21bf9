"""`WordList`: the same words in several languages, by item id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize_all
from xlens.tasks.items import item_id
from xlens.tasks.parallel import Parallel
from xlens.text import form

DROPPED = ("id", "language", "word", "reason")


@typed
def kind_of(id: str) -> str:
    """The kind of an item: what stands before the slash in `month/3`; `word` without a slash."""
    return id.split("/", 1)[0] if "/" in id else "word"


def _missing(word: object) -> bool:
    return word is None or word is pd.NA or (isinstance(word, float) and word != word)


@dataclass(frozen=True, eq=False)
class WordList(Parallel):
    """Words by item and language.

    Attributes:
        frame: One row per item, index `id` (`month/3`, `territory/FR`), one column per language
            (standardised BCP-47 tag); a word or NA.
        source: Where the words come from: `CLDR 47 via babel 2.18.0`, or a file's name.
        dropped: What was left out when the list was made: columns id, language, word, reason.

    Raises:
        ValueError: an id or language that occurs twice, an unknown language tag, or a cell that
            is neither NA nor a non-empty single line.
    """

    CALLED: ClassVar[tuple[str, str]] = ("word", "words")
    ADVICE: ClassVar[str] = "Add these languages to it, or ask for one it has."

    frame: pd.DataFrame
    source: str
    dropped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(DROPPED)))

    def __post_init__(self) -> None:
        languages = standardize_all([str(column) for column in self.frame.columns])
        frame = self.frame.set_axis(languages, axis="columns").astype("object")
        frame.index = pd.Index([item_id(id, self.source) for id in frame.index], name="id")
        if not frame.index.is_unique:
            twice = sorted(set(frame.index[frame.index.duplicated()]))
            raise InputError(
                f"Item ids must be unique, but {shown(twice)} occur more than once in "
                f"{self.source}; keep one row per item."
            )
        for language in languages:
            # Two spellings of one word would be two words to a tokenizer.
            words = [form(word) if isinstance(word, str) else word for word in frame[language]]
            frame[language] = pd.Series(words, index=frame.index, dtype="object")
            for id, word in frame[language].items():
                if not _missing(word) and not (
                    isinstance(word, str) and word.strip() and len(word.splitlines()) == 1
                ):
                    raise InputError(
                        f"Item {id!r} has no usable word in {language!r}: {word!r}. A cell is a "
                        "non-empty single line of text, or NA where the word is missing."
                    )
        object.__setattr__(self, "frame", frame.astype("string"))

    def __repr__(self) -> str:
        kinds = {kind: sum(kind_of(id) == kind for id in self.ids) for kind in self.kinds}
        return f"WordList({kinds}, languages={list(self.languages)}, source={self.source!r})"

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Language tags in column order."""
        return tuple(str(column) for column in self.frame.columns)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Item ids in row order."""
        return tuple(str(id) for id in self.frame.index)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of item in order of first appearance; see `kind_of`."""
        return tuple(dict.fromkeys(kind_of(id) for id in self.ids))

    def words(self, language: str) -> dict[str, str]:
        """The words of one language by item id, items without a word left out.

        Raises:
            ValueError: a language without a column.
        """
        (tag,) = self.require([language])
        return {str(id): str(word) for id, word in self.frame[tag].dropna().items()}

    @typed
    def select(
        self,
        *,
        languages: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
        ids: Iterable[str] | None = None,
    ) -> Self:
        """The items of these kinds and ids, in these languages; rows keep their order.

        Raises:
            ValueError: a language, kind or id that doesn't occur here.
        """
        columns = self.languages if languages is None else self.require(languages)
        wanted_kinds = _known(kinds, self.kinds, "kind", self.source)
        wanted_ids = _known(ids, self.ids, "id", self.source)
        rows = [id for id in self.ids if kind_of(id) in wanted_kinds and id in wanted_ids]
        return self._with(self.frame.loc[rows, list(columns)])

    def complete(self, languages: Iterable[str] | None = None) -> Self:
        """The items that have a word in every one of `languages` (None: all columns).

        Raises:
            ValueError: a language without a column.
        """
        columns = self.languages if languages is None else self.require(languages)
        return self._with(self.frame.dropna(subset=list(columns)))

    def identical(self, first: str, second: str) -> tuple[str, ...]:
        """Ids of the items that are the same string in both languages (`Oman`, `Oman`).

        Raises:
            ValueError: a language without a column.
        """
        one, other = self.words(first), self.words(second)
        return tuple(id for id, word in one.items() if other.get(id) == word)

    def _with(self, frame: pd.DataFrame) -> Self:
        return type(self)(frame, self.source, self.dropped)


def _known(
    asked: Iterable[str] | None, present: Sequence[str], what: str, source: str
) -> frozenset[str]:
    if asked is None:
        return frozenset(present)
    if isinstance(asked, str):
        raise InputError(f"Expected a sequence of {what}s, got {asked!r}; write [{asked!r}].")
    wanted = frozenset(asked)
    if missing := sorted(wanted - frozenset(present)):
        raise DataError(
            f"No {what} {shown(missing)} in the list from {source}; it has {shown(present)}."
        )
    return wanted


def shown(values: Sequence[str], most: int = 8) -> str:
    """A few of `values`, and how many more there are."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(repr, values[:most])) + more
