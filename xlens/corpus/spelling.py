"""One spelling for corpus and phrases, and where words begin and end in it.

Both sides of a comparison go through `spelled`: `form` of `xlens.text` (NFC, without characters
that nobody sees), case folded, any white space (and zeros, which aren't text) one space. Case is
folded as for text whose language isn't known, but for the Turkish İ, which becomes a plain i as in
Lucene's indexes: Unicode makes of it an i with a second dot, which nobody types. So `Isparta` and
`ISPARTA` are one word, and `ısparta` is another.
"""

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise, zip_longest

import numpy as np
import regex

from xlens.text import form

_SPACES = re.compile("[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_LOWER = bytes.maketrans(
    b"\0\t\x0b\x0c\r" + string.ascii_uppercase.encode(), b"     " + string.ascii_lowercase.encode()
)
_SEVERAL = re.compile(b"  +")
_BETWEEN = "\ud800"  # no text in UTF-8 holds a surrogate
_SPACE, _ASCII = 32, 0x7F
_FAR_OFF = 128  # bytes of ASCII that are worth a piece of their own


def spelled(text: bytes) -> bytes:
    """The one spelling of a text in UTF-8.

    Line feeds stay: the spelling of a line depends on no other line. What is no UTF-8 becomes
    U+FFFD.
    """
    if not text.isascii():
        # Most of most corpora is ASCII, for which all of this is much quicker. Nothing that is done
        # to a word depends on what lies beyond a space, so what is not ASCII is taken out with the
        # words that it is part of.
        plain, odd = _parted(text)
        text = b"".join(chain.from_iterable(zip_longest(plain, _folded(odd), fillvalue=b"")))
    text = text.translate(_LOWER)
    spaces = np.frombuffer(text, dtype=np.uint8) == _SPACE
    return _SEVERAL.sub(b" ", text) if (spaces[1:] & spaces[:-1]).any() else text


def _parted(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """Pieces of a text in turn: what is all ASCII, and whole words with what isn't."""
    other = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) > _ASCII)
    new = np.flatnonzero(np.diff(other) >= _FAR_OFF)
    firsts, lasts = other[np.append(0, new + 1)].tolist(), other[np.append(new, -1)].tolist()
    plain: list[bytes] = []
    odd: list[bytes] = []
    done, begin = 0, None
    # Of each run what follows and goes before is searched up to the next one, never the whole text.
    for first, last, following in zip(firsts, lasts, [*firsts[1:], len(text)], strict=True):
        if begin is None:
            begin = max(text.rfind(b" ", done, first), text.rfind(b"\n", done, first)) + 1
        space = text.find(b" ", last, following)
        line = text.find(b"\n", last, following if space < 0 else space)
        end = max(space, line) if min(space, line) < 0 else line
        if end < 0 and following < len(text):
            continue  # one long word
        end = len(text) if end < 0 else end
        plain.append(text[done:begin])
        odd.append(text[begin:end])
        done, begin = end, None
    return [*plain, text[done:]], odd


