"""Which language a token is written in; what can't be told is `unknown`."""

from collections.abc import Sequence

from xlens.checks import typed
from xlens.languages import identifier, standardize

UNKNOWN = "unknown"
CANDIDATES = ("en", "fr", "de", "es", "ru", "zh-Hans", "ja", "ko", "ar", "hi", "tr", "sw")


@typed
def identify_tokens(
    texts: Sequence[str | None],
    languages: Sequence[str] = (),
    *,
    min_confidence: float = 0.5,
) -> list[str]:
    """Guess each token's language with `py3langid`, or say `unknown`.

    The choice is between the twelve languages of `CANDIDATES` and those of `languages` that the
    identifier knows. Unknown are pieces of characters (None), texts without a letter, single
    letters of an alphabet, and guesses below `min_confidence` (0.5 as in arXiv 2504.04264's
    code). Short tokens of the Latin script are
    often unknown: that is the honest answer, and it is counted.
    """
    # First come the languages asked for: Chinese is then zh-Hant where that is what is studied.
    tags = tuple(dict.fromkeys([*map(standardize, languages), *CANDIDATES]))
    guesser, names = identifier(tags)
    found: list[str] = []
    for text in texts:
        word = (text or "").strip()
        letters = [c for c in word if c.isalpha()]
        # One Han character or one syllable is a word; one letter of an alphabet says nothing.
        if not letters or (len(letters) == 1 and ord(letters[0]) < 0x2E80):
            found.append(UNKNOWN)
            continue
        code, confidence = guesser.classify(word)
        found.append(names[code] if confidence >= min_confidence else UNKNOWN)
    return found
