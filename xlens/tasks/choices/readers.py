"""Reads multiple-choice items from local files, or from the hub through `datasets`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.records import JSON, Record, by_language, read_records
from xlens.tasks.choices.classes import read_classes
from xlens.tasks.choices.data import Choices, whole_items
from xlens.tasks.choices.layouts import LAYOUTS, Layout
from xlens.tasks.sources import (
    Languages,
    choose,
    hub_records,
    language_of,
    listed,
    open_hub,
    tagged,
)

CLASSES = "classes"
_SUFFIXES = (*JSON, ".csv", ".tsv", ".parquet")


@typed
def read_choices(
    path: str | Path,
    *,
    layout: str = "jsonl",
    languages: Languages = None,
    split: str | None = None,
    connectors: Mapping[str, tuple[str, str]] | None = None,
    incomplete: Literal["error", "drop"] = "error",
    identical: Literal["keep", "drop"] = "keep",
) -> Choices:
    """Read parallel multiple-choice items from a file or a folder.

    The plain layout, `jsonl`, is one object a line; `context`, `mark` and `kind` may be left out:

        {"id": "q1", "language": "de", "question": "Wo liegt Rom?", "options": ["Italien",
         "Spanien"], "gold": 0}

    Options may also be an object by letter, `{"A": "Italien", "B": "Spanien"}`, in its order, with
    `gold` one of its keys.

    The others are data sets as published, a file per language or all its shards (`.jsonl`,
    `.json`, `.csv`, `.tsv`, `.parquet`), its name or its folder's a language: `xcopa`
    (`zh/test.zh.jsonl`), `belebele` (`deu_Latn.jsonl`), `global-mmlu`, `m-mmlu`, `bmlama`
    (`fr.tsv`, parallel by line), `sib200` (`deu_Latn/test.tsv`; the seven topics are options in
    English, see `Choices.with_labels`), `paws-x`
    (`de/test_2k.tsv`) and `xnli` (rows as `datasets` writes them), and `classes`, the files of
    arXiv 2405.13816 (`snli_no600_test.json`; a row's class is that of the English row).

    Args:
        path: A file of the plain layout, or a folder.
        layout: One of these names.
        languages: Tags to read; None: all there are. A mapping from tag to the data set's own name
            of the language where that is another (`zh-Hans` finds `zh` by itself).
        split: Read files with this in their name (`val`); None: `test` where the layout has
            splits and a file says so, else every file.
        connectors: For `xcopa`: what to write instead of the arrows `←` and `→`, by language:
            `{"en": ("because", "so")}`. Cause first.
        incomplete: An item that lacks a language, or differs between them in its number of
            options, right answer or kind: `error` names it, `drop` leaves it out and counts it.
        identical: An option that is the same string in two languages: `keep` (see
            `Choices.identical`) or `drop` the item.

    Raises:
        ValueError: no such file, an unknown layout or language, missing columns, a broken line,
            two files for a language, and what `Choices` refuses.
    """
    form = None if layout == CLASSES else _layout(layout)
    root = Path(path)
    if not root.exists():
        raise InputError(f"No file or folder {str(root)!r}; give the path of {layout} items.")
    if form is None:
        return read_classes(root, languages, split or "test", incomplete, identical)
    if layout == "jsonl":
        read = _read_plain(root, form, languages)
    else:
        part = split or form.split
        files = choose(_files(root, part, split is not None), languages, str(root))
        read = {
            tag: _items(form, (row for file in mine for row in read_records(file, _SUFFIXES)), part)
            for tag, mine in files.items()
        }
    source = f"{layout} in {root.name}" if layout != "jsonl" else root.name
    return _assembled(read, source, connectors, incomplete, identical)


@typed
def download_choices(
    layout: str,
    *,
    languages: Languages = None,
    split: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    connectors: Mapping[str, tuple[str, str]] | None = None,
    incomplete: Literal["error", "drop"] = "error",
    identical: Literal["keep", "drop"] = "keep",
) -> Choices:
    """Read parallel items from the hub, through the package `datasets`.

    Args:
        layout: `xcopa`, `belebele`, `global-mmlu`, `m-mmlu`, `sib200` or, with `name`, `bmlama`.
        languages: As in `read_choices`; a configuration of the data set is a language.
        split: A split of the data set; None: `test`.
        name: Of the data set on the hub, if another holds this layout.
        revision: A commit, to read the same items again.
        connectors: This and the rest as in `read_choices`.
        incomplete: What to do with items that aren't whole.
        identical: What to do with options that are one string in two languages.

    Raises:
        ValueError: `datasets` isn't installed, or what `read_choices` refuses.
    """
    form = _layout(layout)
    hub = name or form.hub
    if hub is None:
        raise InputError(f"The layout {layout!r} has no known place on the hub; give its name=.")
    load, configurations = open_hub()
    part = split or form.split
    configs = {config: config for config in configurations(hub, revision=revision)}
    chosen = choose(tagged(configs), languages, hub)
    read = {
        tag: _items(form, hub_records(load(hub, config, split=part, revision=revision), hub), part)
        for tag, config in chosen.items()
    }
    source = f"{hub}@{revision}" if revision else hub
    return _assembled(read, source, connectors, incomplete, identical)


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        accepted = ", ".join([*LAYOUTS, CLASSES])
        raise InputError(f"Unknown layout {name!r}; accepted are {accepted}.")
    return LAYOUTS[name]


def _assembled(
    read: Mapping[str, Sequence[dict[str, Any]]],
    source: str,
    connectors: Mapping[str, tuple[str, str]] | None,
    incomplete: str,
    identical: str,
) -> Choices:
    rows = [{**item, "language": tag} for tag, items in read.items() for item in items]
    words = {standardize(tag): pair for tag, pair in (connectors or {}).items()}
    if words and (missing := [tag for tag in read if tag not in words]):
        raise InputError(f"connectors has nothing for {', '.join(missing)}; give every language.")
    for row in rows if words else ():
        cause, effect = words[row["language"]]
        row["mark"] = {"cause": cause, "effect": effect}.get(row.get("kind", ""), row.get("mark"))
    return whole_items(pd.DataFrame(rows), source, incomplete=incomplete, identical=identical)


def _read_plain(root: Path, form: Layout, languages: Languages) -> dict[str, list[dict[str, Any]]]:
    if root.suffix.lower() not in JSON:
        raise InputError(f"{root.name!r}: the layout 'jsonl' is a file that ends in .jsonl.")
    found: dict[str, list[Record]] = {}
    for row in read_records(root, JSON):
        row.require(("id", "language"), "Every item has both.")
        try:
            tag = standardize(row.text("language"))
        except ValueError as error:
            raise InputError(f"{row.source!r}, {row.place}: {error}") from None
        found.setdefault(tag, []).append(row)
    chosen = choose({tag: tag for tag in found}, languages, root.name)
    return {tag: _items(form, found[own], "") for tag, own in chosen.items()}


def _items(form: Layout, rows: Iterable[Record], split: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for line, row in enumerate(rows, 1):
        row.require(form.columns)
        made.append(form.item(row, line, split))
    return made


def _files(root: Path, part: str, asked: bool) -> dict[str, tuple[Path, ...]]:
    """The files of a folder by language tag."""
    if root.is_file():
        raise InputError(f"{str(root)!r} is a file; this layout is a folder, a file per language.")
    every = sorted(f for f in root.rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
    # As a whole piece of the name: `test` is not in `latest`.
    named = [f for f in every if part in f.stem.replace("-", ".").replace("_", ".").split(".")]
    if asked and not named:
        raise InputError(f"No file of {str(root)!r} has {part!r} in its name: {listed(every)}.")
    by_name = by_language(
        named or every,
        lambda file: language_of(file, root, (part,)),
        advice="say which with split=, or give a folder with one file per language.",
    )
    if not by_name:
        raise InputError(f"No file of {str(root)!r} is named after a language: {listed(every)}.")
    return tagged(by_name)
