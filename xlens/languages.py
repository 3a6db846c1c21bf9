"""Languages: BCP-47 tags, their names, script and writing direction (CLDR, langcodes, babel).

A language is always named by a standardised BCP-47 tag (`fr`, `pt-BR`, `zh-Hans`), never by a
name: "Chinese" doesn't say which script, and every data set abbreviates it differently.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, partial
from typing import Any, Literal, TypeVar, cast

from babel import Locale, UnknownLocaleError
from langcodes import Language, standardize_tag
from langcodes.data_dicts import MACROLANGUAGES

from xlens._lazy import listed
from xlens.checks import wrong_type
from xlens.errors import InputError

__all__ = [
    "by_tag",
    "cldr_locale",
    "direction",
    "endonym",
    "endonyms",
    "english_name",
    "english_names",
    "identified",
    "identifier",
    "known_to_identifier",
    "named_in",
    "same_language",
    "script",
    "standardize",
    "standardize_all",
    "written",
]
__dir__ = listed(__all__)


T = TypeVar("T")
_ACCEPTED = "Accepted are BCP-47 tags such as 'en', 'pt-BR' or 'zh-Hans'"
UNKNOWN = "unknown"
# ISO 639-2 codes that stand for "no particular language": a valid tag, but nothing to compare.
_NO_LANGUAGE = frozenset({"und", "mul", "mis", "zxx"})


@lru_cache(maxsize=4096)
def standardize(tag: str) -> str:
    """The standard form of a language tag: `zh_hans` becomes `zh-Hans`, `eng` `en`, `iw` `he`.

    Nothing is added or merged: `zh-CN` stays `zh-CN`, and `arb` (Standard Arabic) stays itself.

    Raises:
        ValueError: not a tag, or one whose language, script or region isn't registered. Names
            (`english`, `Chinese`) are refused too; the message suggests their tags.
    """
    if not isinstance(cast(Any, tag), str):
        raise wrong_type("a language", tag, "a language tag such as 'en' or 'zh-Hans'")
    try:
        standard = standardize_tag(tag)
        language = Language.get(standard)
        # langcodes keeps `und` as no language at all, and takes a region's number (419) for one.
        named = language.language or "und"
        if language.is_valid() and named.isalpha() and named not in _NO_LANGUAGE:
            return standard
    except ValueError:  # not only its own: it stumbles over what is no letter
        pass
    near = ""
    if tag.isprintable():
        near = ", ".join(f"{code!r} ({name})" for code, name in _near_matches(tag))
    hint = f" Did you mean {near}?" if near else ""
    raise InputError(f"Unknown language tag {tag!r}. {_ACCEPTED}.{hint}")


def standardize_all(tags: Iterable[str]) -> tuple[str, ...]:
    """Standardise several tags, keeping their order.

    Raises:
        ValueError: a bare string, no tag at all, an unknown tag, or the same language twice.
    """
    if isinstance(tags, str):
        raise InputError(f"Expected a sequence of language tags, got {tags!r}; write [{tags!r}].")
    given = tuple(tags)
    if not given:
        raise InputError(f"No language given. {_ACCEPTED}, at least one.")
    standard = tuple(standardize(tag) for tag in given)
    if twice := sorted({tag for tag in standard if standard.count(tag) > 1}):
        raise InputError(
            f"Language {', '.join(map(repr, twice))} is given more than once in {list(given)}; "
            "name each language once (different spellings of a tag count as the same)."
        )
    return standard


def by_tag(given: Mapping[str, T], what: str) -> dict[str, T]:
    """What is said of some languages, none of it empty, by their standardised tags.

    Raises:
        ValueError: an unknown tag, the same language twice, or nothing said of one.
    """
    tags = standardize_all(given) if given else ()
    found = dict(zip(tags, given.values(), strict=True))
    if empty := [tag for tag, value in found.items() if not value]:
        raise InputError(
            f"{what} of {', '.join(empty)}: nothing given. Give some, or leave it out."
        )
    return found


@lru_cache(maxsize=1024)
def cldr_locale(tag: str) -> Locale:
    """The babel locale that holds a language's CLDR data; `zh-CN` finds that of `zh-Hans-CN`.

    Raises:
        ValueError: unknown tag, or a language that CLDR has no locale for, in the tag's script.
    """
    standard = standardize(tag)
    what = f"language {standard!r}"
    try:
        locale = Locale.parse(standard, sep="-")
        # babel gives Cyrillic for `ru-Latn`, rather than nothing.
        if (locale.script or script(str(locale).replace("_", "-"))) == script(standard):
            return locale
        what += f" in that script ({script(standard)})"
    except (UnknownLocaleError, ValueError):
        pass
    raise InputError(
        f"CLDR (as babel ships it) has no data for {what}, so neither its own name nor its words "
        "are known. Use a language that it covers, or give the names (names=, --names.TAG) and "
        "words yourself."
    )


@lru_cache(maxsize=1024)
def endonym(tag: str, *, variant: bool = False) -> str:
    """A language's name in that language, capitalised: `Français`, `Русский`, `中文`.

    This is how a translation prompt names its languages (Wendler et al. 2024, arXiv 2402.10588).

    Args:
        tag: Language tag.
        variant: False gives the plain language name, the same for `zh-Hans` and `zh-Hant`; True
            tells scripts and regions apart (`简体中文`, `Português (Brasil)`).

    Raises:
        ValueError: unknown tag, or a language that CLDR has no locale for.
    """
    locale = cldr_locale(tag)
    name = _name(locale, tag, variant=variant) or locale.languages.get(locale.language)
    if not name:
        raise InputError(
            f"CLDR doesn't say what language {standardize(tag)!r} is called in itself; give the "
            "name yourself (names=, --names.TAG)."
        )
    # Title case, not upper case: Georgian has capitals that aren't used at the start of a word.
    return name[0].title() + name[1:]


@lru_cache(maxsize=1024)
def english_name(tag: str, *, variant: bool = False) -> str:
    """A language's English name: `Chinese`; with `variant` `Simplified Chinese`.

    Raises:
        ValueError: unknown tag.
    """
    name = _name(Locale("en"), tag, variant=variant)
    return name or Language.get(standardize(tag)).language_name("en")


def english_names(tags: Iterable[str], *, variant: bool = False) -> dict[str, str]:
    """English names of the languages of a run, by tag, no two alike.

    Script and region are named where two of the tags would read alike without them (`zh-Hans` and
    `zh-Hant`, `pt-BR` and `pt-PT`), or, with `variant`, wherever a tag has them; a tag whose names
    are all taken is told by the tag itself.

    Raises:
        ValueError: unknown tag.
    """
    return _told_apart(tags, partial(english_name, variant=True) if variant else english_name)


def endonyms(tags: Iterable[str]) -> dict[str, str]:
    """As `english_names`, with the languages' own names.

    Raises:
        ValueError: unknown tag, or a language that CLDR has no locale for.
    """
    return _told_apart(tags, endonym)


def _told_apart(tags: Iterable[str], name: Callable[..., str]) -> dict[str, str]:
    asked = list(dict.fromkeys(tags))
    by_tag = {tag: name(tag) for tag in asked}
    for again in (lambda tag: name(tag, variant=True), lambda tag: f"{name(tag)} ({tag})"):
        taken = Counter(by_tag.values())
        by_tag = {tag: again(tag) if taken[said] > 1 else said for tag, said in by_tag.items()}
    return by_tag


@lru_cache(maxsize=1024)
def named_in(tag: str, other: str, *, variant: bool = False) -> str:
    """What a language is called in another one: `alemán`; in English where CLDR doesn't say.

    Raises:
        ValueError: an unknown tag.
    """
    try:
        locale = cldr_locale(other)
    except ValueError:
        return english_name(tag, variant=variant)
    whole = written(tag)[0]  # `ar` of `arb`
    found = _name(locale, tag, variant=variant) or locale.languages.get(whole)
    return found or english_name(tag, variant=variant)


@lru_cache(maxsize=1024)
def script(tag: str) -> str:
    """The script a language is usually written in, as an ISO 15924 code: `Latn`, `Cyrl`, `Hans`.

    `Zzzz` (unknown script) where CLDR names none.

    Raises:
        ValueError: unknown tag.
    """
    return Language.get(standardize(tag)).maximize().script or "Zzzz"


@lru_cache(maxsize=1024)
def written(tag: str) -> tuple[str, str]:
    """Language and script, whatever the region: what two texts share that can stand in for another.

    A variety counts as its macrolanguage (`arb` as `ar`); `zh-TW` and `zh-Hant` are the same here,
    `zh` and `zh-Latn` are not.

    Raises:
        ValueError: unknown tag.
    """
    plain = Language.get(standardize(tag)).prefer_macrolanguage()
    return plain.language or "und", script(tag)


@lru_cache(maxsize=1024)
def direction(tag: str) -> Literal["ltr", "rtl"]:
    """Writing direction of a language's script.

    Left to right for languages whose script is unknown to CLDR.

    Raises:
        ValueError: unknown tag.
    """
    # A language without a locale takes the direction of its script's most usual language.
    for candidate in (tag, str(Language.get(f"und-{script(tag)}").maximize())):
        try:
            return "rtl" if cldr_locale(candidate).text_direction == "rtl" else "ltr"
        except ValueError:
            continue
    return "ltr"


def _name(locale: Locale, tag: str, *, variant: bool) -> str | None:
    """What `locale` calls a language: with `variant`, its script and region told apart."""
    language = Language.get(standardize(tag)).language or ""
    full = standardize(tag).replace("-", "_") if variant else language
    if full == language or full in locale.languages:
        return locale.languages.get(full)
    try:
        return Locale.parse(full).get_display_name(locale)
    except (UnknownLocaleError, ValueError):
        return locale.languages.get(language)


def _near_matches(tag: str) -> list[tuple[str, str]]:
    """Up to four (tag, English name) that someone who wrote `tag` may have meant."""
    from difflib import get_close_matches

    from langcodes import find

    names = {c: n for c, n in Locale("en").languages.items() if c not in _NO_LANGUAGE}
    by_name = {name.casefold(): code for code, name in names.items()}
    codes: list[str] = []
    try:
        # Any language's name in any language, with some tolerance for typing errors.
        codes.append(str(find(tag)))
    except LookupError:
        written = tag.casefold().replace("-", "_")
        lowered = {code.casefold(): code for code in names}
        for close in get_close_matches(written, [*lowered, *by_name], n=3, cutoff=0.75):
            codes.append(lowered.get(close) or by_name[close])
    # Where a language is written in several scripts the tag has to say which.
    scripts = [c for c in names if len(c.rpartition("_")[2]) == 4 and c[:-5] in codes]
    found = dict.fromkeys([*codes, *scripts])
    return [(code.replace("_", "-"), names[code]) for code in found if code in names][:4]


# Scripts that py3langid knows a language in beside the usual one.
_FAMILIAR = {"Hant": "Hans", "Hang": "Kore"}


@cache
def identifier(tags: tuple[str, ...]) -> tuple[Any, dict[str, str]]:
    """`py3langid` restricted to these languages, and their tags by its codes.

    Of two tags of one language the first is meant. Languages that it lacks are left out, and so are
    tags in a script that their language is rarely written in (`hi-Latn`), which it was not shown.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    names: dict[str, str] = {}
    for tag in tags:
        language = tag.partition("-")[0]
        if _FAMILIAR.get(own := script(tag), own) == script(language):
            names.setdefault(language, tag)
    names = {code: tag for code, tag in names.items() if code in found.nb_classes}
    if names:
        found.set_languages(list(names))
    return found, names


