"""Invented words: the same concepts in several languages, no word in two of them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.stats import generator

LANGUAGES = ("en", "de", "fr", "ru", "zh-Hans", "ar", "hi", "es", "tr", "sw")
BOS, EOS, UNKNOWN = "<bos>", "<eos>", "<unk>"


@dataclass(frozen=True)
class Lexicon:
    """Words for concepts: `bako(de)` is the German word for the concept `bako`.

    Attributes:
        languages: BCP-47 tags.
        concepts: Names of the concepts, all of one length and none twice.
    """

    languages: tuple[str, ...]
    concepts: tuple[str, ...]

    def word(self, concept: str, language: str) -> str:
        """The word for a concept."""
        return f"{concept}({language})"

    @property
    def words(self) -> tuple[str, ...]:
        """All words, concept by concept, each in all languages."""
        return tuple(self.word(c, x) for c in self.concepts for x in self.languages)


def lexicon(languages: int | Sequence[str], n_concepts: int, *, seed: int) -> Lexicon:
    """Draw names for concepts.

    Args:
        languages: Tags, or how many of the ten in `LANGUAGES`.
        n_concepts: How many, at most 5,625.
        seed: Of the names.

    Raises:
        ValueError: no such number of languages, tags that are none, too many concepts.
    """
    if isinstance(languages, int):
        if not 2 <= languages <= len(LANGUAGES):
            raise InputError(
                f"languages is {languages}; as a number 2 to {len(LANGUAGES)} are accepted. Give "
                "a list of tags for others."
            )
        languages = LANGUAGES[:languages]
    tags = standardize_all(languages)
    if len(tags) < 2:
        raise InputError(f"At least two languages are needed; got {list(tags)}.")
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvwz", "aeiou")]
    if not 1 <= n_concepts <= len(syllables) ** 2:
        raise InputError(f"{n_concepts} concepts; accepted are 1 to {len(syllables) ** 2}.")
    drawn = generator(seed).choice(len(syllables) ** 2, n_concepts, replace=False)
    names = (syllables[n // len(syllables)] + syllables[n % len(syllables)] for n in drawn)
    return Lexicon(tags, tuple(names))


def word_tokenizer(vocabulary: Sequence[str]) -> Any:
    """A fast tokenizer with one item per word, split at spaces, BOS put first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    items = {word: i for i, word in enumerate([BOS, EOS, UNKNOWN, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(items, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, items[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=10**9,  # the model says how long a prompt may be
    )
