"""How an answer is compared with the right ones: normalisation, exact match, F1, inclusion.

The rules are those of the published scripts, for the languages that these cover:

| rules | languages | punctuation | articles | tokens |
|---|---|---|---|---|
| `squad`, SQuAD v1.1 | any, as if English | ASCII's | a, an, the | between spaces |
| `mlqa`, MLQA v1 | en es hi vi de ar zh | Unicode's and ASCII's | its own | spaces; zh mixed |
| `xlens`, the default | any | as MLQA | as MLQA, or none | see below |

`xlens` is MLQA's, with five changes, which are ours. Texts are compared in one form of Unicode
(NFKC without invisible characters, Thai and Lao AM as one letter: `xlens.text.comparable`): what a
tokenizer composes, or writes in full-width digits, is the same answer. The published rules compare
code points, as their scripts do. The Arabic article is taken from the
beginning of a word only; MLQA's script replaces its two letters by a space wherever they stand.
Languages without a rule there (el, ro, ru, th, tr and all others) lose no article, and those that
write no spaces between words (th, ja, lo, km, my) are cut into words by ICU's dictionaries: with
characters, 59 % of two Thai answers drawn at random share one. Chinese is cut as MLQA cuts it,
into characters, for the published numbers' sake. And Turkish i's are one letter: lower case would
tear the dotted capital in two, and names are often written without their dots.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import regex

from xlens._renamed import renamed
from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import script, standardize
from xlens.segments import word_spans
from xlens.stats import generator
from xlens.tasks.choices.text import UNSPACED
from xlens.text import comparable

Normalisation = Literal["xlens", "mlqa", "squad"]
METRICS = ("em", "f1", "inclusion")
FEWEST_ANSWERS = 20
"""Of a language; fewer don't tell what 19 of 20 answers get by chance."""

_ASCII = frozenset(string.punctuation)
_ARTICLES = {
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
    "de": "ein eine einen einem eines einer der die das den dem des",
}
_PATTERNS = {
    tag: re.compile(rf"\b(?:{'|'.join(words.split())})\b") for tag, words in _ARTICLES.items()
}
_ARABIC, _ARABIC_MLQA = re.compile(r"\bال"), re.compile("ال")
_MLQA = (*_ARTICLES, "ar", "hi", "zh")
_DOTTED = str.maketrans({"İ": "i", "I": "i", "ı": "i"})
_HAN = re.compile(r"[\u4e00-\u9fa5]")
# A character as written, of a script that joins words; other text goes on to the next space.
_CLUSTER = regex.compile(
    r"(?=[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}])\X"
)


@renamed(rules="normalisation")
@typed
def normalise(text: str, language: str, *, normalisation: Normalisation = "xlens") -> str:
    """A text in lower case, without punctuation, articles and superfluous space.

    Args:
        text: An answer.
        language: Its language.
        normalisation: See the module.

    Raises:
        ValueError: unknown normalisation, or a language that MLQA's rules don't cover.
    """
    if normalisation == "xlens":
        text = comparable(text)
    plain = text.lower()
    if normalisation == "squad":
        plain = "".join(c for c in plain if c not in _ASCII)
        return " ".join(_PATTERNS["en"].sub(" ", plain).split())
    base = _covered(language, normalisation)
    if base == "tr" and normalisation == "xlens":
        # Before lower case, which makes two characters of the dotted capital.
        plain = text.translate(_DOTTED).lower()
    plain = "".join(c for c in plain if not _punctuation(c))
    if base in _PATTERNS:
        plain = _PATTERNS[base].sub(" ", plain)
    elif base == "ar":
        # MLQA's script means the beginning of a word, too; this is what it does.
        plain = _ARABIC_MLQA.sub(" ", plain) if normalisation == "mlqa" else _ARABIC.sub("", plain)
    return " ".join(
        words(plain, language, normalisation=normalisation) if base == "zh" else plain.split()
    )


@renamed(rules="normalisation")
def words(text: str, language: str, *, normalisation: Normalisation = "xlens") -> list[str]:
    """The tokens of a text that F1 counts.

    Chinese: each of MLQA's Han characters (U+4E00 to U+9FA5) is one, what stands between them is
    cut at spaces. Punctuation is gone by then, although MLQA's script would count it as well.
    """
    if normalisation == "squad":
        return text.split()
    base = _covered(language, normalisation)
    if base == "zh":
        return _HAN.sub(lambda found: f" {found[0]} ", text).split()
    if script(language) in UNSPACED:
        return [text[start:stop] for start, stop in word_spans(text, language)]
    return text.split()


def characters(text: str, language: str) -> list[str]:
    """A text cut so that what stands in another stands side by side in it, whatever is around.

    Words are cut by what is around them in scripts without spaces, so that these go by characters
    as written, letter and marks together.
    """
    plain = normalise(text, language)
    if script(language) in UNSPACED:
        return _CLUSTER.sub(lambda found: f" {found[0]} ", plain).split()
    return plain.split()


