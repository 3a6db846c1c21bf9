"""How often facts stand in a corpus: documents with subject and object, counted in one pass."""

from xlens.corpus.count import count_facts
from xlens.corpus.pairs import Pairs
from xlens.corpus.result import FactCounts
from xlens.corpus.sources import Problem, Reading
from xlens.corpus.table import FACT, read_facts

__all__ = ["FACT", "FactCounts", "Pairs", "Problem", "Reading", "count_facts", "read_facts"]
