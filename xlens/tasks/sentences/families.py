"""Families of languages, from the user's own table: no library that is kept up knows them."""

from collections.abc import Iterable
from pathlib import Path

from xlens.checks import typed
from xlens.errors import DataError
from xlens.languages import standardize, written
from xlens.records import JSON, read_records


@typed
def read_families(path: str | Path, languages: Iterable[str]) -> dict[str, str]:
    """The family of each variety, from a table with the columns `language` and `family`.

    A language's family holds for all its scripts.

    Args:
        path: TSV, CSV, Parquet or JSON Lines.
        languages: Tags that need one.

    Raises:
        ValueError: no such file or columns, an unknown tag, two families of one language, or a
            language without one.
    """
    found: dict[str, str] = {}
    for row in read_records(Path(path), (".tsv", ".csv", ".parquet", *JSON)):
        row.require(("language", "family"))
        language, family = written(standardize(str(row["language"])))[0], str(row["family"]).strip()
        if found.setdefault(language, family) != family:
            raise DataError(
                f"{Path(path).name!r} names two families of {language!r}: {found[language]!r} and "
                f"{family!r}. Keep one."
            )
    tags = list(languages)
    if lacking := [tag for tag in tags if not found.get(written(tag)[0])]:
        raise DataError(
            f"{Path(path).name!r} has no family of {', '.join(lacking)}: add a row for each, a "
            "language that has none under its own name."
        )
    return {tag: found[written(tag)[0]] for tag in tags}
