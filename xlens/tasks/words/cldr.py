"""Words in many languages without a data set: the names that CLDR gives to things.

Territories, languages, currencies, months, weekdays and units have a name in every language that
CLDR covers, chosen by its native speakers. They stand in for Wendler's word list, which is not
redistributed (arXiv 2402.10588); being names they are rarer than its nouns and often look alike
across languages (`WordList.identical`).
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.tasks.cldr import world
from xlens.tasks.cldr.names import names
from xlens.tasks.words.wordlist import DROPPED, WordList, kind_of

KINDS = ("territory", "language", "currency", "month", "weekday", "unit")
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
        raise InputError(
            f"Kinds of CLDR word {list(asked)}: accepted are one or more of {', '.join(KINDS)}."
        )
    items = [id for kind in asked for id in _items(kind)]
    columns: dict[str, dict[str, str]] = {}
    dropped: list[tuple[str, str, str | None, str]] = []
    for tag in tags:
        named = names(tag)
        columns[tag] = {}
        for id in items:
            name = named.get(id)
            if name is None:
                dropped.append((id, tag, None, "missing"))
            elif reason := unusable(name):
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
    for id, name in names("en").items():
        family, _, unit = id.removeprefix("unit/").partition("-")
        if kind_of(id) == "unit" and family in families and name.isalpha():
            families[family].append(unit)
    return tuple(
        f"{family}-{unit}"
        for family, units in families.items()
        for unit in sorted(units)
        # `kilometer` ends with `meter`.
        if not any(unit.endswith(other) and unit != other for other in units)
    )


def unusable(name: str) -> str | None:
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
