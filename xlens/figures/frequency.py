"""Recall by how often a corpus states a fact; what a threshold is worth; the four groups."""

from collections.abc import Sequence
from math import log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from xlens.acquisition import FrequencyResponse
from xlens.acquisition.response import DIFFERENT, EVERY, OTHER_OBJECT
from xlens.acquisition.threshold import GROUPS
from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.whiskers import whiskers
from xlens.wording import number_of

_NEVER = 0.4
"""Where facts of frequency 0 stand on a logarithmic axis."""
_SEEN = {
    EVERY: "all facts",
    DIFFERENT: "without pairs written as in the pivot",
    OTHER_OBJECT: "without objects written as in the pivot",
}
_TICKS = 5  # of a small plot's axis
_COLUMNS = dict(zip(GROUPS.values(), ("tp", "fp", "fn", "tn"), strict=True))


@typed
def frequency_curves(result: FrequencyResponse, facts: str = EVERY) -> go.Figure:
    """Share recalled by bins of frequency, a plot per language, with the isotonic fit.

    Facts that nothing states stand by themselves on the left. A marker's size says how many facts
    a bin holds.

    Args:
        result: From `xlens.acquisition.frequency_response`.
        facts: `every`, `different` (without pairs that are the pivot's strings) or `other object`.

    Raises:
        ValueError: other facts than these, or none of them.
    """
    bins = _of(result.bins, facts)
    bins = bins[(bins["language"] != "all") & (bins["n"] > 0)]
    curves = _of(result.curves, facts)
    tags = list(dict.fromkeys(bins["language"]))
    colors = theme.language_colors(tags, pivot=result.pivot)
    tags = [tag for tag in colors if tag in tags]
    n = bins.groupby("language")["n"].sum()
    titles = [f"{theme.language_label(t)} ({number_of(int(n[t]), 'fact')})" for t in tags]
    fig, places = theme.small_plots(titles, columns=2, height=190, apart=0.12)
    for tag, place in zip(tags, places, strict=True):
        own, color = bins[bins["language"] == tag], theme.color_of(colors, tag)
        fit = curves[curves["language"] == tag]
        fig.add_scatter(
            x=[f or _NEVER for f in fit["frequency"].tolist()],
            y=fit["share"].tolist(),
            mode="lines",
            line={"color": color, "width": 1, "dash": "dot"},
            hovertemplate="isotonic fit %{y:.2f}<extra></extra>",
            showlegend=False,
            **place,
        )
        for part, symbol in ((own["most"] == 0, "diamond-open"), (own["most"] > 0, "circle")):
            _points(fig, own[part], color, symbol, **place)
    _axes(fig, places, float(bins["most"].max()))
    return theme.finish(
        fig,
        title="Recall by how often a fact is stated",
        notes=[
            _SEEN[facts],
            "bars: interval over facts · dotted: the best curve that never falls",
            "diamonds: facts that nothing states · size: how many facts",
        ],
        height=190 * places[-1]["row"],
        subtitles=True,
    )


def _points(fig: go.Figure, rows: pd.DataFrame, color: str, symbol: str, **place: Any) -> None:
    if rows.empty:
        return
    fig.add_scatter(
        x=[centre or _NEVER for centre in rows["centre"].tolist()],
        y=rows["share"].tolist(),
        customdata=rows[["n", "low", "high"]].to_numpy().tolist(),
        error_y=whiskers(rows["share"], rows["low"], rows["high"]),
        mode="markers",
        marker={
            "color": color,
            "symbol": symbol,
            # By digits: facts by frequency differ by powers of ten.
            "size": [4 + 2 * min(len(str(n)), 4) for n in rows["n"].tolist()],
        },
        hovertemplate="%{y:.2f} [%{customdata[1]:.2f}, %{customdata[2]:.2f}] of %{customdata[0]} "
        "facts<extra></extra>",
        showlegend=False,
        **place,
    )


