"""Relations whose objects are named entities: places, organisations."""

NAMED = frozenset(
    {
        *("applies_to_jurisdiction", "capital", "capital_of", "city", "continent"),
        *("country_of_citizenship", "developer", "headquarters_location", "location_of_formation"),
        *("manufacturer", "owned_by", "place_of_birth", "place_of_death"),
    }
)
"""Of KLAR's relations and CLDR's. arXiv 2505.14824 says that carrying over is mainly of relations
"involving named entities", and not which these are: this is our reading. Languages, currencies,
religions, occupations, instruments and fields of work are none."""
