"""Corpus files as blocks of documents: text, JSON Lines and Parquet, packed or not.

A file is cut in the same places whenever it is read, so that a count goes on after the last block
that it finished. What can't be read is a problem that is counted; it never ends a count.
"""

import json
import lzma
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast, get_args

from xlens.checks import check_fields, typed
from xlens.errors import DataError

Cut = Literal["line", "blank line", "file"]
PACKED = (".gz", ".zst", ".bz2", ".xz")
TEXT, JSON_LINES, PARQUET = (".txt", ".text"), (".jsonl", ".ndjson", ".json"), (".parquet",)
_PEEK = 1 << 16
_READ = 1 << 16  # what lies before damage is read up to less than this
_BLOCK = 1 << 22
_LONGEST = 1 << 30  # bytes of a document: a packed file may hold one without an end
_ROWS = 256
_BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError)
_BLANK = re.compile(rb"\n[ \t\r]*\n")
DAMAGED, NO_JSON, NO_TEXT, NO_UTF8 = (
    "damaged parts, skipped",
    "lines that are no JSON objects, skipped",
    "records without a text in the field, skipped",
    "documents with bytes that are no UTF-8, counted with U+FFFD for them",
)


@dataclass(frozen=True)
class Layout:
    """How documents are found in corpus files.

    Attributes:
        field: Of JSON Lines and Parquet: the one that holds the text.
        cut: Of text files: what a document is, each `line`, what stands between `blank line`s, or
            the whole `file`.
    """

    field: str = "text"
    cut: Cut = "line"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cut not in get_args(Cut):
            raise DataError(f"cut is {self.cut!r}; accepted are {', '.join(get_args(Cut))}.")


@dataclass(frozen=True)
class Problem:
    """What could not be read as it should.

    Attributes:
        kind: In words.
        what: The first case.
        n: How many.
    """

    kind: str
    what: str
    n: int = 1


@dataclass(frozen=True)
class Block:
    """A piece of a file, whole documents.

    Attributes:
        content: As it stands in the file, unpacked; of Parquet a list of what the field holds.
        digest: SHA-256 of all content up to its end.
        end: Bytes of content up to there.
        problems: Met on the way to it, or in place of it.
    """

    content: bytes | list[Any]
    digest: str
    end: int
    problems: tuple[Problem, ...] = ()


@typed
def corpus_files(corpora: Sequence[Path]) -> list[Path]:
    """Files of a corpus, those of folders by their names.

    Raises:
        ValueError: nothing there, a file of unknown format, or the same one twice.
    """
    found: list[Path] = []
    for corpus in map(Path, corpora):
        if corpus.is_dir():
            inside = sorted(p for p in corpus.rglob("*") if p.is_file() and _layout(p))
            if not inside:
                raise DataError(f"{str(corpus)!r} holds no corpus file: {_accepted()}.")
            found += inside
        elif not corpus.is_file():
            raise DataError(f"No file or folder {str(corpus)!r}; give those of the corpus.")
        elif not _layout(corpus):
            raise DataError(f"Can't tell the format of {str(corpus)!r}: {_accepted()}.")
        else:
            found.append(corpus)
    if not found:
        raise DataError("No corpus is given; give at least one file or folder.")
    places = [path.resolve() for path in found]
    if twice := sorted({str(p) for p in places if places.count(p) > 1}):
        raise DataError(f"{twice[0]!r} is given twice; its documents would be counted twice.")
    return found


def _accepted() -> str:
    endings = ", ".join((*TEXT, *JSON_LINES))
    packed = ", ".join(PACKED)
    return f"accepted are files that end in {endings}, also packed ({packed}), and .parquet"


def _layout(path: Path) -> tuple[str, ...] | None:
    name = path.name.lower()
    for layout in (TEXT, JSON_LINES):
        if any(name.endswith(f"{end}{packed}") for end in layout for packed in ("", *PACKED)):
            return layout
    return PARQUET if name.endswith(PARQUET) else None


@typed
def check_source(path: Path, how: Layout) -> None:
    """See that a file's beginning is what its name says; of damage later in it nothing is known.

    Raises:
        ValueError: it is empty, no text, or its first record has no text in the field.
    """
    if _layout(path) == PARQUET:
        import pyarrow.parquet

        try:
            names = pyarrow.parquet.read_schema(path).names
        except (OSError, ValueError):
            return  # damaged: reported when it is counted
        if how.field not in names:
            raise _no_field(path, how.field, names)
        return
    first = next(blocks(path, how, size=_PEEK), None)
    if first is None:
        raise DataError(f"{str(path)!r} is empty; leave it out.")
    content = first.content
    assert isinstance(content, bytes)
    if b"\0" in content[:_PEEK]:
        raise DataError(
            f"{str(path)!r} is no text in UTF-8: it holds zero bytes. Is it packed, or UTF-16? "
            "Name it by what it is, or save it as UTF-8."
        )
    if _layout(path) == JSON_LINES and content:
        row = _record(next((n for n in content.split(b"\n") if n.strip()), b""))
        if row is not None and not isinstance(row.get(how.field), str):
            raise _no_field(path, how.field, list(row))


def _no_field(path: Path, field: str, there: Sequence[str]) -> ValueError:
    return DataError(
        f"{str(path)!r} has no text in the field {field!r}; there are {', '.join(there)}. Name the "
        "one that holds the text (field=, --field)."
    )


