"""Twins of a text: in another script, its words shuffled, its characters shuffled; flagged so.

A shuffled twin has the tokens' letters and their script, and no sentence: what a similarity between
a text and it shows is not understanding.
"""

from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np
import pandas as pd
import regex
from langcodes import Language

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import script, standardize
from xlens.segments import word_spans
from xlens.stats import generator
from xlens.tasks.sentences.data import Sentences
from xlens.tasks.sentences.transliterate import NoTransliteration, transliterated

SCRIPT, WORDS, CHARACTERS = "script", "words", "characters"
TWINS = (SCRIPT, WORDS, CHARACTERS)
_SUFFIX = {WORDS: "x-words", CHARACTERS: "x-letters"}


@typed
def with_twins(
    sentences: Sentences,
    kinds: Sequence[str] = TWINS,
    *,
    languages: Iterable[str] | None = None,
    most: int | None = None,
    to: str = "Latn",
    seed: int = 0,
) -> tuple[Sentences, dict[str, str]]:
    """The sentences and their twins: `de-x-words`, `de-x-letters`, `ru-Latn-x-cyrl`.

    Args:
        sentences: As published.
        kinds: Of twins: `script` (ICU), `words` and `characters` (shuffled).
        languages: Which get twins; None: all.
        most: Varieties of which each kind is made: the first that allow it; None: all.
        to: ISO 15924 code of the other script.
        seed: Of what is shuffled.

    Returns:
        Sentences with the twins, whose `made` says how; and, by tag, why a twin in another script
        can't be had.

    Raises:
        ValueError: an unknown kind or language, or ICU isn't installed.
    """
    if unknown := [kind for kind in kinds if kind not in TWINS]:
        raise InputError(f"Unknown twins {unknown}; accepted are {', '.join(TWINS)}.")
    tags = sentences.languages if languages is None else sentences.require(languages)
    made, without = [sentences.frame], dict[str, str]()
    counts = dict.fromkeys(kinds, 0)
    twins = sentences.made
    for tag in (tag for tag in tags if tag not in twins):
        wanted = [kind for kind in kinds if most is None or counts[kind] < most]
        if not wanted:
            break
        mine = sentences.frame[sentences.frame["language"] == tag]
        texts = mine["text"].tolist()
        for kind in wanted:
            if kind == SCRIPT:
                if script(tag) == to:
                    continue
                try:
                    said, back = transliterated(texts, tag, to)
                except NoTransliteration as error:
                    without[tag] = str(error)
                    continue
                known = Language.get(tag)
                place = f"-{known.territory}" if known.territory else ""
                new = f"{known.language}-{to}{place}-x-{script(tag)}"
                how = f"transliterated by ICU to {to}; {back:.0%} come back as they were"
            else:
                said = [
                    # A draw of each text's own: what others there are changes nothing. crc32, as
                    # Python's hash of a text is another in each process.
                    shuffled(text, tag, kind, generator(seed, crc32(f"{tag}/{id}".encode())))
                    for text, id in zip(texts, mine["id"], strict=True)
                ]
                new, how = f"{tag}-{_SUFFIX[kind]}", f"{kind} shuffled"
            counts[kind] += 1
            made.append(mine.assign(language=standardize(new), text=said, made=how))
    whole = pd.concat(made, ignore_index=True)
    return Sentences(whole, sentences.source, sentences.licence, sentences.dropped), without


def shuffled(text: str, language: str, kind: str, rng: np.random.Generator) -> str:
    """The same words, or the same characters, in another order; spaces stay where they are.

    Words are ICU's, so that text without spaces has some. Characters are graphemes: marks stay on
    their letters.
    """
    if kind == WORDS:
        spans = list(word_spans(text, language))
    else:
        spans = [m.span() for m in regex.finditer(r"\X", text) if not m.group().isspace()]
    order = rng.permutation(len(spans))
    out, at = list[str](), 0
    # What stands between the spans stays; in each place goes another span's text.
    for (start, stop), other in zip(spans, order, strict=True):
        out += [text[at:start], text[slice(*spans[other])]]
        at = stop
    return "".join([*out, text[at:]])
