"""Question alignment: parallel questions, and pairs of them to learn to translate."""

from xlens._lazy import listed
from xlens.tasks.alignment.instructions import INSTRUCTIONS, instruction
from xlens.tasks.alignment.pairs import TranslationPairs, translation_pairs
from xlens.tasks.alignment.questions import Questions, leaks, questions_of
from xlens.tasks.alignment.readers import download_questions, read_questions

__all__ = [
    "INSTRUCTIONS",
    "Questions",
    "TranslationPairs",
    "download_questions",
    "instruction",
    "leaks",
    "questions_of",
    "read_questions",
    "translation_pairs",
]
__dir__ = listed(__all__)
