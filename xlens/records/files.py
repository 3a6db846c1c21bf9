"""Files to rows: decoded, cut into rows, nothing dropped or invented."""

import ast
import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from xlens import strict
from xlens.errors import DataError
from xlens.records.record import Record, shown

JSON = (".jsonl", ".ndjson", ".json")
DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
_SHARD = re.compile(
    r"(?P<stem>.*?)(?:[-_.]?(?P<part>\d{4,5})-of-(?P<of>\d{4,5})|(?:^|[-_.])(?:part|shard)[-_.]?\d+)"
)

# --- files ---------------------------------------------------------------------------------------


def decode(
    file: Path, suffixes: Sequence[str], *, encoding: str = "utf-8", what: str = "a data file"
) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        ValueError: another ending, no such file, an unknown encoding, other bytes, or nothing.
    """
    if file.suffix.lower() not in suffixes:
        raise DataError(
            f"Can't tell the format of {file.name!r}: accepted are files that end in "
            f"{', '.join(suffixes)}. Rename the file."
        )
    try:
        data = strict.read_bytes(file)
    except OSError as error:
        raise DataError(
            f"Can't read {str(file)!r}: {error.strerror or error}. Give the path of {what}."
        ) from error
    try:
        codec = codecs.lookup(encoding).name
        # `utf-8-sig` takes a byte-order mark off, and reads text without one all the same.
        text = data.decode("utf-8-sig" if codec == "utf-8" else codec)
    except LookupError:
        raise DataError(
            f"Unknown encoding {encoding!r}; give one that Python knows, such as 'utf-8', "
            "'utf-16' or 'cp1252'."
        ) from None
    except UnicodeDecodeError as error:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file.name!r} isn't {encoding} text: byte {data[error.start]:#04x} at byte offset "
            f"{error.start} (line {line}). Save it as UTF-8, or where the reader takes it, give "
            f"the file's encoding, perhaps encoding={'utf-16' if wide else 'cp1252'!r}."
        ) from error
    if not text.strip():
        raise DataError(f"{file.name!r} is empty; expected {what}, a row per item.")
    return text


def read_records(file: Path, suffixes: Sequence[str], *, what: str = "a data file") -> list[Record]:
    """The rows of a file: JSON Lines, a JSON list of objects, a table with names, or Parquet.

    Raises:
        ValueError: what `decode` refuses, broken JSON, rows that are no objects, a ragged table,
            or no row at all. The line is named.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet" and suffix in suffixes:
        found = _parquet(file)
    elif suffix in DELIMITERS:
        found = _named_table(file, decode(file, suffixes, what=what))
    else:
        text = decode(file, suffixes, what=what)
        found = json_lines(text, file.name) if suffix != ".json" else as_records(file, text)
    if not found:
        raise DataError(f"{file.name!r} holds no item.")
    return found


def as_records(file: Path, text: str) -> list[Record]:
    """The rows of a `.json` file: a list of objects, or JSON Lines under another name.

    Raises:
        ValueError: neither.
    """
    content = json_document(text, file.name)
    if not isinstance(content, list):
        raise DataError(
            f"{file.name!r} holds {shown(content)}; accepted is a list of objects, or an object on "
            "each line."
        )
    rows: list[Any] = content
    return [record_of(row, file.name, f"item {n}") for n, row in enumerate(rows, 1)]


def json_document(text: str, source: str) -> Any:
    """The value of a JSON file; JSON Lines give a list.

    Raises:
        ValueError: neither, with the line.
    """
    try:
        return strict.loads(text)
    except json.JSONDecodeError as error:
        if "Extra data" in error.msg:
            return [dict(row) for row in json_lines(text, source)]
        raise DataError(
            f"{source!r}, line {error.lineno} isn't JSON: {error.msg}. Mend that line."
        ) from None
    except strict.UnclearError as error:
        raise DataError(f"{source!r}: {error}") from None


def json_lines(text: str, source: str) -> list[Record]:
    """The objects of JSON Lines. Only line feeds end a line: texts may hold U+2028 and the like.

    Raises:
        ValueError: a line that is no JSON object, named.
    """
    found: list[Record] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = strict.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{source!r}, line {number} isn't JSON: {error.msg}. Each line is an object of "
                "its own."
            ) from None
        except strict.UnclearError as error:
            raise DataError(f"{source!r}, line {number}: {error}") from None
        found.append(record_of(row, source, f"line {number}"))
    return found


