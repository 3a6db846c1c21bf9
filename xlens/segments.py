"""Where words end in scripts that write no spaces between them, by ICU's dictionaries.

`icu4py` (MIT licence, ICU within its wheel) breaks Thai, Lao, Khmer, Burmese, Chinese and Japanese;
its version stands in the provenance of what depends on it.
"""

from functools import lru_cache

from xlens.languages import standardize

Span = tuple[int, int]


@lru_cache(maxsize=65536)
def word_spans(text: str, language: str) -> tuple[Span, ...]:
    """Where the words of a text begin and end: pieces that hold a letter, a digit or a mark.

    Places are characters of the text, as in Python.
    """
    from icu4py.breakers import WordBreaker

    spans: list[Span] = []
    place = 0
    for piece in WordBreaker(text, standardize(language)):
        if any(c.isalnum() for c in piece):
            spans.append((place, place + len(piece)))
        place += len(piece)
    return tuple(spans)


def segmenter() -> dict[str, str]:
    """Name and version of what cuts words, for a provenance."""
    from importlib.metadata import version

    from icu4py import icu_version

    return {"icu4py": version("icu4py"), "icu": icu_version}