@typed
def blocks(path: Path, how: Layout, *, size: int = _BLOCK) -> Iterator[Block]:
    """The blocks of a file, from its beginning.

    Args:
        path: The file.
        how: How documents are found.
        size: Bytes of a block; it ends after the document in which they end.
    """
    return _rows(path, how) if _layout(path) == PARQUET else _pieces(path, how, size)


def _pieces(path: Path, how: Layout, size: int) -> Generator[Block]:
    cut: Cut = how.cut if _layout(path) == TEXT else "line"
    whole, end = sha256(), 0
    waiting: list[bytes] = []
    held, goal = 0, size
    damage: tuple[Problem, ...] = ()
    with _opened(path) as file:
        more = True
        while more:
            try:
                part: bytes = file.read(_READ)
            except _BROKEN as error:
                part = b""
                damage = (Problem(DAMAGED, f"after {end + held:,} bytes: {error}"),)
            if held + len(part) > max(size, _LONGEST):
                long = f"after {end:,} bytes: a document of more than {_LONGEST >> 20:,} MB"
                part, damage = b"", (Problem(DAMAGED, long),)
            more = bool(part)
            waiting.append(part)
            held += len(part)
            if more and held < goal:
                continue
            content = b"".join(waiting)
            # At a file's end the rest is a document; at a
            # damaged place it is the beginning of one.
            at = _last_cut(content, cut) if more or damage else held
            if more and not at:
                waiting, goal = [content], 2 * held  # one document goes on: join it a few times
                continue
            waiting, held = [content[at:]], held - at
            goal = held + size
            # Of whole documents alone, so that the digest is that of what was counted.
            whole.update(content[:at])
            end += at
            if at or damage:
                yield Block(content[:at], whole.hexdigest(), end, damage)


def _last_cut(content: bytes, cut: Cut) -> int:
    """Where the last whole document ends."""
    if cut == "line":
        return content.rfind(b"\n") + 1
    if cut == "file":
        return 0
    return max((found.end() for found in _BLANK.finditer(content)), default=0)


def _opened(path: Path) -> Any:
    """A file to read from, unpacked."""
    packed = path.suffix.lower()
    if packed not in PACKED:
        return path.open("rb")
    if packed == ".xz":
        return lzma.open(path)
    import pyarrow

    kind = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[packed]
    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), kind)


def _rows(path: Path, how: Layout) -> Generator[Block]:
    """Of Parquet: one damaged row group doesn't take the others with it."""
    import pyarrow.parquet

    whole = sha256()
    end = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        yield Block([], whole.hexdigest(), end, (Problem(DAMAGED, str(error)),))
        return
    for group in range(file.num_row_groups):
        try:
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[how.field]):
                texts: list[Any] = batch.column(0).to_pylist()
                content = "\n".join(map(str, texts)).encode("utf-8", "replace")
                whole.update(content)
                end += len(content)
                yield Block(texts, whole.hexdigest(), end)
        except (OSError, ValueError) as error:
            problem = Problem(DAMAGED, f"row group {group}: {error}")
            yield Block([], whole.hexdigest(), end, (problem,))


# --- documents -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Documents:
    """The documents of a block.

    Attributes:
        lines: In UTF-8, each on a line.
        n: How many.
        problems: Met in it.
    """

    lines: bytes
    n: int
    problems: tuple[Problem, ...]


@typed
def documents(path: Path, block: Block, how: Layout) -> Documents:
    """The documents of a block, with whatever could not be read."""
    problems = list(block.problems)
    if isinstance(block.content, list):
        texts = _texts(block.content, problems)
    elif _layout(path) == JSON_LINES:
        rows = [_record(line) for line in block.content.split(b"\n") if line.strip()]
        if bad := sum(row is None for row in rows):
            problems.append(Problem(NO_JSON, f"before byte {block.end:,}", bad))
        texts = _texts([row.get(how.field) for row in rows if row is not None], problems)
    else:
        return _plain(block, how, problems)
    lines = "\n".join(" ".join(text.split("\n")) for text in texts)
    return Documents(lines.encode("utf-8", "replace"), len(texts), tuple(problems))


def _texts(values: Sequence[Any], problems: list[Problem]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    if lacking := len(values) - len(texts):
        wrong = next(value for value in values if not isinstance(value, str))
        problems.append(Problem(NO_TEXT, f"{wrong!r:.40}", lacking))
    return texts


def _plain(block: Block, how: Layout, problems: list[Problem]) -> Documents:
    content = cast(bytes, block.content)
    if how.cut == "file":
        found = [content] if content.strip() else []
    else:
        found = _BLANK.split(content) if how.cut == "blank line" else content.split(b"\n")
        found = [document for document in found if document.strip()]
    try:
        content.decode()
    except UnicodeDecodeError:
        bad = sum(not _is_utf8(document) for document in found)
        problems.append(Problem(NO_UTF8, f"before byte {block.end:,}", bad))
    if how.cut != "line":
        # A line each: a line feed within a document would make two of it.
        content = b"\n".join(document.replace(b"\n", b" ") for document in found)
    return Documents(content, len(found), tuple(problems))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], row) if isinstance(row, dict) else None
