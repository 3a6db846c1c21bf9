"""Facts in several languages, prompts that ask for them, and when an answer is right."""

from xlens._lazy import listed
from xlens.tasks.facts.asking import FactAnswers, ask_facts, fact_states, rank_facts
from xlens.tasks.facts.candidates import Offers, offers
from xlens.tasks.facts.cldr import cldr_facts
from xlens.tasks.facts.data import Fact, Facts
from xlens.tasks.facts.frequencies import Frequencies, read_frequencies
from xlens.tasks.facts.named import NAMED
from xlens.tasks.facts.prompts import demonstrations, fact_prompts, relation_table
from xlens.tasks.facts.readers import read_facts
from xlens.tasks.facts.right import RULES, collisions, is_right

__all__ = [
    "NAMED",
    "RULES",
    "Fact",
    "FactAnswers",
    "Facts",
    "Frequencies",
    "Offers",
    "ask_facts",
    "cldr_facts",
    "collisions",
    "demonstrations",
    "fact_prompts",
    "fact_states",
    "is_right",
    "offers",
    "rank_facts",
    "read_facts",
    "read_frequencies",
    "relation_table",
]
__dir__ = listed(__all__)
