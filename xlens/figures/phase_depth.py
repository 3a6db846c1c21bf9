"""Relevance depth by layer and language, and whether the phases' stability goes with a score."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.whiskers import whiskers
from xlens.phases.correlation import StabilityCorrelation
from xlens.phases.curves import ALL
from xlens.phases.depth import DepthResult
from xlens.phases.stability import INDICES
from xlens.wording import number_of, percent

_ROW = 190
"""Height of a small plot with its title, in pixels."""
_SEGMENTS = (theme.PALETTE[1], theme.PALETTE[4], theme.PALETTE[2], theme.PALETTE[3])


@typed
def segment_relevance(depth: DepthResult, *, columns: int = 2) -> go.Figure:
    """Mean relevance of segments by layer, a plot per language; diamonds mark their mean depth.

    Args:
        depth: From `relevance_depth`.
        columns: Plots beside each other.
    """
    tags = list(depth.table["language"].unique())
    titles = [theme.language_label(tag) for tag in tags]
    fig, places = theme.small_plots(
        titles, columns=columns, height=_ROW, apart=0.05, shared_yaxes="all"
    )
    rows = places[-1]["row"]
    how = depth.resampling
    summary = depth.summary(resampling=how)
    for i, (tag, place) in enumerate(zip(tags, places, strict=True)):
        for segment, color in zip(depth.segments, cycle(_SEGMENTS), strict=False):
            drawn = depth.profiles
            table = drawn[(drawn["language"] == tag) & (drawn["segment"] == segment)]
            bands.add_band(fig, table, color, name=segment, legend=i == 0, **place)
            found = summary[(summary["language"] == tag) & (summary["segment"] == segment)].iloc[0]
            if np.isfinite(found["depth"]):
                # A mean depth lies between layers: the diamond sits on the curve there.
                height = float(np.interp(found["depth"], table["layer"], table["mean"]))
                fig.add_scatter(
                    x=[found["depth"]],
                    y=[height],
                    error_x=whiskers([found["depth"]], [found["low"]], [found["high"]], color),
                    mode="markers",
                    marker={"color": color, "size": 11, "symbol": "diamond"},
                    name=f"{segment}: depth",
                    legendgroup=segment,
                    showlegend=False,
                    hovertemplate="depth %{x:.2f}<extra></extra>",
                    **place,
                )
        bands.layer_axis(fig, depth.n_layers, title=False, ticks=5, **place)
    fig.update_xaxes(title_text="residual point (0 = embedding)", row=rows)
    fig.update_yaxes(title_text="relevance", col=1)
    measured = f"{depth.options['measure']}, {percent(depth.options['share'])}"
    return theme.finish(
        fig,
        title="Relevance of the segments by layer",
        notes=[
            f"{number_of(depth.table['prompt'].nunique(), 'prompt')} · "
            f"{bands.shaded(how.confidence)}",
            f"diamonds: mean major relevance depth ({measured}) with its interval",
        ],
        height=_ROW * rows,
        legend=list(depth.segments),
        subtitles=True,
    )


@typed
def depth_by_language(
    depth: DepthResult,
    *,
    control: DepthResult | None = None,
    colors: Mapping[str, str] | None = None,
) -> go.Figure:
    """Relevance depth of every prompt, a box per language and segment.

    Args:
        depth: From `relevance_depth`.
        control: From `random_span_depth`; drawn in grey beside each box.
        colors: Colours by language for the whole report.

    Raises:
        ValueError: a language without a colour.
    """
    tags = list(depth.table["language"].unique())
    colors = theme.language_colors(tags) if colors is None else colors
    ordered = bands.in_order(set(tags), colors)
    fig = make_subplots(
        rows=1,
        cols=len(depth.segments),
        shared_yaxes=True,
        subplot_titles=list(depth.segments),
        horizontal_spacing=0.04,
    )
    fig.update_annotations(font_size=12)
    shown = [(depth, "")] + ([(control, "random spans")] if control is not None else [])
    for i, segment in enumerate(depth.segments):
        for tag in ordered:
            for which, beside in shown:
                table = which.table
                found = table[(table["language"] == tag) & (table["segment"] == segment)]
                color = theme.NEUTRAL if beside else theme.color_of(colors, tag)
                fig.add_box(
                    x=[tag] * len(found),
                    y=found["share"].tolist(),
                    marker={"color": color, "size": 3},
                    line={"width": 1.5},
                    fillcolor=theme.translucent(color, 0.2),
                    boxmean=True,
                    boxpoints="outliers",
                    offsetgroup=beside or "depth",
                    name=beside or theme.language_label(tag),
                    legendgroup=beside or tag,
                    showlegend=bool(beside) and i == 0 and tag == ordered[0],
                    row=1,
                    col=i + 1,
                )
    fig.update_layout(boxmode="group" if control is not None else "overlay", hovermode="closest")
    fig.update_xaxes(type="category")
    fig.update_yaxes(range=[-0.02, 1.05])
    fig.update_yaxes(title_text="depth (share of the blocks)", col=1)
    n, how = number_of(depth.table["prompt"].nunique(), "prompt"), depth.options
    notes = [
        f"{n} · {how['measure']} at {percent(how['share'])}, {how['sign']}",
        "line: median, dashed: mean, box: middle half",
    ]
    notes += ["grey: random spans of the same length"] if control is not None else []
    return theme.finish(
        fig,
        title="Major relevance depth by language",
        notes=notes,
        height=300,
        legend=["random spans"] if control is not None else [],
        subtitles=True,
    )


@typed
def stability_scatter(
    correlation: StabilityCorrelation,
    index: str = "S2",
    *,
    score: str = "F1",
    colors: Mapping[str, str] | None = None,
) -> go.Figure:
    """Stability against the score, a point per model and language, or per model.

    With both correlations and their intervals.

    Args:
        correlation: From `xlens.phases.correlate`.
        index: One of `INDICES`.
        score: What the score is called.
        colors: Colours by language for the whole report.

    Raises:
        ValueError: an index that was not correlated, or a language without a colour.
    """
    cells = correlation.cells[correlation.cells["index"] == index].dropna(subset=["stability"])
    if cells.empty:
        raise InputError(
            f"No index {index!r} here; there are {list(correlation.table['index'].unique())}."
        )
    tags = list(cells["language"].unique())
    colors = theme.language_colors(set(tags) - {ALL}) if colors is None else colors
    models = list(cells["model"].unique())
    fig = go.Figure()
    for model in models:
        mine = cells[cells["model"] == model]
        fig.add_scatter(
            x=mine["stability"].tolist(),
            y=mine["score"].tolist(),
            mode="markers+text",
            text=[model if tag == ALL else tag for tag in mine["language"]],
            textposition="top center",
            textfont={"size": 10},
            cliponaxis=False,
            marker={
                "size": 10,
                "symbol": ["circle", "square", "diamond", "cross", "x"][models.index(model) % 5],
                "color": [
                    theme.NEUTRAL if tag == ALL else theme.color_of(colors, tag)
                    for tag in mine["language"]
                ],
            },
            name=theme.plain(model),
            hovertemplate="%{text}: %{x:.3f}, %{y:.3f}",
        )
    found = correlation.table[correlation.table["index"] == index]
    notes = [INDICES[index]]
    for row in found.to_dict("records"):
        few = " (few)" if row["small"] else ""
        notes.append(
            f"{row['coefficient'].title()} {row['value']:.2f} [{row['low']:.2f}, "
            f"{row['high']:.2f}] over {row['n']}{few}"
        )
    fig.update_xaxes(title_text=f"{index} (higher: stabler)")
    fig.update_yaxes(title_text=score)
    fig.update_layout(hovermode="closest")
    return theme.finish(
        fig,
        title=f"Does stability go with {score}?",
        notes=[*notes, f"intervals over {correlation.over}: {int(found['resampled'].min())}"],
        height=320,
        legend=models,
    )
