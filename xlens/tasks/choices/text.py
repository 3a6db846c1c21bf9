"""How text is compared and joined, whatever the language."""

from xlens import text as _text
from xlens.languages import script

# No space between words: Han, kana, and the scripts of South-East Asia that join words.
UNSPACED = frozenset({"Hans", "Hant", "Hani", "Jpan", "Bopo", "Thai", "Laoo", "Khmr", "Mymr"})


def folded(text: str) -> str:
    """`xlens.text.folded`, without the space that an option may begin with."""
    return _text.folded(text).strip()


def gap(language: str) -> str:
    """What a language puts between two words: a space, or nothing (zh, ja, th)."""
    return "" if script(language) in UNSPACED else " "
