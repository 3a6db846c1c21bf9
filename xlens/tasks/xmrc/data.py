"""`ReadingSet`: the same questions on the same paragraphs in several languages, by question id."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import pandas as pd

from xlens.checks import typed, wrong_type
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.items import item_id, item_text, refuse_twice
from xlens.tasks.parallel import (
    DROPPED,
    MISSING,
    Fault,
    Parallel,
    first_faults,
    nothing_dropped,
    refusal,
    told,
)
from xlens.tasks.sources import known
from xlens.text import form, form_with_places, out_of_form

REQUIRED = ("id", "language", "question", "context", "answers", "starts")
REASONS = (
    "missing language",
    "empty text",
    "no answer",
    "answer not found",
    "answer elsewhere",
    "paragraph differs",
)
_MEND = (
    "Questions are paired by id, and each answer must stand at its place in the context: mend "
    "them, or leave them out (incomplete='drop', --incomplete drop, for missing languages; "
    "faulty='drop', --faulty drop, for the rest)."
)


@dataclass(frozen=True)
class Reading:
    """One question in one language, with the paragraph that answers it.

    Attributes:
        question: What is asked.
        context: The paragraph.
        answers: Right answers, as they stand in the paragraph.
        starts: Where each begins, in characters (Unicode code points).
        paragraph: Of all questions on one paragraph: `article/paragraph`, or `/paragraph` where
            the article isn't known.
        title: Of the article; may be empty.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    paragraph: str
    title: str = ""

    @property
    def article(self) -> str:
        """The article of the paragraph; empty where it isn't known."""
        return article_of(self.paragraph)


