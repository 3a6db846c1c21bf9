"""What the atlas is about: words in eight languages and facts that CLDR and tz data state.

Everything comes from babel; nothing is written by hand. A fact is a territory, a relation and an
object, and reads in a language with the names that CLDR has there:

| relation | object | taken from |
|---|---|---|
| `currency` | its one legal tender | CLDR supplemental data |
| `language` | its one official language | CLDR supplemental data |
| `continent` | the area of its time zones, if they share one | tz identifiers (`Africa/…`) |
| `city` | the city that names its one time zone | tz identifiers, CLDR exemplar cities |
| `code` | its ISO 3166 code, the same string in every language | CLDR |

CLDR names no capitals, so neither does the atlas: a tz identifier is named after a populous city of
the zone (Turkey's is `Europe/Istanbul`, which also makes its `continent` Europe here).
"""

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from xlens.tasks.cldr import names
from xlens.tasks.cldr import world as cldr
from xlens.tasks.words import cldr_words

LANGUAGES = ("en", "fr", "de", "es", "ru", "zh-Hans", "ar", "hi")
PIVOT = "en"
RELATIONS = ("currency", "language", "continent", "city", "code")
# The relations whose facts are hidden from some languages or from all.
HIDEABLE = RELATIONS[:4]


@dataclass(frozen=True)
class Fact:
    """A true statement about a territory.

    Attributes:
        relation: One of `RELATIONS`.
        subject: Word id of the territory: `territory/JP`.
        object: Word id of what is said of it: `currency/JPY`, `region/142`, `city/Asia/Tokyo`.
    """

    relation: str
    subject: str
    object: str

    @property
    def id(self) -> str:
        """`currency/JP`."""
        return f"{self.relation}/{self.subject.removeprefix('territory/')}"


@dataclass(frozen=True)
class World:
    """Words and facts.

    Attributes:
        words: Name by language, by word id; every word has one in each of `LANGUAGES`.
        facts: In a stable order, by relation and territory.
        source: The release of CLDR and babel.
    """

    words: dict[str, dict[str, str]]
    facts: tuple[Fact, ...]
    source: str

    def text(self, word: str, language: str) -> str:
        """The name of a word in a language."""
        return self.words[word][language]

    def translatable(self) -> list[str]:
        """Words that are translated: all but the codes, which are the same everywhere."""
        return [word for word in self.words if not word.startswith("code/")]


@lru_cache(maxsize=1)
def make_world() -> World:
    """The words and facts of the atlas, from the installed babel."""
    listed = cldr_words(LANGUAGES).complete()
    columns = {language: listed.words(language) for language in LANGUAGES}
    words = {id: {language: columns[language][id] for language in LANGUAGES} for id in listed.ids}
    territories = [id for id in words if id.startswith("territory/")]
    facts: list[Fact] = []
    for subject in territories:
        code = subject.removeprefix("territory/")
        found = {
            "currency": _only(cldr.tender_in(code), "currency", words),
            "language": _only(cldr.official_in(code), "language", words),
            "continent": _continent(code, words),
            "city": _city(code, words),
            "code": f"code/{code}",
        }
        words[f"code/{code}"] = dict.fromkeys(LANGUAGES, code)
        facts += [Fact(relation, subject, object) for relation, object in found.items() if object]
    facts.sort(key=lambda fact: (RELATIONS.index(fact.relation), fact.subject))
    used = {fact.object for fact in facts}
    kept = {id: said for id, said in words.items() if not id.startswith("city/") or id in used}
    return World(kept, tuple(facts), listed.source)


def _only(codes: tuple[str, ...], kind: str, words: dict[str, dict[str, str]]) -> str | None:
    """The word of the one object; None where there are several or it has no usable name."""
    id = f"{kind}/{codes[0]}" if len(codes) == 1 else ""
    return id if id in words else None


def _continent(territory: str, words: dict[str, dict[str, str]]) -> str | None:
    code = cldr.continent_of(territory)
    if code is None:
        return None
    words.setdefault(f"region/{code}", {tag: names.region(code, tag) for tag in LANGUAGES})
    return f"region/{code}"


def _city(territory: str, words: dict[str, dict[str, str]]) -> str | None:
    zones = cldr.zones_of(territory)
    if len(zones) != 1:
        return None
    named = {language: names.city(zones[0], language) for language in LANGUAGES}
    usable = {language: name for language, name in named.items() if name and _plain(name)}
    if len(usable) < len(named):
        return None
    id = f"city/{zones[0]}"
    words.setdefault(id, usable)
    return id


def _plain(name: str) -> bool:
    return all(unicodedata.category(c)[0] in "LM" or c in " '’-" for c in name)
