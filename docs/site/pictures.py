"""Notebooks' figures on the site: interactive, drawn by the plotly.js that the package carries."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import plotly
from plotly.utils import PlotlyJSONEncoder

import xlens

MIME = "application/vnd.plotly.v1+json"
SCRIPT = "plotly.min.js"
# As on the pages of runs: where nothing hovers, the tools would lie on the title for good.
_CONFIG = (
    '{responsive: true, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false}'
)
_GITHUB = "https://github.com/"


def interactive(name: str, figure: dict[str, Any]) -> str:
    """The HTML that shows a figure; `name` is its element's."""
    about = json.dumps(
        [figure["data"], figure["layout"]], ensure_ascii=False, cls=PlotlyJSONEncoder
    )
    about = about.replace("</", "<\\/")
    draw = f'Plotly.newPlot("{name}", ...{about}, {_CONFIG})'
    return (
        f'<div id="{name}" class="paper"></div>'
        f'<script>addEventListener("DOMContentLoaded", () => {draw})</script>'
    )


def drawn(app: Any, page: str, source: list[str]) -> None:
    """Give every plotly output of a notebook the HTML that shows it."""
    if not page.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    if badge := colab(page):
        notebook["cells"][0]["source"] = [*notebook["cells"][0]["source"], f"\n\n{badge}"]
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    for number, output in enumerate(outputs):
        figure = output.get("data", {}).pop(MIME, None)
        if figure is not None:
            output["data"] = {"text/html": interactive(f"figure-{number}", figure)}
    source[0] = json.dumps(notebook)


def colab(page: str) -> str:
    """The badge that opens a notebook on Colab; empty while the repository has no address."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    told = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    source = told.get("urls", {}).get("Source", "").rstrip("/")
    if not source.startswith(_GITHUB):
        return ""
    at = f"{source.removeprefix(_GITHUB)}/blob/v{xlens.__version__}/{page}.ipynb"
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{at})"
    )


def with_script(app: Any, page: str, template: str, context: Any, tree: Any) -> None:
    if page.startswith("notebooks/") or page == "docs/gallery":
        app.add_js_file(SCRIPT)


def copied(app: Any, failed: Exception | None) -> None:
    if failed is None and app.builder.format == "html":
        carried = Path(plotly.__file__).parent / "package_data" / SCRIPT
        shutil.copy(carried, Path(app.outdir) / "_static" / SCRIPT)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", drawn)
    app.connect("html-page-context", with_script)
    app.connect("build-finished", copied)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
