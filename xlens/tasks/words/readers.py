"""Reads word lists from the user's own files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize, standardize_all
from xlens.records import DELIMITERS, JSON, Record, decode, read_records, table
from xlens.tasks.words.wordlist import DROPPED, WordList

_SUFFIXES = (*DELIMITERS, *JSON)
_WHAT = "a word list"


@dataclass(frozen=True)
class _Row:
    """One row of a file: its place and its cells by column name."""

    place: str
    cells: Mapping[str, str]


@typed
def read_words(
    path: str | Path,
    *,
    languages: Mapping[str, str] | Sequence[str] | None = None,
    id: str | None = "id",
    encoding: str = "utf-8",
    repeats: Literal["error", "first"] = "error",
    missing: Literal["error", "drop", "keep"] = "error",
    comment: str | None = "#",
) -> WordList:
    r"""Read a word list: one row per item, one column per language.

    `.tsv` and `.txt` are tab-separated without quoting, `.csv` comma-separated with double
    quotes, `.jsonl` one JSON object per line. White space around a cell is stripped.

    An item's id is its cell in the column `id` (`noun/dog` makes it an item of kind `noun`). In a
    file without that column it is the word in the first language: `word/dog`.

    Args:
        path: The file.
        languages: None: the first row names the languages by their tags. A mapping from column
            name to tag: the first row names the columns; those not in the mapping are ignored. A
            sequence of tags: the file has no such row, these are its columns in order, as in
            `read_words("en_fr.tsv", languages=["en", "fr"])`. In JSON Lines a sequence names the
            keys to read.
        id: Name of the id column; it may be absent. As `id` is also the tag of Indonesian, a file
            with such a column needs another name here, or None: there is no id column.
        encoding: Of the file; a byte-order mark is skipped.
        repeats: What to do with several rows of one item, such as a word with several
            translations: `error` names them, `first` keeps the first of them.
        missing: What to do with a row that lacks a word: `error` names it, `drop` leaves it out
            (see `WordList.dropped`), `keep` leaves the cell empty.
        comment: Skip rows whose first cell starts with this; None: there are no comments.

    Raises:
        ValueError: no such file, another file type, bytes that aren't text in `encoding`, an
            empty file, a column that is no language, a ragged row, broken JSON, a repeated item,
            a missing word. The message names the line, and the byte for `encoding`.
    """
    file = Path(path)
    for name, value, accepted in (
        ("repeats", repeats, ("error", "first")),
        ("missing", missing, ("error", "drop", "keep")),
    ):
        if value not in accepted:
            raise InputError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}.")
    if isinstance(languages, str):
        raise InputError(f"languages={languages!r}: write a sequence of tags, [{languages!r}].")
    if file.suffix.lower() in JSON:
        columns, rows = _read_json_lines(file, languages, id)
    else:
        text = decode(file, _SUFFIXES, encoding=encoding, what=_WHAT)
        columns, rows = _read_table(file, text, languages, id, comment)
    if not rows:
        raise InputError(f"{file.name!r} holds no words; expected a row per item.")
    return _word_list(file.name, columns, rows, id, repeats, missing)


def _read_table(
    file: Path,
    text: str,
    languages: Mapping[str, str] | Sequence[str] | None,
    id: str | None,
    comment: str | None,
) -> tuple[dict[str, str], list[_Row]]:
    """Columns (name to language) and rows of delimited text."""
    records = table(file, text, comment)
    if languages is not None and not isinstance(languages, Mapping):
        tags = standardize_all(languages)
        names, columns = list(tags), dict(zip(tags, tags, strict=True))
    else:
        line, names = next(records, (0, []))
        if not names:
            raise InputError(f"{file.name!r} is empty but for comments; expected a row per item.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{file.name!r}, line {line}: column {twice[0]!r} occurs twice.")
        columns = _columns(file, names, languages, id)
    rows: list[_Row] = []
    for line, cells in records:
        if len(cells) > len(names):
            raise DataError(
                f"{file.name!r}, line {line} has {len(cells)} cells, but there are {len(names)} "
                f"columns ({', '.join(names)}). Remove the surplus, or name every column in "
                "languages=."
            )
        if languages is not None and not rows and [_tag(cell) for cell in cells] == names:
            raise DataError(
                f"{file.name!r}, line {line} names the languages itself ({', '.join(cells)}); "
                "leave out languages=, which is for files without such a row."
            )
        rows.append(_Row(f"line {line}", dict(zip(names, cells, strict=False))))
    return columns, rows


def _read_json_lines(
    file: Path, languages: Mapping[str, str] | Sequence[str] | None, id: str | None
) -> tuple[dict[str, str], list[_Row]]:
    """Columns (key to language) and rows of JSON Lines."""
    found = read_records(file, JSON, what=_WHAT)
    rows = [_Row(row.place, {name: _cell(row, name, id) for name in row}) for row in found]
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    if languages is not None and not isinstance(languages, Mapping):
        wanted = set(standardize_all(languages))
        languages = {name: standardize(name) for name in names if _tag(name) in wanted}
        if absent := sorted(wanted - set(languages.values())):
            raise InputError(f"{file.name!r} has no words in {absent}; its keys are {names}.")
    return _columns(file, names, languages, id), rows


def _cell(row: Record, name: str, id: str | None) -> str:
    """A word, or an id, which may be a number; nothing for null."""
    return (row.name(name) if name == id else row.text(name, default="")).strip()


def _tag(name: str) -> str | None:
    try:
        return standardize(name)
    except ValueError:
        return None


def _columns(
    file: Path, names: Sequence[str], languages: Mapping[str, str] | None, id: str | None
) -> dict[str, str]:
    """The language of each column that has one; every other column must be meant."""
    if languages is not None:
        if absent := [name for name in languages if name not in names]:
            raise InputError(
                f"{file.name!r} has no column {absent[0]!r}; it has {', '.join(map(repr, names))}."
            )
        columns = dict(languages)
    else:
        columns = {name: name for name in names if name != id}
        for name in columns:
            try:
                standardize(name)
            except ValueError as error:
                raise InputError(
                    f"{file.name!r}: column {name!r} names no language. {error} Rename the "
                    "column, or say which columns to read: languages={'French word': 'fr', ...}; "
                    "for a file without a row of column names languages=['en', 'fr']."
                ) from error
    if not columns:
        raise InputError(
            f"{file.name!r} has no column with words: give it one for each language, called by its "
            "tag (en, pt-BR)."
        )
    standardize_all(columns.values())
    return {name: standardize(tag) for name, tag in columns.items()}


def _word_list(
    source: str,
    columns: Mapping[str, str],
    rows: Sequence[_Row],
    id: str | None,
    repeats: str,
    missing: str,
) -> WordList:
    """Rows to items, under the policies for missing words and repeated items."""
    first = next(iter(columns))
    # A column called `id` that is read as Indonesian holds words.
    has_ids = id not in columns and any(id in row.cells for row in rows)
    places: dict[str, str] = {}
    items: dict[str, dict[str, str | None]] = {}
    again: list[str] = []
    dropped: list[tuple[str | None, str, str | None, str]] = []
    for row in rows:
        words = {tag: row.cells.get(name) or None for name, tag in columns.items()}
        absent = [tag for tag, word in words.items() if word is None]
        if absent and missing == "error":
            raise DataError(
                f"{source!r}, {row.place} has no word in {', '.join(map(repr, absent))}. Fill "
                "it in, or read the file with missing='drop' (leave such rows out) or "
                "missing='keep' (leave the cell empty)."
            )
        if id is not None and has_ids:
            key = row.cells.get(id) or None
        else:
            key = f"word/{row.cells[first]}" if words[columns[first]] else None
        if absent and missing == "drop":
            dropped += [(key, tag, None, "missing") for tag in absent]
        elif key is None:
            raise DataError(
                f"{source!r}, {row.place} has no id: its cell in the column {id!r}, or in a "
                f"file without that column its word in {columns[first]!r}, is empty. Give every "
                "row an id."
            )
        elif key in items:
            again.append(f"{row.place} repeats {key!r} of {places[key]}")
            dropped += [(key, tag, word, "repeated") for tag, word in words.items()]
        else:
            places[key], items[key] = row.place, words
    if again and repeats == "error":
        more = f" and {len(again) - 5} more" if len(again) > 5 else ""
        raise DataError(
            f"Items occur more than once in {source!r}: {'; '.join(again[:5])}{more}. Keep one row "
            "per item, or read the file with repeats='first'."
        )
    if not items:
        raise DataError(f"Every row of {source!r} lacks a word, so none is left; fill them in.")
    frame = pd.DataFrame.from_dict(items, orient="index", columns=list(columns.values()))
    left_out = pd.DataFrame(dropped, columns=list(DROPPED)).astype("string")
    return WordList(frame, source, left_out)
