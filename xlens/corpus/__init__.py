"""How often facts stand in a corpus: documents with subject and object, counted in one pass.

A corpus of one's own is read (`count_facts`); one that others hold an index of is asked
(`count_in_index`).
"""

from typing import Any

from xlens._lazy import listed
from xlens._renamed import warn
from xlens.corpus.asked import IndexCounts, count_in_index
from xlens.corpus.count import count_facts
from xlens.corpus.index import Elasticsearch, Found, Index, InfiniGram, index_of
from xlens.corpus.pairs import Pairs
from xlens.corpus.result import FactCounts
from xlens.corpus.sources import Layout, Problem
from xlens.corpus.table import FACT, read_facts
from xlens.corpus.wire import Bounds, IndexFailure

__all__ = [
    "FACT",
    "Bounds",
    "Elasticsearch",
    "FactCounts",
    "Found",
    "Index",
    "IndexCounts",
    "IndexFailure",
    "InfiniGram",
    "Layout",
    "Pairs",
    "Problem",
    "count_facts",
    "count_in_index",
    "index_of",
    "read_facts",
]
__dir__ = listed(__all__)


def __getattr__(name: str) -> Any:
    if name != "Reading":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn(__name__, "Reading", "Layout")
    return Layout
