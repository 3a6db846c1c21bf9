"""`Choices`: the same multiple-choice items in several languages, by item id."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pandas as pd

from xlens.checks import typed, wrong_type
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.tasks.choices.text import folded
from xlens.tasks.items import item_id, item_text, item_texts, refuse_twice
from xlens.tasks.parallel import (
    DROPPED,
    Fault,
    Parallel,
    first_faults,
    nothing_dropped,
    refusal,
    rows_by_id,
    told,
)

REQUIRED = ("id", "language", "question", "options", "gold")
OPTIONAL = {"context": "", "mark": "", "kind": "choice"}
_MEND = (
    "Items are paired by id and must be the same question in every language: mend them, or leave "
    "them out (incomplete='drop', --incomplete drop)."
)
REASONS = (
    "missing word",
    "too few options",
    "missing language",
    "empty text",
    "unequal options",
    "option twice",
    "gold out of range",
    "gold differs",
    "kind differs",
    "identical options",
)


@dataclass(frozen=True)
class Choice:
    """One item in one language.

    Attributes:
        question: What is asked.
        options: The answers offered.
        gold: Number of the right one, from 0.
        context: A passage before the question; may be empty.
        mark: What stands between question and answer (`→`); may be empty.
        kind: A relation or subject; demonstrations are of the query's kind.
    """

    question: str
    options: tuple[str, ...]
    gold: int
    context: str = ""
    mark: str = ""
    kind: str = "choice"


@dataclass(frozen=True, eq=False)
class Choices(Parallel):
    """Parallel multiple-choice items: every item in every language, options in one order.

    Attributes:
        frame: One row per item and language: `id language question options gold`, and, where
            given, `context mark kind` (see `Choice`).
        source: Where the items come from.
        dropped: What was left out when the items were made: `id language reason detail`.

    Raises:
        ValueError: a missing column, an unknown tag, fewer than two languages, an id twice in a
            language or absent from one, unequal numbers of options, fewer than two, the same
            option twice in a language, an empty text, a right answer out of range, or one (or a
            kind) that differs between languages.
    """

    REASONS: ClassVar[tuple[str, ...]] = REASONS

    frame: pd.DataFrame
    source: str
    dropped: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        frame = tidy(self.frame, self.source)
        if faults := find_faults(frame):
            raise InputError(refusal(faults, self.source, self.CALLED, _MEND))
        object.__setattr__(self, "frame", frame)

    def __repr__(self) -> str:
        kinds = dict(Counter(self.kinds.values()))
        return f"Choices({kinds}, languages={list(self.languages)}, source={self.source!r})"

    @property
    def gold(self) -> dict[str, int]:
        """Number of the right option, by item id."""
        return dict(zip(self.frame["id"], self.frame["gold"], strict=True))

    @property
    def paragraphs(self) -> dict[str, str]:
        """By item id, the id of the first item with the same passage: what intervals draw whole.

        An item without a passage is one of its own.
        """
        first: dict[str, str] = {}
        mine = self.frame[self.frame["language"] == self.languages[0]]
        rows = zip(mine["id"], mine["context"], strict=True)
        # By the passage's text in one language: data sets number questions, not passages.
        return {id: first.setdefault(text, id) if text else id for id, text in rows}

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each item, by id."""
        return dict(zip(self.frame["id"], self.frame["kind"], strict=True))

    def classes(self) -> frozenset[str]:
        """Kinds whose options are classes: the same in each of several items, in one order."""
        options: dict[str, set[tuple[str, ...]]] = {}
        mine = self.frame[self.frame["language"] == self.languages[0]]
        for kind, own in zip(mine["kind"], mine["options"], strict=True):
            options.setdefault(kind, set()).add(tuple(own))
        counts = Counter(mine["kind"])
        # One item alone would make any options look like classes.
        return frozenset(kind for kind, own in options.items() if len(own) == 1 < counts[kind])

    def items(self, language: str) -> dict[str, Choice]:
        """The items in one language, by id.

        Raises:
            ValueError: a language that isn't here.
        """
        (tag,) = self.require([language])
        mine = self.frame[self.frame["language"] == tag]
        columns = ["question", "options", "gold", "context", "mark", "kind"]
        rows = mine[columns].itertuples(index=False, name=None)
        return {id: Choice(*row) for id, row in zip(mine["id"], rows, strict=True)}

    @typed
    def select(
        self,
        *,
        languages: Iterable[str] | None = None,
        ids: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
    ) -> Self:
        """The items of these ids and kinds, in these languages, in their order here.

        Raises:
            ValueError: a language, id or kind that doesn't occur, nothing left, one language.
        """
        frame = self.among("kind", kinds, ids, languages, called="of kind")
        return type(self)(frame, self.source, self.dropped)

    def identical(self, pivot: str | None = None) -> pd.DataFrame:
        """Options that are the same string, case aside, in two languages (`Oman`, `Oman`).

        Args:
            pivot: Compare with this language only; None: every two.

        Returns:
            `id option first second text`, a row per pair of languages.

        Raises:
            ValueError: a pivot that isn't here.
        """
        first = None if pivot is None else self.require([pivot])[0]
        rows: list[tuple[Any, ...]] = []
        for id, mine in rows_by_id(self.frame).items():
            seen: dict[tuple[int, str], list[str]] = {}
            for row in mine:
                for n, option in enumerate(row.options):
                    # Also by place: the same word as another option of the
                    # item is no translation of this one.
                    others = seen.setdefault((n, folded(option)), [])
                    rows += [(id, n, other, row.language, option) for other in others]
                    others.append(row.language)
        found = pd.DataFrame(rows, columns=["id", "option", "first", "second", "text"])
        if first is not None:
            found = found[(found["first"] == first) | (found["second"] == first)]
        return found.reset_index(drop=True)

    @typed
    def with_labels(self, labels: Mapping[str, Mapping[str, str]]) -> Self:
        """The same items with their options in other words, for classes that all items share.

        Gold stays the number of the class, so that no word of an answer key has to match another.

        Args:
            labels: By language, the word of each option as it is now: `{"de": {"sports":
                "Sport"}}`. Languages that aren't named keep their words (English ones, say).

        Raises:
            ValueError: a language that isn't here, a word for an option that no item has (it could
                never match), an option without a word, or two options with one word.
        """
        given = {self.require([tag])[0]: dict(words) for tag, words in labels.items()}
        there = {tag: self._classes(tag) for tag in given}
        for tag, words in given.items():
            if unknown := sorted(set(words) - set(there[tag])):
                raise InputError(
                    f"Labels in {tag}: {unknown[0]!r} is no option of {self.source}, so that "
                    f"{words[unknown[0]]!r} could never be chosen; there are "
                    f"{', '.join(there[tag][:12])}."
                )
            if lacking := [name for name in there[tag] if not words.get(name, "").strip()]:
                raise InputError(f"Labels in {tag} lack a word for {', '.join(lacking[:12])}.")
            by_word = {folded(word): name for name, word in words.items()}
            # A later class took the place of an earlier one with the same word.
            if len(by_word) < len(words):
                twice = next(n for n, w in words.items() if by_word[folded(w)] != n)
                raise InputError(
                    f"Labels in {tag}: {twice!r} and {by_word[folded(words[twice])]!r} have one "
                    f"word, {words[twice]!r}; give each class its own."
                )
        rows = zip(self.frame["language"], self.frame["options"], strict=True)
        options: list[Any] = [
            tuple(given[tag][name] for name in own) if tag in given else own for tag, own in rows
        ]
        return type(self)(self.frame.assign(options=options), self.source, self.dropped)

    def labels_of(self, language: str) -> dict[str, dict[str, str]]:
        """For `with_labels`: the words that this language has for the classes, in every language.

        Raises:
            ValueError: a language that isn't here, or options that aren't classes: an item's own.
        """
        (tag,) = self.require([language])
        mine = self.items(tag)
        found: dict[str, dict[str, str]] = {}
        for other in self.languages:
            words = found.setdefault(other, {})
            for id, item in self.items(other).items():
                for name, word in zip(item.options, mine[id].options, strict=True):
                    if words.setdefault(name, word) != word:
                        raise InputError(
                            f"Options of {self.source} aren't classes: {name!r} ({other}) is "
                            f"{words[name]!r} in one item and {word!r} in another. Only the words "
                            "of classes that items share can be exchanged (labels, --labels)."
                        )
        return found

    def _classes(self, language: str) -> tuple[str, ...]:
        """Every option of a language once, in order of first appearance."""
        mine = self.frame[self.frame["language"] == language]["options"]
        return tuple(dict.fromkeys(name for own in mine for name in own))

    def without_identical(self, pivot: str | None = None) -> Self:
        """The items of which no option is the same string in two languages; see `identical`.

        Raises:
            ValueError: a pivot that isn't here, or nothing left.
        """
        found = self.identical(pivot).drop_duplicates("id")
        if len(found) == len(self):
            raise InputError(
                f"No item of {self.source} is left: each of {len(self)} has an option that is the "
                "same string in two languages. Ask for other languages, or keep them."
            )
        left_out = pd.DataFrame(
            {
                "id": found["id"],
                "language": found["second"],
                "reason": "identical options",
                "detail": found["text"] + " also in " + found["first"],
            }
        )
        return type(self)(
            self.frame[~self.frame["id"].isin(found["id"])],
            self.source,
            _together(self.dropped, left_out),
        )