def _axes(fig: go.Figure, places: Sequence[dict[str, Any]], most: float) -> None:
    last = len(str(int(most)))
    # With a step that is rounded up: about _TICKS of them, whatever the largest count is.
    decades = range(0, last + 1, -(-last // _TICKS))
    fig.update_xaxes(
        type="log",
        range=[log10(_NEVER) - 0.2, log10(most) + 0.2],
        tickvals=[_NEVER, *(10**k for k in decades)],
        ticktext=["0", *(f"10<sup>{k}</sup>" if k > 3 else f"{10**k:,}" for k in decades)],
        showticklabels=True,
    )
    fig.update_yaxes(range=[-0.03, 1.05])
    # The last place of each column is its lowest: later ones take the place of earlier ones.
    bottom = {place["col"]: place for place in places}
    for place in bottom.values():
        fig.update_xaxes(title="documents", **place)
    for place in places:
        if place["col"] == 1:
            fig.update_yaxes(title="recalled", **place)


@typed
def threshold_bars(result: FrequencyResponse) -> go.Figure:
    """How many facts the best threshold of frequency tells rightly, and the majority alone.

    A plot for each choice of facts.
    """
    fig, views, places = _by_view(result)
    shown = {
        "held out": ("held_out", theme.PALETTE[0]),
        "on the facts it was chosen on": ("accuracy", theme.translucent(theme.PALETTE[0], 0.4)),
        "always the same": ("majority", theme.NEUTRAL),
    }
    for view, place in zip(views, places, strict=True):
        rows = result.thresholds[result.thresholds["facts"] == view]
        for name, (column, color) in shown.items():
            value = rows[column]
            bars: dict[str, Any] = {}
            if column == "held_out":
                ends = rows["beyond"], rows["beyond_low"], rows["beyond_high"]
                bars["error_y"] = whiskers(*ends)
            fig.add_bar(
                x=[theme.language_label(tag) for tag in rows["language"]],
                y=theme.numbers(value),
                name=name,
                legendgroup=name,
                showlegend=place is places[0],
                marker_color=color,
                hovertemplate="%{y:.3f}",
                **bars,
                **place,
            )
    fig.update_yaxes(range=[0, 1], title="told rightly")
    return theme.finish(
        fig,
        title="What a threshold of frequency tells of recall",
        notes=["intervals: of what held-out accuracy has over always saying the same"],
        height=220 * len(views),
        legend=list(shown),
        subtitles=True,
    )


@typed
def frequency_groups(result: FrequencyResponse) -> go.Figure:
    """Frequent and rare facts, right and wrong, by each language's threshold.

    A plot for each choice of facts. Rare facts that are right may have been carried over.
    """
    fig, views, places = _by_view(result)
    right, wrong = theme.PALETTE[0], theme.PALETTE[1]
    colors = {
        "frequent, right": right,
        "rare, right": theme.translucent(right, 0.45),
        "frequent, wrong": wrong,
        "rare, wrong": theme.translucent(wrong, 0.45),
    }
    assert set(colors) == set(GROUPS.values())
    for view, place in zip(views, places, strict=True):
        rows = result.thresholds[result.thresholds["facts"] == view]
        total = rows[list(_COLUMNS.values())].sum(axis=1)
        for name, color in colors.items():
            fig.add_bar(
                x=[theme.language_label(tag) for tag in rows["language"]],
                y=(rows[_COLUMNS[name]] / total).tolist(),
                customdata=rows[_COLUMNS[name]].tolist(),
                name=name,
                legendgroup=name,
                showlegend=place is places[0],
                marker_color=color,
                hovertemplate="%{customdata} facts, %{y:.2f}",
                **place,
            )
    fig.update_layout(barmode="stack")
    fig.update_yaxes(range=[0, 1], title="share of facts")
    return theme.finish(
        fig,
        title="Frequent and rare facts, right and wrong",
        notes=["frequent: stated as often as the language's best threshold, or more"],
        height=220 * len(views),
        legend=list(colors),
        subtitles=True,
    )


def _by_view(result: FrequencyResponse) -> tuple[go.Figure, list[str], list[dict[str, Any]]]:
    views = [str(view) for view in dict.fromkeys(result.thresholds["facts"])]
    fig, places = theme.small_plots([_SEEN[v] for v in views], columns=1, height=220)
    return fig, views, places


def _of(table: pd.DataFrame, facts: str) -> pd.DataFrame:
    found = table[table["facts"] == facts]
    if found.empty:
        there = ", ".join(dict.fromkeys(table["facts"]))
        raise InputError(f"There are no bins of facts={facts!r}; there are those of {there}.")
    return found