def _folded(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """Pieces in the one spelling; many at once, and only those brought into NFC that are not."""
    texts = (form(piece.decode("utf-8", "replace")) for piece in pieces)
    whole = _SPACES.sub(" ", _BETWEEN.join(texts)).replace("İ", "i").casefold()
    for text in whole.split(_BETWEEN):
        yield unicodedata.normalize("NFC", text).encode()  # folding takes some characters apart


# --- words ---------------------------------------------------------------------------------------

# UAX #29, section 4.1, as a pattern that is found where two characters belong together. Scripts
# that write no spaces between words (Han, Hiragana, Thai, Lao, Khmer, Burmese) are in none of its
# classes: each of their characters is a word. `regex` knows the classes; its own \b with the flag
# WORD keeps an apostrophe and a vowel together, and would not find Elba in "called 'Elba'".
_SETS = {
    "skip": "[<Extend><Format><ZWJ>]*",
    "letter": "[<ALetter><Hebrew_Letter>]",
    "mid_letter": "[<MidLetter><MidNumLet><Single_Quote>]",
    "mid_number": "[<MidNum><MidNumLet><Single_Quote>]",
    "word": "[<ALetter><Hebrew_Letter><Numeric><Katakana>]",
    "pair": "<Regional_Indicator>{skip}<Regional_Indicator>{skip}",
}
_TOGETHER = {
    "WB3": r"(?<=<CR>)(?=<LF>)",
    "WB3c": r"(?<=<ZWJ>)(?=\p{Extended_Pictographic})",
    "WB3d": r"(?<=<WSegSpace>)(?=<WSegSpace>)",
    "WB4": r"(?<=[^<CR><LF><Newline>])(?=[<Extend><Format><ZWJ>])",
    "WB5, 9": r"(?<={letter}{skip})(?=[<ALetter><Hebrew_Letter><Numeric>])",
    "WB6": r"(?<={letter}{skip})(?={mid_letter}{skip}{letter})",
    "WB7": r"(?<={letter}{skip}{mid_letter}{skip})(?={letter})",
    "WB7a": r"(?<=<Hebrew_Letter>{skip})(?=<Single_Quote>)",
    "WB7b": r"(?<=<Hebrew_Letter>{skip})(?=<Double_Quote>{skip}<Hebrew_Letter>)",
    "WB7c": r"(?<=<Hebrew_Letter>{skip}<Double_Quote>{skip})(?=<Hebrew_Letter>)",
    "WB8, 10": r"(?<=<Numeric>{skip})(?=[<ALetter><Hebrew_Letter><Numeric>])",
    "WB11": r"(?<=<Numeric>{skip}{mid_number}{skip})(?=<Numeric>)",
    "WB12": r"(?<=<Numeric>{skip})(?={mid_number}{skip}<Numeric>)",
    "WB13": r"(?<=<Katakana>{skip})(?=<Katakana>)",
    "WB13a": r"(?<=[<ALetter><Hebrew_Letter><Numeric><Katakana><ExtendNumLet>]{skip})"
    "(?=<ExtendNumLet>)",
    "WB13b": r"(?<=<ExtendNumLet>{skip})(?={word})",
    "WB15, 16": r"(?<=(?:^|[^<Regional_Indicator><Extend><Format><ZWJ>]){skip}(?:{pair})*"
    "<Regional_Indicator>{skip})(?=<Regional_Indicator>)",
}


def _compiled(rule: str) -> "regex.Pattern[str]":
    for name, written in reversed(_SETS.items()):
        rule = rule.replace(f"{{{name}}}", written)
    return regex.compile(re.sub(r"<(\w+)>", r"\\p{WB=\1}", rule), regex.V1)


_NO_BREAK = _compiled("|".join(_TOGETHER.values()))
# What a boundary depends on beyond the two characters around it.
_FAR = _compiled(
    "[<Extend><Format><ZWJ><MidLetter><MidNum><MidNumLet><Single_Quote><Double_Quote>"
    "<Regional_Indicator>]"
)
_ENOUGH = _compiled(r"(?:[^<Extend><Format><ZWJ><Regional_Indicator>][\s\S]*?){3}")
_HAS_WORD = regex.compile(r"[\p{L}\p{N}]")


def is_boundary(text: str, place: int) -> bool:
    """Whether there is a boundary between words at a place of a text (UAX #29)."""
    return place in (0, len(text)) or _NO_BREAK.match(text, place) is None


@lru_cache(maxsize=1 << 16)
def between(before: str, after: str) -> bool | None:
    """Whether there is a boundary between two characters; None where it hangs on others too."""
    pair = before + after
    return None if _FAR.search(pair) else is_boundary(pair, 1)


def is_enough(text: str) -> bool:
    """Whether what lies on one side of a place holds all that a boundary there can hang on."""
    return _ENOUGH.search(text) is not None


def words(text: str) -> list[int]:
    """Where words begin: pieces between boundaries that hold a letter or a number."""
    places = [0]
    for place, (before, after) in enumerate(pairwise(text), 1):
        known = between(before, after)
        if is_boundary(text, place) if known is None else known:
            places.append(place)
    return [a for a, b in pairwise([*places, len(text)]) if _HAS_WORD.search(text, a, b)]
