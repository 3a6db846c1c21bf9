"""Another script for the same text, by ICU's transliterators."""

import importlib
from functools import cache
from typing import Any

import regex

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import script
from xlens.text import form

LEAST = 0.98
"""Share of the letters that must be in the new script."""
# ICU reads every Han character as Mandarin, and Japanese is not Chinese.
_WRONG = {"Jpan": "ICU reads kanji as Mandarin"}
_PLAIN = {"Hans": "Han", "Hant": "Han", "Hani": "Han", "Kore": "Hangul"}


class NoTransliteration(InputError):
    """A text can't be had in that script: ICU has no such rules, or they leave letters over."""


@typed
def transliterated(texts: list[str], language: str, to: str = "Latn") -> tuple[list[str], float]:
    """Texts in another script, and the share that comes back exactly as it was.

    Rules are ICU's, by script and not by language: Arabic without its vowels stays without them,
    and Han is read as Mandarin.

    Args:
        texts: In one variety.
        language: Its tag; the script is what it says.
        to: ISO 15924 code: `Latn`, `Cyrl`.

    Raises:
        NoTransliteration: no rules for that pair of scripts, letters left over in the old script,
            or, to another script than Latin, texts of which too few come back.
        ValueError: ICU isn't installed.
    """
    own = script(language)
    if why := _WRONG.get(own):
        raise NoTransliteration(f"{language} can't be had in {to}: {why}.")
    if own == to:
        raise NoTransliteration(f"{language} is in {to} already.")
    forth = _rules(own, to)
    if forth is None:
        raise NoTransliteration(f"{language} can't be had in {to}: ICU has no rules from {own}.")
    made = [form(str(forth.transliterate(text))) for text in texts]
    left = sum(len(_others(to).findall(text)) for text in made)
    letters = sum(len(regex.findall(r"\p{L}", text)) for text in made)
    if not letters or 1 - left / letters < LEAST:
        raise NoTransliteration(
            f"{language} can't be had in {to}: ICU leaves {left} of {letters} letters in another "
            "script."
        )
    back = _rules(to, own)
    again = [form(str(back.transliterate(text))) for text in made] if back is not None else []
    # Without rules back nothing is compared, and nothing comes back.
    same = sum(one == form(other) for one, other in zip(again, texts, strict=False))
    share = same / len(texts) if texts else 0.0
    # From Latin, ICU spells by sound at best: only what comes back has lost nothing.
    if own == "Latn" and share < LEAST:
        raise NoTransliteration(
            f"{language} can't be had in {to} without loss: {same} of {len(texts)} texts come back "
            "from there as they were."
        )
    return made, share


@cache
def _rules(source: str, target: str) -> Any:
    """ICU's transliterator from one script to another; None where there is none."""
    try:
        icu: Any = importlib.import_module("icu")  # its types say nothing of what is in it
    except ImportError:
        raise InputError(
            "Another script is made by ICU: pip install 'xlens-interp[sentences]' (icukit-pyicu, "
            "or PyICU with ICU on the machine)."
        ) from None
    names = [_PLAIN.get(code, code) for code in (source, target)]
    try:
        return icu.Transliterator.createInstance("-".join(names))
    except icu.ICUError:
        return None


@cache
def _others(target: str) -> Any:
    """Letters that are in another script than this, or in none of their own."""
    name = _PLAIN.get(target, target)
    shared = r"\p{Script=Common}\p{Script=Inherited}"
    return regex.compile(rf"[\p{{L}}--[\p{{Script={name}}}{shared}]]", regex.V1)
