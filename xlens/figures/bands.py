"""Pieces of the figures about the lens: bands by layer, the layer axis, colours, sample sizes."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import theme
from xlens.lens.result import LensSummary
from xlens.wording import number_of, percent, range_of

CHANCE = "thin dotted: the same states, read for other prompts' words"
# Smaller shares are drawn together, as the code of arXiv 2504.04264 does.
MINOR = 0.04


def add_languages(
    fig: go.Figure,
    summary: LensSummary,
    colors: Mapping[str, str],
    *,
    row: int,
    col: int,
    known: set[str] | None = None,
) -> list[str]:
    """Add a band for each language of the curves; returns their names in the legend."""
    names: list[str] = []
    for tag in in_order(set(summary.curves["language"]), colors):
        name = theme.language_label(tag)
        names.append(name)
        add_band(
            fig,
            summary.curves[summary.curves["language"] == tag],
            theme.color_of(colors, tag),
            name=name,
            symbol=theme.symbol_of(colors, tag),
            legend=known is None or name not in known,
            group=tag,
            row=row,
            col=col,
        )
    return names


def add_chance(
    fig: go.Figure, chance: LensSummary, colors: Mapping[str, str], *, row: int, col: int
) -> None:
    """Add a thin dotted line for each language: what its words get in other prompts."""
    for tag in in_order(set(chance.curves["language"]), colors):
        table = chance.curves[chance.curves["language"] == tag].sort_values("layer")
        fig.add_scatter(
            x=table["layer"].tolist(),
            y=table["mean"].tolist(),
            mode="lines",
            line={"color": theme.color_of(colors, tag), "width": 1, "dash": "dot"},
            name=f"{theme.language_label(tag)}: by chance",
            legendgroup=tag,
            showlegend=False,
            hovertemplate="%{y:.3f}",
            row=row,
            col=col,
        )


def add_band(
    fig: go.Figure,
    table: pd.DataFrame,
    color: str,
    *,
    name: str,
    row: int,
    col: int,
    symbol: str | None = None,
    legend: bool = False,
    group: str | None = None,
) -> None:
    """Add a line of `mean` and a shaded interval from `low` to `high` by `layer`."""
    table = table.sort_values("layer")
    # Points without an interval are left out: plotly closes what lies on either side of a gap by
    # itself.
    known = table.dropna(subset=["low", "high"])
    layer, low, high = (known[key].tolist() for key in ("layer", "low", "high"))
    shared: dict[str, Any] = {"legendgroup": group or name}
    fig.add_scatter(
        # There along the upper ends and back along the lower ones.
        x=layer + layer[::-1],
        y=high + low[::-1],
        fill="toself",
        fillcolor=theme.translucent(color, 0.2),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name=f"{name}: interval",
        showlegend=False,
        row=row,
        col=col,
        **shared,
    )
    fig.add_scatter(
        x=table["layer"].tolist(),
        y=table["mean"].tolist(),
        customdata=table[["low", "high", "n"]].to_numpy().tolist(),
        mode="lines+markers" if symbol else "lines",
        marker={"size": 5, "symbol": symbol},
        line={"color": color, "width": 2},
        name=name,
        showlegend=legend,
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        row=row,
        col=col,
        **shared,
    )


def layer_axis(
    fig: go.Figure, n_layers: int, *, title: bool = True, ticks: int = 9, **place: Any
) -> None:
    """Label the layers 0..n_layers; `place` is the subplot's row and column."""
    step = max(1, -(-n_layers // ticks))
    fig.update_xaxes(
        title_text=theme.LAYERS.format(last=n_layers) if title else None,
        range=[-0.5, n_layers + 0.5],
        tickmode="array",
        # The last point always; and none so close before it that the two would overlap.
        tickvals=[*range(0, n_layers - step // 2, step), n_layers],
        **place,
    )


@typed
def report_colors(summaries: Iterable[LensSummary]) -> dict[str, str]:
    """Colours for every language that figures of these summaries draw, the pairs' own first."""
    summaries = list(summaries)
    tags = {tag for s in summaries for tag in s.curves["language"]}
    more = {tag for s in summaries for tag in composed(s)}
    pivots = {s.pivot for s in summaries}
    return theme.language_colors(tags, pivot=min(pivots, default="en"), more=more)


def colors_or_default(
    colors: Mapping[str, str] | None, summaries: Mapping[str, LensSummary]
) -> Mapping[str, str]:
    """The colours given, or those that a report of these summaries would have."""
    return report_colors(summaries.values()) if colors is None else colors


def composed(summary: LensSummary) -> list[str]:
    """The languages of the composition that have a bar of their own."""
    highest = summary.composition.groupby("language")["share"].max()
    own = {summary.source, summary.target, summary.pivot, theme.UNKNOWN}
    return [str(tag) for tag, share in highest.items() if share >= MINOR or tag in own]


def in_order(tags: set[str], colors: Mapping[str, str]) -> list[str]:
    """`tags` in the order of the colours; those without one, an error when drawn, last."""
    return [*(t for t in colors if t in tags), *sorted(tags - set(colors))]


def shaded(confidence: float) -> str:
    """What a band around a curve is."""
    return f"shaded: {percent(confidence, whole=False)} interval of the mean"


def sample_note(summary: LensSummary) -> str:
    """How many prompts a figure shows and what its shading means."""
    return f"{number_of(count(summary), 'prompt')} · {shaded(summary.confidence)}"


def samples_note(summaries: Mapping[str, LensSummary]) -> str:
    """As `sample_note`, for several summaries."""
    counts = [count(s) for s in summaries.values()]
    confidence = next(iter(summaries.values())).confidence
    return f"{range_of(counts, 'prompt')} each · {shaded(confidence)}"


def count(summary: LensSummary) -> int:
    """Prompts behind a summary."""
    return int(summary.curves["n"].max())
