"""Words in several languages, and prompts that ask for one of them."""

from xlens._lazy import listed
from xlens.tasks.cldr.world import RELATIONS
from xlens.tasks.words.cldr import KINDS, cldr_words
from xlens.tasks.words.prompts import (
    WordPrompts,
    answers,
    cloze_prompts,
    repetition_prompts,
    translation_prompts,
)
from xlens.tasks.words.readers import read_words
from xlens.tasks.words.wordlist import WordList, kind_of

__all__ = [
    "KINDS",
    "RELATIONS",
    "WordList",
    "WordPrompts",
    "answers",
    "cldr_words",
    "cloze_prompts",
    "kind_of",
    "read_words",
    "repetition_prompts",
    "translation_prompts",
]
__dir__ = listed(__all__)