@renamed(rules="normalisation")
def tokens(text: str, language: str, *, normalisation: Normalisation = "xlens") -> list[str]:
    """The tokens of a text once normalised."""
    return words(
        normalise(text, language, normalisation=normalisation),
        language,
        normalisation=normalisation,
    )


def check_normalisation(normalisation: str, languages: Iterable[str]) -> None:
    """See that rules cover the languages of answers, before any is generated.

    Raises:
        ValueError: unknown normalisation, or a language that MLQA's don't cover.
    """
    for language in languages:
        _covered(language, normalisation)


@renamed(rules="normalisation")
@typed
def answer_scores(
    prediction: str,
    references: Sequence[str],
    language: str,
    *,
    normalisation: Normalisation = "xlens",
) -> dict[str, float]:
    """Exact match, F1 and inclusion of a prediction, each the best over the references, 0 to 1.

    Exact match and F1 are SQuAD's: equal strings, and the harmonic mean of precision and recall
    over multisets of tokens, 0 where none is shared. Inclusion is ours, for models that answer in
    sentences: all tokens of a reference stand in the prediction, side by side.

    Raises:
        ValueError: no reference, and what `normalise` refuses.
    """
    if not references:
        raise InputError("There is no right answer to compare with; leave such questions out.")
    said = normalise(prediction, language, normalisation=normalisation)
    found = words(said, language, normalisation=normalisation)
    best: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    for reference in references:
        wanted = normalise(reference, language, normalisation=normalisation)
        asked = words(wanted, language, normalisation=normalisation)
        inside = (
            holds(characters(prediction, language), characters(reference, language))
            if normalisation == "xlens"
            else holds(found, asked)
        )
        scores = (float(said == wanted), _f1(found, asked), float(inside))
        best = {m: max(best[m], score) for m, score in zip(METRICS, scores, strict=True)}
    return best


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    # Intersection of multisets: a token counts as often as both have it.
    same = (Counter(found) & Counter(wanted)).total()
    if not same:
        return 0.0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def holds(found: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether all wanted tokens are found, side by side; False where none is wanted."""
    n, wanted = len(wanted), list(wanted)
    return n > 0 and any(list(found[at : at + n]) == wanted for at in range(len(found) - n + 1))


@renamed(rules="normalisation")
def chance_levels(
    answers: Mapping[str, Sequence[tuple[str, Sequence[str]]]],
    *,
    normalisation: Normalisation = "xlens",
    pairs: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What right answers to questions about other texts get, language by language.

    F1 of two answers drawn at random is above 0 more often where words are short or few, so that
    neither a score nor "wrong" means the same in two languages without it.

    Args:
        answers: By language, of each question its text and its right answers.
        normalisation: Of the comparison.
        pairs: Most pairs drawn per language.
        seed: Of the draw.

    Returns:
        `language chance shares wrong_to pairs`: the mean F1, how often it is above 0, the F1 that
        19 of 20 pairs don't exceed (0 where a language has
        fewer than `FEWEST_ANSWERS`: not known), and the
        number of pairs.
    """
    rows: list[dict[str, Any]] = []
    for language, mine in answers.items():
        random = generator(seed)
        texts = np.array([text for text, _ in mine])
        size = len(mine) ** 2
        drawn = random.choice(size, min(4 * pairs, size), replace=False)
        # A number below n² is a pair; four times as many as wanted, as some are of one text.
        one, other = np.divmod(drawn, max(len(mine), 1))
        apart = np.flatnonzero(texts[one] != texts[other])[:pairs]
        f1 = np.array(
            [
                answer_scores(
                    mine[one[n]][1][0], mine[other[n]][1], language, normalisation=normalisation
                )["f1"]
                for n in map(int, apart)
            ]
        )
        known = len(f1) > 0 and len(mine) >= FEWEST_ANSWERS
        rows.append(
            {
                "language": language,
                "chance": float(f1.mean()) if len(f1) else np.nan,
                "shares": float((f1 > 0).mean()) if len(f1) else np.nan,
                # An F1 that was drawn, and never below the 95 %.
                "wrong_to": float(np.quantile(f1, 0.95, method="higher")) if known else 0.0,
                "pairs": len(f1),
            }
        )
    return pd.DataFrame(rows, columns=["language", "chance", "shares", "wrong_to", "pairs"])


@lru_cache(maxsize=256)
def _covered(language: str, normalisation: str) -> str:
    """The language without script and region, which the rules know or have a way for."""
    if normalisation not in get_args(Normalisation):
        accepted = ", ".join(map(repr, get_args(Normalisation)))
        raise InputError(f"normalisation={normalisation!r}: accepted are {accepted}.")
    base = standardize(language).partition("-")[0]
    if normalisation == "mlqa" and base not in _MLQA:
        raise InputError(
            f"MLQA's rules cover {', '.join(_MLQA)}, not {language!r}; use normalisation='xlens', "
            "which extends them."
        )
    return base


@lru_cache(maxsize=65536)
def _punctuation(character: str) -> bool:
    return character in _ASCII or unicodedata.category(character).startswith("P")