def record_of(row: Any, source: str, place: str) -> Record:
    """An object of a file as a record.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{source!r}, {place} is {shown(row)}; accepted is an object.")
    return Record(source, place, row)


def table(file: Path, text: str, comment: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each row of a table that is no blank and no comment.

    Commas separate quoted cells; between tabs quotation marks are text like any other.

    Raises:
        ValueError: a cell that runs over lines, or that holds a list somebody printed.
    """
    delimiter = DELIMITERS[file.suffix.lower()]
    # A quotation mark that opens a cell would else swallow tabs and lines up to the next one.
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    start = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not (comment and cells[0].startswith(comment)):
                if any("\n" in cell or "\r" in cell for cell in cells):
                    raise csv.Error("a cell runs over several lines (an unclosed quote?)")
                if printed := next(filter(_printed, cells), None):
                    raise csv.Error(
                        f"the cell {printed[:40]!r} is a list or an object that was printed into "
                        "the table; accepted is one text in a cell"
                    )
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{file.name!r}, line {start}: {error}. Mend that row.") from error


def _printed(cell: str) -> bool:
    """Whether a cell is what Python or JSON prints for a list or an object of texts."""
    if cell[:1] + cell[-1:] not in ("[]", "{}", "()"):
        return False
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, list | dict | tuple | set) and any(isinstance(p, str) for p in parts)


def _named_table(file: Path, text: str) -> list[Record]:
    rows = table(file, text)
    line, names = next(rows, (0, []))
    found = list(rows)
    names = _whole_names(names, found)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file.name!r}, line {line}: column {twice[0]!r} occurs twice.")
    records: list[Record] = []
    for line, cells in found:
        if len(cells) != len(names):
            raise DataError(
                f"{file.name!r}, line {line} has {len(cells)} cells, but there are {len(names)} "
                f"columns ({', '.join(names)}). Mend that row."
            )
        records.append(Record(file.name, f"line {line}", dict(zip(names, cells, strict=True))))
    return records


def _whole_names(names: list[str], rows: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Column names of which one was torn in two by a tab, whole again.

    BMLAMA-17's Chinese file is published so: `Prompt Ans Candidate Ans Subject` over rows of four.
    """
    if not rows or any(len(cells) != len(names) - 1 for _, cells in rows):
        return names
    for n, pair in enumerate(pairwise(names)):
        whole = [*names[:n], " ".join(pair), *names[n + 2 :]]
        if pair[1] in names[: n + 1] and len(set(whole)) == len(whole):
            return whole
    return names


def _parquet(file: Path) -> list[Record]:
    import pandas as pd
    import pyarrow.parquet

    if file.exists():
        strict.require_regular(file)
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise DataError(f"Can't read {file.name!r} as Parquet: {error}.") from None
    return [
        Record(file.name, f"row {n}", {k: _no_nan(v) for k, v in row.items()})
        for n, row in enumerate(rows, 1)
    ]


def _no_nan(value: Any) -> Any:
    # pandas writes NaN where a text is missing.
    return None if isinstance(value, float) and math.isnan(value) else value


def by_language(
    files: Sequence[Path], name: Callable[[Path], str], *, advice: str
) -> dict[str, tuple[Path, ...]]:
    """The files of each language, by the data set's own name of it; shards are one file together.

    Args:
        files: In order.
        name: The language of a file; empty for none.
        advice: What to do where two files are of one language and are no shards.

    Raises:
        ValueError: two such files, or shards of which one is missing.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        if code := name(file):
            found.setdefault(code, []).append(file)
    for code, mine in found.items():
        parts = [_SHARD.fullmatch(file.stem) for file in mine]
        kinds = {
            (m and m["stem"], m and m["of"], f.parent) for m, f in zip(parts, mine, strict=True)
        }
        if len(mine) > 1 and (not all(parts) or len(kinds) > 1):
            raise DataError(f"Both {mine[0].name!r} and {mine[1].name!r} are {code!r}; {advice}")
        if (first := parts[0]) and first["of"] and len(mine) != int(first["of"]):
            raise DataError(
                f"There are {len(mine)} of {int(first['of'])} shards of {code!r} "
                f"({', '.join(f.name for f in mine[:4])}); put the others beside them."
            )
    return {code: tuple(mine) for code, mine in found.items()}
