"""How published parallel sentences are laid out in a folder: which file is which variety's."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.records import JSON, decode, read_records
from xlens.tasks.choices.layouts import LAYOUTS as CHOICES
from xlens.tasks.sentences.udhr import udhr_files, udhr_rows
from xlens.tasks.sources import language_of

Row = dict[str, Any]
TABLES = (".tsv", ".csv", ".parquet", *JSON)
_NTREX = re.compile(
    r"newstest2019-(?:src|ref)\.(?P<code>[^.]+)|newstest2019-(?P<other>ref-\d+\..+)"
)


@dataclass(frozen=True)
class Layout:
    """One way to lay sentences out.

    Attributes:
        files: The files of a folder, with the data set's own name of the variety of each.
        rows: The rows of one file, without their language.
        licence: Of the data set; empty where it is the user's own.
        hub: Its name on the model hub, where it has one.
        by_line: Rows are paired by their number, so that files must be of one length.
    """

    files: Callable[[Path], Mapping[Path, str]]
    rows: Callable[[Path], Iterator[Row]]
    licence: str = ""
    hub: str | None = None
    by_line: bool = False


def _named(*suffixes: str) -> Callable[[Path], dict[Path, str]]:
    def files(root: Path) -> dict[Path, str]:
        every = sorted(f for f in root.rglob("*") if f.suffix.lower() in suffixes and f.is_file())
        return {file: language_of(file, root) for file in every}

    return files


def _sib_rows(file: Path) -> Iterator[Row]:
    layout = CHOICES["sib200"]
    for number, row in enumerate(read_records(file, TABLES), 1):
        row.require(layout.columns)
        item = layout.item(row, number, "")
        topic = item["options"][item["gold"]]
        yield {"id": item["id"], "text": item["question"], "topic": topic}


def lines_of(file: Path) -> list[str]:
    """The lines of a file, also empty ones; the end of the last line is no line."""
    text = decode(file, (".txt", ".tsv"), what="a file of sentences, one on each line")
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n")


def _lines(file: Path) -> Iterator[Row]:
    for number, text in enumerate(lines_of(file), 1):
        yield {"id": str(number), "text": text}


def _ntrex_files(root: Path) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for file in sorted(root.rglob("newstest2019-*.txt")):
        if name := _NTREX.fullmatch(file.stem):
            # A second translation goes by a name that is no tag, so that it is read when asked for.
            found[file] = name["code"] or name["other"]
    return found


def _ntrex_rows(file: Path) -> Iterator[Row]:
    table = file.parent / "DOCUMENT_IDS.tsv"
    rows = list(_lines(file))
    if not table.is_file():
        raise InputError(
            f"{str(file.parent)!r} has no DOCUMENT_IDS.tsv, which says the document of each line: "
            "put it beside the texts, or read them with layout='aligned'."
        )
    documents = lines_of(table)
    if len(documents) != len(rows):
        raise InputError(
            f"{file.name!r} has {len(rows)} lines, and DOCUMENT_IDS.tsv {len(documents)}: a line "
            "is missing or there twice. Take both from one release."
        )
    for row, document in zip(rows, documents, strict=True):
        yield {**row, "document": document}


def _pud_files(root: Path) -> dict[Path, str]:
    every = sorted(f for f in root.rglob("*.conllu") if f.is_file())
    return {file: file.name.partition("_")[0].partition(".")[0] for file in every}


def _pud_rows(file: Path) -> Iterator[Row]:
    try:
        import conllu
    except ImportError:
        raise InputError(
            "Treebanks are read by the package conllu: pip install 'xlens-interp[sentences]'."
        ) from None
    text = decode(file, (".conllu",), what="a treebank in CoNLL-U")
    for number, sentence in enumerate(conllu.parse(text), 1):
        id, said = (sentence.metadata.get(name) for name in ("sent_id", "text"))
        if not id:
            raise InputError(
                f"{file.name!r}, sentence {number} has no sent_id, by which sentences are paired: "
                "add the line '# sent_id = …'."
            )
        # n01001011: news, from English, document 001, sentence 011.
        document = id[:6] if re.fullmatch(r"[nw]\d{8}", id) else ""
        words = [word for word in sentence if isinstance(word["id"], int)]
        yield {
            "id": id,
            "text": said or "",
            "document": document,
            "pos": " ".join(str(word["upos"]) for word in words),
        }


LAYOUTS: Mapping[str, Layout] = {
    "sib200": Layout(
        _named(*TABLES),
        _sib_rows,
        "SIB-200 (Adelani et al. 2024): repository Apache-2.0; its sentences are FLORES-200's, "
        "CC BY-SA 4.0",
        "Davlan/sib200",
    ),
    "ntrex": Layout(
        _ntrex_files,
        _ntrex_rows,
        "NTREX-128 (Federmann et al. 2022): CC BY-SA 4.0",
        by_line=True,
    ),
    "pud": Layout(
        _pud_files,
        _pud_rows,
        "Parallel Universal Dependencies (Zeman et al. 2017): CC BY-SA 3.0, each treebank its own "
        "notice",
    ),
    "udhr": Layout(
        udhr_files,
        udhr_rows,
        "Universal Declaration of Human Rights (United Nations), free of copyright; the pages are "
        "the npm package udhr's, MIT",
    ),
    "aligned": Layout(_named(".txt"), _lines, by_line=True),
}
