"""Notebooks' figures on the site: interactive, drawn by the plotly.js that the package carries."""

import json
import shutil
from pathlib import Path
from typing import Any

import plotly

MIME = "application/vnd.plotly.v1+json"
SCRIPT = "plotly.min.js"


def drawn(app: Any, page: str, source: list[str]) -> None:
    """Give every plotly output of a notebook the HTML that shows it."""
    if not page.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    for number, output in enumerate(outputs):
        figure = output.get("data", {}).pop(MIME, None)
        if figure is not None:
            about = json.dumps([figure["data"], figure["layout"]], ensure_ascii=False)
            about = about.replace("</", "<\\/")
            name = f"figure-{number}"
            output["data"] = {
                "text/html": f'<div id="{name}"></div><script>Plotly.newPlot("{name}", '
                f"...{about}, {{responsive: true}})</script>"
            }
    source[0] = json.dumps(notebook)


def with_script(app: Any, page: str, template: str, context: Any, tree: Any) -> None:
    if page.startswith("notebooks/"):
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
