"""What CLDR and the tz data say about territories: which there are, and what goes with what."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from langcodes import Language

# Familiar items only: CLDR also lists Bouvet Island and the Samoan tala.
FAMILIAR = 1_000_000
# CLDR's codes (UN M49) of the areas that tz identifiers begin with.
_AREAS = {"Africa": "002", "America": "019", "Asia": "142", "Europe": "150"}
# Time zones named after the capital of their country, which CLDR doesn't say. Left out are capitals
# that are disputed, being moved, or called like the country (Singapore, Guatemala).
_CAPITALS = """
Africa/Accra Africa/Addis_Ababa Africa/Algiers Africa/Asmara Africa/Bamako Africa/Bangui
Africa/Banjul Africa/Bissau Africa/Brazzaville Africa/Cairo Africa/Conakry Africa/Dakar
Africa/Freetown Africa/Gaborone Africa/Harare Africa/Juba Africa/Kampala Africa/Khartoum
Africa/Kigali Africa/Kinshasa Africa/Libreville Africa/Lome Africa/Luanda Africa/Lusaka
Africa/Maputo Africa/Maseru Africa/Mbabane Africa/Mogadishu Africa/Monrovia Africa/Nairobi
Africa/Ndjamena Africa/Niamey Africa/Nouakchott Africa/Ouagadougou Africa/Porto-Novo
Africa/Tripoli Africa/Tunis Africa/Windhoek America/Argentina/Buenos_Aires America/Asuncion
America/Bogota America/Caracas America/Havana America/Lima America/Managua America/Mexico_City
America/Montevideo America/Port-au-Prince America/Port_of_Spain America/Santiago
America/Santo_Domingo America/Tegucigalpa Asia/Amman Asia/Ashgabat Asia/Baghdad Asia/Baku
Asia/Bangkok Asia/Beirut Asia/Bishkek Asia/Damascus Asia/Dhaka Asia/Dili Asia/Dushanbe Asia/Kabul
Asia/Kathmandu Asia/Kuala_Lumpur Asia/Manila Asia/Muscat Asia/Nicosia Asia/Phnom_Penh
Asia/Pyongyang Asia/Riyadh Asia/Seoul Asia/Taipei Asia/Tashkent Asia/Tbilisi Asia/Tehran
Asia/Tokyo Asia/Ulaanbaatar Asia/Vientiane Asia/Yerevan Europe/Amsterdam Europe/Athens
Europe/Belgrade Europe/Berlin Europe/Bratislava Europe/Brussels Europe/Bucharest Europe/Budapest
Europe/Chisinau Europe/Copenhagen Europe/Dublin Europe/Helsinki Europe/Kyiv Europe/Lisbon
Europe/Ljubljana Europe/London Europe/Madrid Europe/Minsk Europe/Moscow Europe/Oslo Europe/Paris
Europe/Prague Europe/Riga Europe/Rome Europe/Sarajevo Europe/Skopje Europe/Sofia Europe/Stockholm
Europe/Tallinn Europe/Tirane Europe/Vienna Europe/Vilnius Europe/Warsaw Europe/Zagreb
Indian/Antananarivo Pacific/Port_Moresby
"""
RELATIONS = ("next-month", "next-weekday", "territory-currency", "territory-language")


def source() -> str:
    """`CLDR 47 via babel 2.18.0`."""
    import babel
    from babel.core import get_cldr_version

    return f"CLDR {get_cldr_version()} via babel {babel.__version__}"


@lru_cache(maxsize=1)
def territories() -> tuple[str, ...]:
    """ISO 3166 countries with an official language and at least a million inhabitants."""
    return tuple(t for t in _countries() if population(t) >= FAMILIAR)


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """Languages that are official in some country and have at least a million speakers."""
    official = {language for territory in _countries() for language in official_in(territory)}
    return tuple(sorted(c for c in official if "_" not in c and _speakers(c) >= FAMILIAR))


@lru_cache(maxsize=1)
def currencies() -> tuple[str, ...]:
    """Currencies that are legal tender today in one of `territories()`."""
    return tuple(sorted({currency for t in territories() for currency in tender_in(t)}))


def official_in(territory: str) -> tuple[str, ...]:
    """Languages that are official in a whole territory, by law or in fact; most spoken first."""
    from babel.languages import get_official_languages

    return tuple(get_official_languages(territory, de_facto=True))


def tender_in(territory: str) -> tuple[str, ...]:
    """Currencies that are legal tender in a territory and have no end date."""
    rows: list[tuple[str, Any, Any, bool]] = _globals("territory_currencies").get(territory, [])
    return tuple(code for code, _, end, tender in rows if tender and end is None)


def zones_of(territory: str) -> tuple[str, ...]:
    """Identifiers of its time zones: `Europe/Paris`."""
    return tuple(_globals("territory_zones").get(territory, ()))


def continent_of(territory: str) -> str | None:
    """The UN M49 code of the area of its time zones; None unless they share one that has a code.

    A tz identifier is named after a city, so Turkey's (`Europe/Istanbul`) says Europe.
    """
    areas = {zone.split("/")[0] for zone in zones_of(territory)}
    return _AREAS.get(areas.pop()) if len(areas) == 1 else None


def capital_of(territory: str) -> str | None:
    """The time zone that is named after the capital; None where none is."""
    capitals = _CAPITALS.split()
    return next((zone for zone in zones_of(territory) if zone in capitals), None)


@lru_cache(maxsize=512)
def population(territory: str) -> float:
    """Estimated inhabitants: speakers of the most spoken language over its share of the people."""
    shares = {
        language: float(info["population_percent"])
        for language, info in _globals("territory_languages").get(territory, {}).items()
    }
    # The largest share first: dividing by a small, rounded one errs most.
    for language in sorted(shares, key=lambda code: (-shares[code], code)):
        if people := _speakers(f"{language}_{territory}"):
            return 100 * people / shares[language]
    return 0.0


@lru_cache(maxsize=1)
def official_language() -> Mapping[str, str]:
    """The territory that stands for each language: `language code -> territory code`.

    Only territories with exactly one official language; of those that share a language, the one
    with most speakers (French: France). So a territory has one answer and an answer one territory.
    """
    only = {t: found[0] for t in territories() if len(found := official_in(t)) == 1}
    return _represented(only, {t: _speakers(f"{code}_{t}") for t, code in only.items()})


@lru_cache(maxsize=1)
def legal_tender() -> Mapping[str, str]:
    """The territory that stands for each currency: `currency code -> territory code`.

    Only territories with exactly one legal tender; of those that share one, the most populous.
    """
    only = {t: found[0] for t in territories() if len(found := tender_in(t)) == 1}
    return _represented(only, {t: population(t) for t in only})


def _represented(answers: Mapping[str, str], size: Mapping[str, float]) -> Mapping[str, str]:
    largest: dict[str, str] = {}
    # The largest first: it stays, as later ones find their answer taken.
    for territory in sorted(answers, key=lambda t: (-size[t], t)):
        largest.setdefault(answers[territory], territory)
    return MappingProxyType(dict(sorted(largest.items())))


def links(relation: str) -> list[tuple[str, str]]:
    """Cue and answer ids of a relation."""
    if relation == "next-month":
        return [(f"month/{m}", f"month/{m % 12 + 1}") for m in range(1, 13)]
    if relation == "next-weekday":
        # Days count from 0 and months from 1, as in CLDR.
        return [(f"weekday/{d}", f"weekday/{(d + 1) % 7}") for d in range(7)]
    if relation == "territory-currency":
        return [(f"territory/{t}", f"currency/{c}") for c, t in legal_tender().items()]
    return [(f"territory/{t}", f"language/{c}") for c, t in official_language().items()]


@lru_cache(maxsize=1)
def _countries() -> tuple[str, ...]:
    # Time zones are listed for ISO 3166 codes only, official languages for inhabited ones.
    codes = _globals("territory_zones")
    return tuple(sorted(t for t in codes if len(t) == 2 and t.isalpha() and official_in(t)))


def _speakers(code: str) -> float:
    return float(Language.get(code).speaking_population())


def _globals(key: Any) -> Mapping[str, Any]:
    from babel.core import get_global

    return get_global(key)
