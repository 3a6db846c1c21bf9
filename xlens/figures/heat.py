"""Labels in the cells of heat maps: each in the ink that can be read on its cell."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale

from xlens.wording import rounded

LIGHT, DARK = "#ffffff", "#000000"
"""One of the two has a contrast of 4.5 or more on any colour."""
Cells = Sequence[Sequence[float | None]]


def label_cells(
    fig: go.Figure,
    values: Cells,
    *,
    x: Sequence[Any],
    y: Sequence[Any],
    scale: str,
    ends: tuple[float, float],
    text: Sequence[Sequence[str]] | None = None,
    size: int = 10,
    place: Mapping[str, int] | None = None,
) -> None:
    """Write into the cells of a heat map; cells without a value stay empty.

    Plotly's own labels are hard to read on middle tones, and of one colour where one is given.

    Args:
        fig: Changed in place.
        values: Of the cells, rows down.
        x: Of the columns.
        y: Of the rows.
        scale: Plotly's name of the heat map's colours.
        ends: Values of its first and its last colour.
        text: Of the cells; default the values with two decimals.
        size: Of the letters.
        place: `row` and `col` of the small plot, where there are several.
    """
    cells = [
        (x[j], y[i], rounded(value, ".2f") if text is None else text[i][j], value)
        for i, row in enumerate(values)
        for j, value in enumerate(row)
        if value is not None and value == value
    ]
    fig.add_scatter(
        x=[cell[0] for cell in cells],
        y=[cell[1] for cell in cells],
        text=[cell[2] for cell in cells],
        mode="text",
        textfont={"size": size, "color": [ink_on(color_at(c[3], scale, ends)) for c in cells]},
        hoverinfo="skip",
        showlegend=False,
        **(place or {}),
    )


def color_at(value: float, scale: str, ends: tuple[float, float]) -> tuple[float, float, float]:
    """The colour of a value: red, green and blue from 0 to 1."""
    low, high = ends
    share = (value - low) / (high - low) if high > low else 0.0
    found: Any = sample_colorscale(
        get_colorscale(scale), min(max(share, 0.0), 1.0), colortype="tuple"
    )[0]
    return found


def ink_on(color: tuple[float, float, float]) -> str:
    """White or black, whichever has more contrast on a colour."""
    return max((LIGHT, DARK), key=lambda ink: contrast(_parts(ink), color))


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Contrast of two colours by WCAG 2, from 1 to 21."""
    darker, lighter = sorted(map(_luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: tuple[float, float, float]) -> float:
    # sRGB back to light; the weights are how bright the eye finds red, green and blue.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _parts(ink: str) -> tuple[float, float, float]:
    red, green, blue = (int(ink[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
