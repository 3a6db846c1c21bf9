"""How every page of a report is put together and written."""

from collections.abc import Collection, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from xlens import files
from xlens.figures import Figure, page, write_figures
from xlens.report.reproduce import reproduce
from xlens.report.style import STYLE
from xlens.runs import RunDirectory

_PLOTLY = "../plotly.min.js"


def heading(title: str) -> str:
    """The page's first lines."""
    return f"<header>\n<h1>{escape(title)}</h1>\n</header>"


def write_page(
    run: RunDirectory,
    title: str,
    sections: Iterable[str],
    made_by: list[dict[str, Any]],
    figures: Mapping[str, Figure] | None = None,
    static: Collection[str] = (),
) -> Path:
    """Write the figures, `report.html`, and then the pictures, which may not be possible here.

    Args:
        run: Whose page it is.
        title: Of the window.
        sections: HTML, from the heading on.
        made_by: Provenances of the results, for how to have them again.
        figures: By file name; None where a page has none.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`.

    Raises:
        StaticExportError: the pictures can't be drawn here; the page is written.
    """
    if figures is not None:
        write_figures(figures, run.figures, plotlyjs=_PLOTLY)
    body = "\n".join(["<main>", *sections, reproduce(run, made_by), "</main>\n"])
    files.write(run.report_file, page(title, body, style=STYLE))
    if figures is not None and static:
        write_figures(figures, run.figures, static=static, plotlyjs=_PLOTLY)
    return run.report_file
