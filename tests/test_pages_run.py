"""Every block of README and docs runs, top to bottom, each page in one namespace and one folder."""

import re
from pathlib import Path
from typing import Any

import pytest
import shell
from stand_ins import LATER, SKIPPED, SMALL_CODE, names, standing_in
from test_docs import BLOCKS, PYTHON

# A page of an experiment is its own command, which test_notebooks runs small.
SHOWN = [
    b
    for b in BLOCKS
    if b.language in ("python", "sh", "bash") and not b.page.startswith("experiments/")
]
# A recipe needs nothing but its page, so a file that it reads stands on it.
FILES = {b.page: b.text for b in BLOCKS if b.language == "json" and "/recipes/" in b.page}
PAGES = {
    page: [b for b in SHOWN if b.page == page] for page in dict.fromkeys(b.page for b in SHOWN)
}
LINES = [line for b in SHOWN if b.language != "python" for line in shell.lines(b.text)]
OURS = [line for line in LINES if line.startswith("xlens ")]
pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_hardly_any_is_left_out():
    assert len(SKIPPED) <= len(PYTHON) / 20 and all(SKIPPED.values())
    assert len(LATER) <= len(OURS) / 20 and all(LATER.values())
    assert set(LATER) <= {shell.bare(line) for line in OURS}


def test_every_size_that_is_turned_down_is_on_a_page():
    code = [b.text for b in SHOWN if b.language == "python"]
    assert not [size for size in SMALL_CODE if not any(re.search(size, text) for text in code)]


def is_a_study(line: str) -> bool:
    return bool(shell.SMALL.keys() & set(shell.words(line)))


WITH_STUDIES = {
    page
    for page, blocks in PAGES.items()
    for b in blocks
    if b.language != "python" and any(map(is_a_study, shell.lines(b.text)))
}


# Ten seconds and more, even with their studies planned alone (all others together take a minute);
# also pages where a block reads what a study above it made.
LONG = {
    *(f"docs/{name}.md" for name in ("alignment", "core", "facts", "lens", "phases", "process")),
    *(f"docs/{name}.md" for name in ("steering", "studies", "xmrc", "recipes/checkpoints")),
}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in LONG])
def test_blocks_run_as_shown_and_studies_up_to_their_plan(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch, plan=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page in LONG | WITH_STUDIES])
def test_blocks_run_as_shown(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch, plan=False)


def run(page: str, at: Path, monkeypatch: pytest.MonkeyPatch, *, plan: bool) -> None:
    """Every block of a page; with `plan`, studies are only planned: no other block reads theirs."""
    monkeypatch.setenv("XLENS_CACHE", str(at / "cache"))
    known: dict[str, Any] = {"__name__": "page"}
    a_recipe = "/recipes/" in page
    with standing_in(page, at) as stage:
        shell.before(page)
        if a_recipe:
            Path("prompts.jsonl").unlink()
        if page in FILES:
            Path("prompts.jsonl").write_text(FILES[page], encoding="utf-8")
        known |= names(page, at)
        number = -1
        for block in PAGES[page]:
            if block.language == "python":
                number += 1
                if (page, number) not in SKIPPED:
                    code = compile(stage.code(block.text), f"{page}, block {number}", "exec")
                    exec(code, known)
            elif shell.is_a_script(block.text):
                shell.parses(block.text)
            else:
                for line in shell.lines(block.text):
                    if shell.runs(line):
                        shell.run(stage.line(line), steps=a_recipe, plan=plan)
                    else:
                        shell.check(stage.line(line))
    assert all(figure.data for figure in stage.shown)
