"""Parallel sentences in any number of varieties, and twins of them: real text to hold states by."""

from xlens.tasks.sentences.data import Sentences, whole_sentences
from xlens.tasks.sentences.families import read_families
from xlens.tasks.sentences.halves import Halves, halved, long_enough
from xlens.tasks.sentences.layouts import LAYOUTS
from xlens.tasks.sentences.readers import download_sentences, read_sentences
from xlens.tasks.sentences.transliterate import NoTransliteration, transliterated
from xlens.tasks.sentences.twins import TWINS, with_twins

__all__ = [
    "LAYOUTS",
    "TWINS",
    "Halves",
    "NoTransliteration",
    "Sentences",
    "download_sentences",
    "halved",
    "long_enough",
    "read_families",
    "read_sentences",
    "transliterated",
    "whole_sentences",
    "with_twins",
]