@dataclass(frozen=True, eq=False)
class ReadingSet(Parallel):
    """Questions with their paragraphs and answers, in several languages.

    Attributes:
        frame: One row per question and language: `id language question context answers starts
            paragraph title` (see `Reading`), and `rewritten`: whether a right answer was
            brought into another form of Unicode (`xlens.text.form`), as all texts are.
        source: Where they come from.
        parallel: Whether every question is there in every language. Where not (TyDiQA), each
            language has questions of its own, and only settings within a language can be asked.
        control: Empty, or how contexts were exchanged (`mismatched`): then no answer stands in its
            context.
        other_articles: Whether every exchanged context is known to be of another article.
        dropped: What was left out when the set was read: `id language reason detail`.

    Raises:
        ValueError: a missing column, an unknown tag, an id twice in a language or (if parallel)
            absent from one, an empty text, no answer, an answer that isn't at its place in the
            context, or a paragraph that differs between languages.
    """

    CALLED: ClassVar[tuple[str, str]] = ("question", "questions")
    ADVICE: ClassVar[str] = "Ask for one of these, or read more."
    REASONS: ClassVar[tuple[str, ...]] = REASONS

    frame: pd.DataFrame
    source: str
    parallel: bool = True
    control: str = ""
    other_articles: bool = False
    dropped: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        frame = tidy(self.frame, self.source)
        if faults := find_faults(frame, parallel=self.parallel, answered=not self.control):
            raise InputError(refusal(faults, self.source, self.CALLED, _MEND))
        object.__setattr__(self, "frame", frame)

    def __repr__(self) -> str:
        return (
            f"ReadingSet({len(self)} questions on {len(self.paragraphs)} paragraphs, "
            f"languages={list(self.languages)}, source={self.source!r})"
        )

    @property
    def paragraphs(self) -> dict[str, tuple[str, ...]]:
        """Question ids by paragraph."""
        found: dict[str, list[str]] = {}
        rows = zip(self.frame["paragraph"], self.frame["id"], strict=True)
        for paragraph, id in dict.fromkeys(rows):
            found.setdefault(paragraph, []).append(id)
        return {paragraph: tuple(ids) for paragraph, ids in found.items()}

    def items(self, language: str) -> dict[str, Reading]:
        """The questions in one language, by id.

        Raises:
            ValueError: a language that isn't here.
        """
        (tag,) = self.require([language])
        mine = self.frame[self.frame["language"] == tag]
        columns = ["question", "context", "answers", "starts", "paragraph", "title"]
        rows = mine[columns].itertuples(index=False, name=None)
        return {id: Reading(*row) for id, row in zip(mine["id"], rows, strict=True)}

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
        frame = self.frame
        return replace(self, frame=frame[frame["language"].isin(tags) & frame["id"].isin(wanted)])

    @typed
    def sample(self, n: int, *, seed: int = 0, per_paragraph: int = 1) -> Self:
        """`n` questions from as many paragraphs as possible, in every language.

        So many questions of each paragraph are taken before any more of one. The choice depends on
        the ids, the paragraphs and the seed only. A set that isn't parallel gives `n` per language.

        Args:
            n: How many.
            seed: Of the choice.
            per_paragraph: Several questions on a text cost little more than one, as the text is
                read once; but they are alike, so that intervals over paragraphs get wider.

        Raises:
            ValueError: `n` below 1 or above the number of questions, or `per_paragraph` below 1.
        """
        if per_paragraph < 1:
            raise InputError(f"per_paragraph={per_paragraph}: give 1 or more questions.")
        if not self.parallel:
            parts = [
                self.select(languages=[tag])._spread(n, seed, per_paragraph)
                for tag in self.languages
            ]
            return self.select(ids=[id for part in parts for id in part])
        return self.select(ids=self._spread(n, seed, per_paragraph))

    def _spread(self, n: int, seed: int, per_paragraph: int) -> list[str]:
        self.check_number(n)
        rounds = [
            # In rounds: a first lot of every paragraph, in a drawn order, then a second of each.
            (turn // per_paragraph, seeded_rank(paragraph, seed=seed), turn, id)
            for paragraph, ids in self.paragraphs.items()
            for turn, id in enumerate(sorted(ids, key=lambda id: seeded_rank(id, seed=seed)))
        ]
        return [id for *_, id in sorted(rounds)[:n]]


def article_of(paragraph: str) -> str:
    """`3` of the paragraph `3/2`; nothing of `/2`, whose article isn't known."""
    return paragraph.rpartition("/")[0]


def apart(paragraph: str, other: str) -> bool:
    """Whether two paragraphs are known to be of different articles."""
    articles = (article_of(paragraph), article_of(other))
    return all(articles) and articles[0] != articles[1]


def whole_readings(
    frame: pd.DataFrame, source: str, *, incomplete: str, faulty: str, parallel: bool = True
) -> ReadingSet:
    """A `ReadingSet` of a frame under the policies for what is missing and what is wrong.

    Raises:
        ValueError: an unknown policy, nothing left, and with `error` any fault.
    """
    for name, value in (("incomplete", incomplete), ("faulty", faulty)):
        if value not in ("error", "drop"):
            raise InputError(f"{name}={value!r}: accepted are 'error', 'drop'.")
    tidied = tidy(frame, source)
    drop = {reason: (incomplete if reason == MISSING else faulty) == "drop" for reason in REASONS}
    faults = [fault for fault in find_faults(tidied, parallel=parallel) if drop[fault[2]]]
    kept = tidied[~tidied["id"].isin({fault[0] for fault in faults})]
    if kept.empty:
        raise DataError(
            f"No question of {source} is left; the first of {len(faults)} faults: "
            f"{told(faults[0], 'question')}."
        )
    left_out = pd.DataFrame(faults, columns=list(DROPPED), dtype="object")
    return ReadingSet(kept, source, parallel=parallel, dropped=left_out)


def tidy(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """A frame's columns in their types and order, tags standardised.

    Raises:
        ValueError: what no policy mends: missing columns, unknown tags, an id twice, answers
            without as many starts.
    """
    if lacking := [c for c in REQUIRED if c not in frame.columns]:
        raise DataError(
            f"{source} lacks the columns {lacking}; a question has {list(REQUIRED)} and optionally "
            "['paragraph', 'title']."
        )
    if frame.empty:
        raise DataError(f"No question is left of {source}; ask for others, or other languages.")
    tags = {str(tag): standardize(str(tag)) for tag in frame["language"].unique()}
    answered = [
        [_plain(answer, f"{source}: an answer of question {id!r}") for answer in answers]
        for answers, id in zip(frame["answers"], frame["id"], strict=True)
    ]
    contexts = [
        _plain(context, f"{source}: the context of question {id!r}")
        for context, id in zip(frame["context"], frame["id"], strict=True)
    ]
    # Answers are found by their places, which are those of the file's own characters.
    placed = [
        form_with_places(context, [int(start) for start in starts])
        for context, starts in zip(contexts, frame["starts"], strict=True)
    ]
    out = pd.DataFrame(
        {
            "id": [item_id(id, source) for id in frame["id"]],
            "language": frame["language"].astype(str).map(tags),
            "question": [
                item_text(question, f"{source}: question {id!r}")
                for question, id in zip(frame["question"], frame["id"], strict=True)
            ],
            # Not stripped: the answers' places count from its beginning.
            "context": [context for context, _ in placed],
            "answers": [tuple(map(form, answers)) for answers in answered],
            "starts": [tuple(starts) for _, starts in placed],
            "paragraph": frame["paragraph"].astype(str) if "paragraph" in frame else "",
            "title": frame["title"].astype(str) if "title" in frame else "",
            "rewritten": _rewritten(frame, answered),
        }
    ).reset_index(drop=True)
    if "paragraph" not in frame:
        out["paragraph"] = numbered_paragraphs(out)
    uneven = [len(a) != len(s) for a, s in zip(out["answers"], out["starts"], strict=True)]
    if any(uneven):
        row = out[uneven].iloc[0]
        raise DataError(
            f"{source}: question {row['id']!r} ({row['language']}) has {len(row['answers'])} "
            f"answers but {len(row['starts'])} starts; give the place of each answer."
        )
    refuse_twice(out, source, "question")
    return out


def _plain(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(what, value, "a text")
    return value


def _rewritten(frame: pd.DataFrame, answered: Sequence[Sequence[str]]) -> list[bool]:
    """Which questions' right answers were in another form of Unicode where they come from."""
    before = frame["rewritten"] if "rewritten" in frame else [False] * len(frame)
    return [bool(old) or out_of_form(said) > 0 for old, said in zip(before, answered, strict=True)]


def numbered_paragraphs(frame: pd.DataFrame) -> list[str]:
    """`article/paragraph` of every row where a data set doesn't say: equal contexts, equal titles.

    Translations of a question are on one paragraph: that of its first language. Without a title
    (XQuAD and MLQA on the hub have none) the article isn't known: `/paragraph`.
    """
    articles: dict[str, int] = {}
    seen: dict[str, str] = {}
    by_id: dict[str, str] = {}
    for row in frame.itertuples(index=False):
        if row.id in by_id:
            continue
        title = str(row.title)
        article = articles.setdefault(title, len(articles)) if title else ""
        number = f"{article}/{len(seen)}"
        # A context seen before keeps its number: `len(seen)` grows with new ones only.
        by_id[str(row.id)] = seen.setdefault(str(row.context), number)
    return [by_id[id] for id in frame["id"]]


def find_faults(frame: pd.DataFrame, *, parallel: bool, answered: bool = True) -> list[Fault]:
    """`id language reason detail`: the first fault of every question that has one."""
    return first_faults(frame, partial(_row_faults, answered=answered), parallel=parallel)


def _row_faults(row: Any, first: Any, *, answered: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if not row.question or not row.context.strip():
        found.append(("empty text", ""))
    if not row.answers or not all(a.strip() for a in row.answers):
        found.append(("no answer", ""))
    for text, start in zip(row.answers, row.starts, strict=True):
        if answered and (start < 0 or row.context[start : start + len(text)] != text):
            there = row.context.find(text)
            reason = "answer not found" if there < 0 else "answer elsewhere"
            where = "" if there < 0 else f", but at {there}"
            found.append((reason, f"{text[:40]!r} is not at {start}{where}"))
    if row.paragraph != first.paragraph:
        detail = f"{row.paragraph}, but {first.paragraph} in {first.language}"
        found.append(("paragraph differs", detail))
    return found
