"""How published reading data sets are written down: files to rows of a `ReadingSet`."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langcodes import find

from xlens.errors import DataError, InputError
from xlens.records import Record, record_of
from xlens.tasks.sources import plain_tag

Rows = list[dict[str, Any]]
_TOP = "the whole file"
_SQUAD = (
    "SQuAD's layout is data → paragraphs → context, qas → id, question, answers → text, "
    "answer_start."
)


@dataclass(frozen=True)
class Layout:
    """How a data set is laid out.

    Attributes:
        hub: Its name on the model hub.
        config: The configuration that holds one language's questions, with `{}` for its name.
        split: Which part of it is read if none is named.
        parallel: Whether questions have the same id in every language.
    """

    hub: str
    config: str
    split: str
    parallel: bool = True


LAYOUTS: Mapping[str, Layout] = {
    "squad": Layout("google/xquad", "xquad.{}", "validation"),
    "mlqa": Layout("facebook/mlqa", "mlqa.{0}.{0}", "test"),
    "tydiqa": Layout(
        "google-research-datasets/tydiqa", "secondary_task", "validation", parallel=False
    ),
}


def squad_rows(content: Any, source: str) -> Rows:
    """SQuAD's JSON: articles of paragraphs of questions. Paragraphs are numbered in their article.

    Raises:
        ValueError: something else, or no question.
    """
    rows: Rows = []
    top = record_of(content, source, _TOP)
    top.require(["data"], _SQUAD)
    for a, article in _objects(top, "data", "article"):
        title = article.text("title", default="")
        for p, paragraph in _objects(article, "paragraphs", "paragraph"):
            paragraph.require(["context", "qas"], _SQUAD)
            context = paragraph.text("context")
            for _, question in _objects(paragraph, "qas", "question"):
                question.require(["id", "question", "answers"], _SQUAD)
                rows.append(
                    {
                        "id": question.name("id"),
                        "question": question.text("question"),
                        "context": context,
                        "paragraph": f"{a}/{p}",
                        "title": title,
                        **_answers(question, context),
                    }
                )
    if not rows:
        raise DataError(f"{source!r} holds no question. {_SQUAD}")
    return rows


def _objects(record: Record, name: str, one: str) -> Iterator[tuple[int, Record]]:
    """The objects in a list, each with its number from 0 and its place."""
    found: Any = record.get(name)
    if not isinstance(found, list):
        record.wrong(name, "a list of objects", fix=_SQUAD)
    before = "" if record.place == _TOP else f"{record.place}, "
    for n, value in enumerate(found):
        yield n, record_of(value, record.source, f"{before}{one} {n + 1}")


def flat_rows(content: Iterable[Record]) -> Rows:
    """One question a row, as `datasets` gives them: `id context question answers title`.

    Answers are an object of lists (`text`, `answer_start`), a list of objects, either of these as
    JSON in a text, or texts without their places: then the first place in the context is taken.

    Raises:
        ValueError: a row that lacks something, or a value of another type.
    """
    rows: Rows = []
    for row in content:
        row.require(("id", "context", "question", "answers"))
        context = row.text("context")
        rows.append(
            {
                "id": row.name("id"),
                "question": row.text("question"),
                "context": context,
                "title": row.text("title", default=""),
                **_answers(row, context),
            }
        )
    return rows


def _answers(row: Record, context: str) -> dict[str, list[Any]]:
    """Texts and places of a question's right answers, whichever way they are written."""
    value: Any = row["answers"]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        # Not JSON: an answer that begins so.
        with suppress(json.JSONDecodeError):
            value = json.loads(value)
    if value is None:  # SQuAD 2.0 has questions without an answer; their list is empty
        value = []
    if isinstance(value, Mapping):
        value = _zipped(row, value)
    elif isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        row.wrong("answers", "a list of objects with text and answer_start, or texts")
    found: dict[str, list[Any]] = {"answers": [], "starts": []}
    for n, answer in enumerate(value, 1):
        if isinstance(answer, str):
            answer = {"text": answer, "answer_start": context.find(answer)}
        one = record_of(answer, row.source, f"{row.place}, answer {n}")
        one.require(["text", "answer_start"], _SQUAD)
        found["answers"].append(one.text("text"))
        found["starts"].append(one.whole("answer_start"))
    return found


def _zipped(row: Record, value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers as an object of two lists, or of one text and one place, as a list of objects."""
    named = record_of(value, row.source, f"{row.place}, answers")
    named.require(["text", "answer_start"], _SQUAD)
    texts, starts = named["text"], named["answer_start"]
    if isinstance(texts, str):
        texts, starts = [texts], [starts]
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        row.wrong("answers", "as many texts as places (answer_start)")
    return [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]


def by_prefix(rows: Rows, source: str) -> dict[str, Rows]:
    """TyDiQA's questions by language: their ids begin with its English name (`swahili-…`).

    Raises:
        ValueError: an id that doesn't.
    """
    found: dict[str, Rows] = {}
    tags: dict[str, str] = {}
    for row in rows:
        name = str(row["id"]).partition("-")[0]
        if name not in tags:
            try:
                tags[name] = plain_tag(str(find(name)))
            except LookupError:
                raise DataError(
                    f"{source}: the id {row['id']!r} doesn't begin with the name of a language, as "
                    "TyDiQA's do ('swahili-123'). Use another layout=."
                ) from None
        found.setdefault(tags[name], []).append(row)
    return found


def crossed(files: Mapping[tuple[str, str], Rows], languages: Mapping[str, str]) -> Rows:
    """MLQA's files, by (context language, question language), as questions in each language.

    A question is the same whichever context's file it stands in; so is a context with its answers.
    Paragraphs are those of the first language, since each language's article is another.

    Args:
        files: Rows of each file.
        languages: The files' names of the languages to read, by tag.

    Raises:
        ValueError: a language whose contexts or questions aren't there.
    """
    rows: Rows = []
    paragraphs: dict[str, str] = {}
    for tag, name in languages.items():
        asked = _first(files, lambda pair, name=name: pair[1] == name)
        told = _first(files, lambda pair, name=name: pair[0] == name)
        if not asked or not told:
            lacking = "contexts" if asked else "questions"
            raise InputError(
                f"There are no {lacking} in {tag}: add the file context-{name}-question-{name}."
            )
        for id, row in told.items():
            if id in asked:
                # The first language that has a question says its paragraph for all.
                where = paragraphs.setdefault(id, str(row["paragraph"]))
                question = asked[id]["question"]
                rows.append({**row, "question": question, "paragraph": where, "language": tag})
    return rows


def _first(
    files: Mapping[tuple[str, str], Rows], fits: Callable[[tuple[str, str]], bool]
) -> dict[str, dict[str, Any]]:
    """The rows by id of the files that fit; files of one language hold different parts of it."""
    found: dict[str, dict[str, Any]] = {}
    for pair, rows in files.items():
        if fits(pair):
            for row in rows:
                found.setdefault(str(row["id"]), row)
    return found
