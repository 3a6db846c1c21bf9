"""Facts that need no data set: what CLDR and the tz data know about countries."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.tasks.cldr import names, world
from xlens.tasks.facts.data import Facts, whole_facts
from xlens.tasks.facts.wordings import RELATIONS, wording
from xlens.tasks.parallel import Fault
from xlens.tasks.words.cldr import unusable

# Its tz identifier is that of a city in Europe; the country is not known as a European one.
_NOT_BY_CITY = frozenset({"TR"})


@typed
def cldr_facts(
    languages: Iterable[str],
    relations: Iterable[str] = RELATIONS,
    *,
    identical: Literal["keep", "drop"] = "keep",
    pivot: str | None = None,
) -> Facts:
    """Facts about countries of a million people and more, the same in every language.

    | relation | object | taken from |
    |---|---|---|
    | `capital` | its capital, where a time zone is named after it | a table of ours, of tz names |
    | `currency` | its one legal tender | CLDR |
    | `language` | its one official language | CLDR |
    | `continent` | the area of its time zones, if they share one | tz identifiers (`Africa/…`) |
    | `city` | the city after which its one time zone is named | tz identifiers |

    Names are CLDR's in every language; a fact that has no plain name in one of them is left out
    of all (`dropped`). `city` asks an odd question, whose answers a model can take for capitals;
    `continent` has four answers, the Americas being one.

    Args:
        languages: Two tags or more, of those that have templates (`wordings.LANGUAGES`).
        relations: Which of `RELATIONS`.
        identical: Facts whose object is written the same in the pivot and another language.
        pivot: For `identical`; default the first language.

    Raises:
        ValueError: an unknown relation, a language without templates or CLDR data, one language
            only, nothing left.
    """
    tags = standardize_all(languages)
    asked = tuple(dict.fromkeys([relations] if isinstance(relations, str) else relations))
    if not asked or not set(asked) <= set(RELATIONS):
        raise InputError(
            f"Relations {list(asked)}: accepted are one or more of {', '.join(RELATIONS)}."
        )
    templates = {(tag, relation): wording(tag, relation) for tag in tags for relation in asked}
    rows: list[dict[str, str]] = []
    dropped: list[Fault] = []
    for relation in asked:
        for territory in world.territories():
            object = _OBJECTS[relation](territory)
            if object is None:
                continue
            id = f"{relation}/{territory}"
            named = {
                tag: (_name(f"territory/{territory}", tag), _name(object, tag)) for tag in tags
            }
            if lacking := [tag for tag, both in named.items() if not all(both)]:
                dropped.append((id, lacking[0], "missing name", object))
                continue
            rows += [
                {"id": id, "language": tag, "relation": relation, "subject": subject or ""}
                | {"objects": said or "", "template": templates[tag, relation]}
                for tag, (subject, said) in named.items()
            ]
    columns = ["id", "language", "relation", "subject", "objects", "template"]
    frame = pd.DataFrame(rows, columns=columns)
    found = whole_facts(frame, world.source(), incomplete="error", dropped=dropped)
    return found if identical == "keep" else found.without_identical(pivot or tags[0])


def _name(id: str, tag: str) -> str | None:
    """The plain name of a thing in a language."""
    kind, _, code = id.partition("/")
    if kind == "city":
        said = names.city(code, tag)
    elif kind == "region":
        said = names.region(code, tag)
    else:
        said = names.names(tag).get(id)
    return None if said is None or unusable(said) else said


def _only(kind: str, codes: tuple[str, ...]) -> str | None:
    return f"{kind}/{codes[0]}" if len(codes) == 1 else None


def _continent(territory: str) -> str | None:
    code = None if territory in _NOT_BY_CITY else world.continent_of(territory)
    return code and f"region/{code}"


def _capital(territory: str) -> str | None:
    zone = world.capital_of(territory)
    return zone and f"city/{zone}"


_OBJECTS: Mapping[str, Callable[[str], str | None]] = {
    "capital": _capital,
    "currency": lambda territory: _only("currency", world.tender_in(territory)),
    "language": lambda territory: _only("language", world.official_in(territory)),
    "continent": _continent,
    "city": lambda territory: _only("city", world.zones_of(territory)),
}
