"""The one reader of data files: rows that know where they stand, and texts that are texts.

Prompts, words, choices and reading questions come from JSON Lines, JSON, comma- and tab-separated
tables and Parquet. Whatever the task, a file is decoded, cut into rows and checked here: a number,
a truth value, null, a list or an object never becomes a text by being printed.
"""

from xlens._lazy import listed
from xlens.records.files import (
    DELIMITERS,
    JSON,
    by_language,
    decode,
    json_document,
    json_lines,
    read_records,
    record_of,
    table,
)
from xlens.records.record import Record, shown, surrogate

__all__ = [
    "DELIMITERS",
    "JSON",
    "Record",
    "by_language",
    "decode",
    "json_document",
    "json_lines",
    "read_records",
    "record_of",
    "shown",
    "surrogate",
    "table",
]
__dir__ = listed(__all__)
