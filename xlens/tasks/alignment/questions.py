"""`Questions`: the same questions in several languages, without answers, by parallel id."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.choices import Choices
from xlens.tasks.facts import Facts
from xlens.tasks.items import item_id, item_text, refuse_twice
from xlens.tasks.parallel import (
    DROPPED,
    Fault,
    Parallel,
    first_faults,
    nothing_dropped,
    refusal,
    told,
)
from xlens.tasks.sources import known
from xlens.tasks.words import WordList
from xlens.tasks.xmrc import ReadingSet
from xlens.text import folded

REQUIRED = ("id", "language", "text")
LEAK = "text of an evaluated item"
_MEND = (
    "A question is translated, so it needs a text in every language: mend the file, or leave such "
    "questions out (incomplete='drop', --incomplete drop)."
)


@dataclass(frozen=True, eq=False)
class Questions(Parallel):
    """Parallel questions, to be translated: nothing here says how they are answered.

    Attributes:
        frame: One row per question and language: `id language text`, and `group`, what hangs
            together with others and is never split (an article); by default each its own.
        source: Where they come from.
        dropped: What was left out: `id language reason detail`.

    Raises:
        ValueError: a missing column, an unknown tag, one language only, an id twice in a language
            or absent from one, an empty text, a group that differs between languages.
    """

    CALLED: ClassVar[tuple[str, str]] = ("question", "questions")
    ADVICE: ClassVar[str] = "Ask for one of these, or read more."
    REASONS: ClassVar[tuple[str, ...]] = ("missing language", "empty text", "group differs", LEAK)

    frame: pd.DataFrame
    source: str
    dropped: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        frame = _tidy(self.frame, self.source)
        if faults := _faults(frame):
            raise InputError(refusal(faults, self.source, self.CALLED, _MEND))
        object.__setattr__(self, "frame", frame)

    def __repr__(self) -> str:
        return (
            f"Questions({len(self)} in {len(set(self.groups.values()))} groups, "
            f"languages={list(self.languages)}, source={self.source!r})"
        )

    @property
    def groups(self) -> dict[str, str]:
        """Group of each question, by id."""
        return dict(zip(self.frame["id"], self.frame["group"], strict=True))

    def texts(self, language: str) -> dict[str, str]:
        """The questions in one language, by id.

        Raises:
            ValueError: a language that isn't here.
        """
        (tag,) = self.require([language])
        mine = self.frame[self.frame["language"] == tag]
        return dict(zip(mine["id"], mine["text"], strict=True))

    @typed
    def select(
        self, *, ids: Iterable[str] | None = None, languages: Iterable[str] | None = None
    ) -> Self:
        """The questions of these ids, in these languages, in their order here.

        Raises:
            ValueError: a language or id that doesn't occur, or nothing left.
        """
        tags = self.languages if languages is None else self.require(languages)
        wanted = known(ids, self.ids, "id")
        frame = self.frame[self.frame["language"].isin(tags) & self.frame["id"].isin(wanted)]
        return type(self)(frame, self.source, self.dropped)

    @typed
    def split(self, share: float, *, seed: int = 0) -> tuple[Self, Self]:
        """Two parts that share no group: to train on, and held out.

        Whole groups are held out, drawn by their names and the seed, until `share` of the questions
        are: never one question of an article here and another there.

        Args:
            share: Of the questions that are held out, at least.
            seed: Of the draw.

        Raises:
            ValueError: a share that isn't between 0 and 1, or a part without a question.
        """
        if not 0 < share < 1:
            raise InputError(f"share is {share}; a part to hold out lies between 0 and 1.")
        groups = self.groups
        sizes = pd.Series(groups).value_counts()
        held: set[str] = set()
        for group in sorted(sizes.index, key=lambda group: seeded_rank(group, seed=seed)):
            # Asked before a group is added: so the share is
            # reached, and passed by one group at most.
            if sum(int(sizes[name]) for name in held) >= share * len(self):
                break
            held.add(str(group))
        if len(held) == len(sizes):
            raise InputError(
                f"{self.source} has {len(sizes)} groups of questions, and groups are never split: "
                f"with {share:g} of the questions held out none is left to train on. Hold out a "
                "smaller share, or give questions of more groups."
            )
        inside = [id for id in self.ids if groups[id] in held]
        outside = [id for id in self.ids if groups[id] not in held]
        return self.select(ids=outside), self.select(ids=inside)

    @typed
    def apart_from(self, evaluated: "Questions") -> Self:
        """The questions that no evaluated item is, in any language: by its text, case aside.

        Where both are of one source, also by id and by group.

        Raises:
            ValueError: nothing left.
        """
        found = leaks(self, evaluated)
        if len(found) == len(self):
            raise InputError(
                f"Every question of {self.source} is an evaluated item of {evaluated.source} "
                f"(the first, {told(found[0], 'question')}): none is left to train on. Hold items "
                "out, or train on other questions."
            )
        gone = {fault[0] for fault in found}
        left_out = pd.DataFrame([*self.dropped.itertuples(index=False), *found], columns=[*DROPPED])
        return type(self)(self.frame[~self.frame["id"].isin(gone)], self.source, left_out)


@typed
def leaks(training: Questions, evaluated: Questions) -> list[Fault]:
    """`id language reason detail` of training questions that are evaluated items."""
    shared = [tag for tag in training.languages if tag in evaluated.languages]
    asked = {tag: {folded(text) for text in evaluated.texts(tag).values()} for tag in shared}
    same = training.source == evaluated.source
    # Ids of different sources say nothing: many sets number their rows from 1.
    ids = set(evaluated.ids) if same else set[str]()
    groups = set(evaluated.groups.values()) if same else set[str]()

    def of_row(row: Any, _: Any) -> list[tuple[str, str]]:
        if row.id in ids or row.group in groups:
            return [(LEAK, f"id {row.id!r} or group {row.group!r}")]
        hit = folded(row.text) in asked.get(row.language, ())
        return [(LEAK, row.text[:60])] if hit else []

    return first_faults(training.frame, of_row)


@typed
def questions_of(items: Choices | ReadingSet | Facts | WordList) -> Questions:
    """The questions of a task, without what answers them.

    | of | text | group |
    |---|---|---|
    | `Choices` | the question, no option | the passage |
    | `ReadingSet` | the question | the article, or the paragraph where that isn't known |
    | `Facts` | the question with its subject, no object | the subject |
    | `WordList` (`cldr_words`) | the word, where all languages have it | the word |

    Raises:
        ValueError: nothing that `Questions` takes.
    """
    if isinstance(items, WordList):
        whole = items.frame.dropna()
        rows = [(id, tag, text, id) for tag in whole for id, text in whole[tag].items()]
        return Questions(pd.DataFrame(rows, columns=[*REQUIRED, "group"]), items.source)
    if isinstance(items, Facts):
        subjects = {id: fact.subject for id, fact in items.facts(items.languages[0]).items()}
        rows = [
            (id, tag, fact.asked.text.strip(), subjects[id])
            for tag in items.languages
            for id, fact in items.facts(tag).items()
        ]
        return Questions(pd.DataFrame(rows, columns=[*REQUIRED, "group"]), items.source)
    frame = items.frame[["id", "language", "question"]].rename(columns={"question": "text"})
    if isinstance(items, Choices):
        group = frame["id"].map(items.paragraphs)
    else:
        # A paragraph is ARTICLE/NUMBER where the article is known.
        article = items.frame["paragraph"].str.rpartition("/")[0]
        group = article.where(article != "", items.frame["paragraph"])
    return Questions(frame.assign(group=group), items.source)


def whole_questions(
    frame: pd.DataFrame, source: str, incomplete: Literal["error", "drop"]
) -> Questions:
    """`Questions` of a frame; those with a fault refused, or left out and listed.

    Raises:
        ValueError: an unknown policy, nothing left, and with `error` any fault.
    """
    if incomplete not in ("error", "drop"):
        raise InputError(f"incomplete={incomplete!r}: accepted are 'error', 'drop'.")
    tidied = _tidy(frame, source)
    faults = _faults(tidied)
    if incomplete == "error" or not faults:
        return Questions(tidied, source)
    kept = tidied[~tidied["id"].isin({fault[0] for fault in faults})]
    if kept.empty:
        raise DataError(
            f"No question of {source} is left; the first of {len(faults)} faults: "
            f"{told(faults[0], 'question')}."
        )
    return Questions(kept, source, pd.DataFrame(faults, columns=list(DROPPED), dtype="object"))


def _tidy(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    if lacking := [c for c in REQUIRED if c not in frame.columns]:
        raise DataError(
            f"{source} lacks the columns {lacking}; a question has {list(REQUIRED)} and optionally "
            "'group'."
        )
    if frame.empty:
        raise DataError(f"No question is left of {source}; ask for others, or other languages.")
    tags = {str(tag): standardize(str(tag)) for tag in frame["language"].unique()}
    if len(set(tags.values())) < 2:
        raise DataError(
            f"{source} has questions in {', '.join(set(tags.values()))} only; a translation needs "
            "two languages or more."
        )
    ids = [item_id(id, source) for id in frame["id"]]
    groups = frame["group"].astype(str) if "group" in frame else ids
    out = pd.DataFrame(
        {
            "id": ids,
            "language": [tags[str(tag)] for tag in frame["language"]],
            "text": [
                item_text(text, f"{source}: text of question {id!r}")
                for text, id in zip(frame["text"], ids, strict=True)
            ],
            "group": [group or id for group, id in zip(groups, ids, strict=True)],
        }
    )
    refuse_twice(out, source, "question")
    return out


def _faults(frame: pd.DataFrame) -> list[Fault]:
    def of_row(row: Any, first: Any) -> list[tuple[str, str]]:
        found = [] if row.text else [("empty text", "")]
        if row.group != first.group:
            detail = f"{row.group}, but {first.group} in {first.language}"
            found.append(("group differs", detail))
        return found

    return first_faults(frame, of_row)
