"""What CLDR calls things in each language: places, languages, currencies, cities, the calendar.

The one place where CLDR's names are read; which things there are, and what goes with what, is in
`world`.
"""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

from langcodes.data_dicts import MACROLANGUAGES

from xlens.languages import cldr_locale, script

_NAMES = {"territory": "territories", "language": "languages", "currency": "currency_names"}
_CALENDAR = {"month": "months", "weekday": "days"}


@lru_cache(maxsize=256)
def names(tag: str) -> Mapping[str, str]:
    """Every name in one language, by id, as CLDR has it.

    Ids are `territory/FR`, `language/fr`, `currency/EUR`, `month/3`, `weekday/0` and
    `unit/duration-day`.

    Without those that its tables take over from another language: the Hindi of `hi-Latn` is
    English but for a few names, Haitian is French, and without a parent Monday is `Mon`.
    """
    locale = cldr_locale(tag)
    singular = locale.plural_form(1)
    foreign = _table(_foreign_parent(str(locale)), singular)
    found = _table(str(locale), singular)
    return {id: name for id, name in found.items() if foreign.get(id) != name}


@lru_cache(maxsize=256)
def _table(locale: str, singular: str) -> Mapping[str, str]:
    """All names of one of CLDR's tables, its own and those it takes over."""
    from babel.localedata import LocaleDataDict

    found: dict[str, str] = {}
    with _pristine_tables(locale) as (data, root):
        table: Any = LocaleDataDict(data)  # resolves aliases
        for kind, key in _NAMES.items():
            found |= {f"{kind}/{code}": str(name) for code, name in table[key].items()}
        for kind, key in _CALENDAR.items():
            wide = table[key]["stand-alone"]["wide"]
            found |= {f"{kind}/{code}": str(wide[code]) for code in wide}
        for unit in data["unit_display_names"]:
            symbols = set(_unit_forms(root, unit, "other").values())
            if name := _unit_name(_unit_forms(data, unit, singular), symbols, singular):
                found[f"unit/{unit}"] = name
    return found


def _foreign_parent(locale: str) -> str:
    """The nearest ancestor of CLDR's tables that is of another language."""
    from babel.core import get_global

    exceptions: Mapping[str, str] = get_global("parent_exceptions")
    # CLDR's chain of inheritance: the exceptions it lists, else the tag less its last piece.
    parent = exceptions.get(locale, locale.rpartition("_")[0]) or "root"
    language = locale.partition("_")[0]
    # Norwegian Nynorsk is Norwegian.
    own = (language, MACROLANGUAGES.get(language))
    return _foreign_parent(parent) if parent.partition("_")[0] in own else parent


def _unit_name(
    forms: Mapping[tuple[str, str], str], symbols: Collection[str], singular: str
) -> str | None:
    """A unit's name, in the singular in languages that have one.

    A long form is absent where it equals the short one (CLDR's root makes it an alias). A short
    form that is the root's is a symbol (`tbsp`), no word of the language.
    """
    # Languages without grammatical number put a classifier into the pattern (zh: {0}个世纪).
    order = ("display", "counted") if singular == "other" else ("counted", "display")
    for key in ((form, length) for form in order for length in ("long", "short")):
        if key in forms and not (key[1] == "short" and forms[key] in symbols):
            return forms[key]
    return None


def _unit_forms(data: Mapping[str, Any], unit: str, category: str) -> dict[tuple[str, str], str]:
    """A unit's display names and its forms after a number of a plural category, by length."""
    display, patterns = (data[k].get(unit) or {} for k in ("unit_display_names", "unit_patterns"))
    found: dict[tuple[str, str], str] = {}
    for length in ("long", "short"):
        counted = (patterns.get(length) or {}).get(category) or ""
        for form, text in (
            ("counted", counted.replace("{0}", " ")),
            ("display", display.get(length)),
        ):
            if name := " ".join((text or "").split()):
                found[form, length] = name
    return found


@contextmanager
def _pristine_tables(locale: str) -> Generator[tuple[dict[Any, Any], dict[Any, Any]]]:
    """CLDR tables of a locale and of the root, read from babel's files afresh.

    babel stores a resolved alias in a table that locales share, so that the stand-alone months of
    Japanese come out Chinese once Chinese was read (python-babel/babel#1234, in 2.18). Here its
    cache starts empty and is put back afterwards: what came before can't leak into what we read,
    nor what we read into what comes later.
    """
    from babel import localedata

    cache: dict[str, Any] = vars(localedata).get("_cache", {})
    with vars(localedata).get("_cache_lock", nullcontext()):
        kept = dict(cache)
        cache.clear()
        try:
            yield localedata.load(locale), localedata.load("root")
        finally:
            cache.clear()
            cache.update(kept)


def region(code: str, tag: str) -> str:
    """What a language calls a part of the world, by its UN M49 code: `150` is Europe."""
    return str(cldr_locale(tag).territories[code])


def city(zone: str, tag: str) -> str | None:
    """What a language calls the city that a time zone is named after; None where CLDR has no name.

    Where a locale of the Latin script gives none, the identifier's own word is the name: that is
    CLDR's rule (UTS 35, part 4).
    """
    zones: Mapping[str, Any] = cldr_locale(tag).time_zones
    named = (zones.get(zone) or {}).get("city")
    if named is None and script(tag) == "Latn":
        return zone.split("/")[-1].replace("_", " ")
    return None if named is None else str(named)
