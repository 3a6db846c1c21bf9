"""How often a corpus states facts, as files and saved counts have it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.records import JSON, Record, decode, json_document, read_records, record_of
from xlens.results import load
from xlens.text import form

Key = tuple[str, str]
"""A fact's id, and a language."""
_TABLES = (".tsv", ".csv")
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


@dataclass(frozen=True, eq=False)
class Frequencies(Mapping[Key, int]):
    """Counts of facts by id and language.

    Attributes:
        counts: These.
        subjects: What was counted, where the file says so.
        estimates: Those that the index that was asked calls estimates.
    """

    counts: Mapping[Key, int]
    subjects: Mapping[Key, str] = field(default_factory=dict[Key, str])
    estimates: frozenset[Key] = frozenset()

    def __getitem__(self, key: Key) -> int:
        return self.counts[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


@typed
def read_frequencies(path: str | Path) -> Frequencies:
    """Counts of facts in a corpus, by id and language; for `Facts.with_frequencies`.

    What `xlens count` wrote (the folder `counts`: documents in which subject and object stand at
    places of their own, or what an index says; of several objects the one with most), the file that
    arXiv 2505.14824 publishes, `{language: {relation: [{subject, object, index, frequency}]}}`, or
    a row per fact and language of JSON Lines, `.tsv` or `.csv`: `id language frequency`, and where
    it is known `subject` and `approx` (an estimate).

    Raises:
        ValueError: no such file, another form, a fact twice, a count that is no whole number of 0
            or more.
    """
    file = Path(path)
    if file.is_dir():
        return _counted(file)
    rows: Iterable[tuple[str, Record]]
    if file.suffix.lower() == ".json":
        rows = _published(json_document(decode(file, JSON), file.name), file.name)
    else:
        rows = ((row.text("language"), row) for row in read_records(file, (*JSON, *_TABLES)))
    counts: dict[Key, int] = {}
    subjects: dict[Key, str] = {}
    estimates: list[Key] = []
    for language, row in rows:
        row.require(("id|index", "frequency"), "Each row counts one fact.")
        key = (form(row.name("id" if "id" in row else "index")), standardize(language))
        if key in counts:
            row.refuse(f"the fact {key[0]!r} is counted twice in {key[1]}. Leave one out.")
        counts[key] = row.whole("frequency")
        if counts[key] < 0:
            row.wrong("frequency", "a whole number, 0 or more")
        if "subject" in row:
            subjects[key] = row.text("subject")
        if "approx" in row and _is_estimate(row):
            estimates.append(key)
    return Frequencies(counts, subjects, frozenset(estimates))


def _counted(folder: Path) -> Frequencies:
    from xlens.corpus import FactCounts, IndexCounts

    saved = load(folder)
    if not isinstance(saved, FactCounts | IndexCounts):
        raise InputError(f"{str(folder)!r} holds a {type(saved).__name__}, no counts of facts.")
    column = "apart" if isinstance(saved, FactCounts) else "frequency"
    table: pd.DataFrame = saved.to_frame().sort_values(column, ascending=False, kind="stable")
    # The first of each after sorting: of several objects the one with most.
    table = table.drop_duplicates(["id", "language"])
    keys = list(zip(table["id"].astype(str), table["language"].astype(str), strict=True))
    approx = table["approx"] if "approx" in table else [False] * len(keys)
    return Frequencies(
        {key: int(n) for key, n in zip(keys, table[column], strict=True)},
        dict(zip(keys, table["subject"].astype(str), strict=True)),
        frozenset(key for key, is_one in zip(keys, approx, strict=True) if is_one),
    )


def _is_estimate(row: Record) -> bool:
    found = _TRUTH.get(str(row["approx"]).lower())
    if found is None:
        row.wrong("approx", "true or false")
    return bool(found)


def _published(content: Any, source: str) -> Iterator[tuple[str, Record]]:
    shape = "{language: {relation: [{index, frequency}]}}"
    for language, relations in record_of(content, source, "the whole").items():
        of = record_of(relations, source, f"{language}: expected {shape}; this")
        for relation, entries in of.items():
            if not isinstance(entries, list):
                of.wrong(relation, "a list of counts")
            for n, entry in enumerate(entries, 1):
                yield language, record_of(entry, source, f"{language}, {relation}, entry {n}")
