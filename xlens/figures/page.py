"""Figures inside HTML pages: they open from disk, need no network, follow light and dark mode."""

from typing import Any

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import theme
from xlens.html import render

PLOTLY_JS = "plotly.min.js"
HEIGHT = 450
"""Of figures that set none, in pixels."""
_COLUMN = 230  # pixels of a small plot, at least
_THEMES = {
    "light": {"ink": theme.INK, "paper": "#ffffff"},
    "dark": {"ink": "#e6e9ef", "paper": "#14171c"},
}


def _columns(fig: go.Figure) -> int:
    """Small plots beside each other."""
    axes: Any = fig.select_xaxes()
    # Plots below each other have axes of their own that begin at the same place.
    starts = {axis.domain[0] for axis in axes if axis.domain}
    return max(1, len(starts))


def figure_json(fig: go.Figure) -> str:
    """A figure as JSON on one line, as every plotly.js reads it."""
    return str(fig.to_json(pretty=False))


@typed
def figure_block(fig: go.Figure, name: str, *, label: str) -> str:
    """HTML of one figure: a place to draw in and its data, which a `page` draws.

    Args:
        fig: The figure.
        name: The id of its element: the same figure and name give the same bytes.
        label: What the figure shows, for readers who can't see it.
    """
    layout: Any = fig.layout
    size = f"height:{layout.height or HEIGHT}px"
    if layout.width:
        size += f";width:{layout.width}px"
    elif (columns := _columns(fig)) > 2:  # a narrow page scrolls them: they would overlap
        size += f";min-width:{_COLUMN * columns}px"
    # Inside a script element, where `</script>` in a label would end it.
    data = figure_json(fig).replace("<", "\\u003c")
    return render("figures/plot.html", name=name, label=label, size=size, data=data)


@typed
def page(template: str, *, title: str, plotlyjs: str = PLOTLY_JS, **given: Any) -> str:
    """A whole HTML page from a template that extends `figures/page.html`.

    Args:
        template: Its name.
        title: Of the window, plain text.
        plotlyjs: Where the page finds plotly.js.
        given: What else the template names.
    """
    shown = {"themes": _THEMES, "font": theme.FONT, "title": title, "plotlyjs": plotlyjs}
    return render(template, **shown, **given)
