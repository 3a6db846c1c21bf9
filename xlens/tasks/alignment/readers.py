"""Reads parallel questions from local files, or from the hub through `datasets`."""

from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.records import JSON, by_language, decode, read_records
from xlens.tasks.alignment.questions import Questions, questions_of, whole_questions
from xlens.tasks.choices import download_choices, read_choices
from xlens.tasks.sources import Languages, choose, listed, plain_tag, tagged
from xlens.tasks.xmrc import download_reading, read_reading

QuestionLayout = Literal["jsonl", "squad", "mgsm", "xcopa", "belebele", "global-mmlu", "m-mmlu"]
_LAYOUTS: tuple[str, ...] = get_args(QuestionLayout)
_PLAIN = (*JSON, ".csv", ".tsv", ".parquet")


@typed
def read_questions(
    path: str | Path,
    *,
    layout: QuestionLayout = "jsonl",
    languages: Languages = None,
    split: str | None = None,
    incomplete: Literal["error", "drop"] = "error",
) -> Questions:
    """Read parallel questions, and nothing that answers them.

    | layout | files |
    |---|---|
    | `jsonl` | one row a question and language, `id language text` and perhaps `group`: `.jsonl`, \
`.json`, `.csv`, `.tsv`, `.parquet` |
    | `squad` | XQuAD and its kin: the questions, grouped by article |
    | `mgsm` | `mgsm_de.tsv`, parallel by line: question, tab, number |
    | `xcopa`, `belebele`, `global-mmlu`, `m-mmlu` | questions of multiple-choice items |

    Args:
        path: A file of the plain layout, or a folder.
        layout: One of these names.
        languages: Tags to read; None: all there are. A mapping from tag to the data set's own name
            of the language where that is another.
        split: Read files with this in their name (`train`).
        incomplete: A question that some language lacks, or that is empty in one: `error` names it,
            `drop` leaves it out and counts it.

    Raises:
        ValueError: no such file, an unknown layout or language, a broken line, and what `Questions`
            refuses.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"No file or folder {str(root)!r}; give the path of {layout} questions.")
    if layout == "jsonl":
        return _plain(root, languages, incomplete)
    if layout == "mgsm":
        return _mgsm(root, languages, incomplete)
    if layout == "squad":
        how: dict[str, Any] = {"incomplete": incomplete, "faulty": incomplete}
        return questions_of(read_reading(root, languages=languages, split=split, **how))
    return questions_of(
        read_choices(root, layout=layout, languages=languages, split=split, incomplete=incomplete)
    )


@typed
def download_questions(
    layout: str,
    *,
    languages: list[str],
    split: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    incomplete: Literal["error", "drop"] = "error",
) -> Questions:
    """Read the questions of a data set on the hub: `xquad`, or one that `download_choices` takes.

    Args:
        layout: Of the data set.
        languages: Tags.
        split: This and the rest as in `read_questions`, `download_reading`, `download_choices`.
        name: Of the data set on the hub, if another holds this layout.
        revision: A commit, to read the same questions again.
        incomplete: What to do with questions that aren't whole.

    Raises:
        ValueError: `datasets` isn't installed, or what these refuse.
    """
    how: dict[str, Any] = {"split": split, "name": name, "revision": revision}
    if layout in ("xquad", "squad"):
        policies: dict[str, Any] = {"incomplete": incomplete, "faulty": incomplete}
        return questions_of(download_reading(layout, languages=languages, **how, **policies))
    return questions_of(download_choices(layout, languages=languages, incomplete=incomplete, **how))


def _plain(root: Path, languages: Languages, incomplete: Literal["error", "drop"]) -> Questions:
    rows = read_records(root, _PLAIN, what="a file of questions")
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        row.require(("id", "language", "text"), "A question has all three, in every language.")
        cells = {"id": row.name("id"), "text": row.text("text", default="")}
        cells["group"] = row.name("group") if row.get("group") is not None else cells["id"]
        found.setdefault(row.text("language"), []).append(cells)
    chosen = choose(tagged(found), languages, root.name)
    made = [{**cells, "language": tag} for tag, mine in chosen.items() for cells in mine]
    return whole_questions(pd.DataFrame(made), root.name, incomplete)


def _mgsm(root: Path, languages: Languages, incomplete: Literal["error", "drop"]) -> Questions:
    if root.is_file():
        raise InputError(f"{str(root)!r} is a file; MGSM is a folder, a file per language.")
    every = sorted(root.glob("*.tsv"))
    by_name = by_language(
        every,
        lambda file: plain_tag(file.stem.rpartition("_")[2]) and file.stem.rpartition("_")[2],
        advice="give a folder with one file per language.",
    )
    if not by_name:
        raise InputError(f"No file of {str(root)!r} is named after a language: {listed(every)}.")
    made: list[dict[str, str]] = []
    for tag, files in choose(tagged(by_name), languages, str(root)).items():
        # Only line feeds end a line: a question may hold U+2028 and the like.
        text = "\n".join(decode(file, (".tsv",)) for file in files).replace("\r\n", "\n")
        lines = [line for line in text.split("\n") if line]
        for number, line in enumerate(lines, 1):
            # From the right: the question may hold tabs, the number doesn't.
            text, tab, _ = line.rpartition("\t")
            if not tab:
                raise DataError(f"{files[0].name!r}, line {number}: no tab before the number.")
            made.append({"id": str(number), "language": tag, "text": text})
    return whole_questions(pd.DataFrame(made), root.name, incomplete)