@cache
def _identifies_all() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_to_identifier(tag: str) -> bool:
    """Whether `identified` can name this language, in the script that it is usually written in."""
    usual = _FAMILIAR.get(own := script(tag), own) == script(standardize(tag).partition("-")[0])
    return usual and any(same_language(code, tag) for code in _identifies_all().nb_classes)


def identified(text: str, *, min_confidence: float = 0.5) -> str:
    """The language of a line of text or more, as a code without script, or `unknown`.

    By `py3langid` among all the languages that it knows (142), none of them preferred. Of the
    second halves of 150 sentences of SIB-200 it names the right one in 94 % (es) to 100 % (de 97,
    fr 99, ru 96, zh 97, ar 98, hi 99, with `same_language`), and nearly always `unknown` else.
    """
    if sum(c.isalpha() for c in text) < 3:
        return UNKNOWN
    code, confidence = _identifies_all().classify(text)
    return code if confidence >= min_confidence else UNKNOWN


def same_language(code: str, tag: str) -> bool:
    """Whether a code is a tag's language, one of its macrolanguage's (`wuu`, `zh`) or that itself.

    Scripts make no difference.
    """
    language = standardize(tag).partition("-")[0]
    one, other = (MACROLANGUAGES.get(each, each) for each in (code, language))
    return code == language or one == language or other == code
