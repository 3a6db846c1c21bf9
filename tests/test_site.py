"""The site: every page has its place, recipes stay under a screen, it builds without a warning."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import jupytext
import pytest
import test_docs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.md"))
with_sphinx = pytest.mark.skipif(
    not find_spec("sphinx"), reason="the extra `docs` is not installed: make install"
)
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


def documented(module: Any, names: list[str]) -> Iterator[tuple[str, str, Any]]:
    """What the reference shows of a room: kind, name and thing, members of its own classes too."""
    for name in names:
        thing, full = getattr(module, name), f"{module.__name__}.{name}"
        if not inspect.isclass(thing):
            if callable(thing):
                yield "function", full, thing
            continue
        yield "class", full, thing
        for member, value in vars(thing).items() if thing.__module__.startswith("xlens") else ():
            value = getattr(value, "__func__", value)  # of a static or class method
            if not member.startswith("_") and (callable(value) or hasattr(type(value), "__get__")):
                kind = "method" if inspect.isroutine(value) else "property"
                yield kind, f"{full}.{member}", value


@with_sphinx
def test_docstrings_are_read_without_a_warning(monkeypatch):
    """As the reference reads them; the whole site is built in a slow test."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import conf
    import reference
    from docutils.frontend import get_default_settings
    from docutils.parsers.rst import Parser
    from docutils.utils import new_document
    from sphinx.ext.napoleon import Config, GoogleDocstring
    from sphinx.util.docstrings import prepare_docstring

    parser, settings = Parser(), get_default_settings(Parser)
    settings.report_level, settings.warning_stream = 2, StringIO()
    asked = Config(napoleon_use_ivar=conf.napoleon_use_ivar)
    faults: list[str] = []
    seen: dict[int, str] = {}
    for room in reference.rooms():
        for kind, name, thing in documented(room, reference.public(room)):
            member = name.rpartition(".")[2]
            if id(thing) in seen or reference.skipped(None, kind, member, thing, False, None):
                continue
            text = inspect.getdoc(thing) or ""
            seen[id(thing)] = name
            lines = prepare_docstring(text)
            reference.told(None, kind, name, thing, None, lines)
            read = GoogleDocstring(lines, asked, what=kind, name=name, obj=thing).lines()
            if kind == "property":
                faults += [f"{name}: {line}" for line in read if line.startswith(":type:")]
            page = new_document(name, settings)
            parser.parse("\n".join([f".. default-role:: {conf.default_role}", "", *read]), page)
    faults += settings.warning_stream.getvalue().splitlines()
    assert len(seen) > 300 and not faults


@with_sphinx
def test_what_pages_import_is_in_the_reference(monkeypatch):
    """A reader of a page can look up every name of xlens that its code takes."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import reference

    rooms = reference.rooms()
    names = {f"{room.__name__}.{name}" for room in rooms for name in reference.public(room)}
    known = {id(getattr(room, name)) for room in rooms for name in reference.public(room)}
    code = [(block.page, block.text) for block in test_docs.PYTHON]
    for path in test_docs.NOTEBOOKS:
        cells = [c.source for c in jupytext.read(path).cells if c.cell_type == "code"]
        code.append((path.name, "\n\n".join(cells)))
    taken = [
        (page, node.module, alias.name)
        for page, text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xlens")
        for alias in node.names
    ]
    assert len(taken) > 50
    for page, module, name in taken:
        found = getattr(importlib.import_module(module), name)
        if not inspect.ismodule(found) and not (callable(found) and id(found) in known):
            assert f"{module}.{name}" in names, f"{page} takes {module}.{name}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@with_sphinx
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
