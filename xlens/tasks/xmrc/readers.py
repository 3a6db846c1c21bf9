"""Reads reading comprehension from local files, or from the hub through `datasets`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize_all
from xlens.records import by_language, decode, json_document, read_records
from xlens.tasks.sources import (
    Languages,
    choose,
    hub_records,
    language_of,
    listed,
    open_hub,
    tagged,
)
from xlens.tasks.xmrc.data import ReadingSet, whole_readings
from xlens.tasks.xmrc.layouts import (
    LAYOUTS,
    Layout,
    Rows,
    by_prefix,
    crossed,
    flat_rows,
    squad_rows,
)

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
_MLQA = re.compile(r"context-([\w]+)-question-([\w]+)$")


@typed
def read_reading(
    path: str | Path,
    *,
    layout: str = "squad",
    languages: Languages = None,
    split: str | None = None,
    incomplete: Literal["error", "drop"] = "error",
    faulty: Literal["error", "drop"] = "error",
) -> ReadingSet:
    """Read questions with their paragraphs from a file or a folder.

    | layout | files |
    |---|---|
    | `squad` | SQuAD's JSON, a file per language: `xquad.de.json`, `de/dev.json` |
    | `mlqa` | the same, a file per pair: `test-context-en-question-de.json` |
    | `tydiqa` | the same, all languages in a file: ids begin with the language's English name |

    `.jsonl`, `.json` and `.parquet` with a question a row, as `datasets` writes them, are read as
    well, and a language's shards together.

    Args:
        path: A folder, or one file: then `languages` names its one language (not for `tydiqa`).
        layout: One of these names.
        languages: Tags to read; None: all there are. A mapping from tag to the data set's own name
            of the language where that is another (`zh-Hans` finds `zh` by itself).
        split: Read files with this in their name (`test`); None: all.
        incomplete: A question that some language lacks: `error` names it, `drop` leaves it out
            and counts it. MLQA needs `drop`: a question is there in four of its languages.
        faulty: The same for a question without an answer, or whose answer isn't at its place.

    Raises:
        ValueError: no such file, an unknown layout or language, a file laid out otherwise, two
            files for a language, and what `ReadingSet` refuses.
    """
    form = _layout(layout)
    root = Path(path)
    if not root.exists():
        raise InputError(f"No file or folder {str(root)!r}; give the path of {layout} files.")
    files = _files(root, split)
    if layout == "mlqa":
        read = _pairs(files, languages, str(root))
    elif layout == "tydiqa":
        found = by_prefix(_rows(*files), str(root))
        read = _together(choose(tagged(found), languages, str(root)))
    else:
        by_name = _by_language(files, root, languages)
        chosen = choose(tagged(by_name), languages, str(root))
        read = _together({tag: _rows(*mine) for tag, mine in chosen.items()})
    return whole_readings(
        pd.DataFrame(read), root.name, incomplete=incomplete, faulty=faulty, parallel=form.parallel
    )


@typed
def download_reading(
    layout: str = "xquad",
    *,
    languages: Sequence[str] | Mapping[str, str],
    split: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    incomplete: Literal["error", "drop"] = "error",
    faulty: Literal["error", "drop"] = "error",
) -> ReadingSet:
    """Read questions from the hub, through the package `datasets`.

    Args:
        layout: `xquad` (or `squad`), `mlqa` or `tydiqa`.
        languages: Tags, as in `read_reading`.
        split: A split of the data set; None: the one that is usually reported.
        name: Of the data set on the hub, if another holds this layout.
        revision: A commit, to read the same questions again.
        incomplete: This and the next as in `read_reading`.
        faulty: What to do with questions whose answer isn't there.

    Raises:
        ValueError: `datasets` isn't installed, or what `read_reading` refuses.
    """
    form = _layout({"xquad": "squad"}.get(layout, layout))
    load, configurations = open_hub()
    place, part = name or form.hub, split or form.split
    source = f"{place}@{revision}" if revision else place
    if "{" in form.config:
        there = configurations(place, revision=revision)
        pattern = re.compile(
            # `mlqa.{0}.{0}` must match the same name twice: groups are compared below.
            re.escape(form.config).replace(r"\{\}", "(.+)").replace(r"\{0\}", "(.+)")
        )
        own = {
            m[1]: m[1] for c in there if (m := pattern.fullmatch(c)) and len(set(m.groups())) == 1
        }
        read = {
            tag: flat_rows(
                hub_records(
                    load(place, form.config.format(code), split=part, revision=revision), place
                )
            )
            for tag, code in choose(tagged(own), languages, place).items()
        }
    else:
        loaded = load(place, form.config, split=part, revision=revision)
        rows = flat_rows(hub_records(loaded, place))
        read = choose(tagged(by_prefix(rows, place)), languages, place)
    return whole_readings(
        pd.DataFrame(_together(read)),
        source,
        incomplete=incomplete,
        faulty=faulty,
        parallel=form.parallel,
    )


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"Unknown layout {name!r}; accepted are {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _together(read: Mapping[str, Rows]) -> Rows:
    return [{**row, "language": tag} for tag, rows in read.items() for row in rows]


def _pairs(files: Sequence[Path], languages: Languages, source: str) -> Rows:
    read: dict[tuple[str, str], Path] = {}
    for file in files:
        if pair := _MLQA.search(file.stem):
            context, question = pair.groups()
            if (context, question) in read:
                raise InputError(
                    f"Both {read[context, question].name!r} and {file.name!r} ask {question} of "
                    f"{context}; say which with split=."
                )
            read[context, question] = file
    if not read:
        raise DataError(
            f"No file of {source!r} is named as MLQA's are (test-context-en-question-de.json): "
            f"{listed(files)}."
        )
    names = dict.fromkeys(name for pair in read for name in pair)
    chosen = choose(tagged({name: name for name in names}), languages, source)
    wanted = set(chosen.values())
    # Those of one language first: the rest is read for what they lack.
    own = {pair: read[pair] for pair in sorted(read, key=lambda p: p[0] != p[1])}
    return crossed({pair: _rows(file) for pair, file in own.items() if wanted & set(pair)}, chosen)


def _by_language(
    files: Sequence[Path], root: Path, languages: Languages
) -> dict[str, tuple[Path, ...]]:
    if root.is_file():
        if languages is None or len(tags := standardize_all(languages)) != 1:
            raise InputError(
                f"{str(root)!r} is a file of one language: say which, languages=['en'], or give "
                "the folder with a file per language."
            )
        own = next(iter(languages.values())) if isinstance(languages, Mapping) else tags[0]
        return {own: (root,)}
    by_name = by_language(
        files,
        lambda file: language_of(file, root, ("validation",)),
        advice="say which with split=, or give a folder with one file per language.",
    )
    if not by_name:
        raise InputError(f"No file of {str(root)!r} is named after a language: {listed(files)}.")
    return by_name


def _files(root: Path, split: str | None) -> list[Path]:
    if root.is_file():
        return [root]
    every = sorted(f for f in root.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    named = [f for f in every if split is None or split in re.split(r"[.\-_]", f.stem)]
    if not named:
        raise InputError(
            f"No file of {str(root)!r} ends in {', '.join(_SUFFIXES)}"
            + (f" and has {split!r} in its name" if split else "")
            + f": {listed(every)}."
        )
    return named


def _rows(*files: Path) -> Rows:
    """The questions of files, nested as SQuAD's or one a row."""
    rows: Rows = []
    for file in files:
        if file.suffix.lower() == ".json":
            content = json_document(decode(file, _SUFFIXES), file.name)
            if not isinstance(content, list):
                rows += squad_rows(content, file.name)
                continue
        rows += flat_rows(read_records(file, _SUFFIXES))
    return rows
