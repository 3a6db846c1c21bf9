"""The site: every page has its place, recipes stay under a screen, it builds without a warning."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.md"))
_TOC = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def listed() -> set[Path]:
    """Every page that a table of contents names."""
    found: set[Path] = set()
    for page in DOCS.glob("*.md"):
        for block in _TOC.findall(page.read_text(encoding="utf-8")):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            found |= {(page.parent / name).resolve() for name in names}
    return found


def test_every_page_is_reached_from_the_first():
    shown = listed()
    pages = [*DOCS.glob("*.md"), *RECIPES, *(ROOT / "experiments").glob("*/README.md")]
    pages += [*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "CONTRIBUTING.md"]
    lost = [p.name for p in pages if p.with_suffix("") not in shown and p != DOCS / "index.md"]
    assert not lost
    there = {p for p in shown if p.parent != DOCS / "reference"}
    assert all(list(p.parent.glob(f"{p.name}.*")) for p in there)


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_is_one_question_on_a_screen(page):
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45
    assert text.startswith("# ") and re.search(r"^\*\*.*?\?\*\*", text, re.MULTILINE | re.DOTALL)
    assert "```python" in text


def test_figures_wait_for_what_draws_them_and_badges_for_an_address(monkeypatch):
    """plotly.js stands at the end of a page, after the figures' own scripts."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import pictures

    said = pictures.interactive("figure-1", {"data": [], "layout": {"title": "</script>"}})
    assert said.count("</script>") == 1 and 'addEventListener("DOMContentLoaded"' in said
    told = '[project]\n[project.urls]\nSource = "https://github.com/x/xlens"'
    assert pictures.colab("notebooks/a") == ""
    monkeypatch.setattr(Path, "read_text", lambda path, **_: told)
    assert f"/github/x/xlens/blob/v{pictures.xlens.__version__}/notebooks/a.ipynb)" in (
        pictures.colab("notebooks/a")
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not find_spec("sphinx"), reason="the extra `docs` is not installed: make docs")
def test_it_builds_without_a_warning(tmp_path):
    asked = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(DOCS / "site")]
    places = ["-d", str(tmp_path / "trees"), str(ROOT), str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *asked, *places],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "docs" / "reference" / "xlens.lens.html").read_text("utf-8")
    assert "logit_lens" in page
    assert (tmp_path / "site" / "index.html").exists()
