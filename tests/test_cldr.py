"""CLDR is read in one place."""

import ast
from pathlib import Path

from xlens.tasks.cldr import names, world

ROOT = Path(__file__).parent.parent / "xlens"
READERS = {"languages.py", "tasks/cldr/names.py", "tasks/cldr/world.py"}
TABLES = {"territories", "time_zones", "currencies", "get_global", "localedata"}


def test_nothing_else_reads_its_tables() -> None:
    """Neither babel's own functions nor a table of a locale that `cldr_locale` gave."""
    for path in ROOT.rglob("*.py"):
        if str(path.relative_to(ROOT)) in READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "babel", path
            elif isinstance(node, ast.Attribute) and node.attr in TABLES:
                assert isinstance(node.value, ast.Name), path  # `world.territories`, a module's


def test_what_goes_with_a_territory() -> None:
    assert world.zones_of("JP") == ("Asia/Tokyo",) and world.zones_of("XX") == ()
    assert world.continent_of("KE") == "002" and world.continent_of("TR") == "150"
    assert world.continent_of("RU") is None and world.continent_of("AU") is None
    assert names.region("150", "de") == "Europa"
    assert names.city("Europe/Rome", "de") == "Rom" and names.city("Asia/Tokyo", "ru") == "Токио"
    assert names.city("Africa/Addis_Ababa", "en") == "Addis Ababa"
