"""Sentences of a paragraph, by their places in it; and which of them hold an answer."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from xlens.languages import script, standardize
from xlens.segments import word_spans

Span = tuple[int, int]

# Scripts that end no sentence with a mark; writers put a space there, and between clauses. Their
# full stops stand in numbers and abbreviations (ค.ศ.), which a splitter by marks would tear apart.
_SPACED_CLAUSES = frozenset({"Thai", "Laoo"})
# Words of a sentence elsewhere: XQuAD's English ones have 26 in the mean and 23 in the median, by
# the same breaker. Clauses are joined up to about that many, so that a paragraph has as many
# segments as in other languages and chance is comparable.
_WORDS = 25


@lru_cache(maxsize=8192)
def sentences(text: str, language: str) -> tuple[Span, ...]:
    """Where each sentence of a text begins and ends, without the space around it.

    Thai and Lao have no mark at a sentence's end, and spaces between clauses, too; their texts are
    cut at spaces into segments of about a sentence's words elsewhere, counted by ICU.

    Args:
        text: A paragraph.
        language: Its language; one that the splitter doesn't know is split by the usual marks.
    """
    # sentencex (Wikimedia, MIT licence, released every few weeks, 4 MB, no model and no download)
    # knows the marks and abbreviations of about 300 languages, and gives places in characters.
    # It prefers a sentence too few to one too many: of XQuAD's 1,190 answers between 1 (en, zh)
    # and 10 (ru) cross its boundaries. pysbd, the usual alternative, was last released in 2021.
    import sentencex

    if script(language) in _SPACED_CLAUSES:
        return _joined(text, language)
    base = standardize(language).partition("-")[0]
    split: Any = sentencex.get_sentence_boundaries  # type: ignore[attr-defined]
    found = [(int(s["start_index"]), int(s["end_index"])) for s in split(base, text)]
    return tuple(span for span in (_trimmed(text, *span) for span in found) if span[0] < span[1])


def holding(spans: Sequence[Span], part: Span) -> range:
    """Numbers of the sentences that a part of the text touches; empty for none."""
    hit = [n for n, (start, stop) in enumerate(spans) if start < part[1] and stop > part[0]]
    return range(hit[0], hit[-1] + 1) if hit else range(0)


def _joined(text: str, language: str) -> tuple[Span, ...]:
    """Clauses side by side, cut where the words come closest to equal shares."""
    clauses = [match.span() for match in re.finditer(r"\S+", text)]
    sizes = [len(word_spans(text[start:stop], language)) for start, stop in clauses]
    before = [0, *accumulate(sizes)]
    n = min(max(1, round(before[-1] / _WORDS)), max(1, len(clauses)))
    cuts = {
        # A set: where one clause is long, two shares may be cut at the same place.
        min(range(1, len(clauses)), key=lambda at: abs(before[at] - k * before[-1] / n))
        for k in range(1, n)
    }
    edges = [0, *sorted(cuts), len(clauses)]
    return tuple((clauses[a][0], clauses[b - 1][1]) for a, b in pairwise(edges) if a < b)


def _trimmed(text: str, start: int, stop: int) -> Span:
    piece = text[start:stop]
    # The right end is reckoned from the trimmed piece.
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