def whole_items(
    frame: pd.DataFrame,
    source: str,
    *,
    incomplete: str,
    identical: str,
    dropped: Iterable[tuple[str, str, str, str]] = (),
) -> Choices:
    """`Choices` of a frame under the policies for items with a fault or identical options.

    Raises:
        ValueError: an unknown policy, nothing left, and with `error` any fault.
    """
    for name, value, accepted in (
        ("incomplete", incomplete, ("error", "drop")),
        ("identical", identical, ("keep", "drop")),
    ):
        if value not in accepted:
            raise InputError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}.")
    left_out = pd.DataFrame([*dropped], columns=list(DROPPED))
    if frame.empty and len(left_out):
        raise InputError(_nothing_left(source, left_out))
    tidied = tidy(frame, source)
    # With "error" `Choices` itself finds them, and says so.
    faults = find_faults(tidied) if incomplete == "drop" else []
    left_out = pd.DataFrame([*dropped, *faults], columns=list(DROPPED))
    kept = tidied[~tidied["id"].isin({fault[0] for fault in faults})]
    if kept.empty:
        raise InputError(_nothing_left(source, left_out))
    choices = Choices(kept, source, left_out)
    return choices.without_identical() if identical == "drop" else choices


def tidy(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """A frame's columns in their types and order, tags standardised.

    Raises:
        ValueError: what no policy mends: missing columns, unknown tags, an id twice.
    """
    if lacking := [c for c in REQUIRED if c not in frame.columns]:
        raise DataError(
            f"{source} lacks the columns {lacking}; an item has {list(REQUIRED)} and optionally "
            f"{list(OPTIONAL)}."
        )
    if frame.empty:
        raise DataError(f"No item is left of {source}; ask for others, or other languages.")
    tags = {str(tag): standardize(str(tag)) for tag in frame["language"].unique()}
    if len(set(tags.values())) < 2:
        raise DataError(
            f"{source} has items in {', '.join(set(tags.values()))} only; parallel items need two "
            "languages or more."
        )
    out = pd.DataFrame(
        {
            "id": [item_id(id, source) for id in frame["id"]],
            "language": frame["language"].astype(str).map(tags),
            "question": item_texts(frame, "question", source, "item"),
            "options": [
                _options(value, source, id)
                for value, id in zip(frame["options"], frame["id"], strict=True)
            ],
            "gold": [_whole(g, source) for g in frame["gold"]],
            **{
                name: item_texts(frame, name, source, "item") if name in frame.columns else default
                for name, default in OPTIONAL.items()
            },
        }
    ).reset_index(drop=True)
    refuse_twice(out, source, "item")
    return out


def find_faults(frame: pd.DataFrame) -> list[Fault]:
    """`id language reason detail` of every item that isn't the same question everywhere."""
    return first_faults(frame, _row_faults)


def _row_faults(row: Any, first: Any) -> list[tuple[str, str]]:
    own = [folded(option) for option in row.options]
    tests: Mapping[str, tuple[bool, str]] = {
        "empty text": (not row.question or not all(own), ""),
        "too few options": (len(own) < 2, str(len(own))),
        "unequal options": (
            len(own) != len(first.options),
            f"{len(own)}, but {len(first.options)} in {first.language}",
        ),
        "option twice": (len(set(own)) < len(own), " / ".join(row.options)),
        "gold out of range": (
            not 0 <= row.gold < len(own),
            f"{row.gold}, with {len(own)} options numbered from 0",
        ),
        "gold differs": (
            row.gold != first.gold,
            f"{row.gold}, but {first.gold} in {first.language}",
        ),
        "kind differs": (
            row.kind != first.kind,
            f"{row.kind}, but {first.kind} in {first.language}",
        ),
    }
    return [(why, detail) for why, (bad, detail) in tests.items() if bad]


def _nothing_left(source: str, left_out: pd.DataFrame) -> str:
    """Why there is no item, by reason and language."""
    first = left_out.drop_duplicates("id")
    counts = Counter(zip(first["reason"], first["language"], strict=True)).most_common()
    reasons = [f"{n} {reason} ({tag})" for (reason, tag), n in counts]
    one = told(tuple(map(str, first.iloc[0])), "item")
    return (
        f"No item of {source} is left of {len(first)}: {', '.join(reasons[:6])}"
        f"{', …' if len(reasons) > 6 else ''}; the first, {one}. Leave that language out, or ask "
        "for other kinds or items."
    )


def _options(value: Any, source: str, id: Any) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        raise wrong_type(f"{source}: options of item {id!r}", value, "a list of texts")
    return tuple(item_text(option, f"{source}: an option of item {id!r}") for option in value)


def _whole(value: Any, source: str) -> int:
    if isinstance(value, bool) or not str(value).strip().lstrip("-").isdecimal():
        raise DataError(
            f"{source}: gold is {value!r}; expected the number of the right option, from 0."
        )
    return int(value)


def _together(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    # Concatenation with an empty frame has types that pandas is about to change.
    parts = [frame for frame in (one, other) if len(frame)]
    return pd.concat(parts, ignore_index=True) if parts else one
