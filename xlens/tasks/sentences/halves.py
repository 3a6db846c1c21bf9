"""Sentences cut in half: a beginning to go on from, and what was written next."""

from dataclasses import dataclass

from xlens.checks import typed
from xlens.prompts import Prompt, Prompts
from xlens.segments import word_spans
from xlens.tasks.sentences.data import Sentences

FEWEST_WORDS = 6


@dataclass(frozen=True)
class Halves:
    """Beginnings of sentences in one variety.

    Attributes:
        prompts: The first halves of the words, without the space that follows.
        rest: What was written next, by id, with the space before it.
    """

    prompts: Prompts
    rest: dict[str, str]


@typed
def long_enough(sentences: Sentences) -> tuple[str, ...]:
    """Ids of the sentences that have `FEWEST_WORDS` words or more in every variety."""
    short = {
        str(row.id)
        for row in sentences.frame.itertuples(index=False)
        if len(word_spans(str(row.text), str(row.language))) < FEWEST_WORDS
    }
    return tuple(id for id in sentences.ids if id not in short)


@typed
def halved(sentences: Sentences, language: str) -> Halves:
    """Every sentence of a variety cut after half of its words, as ICU counts them."""
    (tag,) = sentences.require([language])
    whole = (prompt for prompt in sentences.prompts() if prompt.language == tag)
    prompts: list[Prompt] = []
    rest: dict[str, str] = {}
    for prompt in whole:
        spans = word_spans(prompt.text, prompt.language)
        # Of an odd number of words the beginning is the shorter half.
        at = spans[len(spans) // 2][0] if spans else 0
        begun = prompt.text[:at].rstrip()
        prompts.append(Prompt(begun, prompt.language, prompt.id, meta=prompt.meta))
        rest[prompt.id] = prompt.text[len(begun) :]
    return Halves(Prompts(prompts), rest)
