"""How published reading data sets are written down: files to rows of a `ReadingSet`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langcodes import find

from xlens.tasks.sources import Row, plain_tag

Rows = list[dict[str, Any]]


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
        ValueError: something else.
    """
    rows: Rows = []
    try:
        for a, article in enumerate(content["data"]):
            for p, paragraph in enumerate(article["paragraphs"]):
                for question in paragraph["qas"]:
                    # SQuAD 2.0 marks questions without an answer; their list is empty.
                    answers = question["answers"]
                    rows.append(
                        {
                            "id": str(question["id"]),
                            "question": question["question"],
                            "context": paragraph["context"],
                            "answers": [answer["text"] for answer in answers],
                            "starts": [answer["answer_start"] for answer in answers],
                            "paragraph": f"{a}/{p}",
                            "title": article.get("title", ""),
                        }
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source} isn't laid out as SQuAD (data → paragraphs → context, qas → id, question, "
            f"answers → text, answer_start): {type(error).__name__} {error}."
        ) from None
    return rows


def flat_rows(content: Iterable[Row], source: str) -> Rows:
    """One question a row, as `datasets` gives them: `id context question answers title`.

    Raises:
        ValueError: a row that lacks something.
    """
    rows: Rows = []
    for number, row in enumerate(content, 1):
        if lacking := [c for c in ("id", "context", "question", "answers") if c not in row]:
            raise ValueError(
                f"{source}, question {number} lacks {', '.join(lacking)}; it has {', '.join(row)}. "
                "Is this the right layout?"
            )
        answers = row["answers"]
        rows.append(
            {
                "id": str(row["id"]),
                "question": row["question"],
                "context": row["context"],
                "answers": list(answers["text"]),
                "starts": list(answers["answer_start"]),
                "title": row.get("title", ""),
            }
        )
    return rows


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
                raise ValueError(
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
            raise ValueError(
                f"There are no {lacking} in {tag}: add the file context-{name}-question-{name}."
            )
        for id, row in told.items():
            if id in asked:
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
