"""Every block of README and docs runs, top to bottom, each page in one namespace and one folder."""

from pathlib import Path
from typing import Any

import pytest
import shell
from stand_ins import LATER, SKIPPED, names, standing_in
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


# What takes less than about three seconds; all together well below a minute.
QUICK = {
    *(f"docs/recipes/{name}.md" for name in ("cluster", "gpu", "heads", "own_prompts")),
    *(f"docs/recipes/{name}.md" for name in ("own_vector", "pca")),
    "docs/consistency.md",
}


@pytest.mark.parametrize(
    "page", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PAGES]
)
def test_blocks_run_as_shown(page, tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    known: dict[str, Any] = {"__name__": "page"}
    a_recipe = "/recipes/" in page
    with standing_in(page, tmp_path) as stage:
        shell.before(page)
        if a_recipe:
            Path("prompts.jsonl").unlink()
        if page in FILES:
            Path("prompts.jsonl").write_text(FILES[page], encoding="utf-8")
        known |= names(page, tmp_path)
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
                for line in shell.lines(stage.code(block.text)):
                    if shell.runs(line):
                        shell.run(line, steps=a_recipe)
                    else:
                        shell.check(line)
    assert all(figure.data for figure in stage.shown)
