"""Every Python block of README and docs runs, top to bottom, each page in one namespace."""

from typing import Any

import pytest
from stand_ins import SKIPPED, names, standing_in
from test_docs import PYTHON

PAGES = {
    page: [b for b in PYTHON if b.page == page] for page in dict.fromkeys(b.page for b in PYTHON)
}
pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_hardly_any_is_left_out():
    assert len(SKIPPED) <= len(PYTHON) / 20 and all(SKIPPED.values())


LONG_PAGES = ("choices", "facts", "phases", "process", "start", "steering", "xmrc")
LONG = tuple(f"docs/{name}.md" for name in LONG_PAGES)
LONG += tuple(
    f"docs/recipes/{name}.md" for name in ("checkpoints", "heads", "neurons", "own_vector", "pca")
)


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow) if p in LONG else p for p in PAGES]
)
def test_blocks_run_as_shown(page, tmp_path):
    known: dict[str, Any] = {"__name__": "page"}
    with standing_in(page, tmp_path) as stage:
        known |= names(page, tmp_path)
        for number, block in enumerate(PAGES[page]):
            if (page, number) not in SKIPPED:
                exec(compile(stage.code(block.text), f"{page}, block {number}", "exec"), known)
    assert all(figure.data for figure in stage.shown)
