"""How every page of a report is put together and written."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from xlens import files
from xlens.figures import Figure, page, write_figures
from xlens.report.blocks import Paragraph, Section, said
from xlens.report.minute import Minute, contents, example_section, minute_blocks, model_lines
from xlens.report.reproduce import reproduce
from xlens.report.rounding import sampled
from xlens.runs import RunDirectory

_PLOTLY = "../plotly.min.js"


def write_page(
    run: RunDirectory,
    title: str,
    sections: Iterable[Section],
    made_by: list[dict[str, Any]],
    figures: Mapping[str, Figure] | None = None,
    static: Collection[str] = (),
    *,
    minute: Mapping[str, Minute],
    offered: Iterable[str] = (),
    template: str = "page",
    **opening: Any,
) -> Path:
    """Write the figures, `report.html`, and then the pictures, which may not be possible here.

    Args:
        run: Whose page it is.
        title: Of the page.
        sections: In order; how to reproduce them comes last.
        made_by: Provenances of the results, for how to have them again.
        figures: By file name; None where a page has none.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`.
        minute: What is read first, by what each model is called.
        offered: What is said of what was asked about, before the sections.
        template: Of `report/templates`: extends `page`, and writes the opening.
        opening: What the template names.

    Raises:
        StaticExportError: the pictures can't be drawn here; the page is written.
    """
    if figures is not None:
        write_figures(figures, run.figures, plotlyjs=_PLOTLY)
    parts = [*example_section(minute), *sections, *sampled(run), reproduce(run, made_by)]
    html = page(
        f"report/{template}.html",
        title=title,
        started=run.provenance.get("started"),
        minute=minute_blocks(minute),
        models=[Paragraph(text, "quiet") for text in model_lines(made_by)],
        contents=contents(parts),
        offered=[block for text in offered for block in said(text)],
        sections=parts,
        **opening,
    )
    files.write(run.report_file, html)
    if figures is not None and static:
        write_figures(figures, run.figures, static=static, plotlyjs=_PLOTLY)
    return run.report_file
