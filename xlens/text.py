"""One form of text, so that equal text is equal, wherever it came from.

The same word can be written with different characters: composed or decomposed (`é`), with a soft
hyphen or a direction mark that nobody sees, in full-width digits. A tokenizer and a comparison of
strings take these for different words. Everything that holds items (words, options, questions,
contexts, answers) brings them into one `form`, and everything that compares texts compares them
`folded`. A `Prompt` of the user's own is sent as it stands.

| | canonical form | invisible characters | compatibility forms | case |
|---|---|---|---|---|
| `form` | NFC | dropped, joiners where no script uses them | kept | kept |
| `comparable` | NFKC | dropped, all | replaced | kept |
| `folded` | NFKC | dropped, all | replaced | folded |
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import regex

# Unicode's default-ignorable characters but for joiners, variation selectors and tags, which emoji
# need, and fillers, which Korean text has instead of letters. U+034F goes first of all: it keeps
# combining marks from being put in their canonical order.
_STRAY = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
# Scripts in which a joiner between two letters spells a word (UAX #31, section 2.3.1), and emoji.
_JOINING = (
    r"\p{Arab}\p{Syrc}\p{Mong}\p{Nkoo}\p{Adlm}\p{Deva}\p{Beng}\p{Guru}\p{Gujr}\p{Orya}\p{Taml}"
    r"\p{Telu}\p{Knda}\p{Mlym}\p{Sinh}\p{Khmr}\p{Mymr}\p{Tibt}\p{Java}\p{Bali}"
    r"\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f"
)
_STRAY_JOINER = regex.compile(
    rf"(?<![{_JOINING}])[\u200c\u200d]+|[\u200c\u200d]+(?![\u200c\u200d{_JOINING}])"
)
_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}--[\u115f\u1160\u3164\uffa0]]", regex.V1)
# NFKC takes Thai's and Lao's AM apart, so that the tone mark stands between its two halves, as some
# keyboards write it. Counted by characters as written, one syllable would be two.
_AM = regex.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb]*)([\u0e32\u0eb2])")
_AM_OF = {"\u0e32": "\u0e33", "\u0eb2": "\u0eb3"}


def form(text: str) -> str:
    """NFC, without characters that nobody sees: what items hold and prompts are made of.

    Zero-width joiners stay where a script spells with them (Persian, Hindi, joined emoji). NFC is
    what keyboards and nearly all corpora write; compatibility forms (`ﬁ`, `１`) stay, as they can
    carry meaning (`x²`).
    """
    if text.isascii():
        return text
    text = _STRAY.sub("", text)
    if "\u200c" in text or "\u200d" in text:  # rare, and the pattern costs as much as all the rest
        text = _STRAY_JOINER.sub("", text)
    return unicodedata.normalize("NFC", text)


def form_with_places(text: str, places: Sequence[int]) -> tuple[str, list[int]]:
    """A text's `form`, and where these places in it are then (Unicode code points).

    A place inside a character that becomes one moves to its beginning.
    """
    whole = form(text)
    if whole == text:
        return whole, list(places)
    moved: list[int] = []
    for place in places:
        before = form(text[: max(place, 0)])
        # What stands at the place may have joined what is before it (an accent, its
        # letter): then the character begins earlier.
        while not whole.startswith(before):
            before = before[:-1]
        moved.append(len(before) if place >= 0 else place)
    return whole, moved


def comparable(text: str) -> str:
    """NFKC, without any character that nobody sees; Thai and Lao AM whole again."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return _AM.sub(lambda found: found[2] + _AM_OF[found[3]], plain)


def folded(text: str) -> str:
    """`comparable` in one case, to tell whether two texts are the same."""
    return comparable(comparable(text).casefold())


def out_of_form(texts: Iterable[str]) -> int:
    """How many of these texts are not in their `form`."""
    return sum(form(text) != text for text in texts)
