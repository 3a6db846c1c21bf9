"""Facts as a plain table: what is counted."""

from pathlib import Path
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError
from xlens.languages import standardize
from xlens.records import DELIMITERS, JSON, Record, read_records

FACT = ("id", "relation", "language", "subject", "object")
_FORMATS = (*JSON, *DELIMITERS, ".parquet")


@typed
def read_facts(path: Path) -> pd.DataFrame:
    """Facts from a JSON Lines, JSON, Parquet, comma- or tab-separated file.

    Returns:
        One row per fact, language and object, in the file's order: `FACT`.

    Raises:
        ValueError: no such file, a column that is missing, an empty cell, an unknown language, or
            the same row twice; the line is named.
    """
    rows: list[dict[str, str]] = []
    lines: dict[tuple[str, ...], Record] = {}
    for record in read_records(Path(path), _FORMATS, what="a table of facts"):
        record.require(FACT, f"Facts have {', '.join(FACT)}.")
        row = {name: record.name(name) for name in FACT}
        try:
            row["language"] = standardize(row["language"])
        except ValueError as error:
            record.refuse(str(error))
        key = tuple(row[name] for name in FACT)
        if key in lines:
            record.refuse(f"the same fact as in {lines[key].place}. Leave one of them out.")
        lines[key] = record
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(FACT))


@typed
def check_facts(facts: pd.DataFrame) -> pd.DataFrame:
    """The columns of `FACT` of a table, in its order.

    Raises:
        ValueError: a column is missing, a cell is no text, or there is no row.
    """
    if lacking := [name for name in FACT if name not in facts]:
        raise DataError(
            f"The table of facts lacks {', '.join(lacking)}; it has "
            f"{', '.join(map(str, facts.columns)) or 'no column'}."
        )
    if facts.empty:
        raise DataError("The table of facts has no row; give at least one fact.")
    found = facts[list(FACT)].reset_index(drop=True)
    for name in FACT:
        wrong: Any = next((v for v in found[name].tolist() if not isinstance(v, str)), None)
        if wrong is not None:
            raise DataError(f"{name} is {wrong!r:.40} in the table of facts; write it as a text.")
    return found
