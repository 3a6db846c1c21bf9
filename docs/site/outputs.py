"""Takes the notebooks' outputs: `make notebooks`, the one way, after their .py halves.

Each is run on its own model at its own size. What the outputs are of is written beside them, so
that a test can tell old ones (tests/test_notebooks.py).
"""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

import xlens
from xlens.store import digest
from xlens.tasks.choices import choice_prompts, cldr_choices
from xlens.tasks.facts import cldr_facts, fact_prompts

ROOT = Path(__file__).parents[2]
INTERACTIVE = "application/vnd.plotly.v1+json"
LARGEST = 40_000
"""Characters of an interactive figure; of a larger one only the picture stays."""
SAID = {
    "PLOTLY_RENDERER": "plotly_mimetype+png",  # one for the site and Jupyter, one for all else
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of the machine, which is not the reader's
}


def about(notebook: Any) -> dict[str, str]:
    """What outputs are of: digests of the cells' code and of the package's prompts."""
    cells = [c.source for c in notebook.cells if c.cell_type == "code"]
    return {"cells": digest(cells), "prompts": digest(prompts())}


@cache
def prompts() -> list[str]:
    """What the package asks by default: other texts give other outputs of the same cells."""
    words = xlens.cldr_words(["de", "en"], ["weekday", "month"])
    facts = cldr_facts(["en", "de"], ["currency"])
    choices = cldr_choices(["en", "de"], ["next-month"])
    asked = [
        *xlens.translation_prompts(words, "de", "en"),
        *choice_prompts(choices, "de", shots=2)[0],
        *fact_prompts(facts, "de"),
    ]
    return [p.text for p in asked]


def taken(path: Path) -> Any:
    """The notebook of a .py half, with its outputs."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same each time
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources=where,
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    without_large(notebook)
    notebook.metadata["jupytext"] = {"formats": notebook.metadata["jupytext"]["formats"]}
    notebook.metadata["xlens"] = about(notebook)
    return notebook


def without_large(notebook: Any) -> None:
    """Leave the interactive form of large figures out; each has its picture beside it."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).get(INTERACTIVE)
            if figure is not None and len(json.dumps(figure, ensure_ascii=False)) > LARGEST:
                del output["data"][INTERACTIVE]


def main() -> None:
    """Take those that are named, or all."""
    named = [Path(name) for name in sys.argv[1:]]
    os.environ.update(SAID)
    for path in named or sorted((ROOT / "notebooks").glob("*.py")):
        print(path.stem, flush=True)
        nbformat.write(taken(path), path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
