"""Words in many languages without a data set: the names that CLDR gives to things.

Territories, languages, currencies, months, weekdays and units have a name in every language that
CLDR covers, chosen by its native speakers. They stand in for Wendler's word list, which is not
redistributed (arXiv 2402.10588); being names they are rarer than its nouns and often look alike
across languages (`WordList.identical`).
"""

import unicodedata
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import pandas as pd
from langcodes.data_dicts import MACROLANGUAGES

from xlens.checks import typed
from xlens.languages import cldr_locale, standardize_all
from xlens.tasks.words import world
from xlens.tasks.words.wordlist import DROPPED, WordList, kind_of

KINDS = ("territory", "language", "currency", "month", "weekday", "unit")
_NAMES = {"territory": "territories", "language": "languages", "currency": "currency_names"}
_CALENDAR = {"month": "months", "weekday": "days"}
UNIT_FAMILIES = ("area", "duration", "length", "mass", "volume")


@typed
def cldr_words(languages: Iterable[str], kinds: Iterable[str] = KINDS) -> WordList:
    """Names from CLDR in several languages.

    | kind | items | id |
    |---|---|---|
    | `territory` | countries (ISO 3166) of a million people and more | `territory/FR` |
    | `language` | official somewhere, with a million speakers | `language/fr` |
    | `currency` | legal tender today in one of these territories | `currency/EUR` |
    | `month`, `weekday` | wide stand-alone names; 1 is January, 0 is Monday | `month/3` |
    | `unit` | units whose English name is one word, in the singular | `unit/duration-day` |

    The items depend on the kinds only, never on the languages. Names stay as CLDR has them; a
    name that isn't a plain phrase (with parentheses, digits, a spaced dash or other punctuation,
    such as `Myanmar (Burma)` or `3月`) is left out, cell by cell, and listed in
    `WordList.dropped`, as is a name that CLDR lacks. Use `complete()` for items without gaps.

    Args:
        languages: Language tags that CLDR has data for.
        kinds: Which of `KINDS`.

    Raises:
        ValueError: an unknown kind, an unknown language, or one without CLDR data.
    """
    tags = standardize_all(languages)
    asked = tuple(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
    if not asked or not set(asked) <= set(KINDS):
        raise ValueError(
            f"Kinds of CLDR word {list(asked)}: accepted are one or more of {', '.join(KINDS)}."
        )
    items = [id for kind in asked for id in _items(kind)]
    columns: dict[str, dict[str, str]] = {}
    dropped: list[tuple[str, str, str | None, str]] = []
    for tag in tags:
        names = _names(tag)
        columns[tag] = {}
        for id in items:
            name = names.get(id)
            if name is None:
                dropped.append((id, tag, None, "missing"))
            elif reason := _unusable(name):
                dropped.append((id, tag, name, reason))
            else:
                columns[tag][id] = name
    frame = pd.DataFrame({tag: [columns[tag].get(id) for id in items] for tag in tags}, index=items)
    left_out = pd.DataFrame(dropped, columns=list(DROPPED)).astype("string")
    return WordList(frame.dropna(how="all"), world.source(), left_out)


def _items(kind: str) -> Sequence[str]:
    """The ids of one kind, in a stable order."""
    choose: Mapping[str, Callable[[], Iterable[str | int]]] = {
        "territory": world.territories,
        "language": world.languages,
        "currency": world.currencies,
        "month": lambda: range(1, 13),
        "weekday": lambda: range(7),
        "unit": _units,
    }
    return [f"{kind}/{code}" for code in choose[kind]()]


@lru_cache(maxsize=1)
def _units() -> tuple[str, ...]:
    """Everyday units whose English name is one plain word and that are no multiple of another.

    So neither `square meter` nor `millimeter`: multiples are the same loan word everywhere.
    """
    families: dict[str, list[str]] = {family: [] for family in UNIT_FAMILIES}
    for id, name in _names("en").items():
        family, _, unit = id.removeprefix("unit/").partition("-")
        if kind_of(id) == "unit" and family in families and name.isalpha():
            families[family].append(unit)
    return tuple(
        f"{family}-{unit}"
        for family, units in families.items()
        for unit in sorted(units)
        if not any(unit.endswith(other) and unit != other for other in units)
    )


def _unusable(name: str) -> str | None:
    """Why a name can't stand between quotation marks as one plain phrase; None if it can."""
    if any(unicodedata.category(c) in ("Ps", "Pe") for c in name):
        return "parentheses"
    if any(unicodedata.category(c).startswith("N") for c in name):
        return "digits"
    if any(unicodedata.category(c) == "Pd" and f" {c} " in name for c in name):
        return "dash"
    plain = all(
        unicodedata.category(c)[0] in "LM"
        or unicodedata.category(c) in ("Zs", "Cf", "Pd")
        or c in "'’&・·"
        for c in name
    )
    return None if plain else "punctuation"


@lru_cache(maxsize=256)
def _names(tag: str) -> Mapping[str, str]:
    """Every name of the six kinds in one language, by id, as CLDR has it.

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
