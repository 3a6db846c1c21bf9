"""Figures inside HTML pages: they open from disk, need no network, follow light and dark mode."""

import html
import json
from typing import Any

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import theme

PLOTLY_JS = "plotly.min.js"
HEIGHT = 450
"""Of figures that set none, in pixels."""
_DARK = "#e6e9ef"
_PAPER = {"light": "#ffffff", "dark": "#14171c"}

STYLE = f"""\
:root {{
  color-scheme: light dark;
  --ink: {theme.INK}; --paper: {_PAPER["light"]}; --quiet: #5b6270; --rule: #d9dce2;
  --link: #1f5f99; --soft: #f4f5f7;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ink: {_DARK}; --paper: {_PAPER["dark"]}; --quiet: #a6adba; --rule: #363b45;
    --link: #7db5e8; --soft: #1c2027;
  }}
}}
body {{ margin: 0; color: var(--ink); background: var(--paper); font: 16px/1.55 {theme.FONT}; }}
.plot {{ overflow-x: auto; }}
.plot > div {{ width: 100%; }}
"""
"""Colours and fonts of every page; a report adds its own rules."""

# Figures are drawn when they come near the screen (a report may hold a hundred), or are printed.
# The tool bar has no button that sends data anywhere, which Plotly's own has.
SCRIPT = (
    """\
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = THEMES;
  const config = {
    responsive: true, displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  const drawn = [];
  const paint = () => {
    const t = themes[dark.matches ? "dark" : "light"];
    return { "font.color": t.ink, "hoverlabel.bgcolor": t.paper, "hoverlabel.font.color": t.ink };
  };
  const draw = (data) => {
    const div = document.getElementById(data.dataset.figure);
    if (drawn.includes(div)) return;
    drawn.push(div);
    const fig = JSON.parse(data.textContent), t = themes[dark.matches ? "dark" : "light"];
    fig.layout.font = { ...fig.layout.font, color: t.ink };
    fig.layout.hoverlabel = { ...fig.layout.hoverlabel, bgcolor: t.paper, font: { color: t.ink } };
    Plotly.newPlot(div, fig.data, fig.layout, config);
  };
  const all = [...document.querySelectorAll("script[data-figure]")];
  const near = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) {
      near.unobserve(e.target);
      draw(all.find((data) => data.dataset.figure === e.target.id));
    }
  }, { rootMargin: "1000px" });
  for (const data of all) near.observe(document.getElementById(data.dataset.figure));
  addEventListener("beforeprint", () => all.forEach(draw));
  dark.addEventListener("change", () => drawn.forEach((div) => Plotly.relayout(div, paint())));
})();
"""
).replace(
    "THEMES",
    json.dumps(
        {
            "light": {"ink": theme.INK, "paper": _PAPER["light"]},
            "dark": {"ink": _DARK, "paper": _PAPER["dark"]},
        }
    ),
)
"""Draws every `figure_block` of the page it ends, and redraws them when the mode changes."""


def figure_json(fig: go.Figure) -> str:
    """A figure as JSON on one line, as every plotly.js reads it."""
    return str(fig.to_json(pretty=False))


@typed
def figure_block(fig: go.Figure, name: str, *, label: str) -> str:
    """HTML of one figure: a place to draw in and its data; `SCRIPT` draws it.

    Args:
        fig: The figure.
        name: The id of its element: the same figure and name give the same bytes.
        label: What the figure shows, for readers who can't see it.
    """
    # "<" never occurs in the data, so that no text in it can end the script.
    data = figure_json(fig).replace("<", "\\u003c")
    layout: Any = fig.layout
    size = f"height:{layout.height or HEIGHT}px"
    if layout.width:
        size += f";width:{layout.width}px"
    key = html.escape(name)
    return (
        f'<div class="plot"><div id="{key}" role="img" aria-label="{html.escape(label)}" '
        f'style="{size}"></div></div>\n'
        f'<script type="application/json" data-figure="{key}">{data}</script>\n'
    )


@typed
def page(title: str, body: str, *, plotlyjs: str = PLOTLY_JS, style: str = "") -> str:
    """A whole HTML page around `body`, which is HTML; `title` is plain text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}{style}</style>\n"
        f'<script src="{html.escape(plotlyjs)}"></script>\n</head>\n<body>\n'
        f"{body}<noscript><p>The figures need JavaScript.</p></noscript>\n"
        f"<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
