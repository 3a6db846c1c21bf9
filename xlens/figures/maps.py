"""Maps: every item of every language as a point, layer by layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.subspace import POOLED, spaced
from xlens.subspace.maps import LanguageMap
from xlens.wording import number_of, percent

_SIDE = 250
"""Height of a small map, in pixels."""
_SLIDER = 124
"""From the axis to below the slider, in pixels."""
_TURN = 40
"""Corners of an ellipse."""


@typed
def language_maps(
    result: LanguageMap,
    *,
    layers: Sequence[int] | None = None,
    colors: Mapping[str, str] | None = None,
    columns: int = 3,
) -> go.Figure:
    """Maps of some layers beside each other.

    Small points are items, large ones centroids; an ellipse is one standard deviation of a
    language's cloud. Above each map: how much of all variance it shows, and the share of the map's
    variance that lies between languages, with what shuffled languages get.

    Args:
        result: What to draw.
        layers: Residual points; by default up to six, from the lowest to the highest.
        colors: Colours by language for the whole report.
        columns: Maps beside each other.

    Raises:
        ValueError: a layer that isn't there, or a language without a colour.
    """
    layers = spaced(result.layers, 6) if layers is None else list(layers)
    colors = _checked(result, layers, colors)
    columns = max(1, min(columns, len(layers)))
    rows = -(-len(layers) // columns)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_subtitle(result, layer) for layer in layers],
        horizontal_spacing=0.04,
        vertical_spacing=56 / (_SIDE * rows),
    )
    fig.update_annotations(font_size=11)
    for i, layer in enumerate(layers):
        for trace in _traces(result, layer, colors, 1.0, legend=i == 0):
            fig.add_trace(trace, row=i // columns + 1, col=i % columns + 1)
        # As wide as high, or the ellipses would lie.
        anchor = f"x{i + 1}" if i else "x"
        fig.update_yaxes(scaleanchor=anchor, row=i // columns + 1, col=i % columns + 1)
    fig.update_xaxes(showticklabels=False, ticks="")
    fig.update_yaxes(showticklabels=False, ticks="")
    names = [theme.language_label(tag) for tag in bands.in_order(set(result.languages), colors)]
    return _finished(fig, result, names, _SIDE * rows, "each map has its own axes and scale")


@typed
def language_map_animation(
    result: LanguageMap, *, colors: Mapping[str, str] | None = None
) -> go.Figure:
    """One map with a slider and a button that go through the layers.

    It opens where languages are told apart best (`LanguageMap.telling`).

    Coordinates are divided by the root mean square distance from the centre, as layers differ in
    scale by orders of magnitude.

    Args:
        result: What to draw.
        colors: As in `language_maps`.

    Raises:
        ValueError: a language without a colour.
    """
    layers = list(result.layers)
    colors = _checked(result, layers, colors)
    frames: list[go.Frame] = []
    reach = 0.0
    for layer in layers:
        here = result.points[result.points["layer"] == layer]
        # 1 where nothing varies: all points are 0 there.
        size = math.sqrt(float((here["x"] ** 2 + here["y"] ** 2).mean())) or 1.0
        reach = max(reach, float(here[["x", "y"]].abs().to_numpy().max()) / size)
        frames.append(
            go.Frame(
                data=_traces(result, layer, colors, size, legend=True),
                name=str(layer),
                layout={"annotations": [_corner(result, layer)]},
            )
        )
    opens = layers.index(result.telling)
    # What is seen before anything is played; frames replace these traces one for one.
    fig = go.Figure(data=frames[opens].data, frames=frames)
    span = [-1.05 * reach, 1.05 * reach]
    fig.update_xaxes(range=span, title_text="first axis (in root mean square distances)")
    fig.update_yaxes(range=span, title_text="second axis", scaleanchor="x")
    play: dict[str, Any] = {"frame": {"duration": 700}, "transition": {"duration": 300}}
    stop: dict[str, Any] = {"mode": "immediate", "frame": {"duration": 0}}
    steps = [{"label": f.name, "method": "animate", "args": [[f.name], stop]} for f in frames]
    fig.update_layout(
        annotations=[_corner(result, layers[opens])],
        sliders=[
            {
                "active": opens,
                "steps": steps,
                "currentvalue": {"prefix": "residual point ", "font": {"size": 12}},
                "pad": {"t": 40, "l": 96},  # the buttons' width, whatever the page's
            }
        ],
        updatemenus=[
            {
                "type": "buttons",
                "direction": "left",
                "x": 0,
                "xanchor": "left",
                "y": 0,
                "yanchor": "top",
                "pad": {"t": 62},
                "showactive": False,
                "buttons": [
                    {"label": "▶", "method": "animate", "args": [None, play]},
                    {"label": "❚❚", "method": "animate", "args": [[None], stop]},
                ],
            }
        ],
    )
    names = [theme.language_label(tag) for tag in bands.in_order(set(result.languages), colors)]
    tall = 420
    fig = _finished(fig, result, names, tall, "signs follow the layer below")
    layout: Any = fig.layout
    # The slider is between the map and its legend, which follows it: many names that take a few
    # rows of a wide page would leave a gap above them if they stood at the bottom.
    below = {"y": -_SLIDER / tall}
    return fig.update_layout(margin_b=layout.margin.b + 90, height=layout.height + 90, legend=below)


def _traces(
    result: LanguageMap, layer: int, colors: Mapping[str, str], scale: float, *, legend: bool
) -> list[go.Scatter]:
    """Per language: points, ellipse, centroid; always three, so that frames match."""
    points = result.points[result.points["layer"] == layer]
    here = result.centroids[result.centroids["layer"] == layer]
    clouds: dict[str, Any] = {row["language"]: row for row in here.to_dict("records")}
    out: list[go.Scatter] = []
    for tag in bands.in_order(set(result.languages), colors):
        color, symbol = theme.color_of(colors, tag), theme.symbol_of(colors, tag)
        name = theme.language_label(tag)
        mine = points[points["language"] == tag]
        cloud = clouds[tag]
        ring = _ellipse(cloud)
        shared: dict[str, Any] = {"legendgroup": tag, "name": name}
        out += [
            go.Scatter(
                x=(mine["x"] / scale).tolist(),
                y=(mine["y"] / scale).tolist(),
                text=[theme.plain(theme.isolate(i)) for i in mine["id"]],
                mode="markers",
                marker={"size": 4, "color": color, "opacity": 0.45, "symbol": symbol},
                hovertemplate=f"{name}<br>%{{text}}<extra></extra>",
                showlegend=False,
                **shared,
            ),
            go.Scatter(
                x=[x / scale for x, _ in ring],
                y=[y / scale for _, y in ring],
                mode="lines",
                line={"color": color, "width": 1.5},
                hoverinfo="skip",
                showlegend=False,
                **shared,
            ),
            go.Scatter(
                x=[float(cloud["x"]) / scale],
                y=[float(cloud["y"]) / scale],
                mode="markers",
                marker={
                    "size": 11,
                    "color": color,
                    "symbol": symbol,
                    "line": {"width": 1.5, "color": "white"},
                },
                hovertemplate=f"{name}: mean of {int(cloud['n'])}<extra></extra>",
                showlegend=legend,
                **shared,
            ),
        ]
    return out


def _ellipse(cloud: Mapping[str, Any]) -> list[tuple[float, float]]:
    cos, sin = math.cos(cloud["angle"]), math.sin(cloud["angle"])
    ring: list[tuple[float, float]] = []
    # One more than corners: the ring ends where it began.
    for i in range(_TURN + 1):
        along = float(cloud["sd_major"]) * math.cos(2 * math.pi * i / _TURN)
        across = float(cloud["sd_minor"]) * math.sin(2 * math.pi * i / _TURN)
        x = float(cloud["x"]) + along * cos - across * sin
        ring.append((x, float(cloud["y"]) + along * sin + across * cos))
    return ring


def _subtitle(result: LanguageMap, layer: int) -> str:
    return f"point {layer}: {_shown(result, layer)}<br>{_apart(result, layer)}"


def _corner(result: LanguageMap, layer: int) -> dict[str, Any]:
    return {
        "text": f"{_shown(result, layer)} · {_apart(result, layer)}",
        **{
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
        },
        **{"showarrow": False, "font": {"size": 11}},
    }


def _shown(result: LanguageMap, layer: int) -> str:
    shares = result.axes[result.axes["layer"] == layer].sort_values("axis")["explained"]
    return f"shows {percent(float(shares.sum(skipna=False)))} of variance"


def _apart(result: LanguageMap, layer: int) -> str:
    table = result.separation
    table = table[(table["layer"] == layer) & (table["where"] == "map")].set_index("kind")["mean"]
    value, shuffled = (percent(float(table.get(k, math.nan))) for k in ("value", "shuffled"))
    return f"{value} between languages (shuffled {shuffled})"


def _checked(
    result: LanguageMap, layers: Sequence[int], colors: Mapping[str, str] | None
) -> Mapping[str, str]:
    if missing := sorted(set(layers) - set(result.layers)):
        raise InputError(f"No layers {missing} on this map; there are {list(result.layers)}.")
    return theme.language_colors(result.languages) if colors is None else colors


def _finished(
    fig: go.Figure, result: LanguageMap, names: list[str], height: int, more: str
) -> go.Figure:
    fig.update_layout(hovermode="closest")
    n = result.points["id"].nunique()
    notes = [
        f"{number_of(n, 'item')} in {number_of(len(result.languages), 'language')} · "
        f"{POOLED.get(result.pooling, result.pooling)} · {result.estimator}",
        f"large: means · ellipse: one standard deviation · {more}",
    ]
    return theme.finish(
        fig,
        title="Where the languages lie",
        notes=notes,
        height=height,
        legend=names,
        subtitles=True,
    )
