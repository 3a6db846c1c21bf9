"""What a release says of itself: links on an index, versions, forms of issues, what is shipped."""

import fnmatch
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

import xlens

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.fixture
def hook(monkeypatch) -> ModuleType:
    """`hatch_build`, where hatchling need not be installed."""
    stub = SimpleNamespace(MetadataHookInterface=object)
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", stub)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_an_index(hook: ModuleType, source: str) -> str:
    asked = hook.Readme()
    asked.root = str(ROOT)
    told = {"urls": {"Source": source}} if source else {}
    asked.update(told)
    assert told["readme"]["content-type"] == "text/markdown"
    return told["readme"]["text"]


def test_links_and_pictures_lead_to_the_release(hook):
    text = on_an_index(hook, "https://example.org/x/xlens/")
    at = f"https://example.org/x/xlens/%s/v{xlens.__version__}/"
    assert f"]({at % 'raw'}docs/images/de_ru.png)" in text
    assert f"[Start]({at % 'blob'}docs/start.md)" in text
    assert all(re.match("https://|#", to) for to in re.findall(r"\]\(([^)]+)\)", text))


def test_without_an_address_nothing_dead_is_shown(hook):
    text = on_an_index(hook, "")
    assert "![" not in text and "- Start: install" in text
    assert all(to.startswith("https://") for to in re.findall(r"\]\(([^)]+)\)", text))


def test_the_changelog_tells_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (date,) = re.findall(rf"^## \[{re.escape(xlens.__version__)}\] - (.+)$", text, re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["date-released"]) == date and cited["version"] == xlens.__version__
    part = text.split(f"[{xlens.__version__}]")[1].split("\n## ")[0]
    assert [h for h in ("### Added", "### Fixed", "### Changed") if h not in part] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates_are_forms(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert "blank_issues_enabled" in form
        return
    assert form["name"] and form["description"]
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) >= 2
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations", {}).get("required") for part in asked)


def test_the_sdist_ships_all_that_is_tracked():
    """So that its tests find what they read; `make dist` unpacks one and runs some."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("what is tracked is only known in a checkout, with git")
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    shipped = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    always = ("pyproject.toml", ".gitignore", "LICENSE")  # by hatchling itself
    left = [
        name
        for name in told.stdout.splitlines()
        if name not in (*always, ".pre-commit-config.yaml")
        and not any(fnmatch.fnmatch(f"/{name}/", f"{pattern}/*") for pattern in shipped)
    ]
    assert not left
