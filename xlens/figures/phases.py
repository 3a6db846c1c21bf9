"""Phases of retrieval: evidence by layer with its boundaries, and two models side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.whiskers import whiskers
from xlens.lens.result import lens_title
from xlens.phases.curves import ALL, KINDS, READABLE, CurveSummary
from xlens.phases.detect import PhaseResult
from xlens.phases.paired import PairedCurves, PairedEffects
from xlens.wording import percent, range_of

_ROW = 190
"""Height of a small plot with its title, in pixels."""
_RIGHT, _WRONG = theme.PALETTE[0], theme.NEUTRAL
_EDGES = {"question": theme.PALETTE[1], "answer": theme.PALETTE[4]}
_EDGE_WORDS = {"question": "question handed over", "answer": "answer retrieved"}
_SIDES = {"first": theme.NEUTRAL, "second": theme.PALETTE[0]}
_EFFECT = 260
_POINTS = "residual point (0 = embedding)"
_EFFECTS = {
    "lens gap": ("pivot less other language", _POINTS),
    "recovered": ("gain of the right answer", _POINTS),
    "late relevance": ("share of the relevance", "last layers counted"),
    "swapped blocks": (
        "log-probability of the answer",
        "blocks swapped, from the top",
    ),
}
"""What an effect's values are, and what its layers count."""


@typed
def phase_curves(
    curves: CurveSummary,
    phases: PhaseResult | None = None,
    *,
    language: str = ALL,
    kinds: Sequence[str] | None = None,
    columns: int = 2,
) -> go.Figure:
    """Every kind of evidence by layer: right answer, wrong answer, and the boundary found.

    Shaded are intervals of the mean over prompts. The vertical line is the kind's own boundary,
    its band the bootstrap interval; dotted where the step is not significant or has no test.

    Args:
        curves: `Curves.summary()`.
        phases: What `detect_phases` made of them; None draws no boundary.
        language: Of the prompts; `all` pools them.
        kinds: Which; by default all.
        columns: Plots beside each other.

    Raises:
        ValueError: an unknown kind or language.
    """
    names = list(kinds or dict.fromkeys(curves.table["kind"]))
    tables = [curves.pick(kind, language) for kind in names]
    lens = f", {lens_title(curves.lens)}" if curves.lens != "logit" else ""
    words = {k: KINDS[k].words + (lens if k == READABLE else "") for k in names}
    titles = [f"{words[k]} ({KINDS[k].unit})" for k in names]
    fig, places = theme.small_plots(titles, columns=columns, height=_ROW)
    fig.update_annotations(font_size=11)
    legend: list[str] = []
    for i, (kind, table, place) in enumerate(zip(names, tables, places, strict=True)):
        for part, name, color in (
            ("control", "wrong answer", _WRONG),
            ("values", "right answer", _RIGHT),
        ):
            drawn = table[table["part"] == part]
            if drawn["mean"].isna().all():
                continue
            bands.add_band(
                fig,
                drawn,
                color,
                name=name,
                symbol="circle" if part == "values" else "x",
                legend=name not in legend,
                **place,
            )
            legend += [name] * (name not in legend)
        if phases is not None:
            _mark_boundary(fig, phases, kind, language, **place)
        fig.update_yaxes(nticks=4, **place)
        lowest = i + columns >= len(names)
        bands.layer_axis(fig, curves.n_layers, title=False, ticks=5, **place)
        fig.update_xaxes(title_text=_POINTS if lowest else None, **place)
    counts = [n for table in tables for n in table["n"]]
    notes = [range_of(counts, "prompt") + _of_language(language)]
    if phases is not None:
        notes += [phases.verdict(language), "vertical: this evidence's boundary with its interval"]
    notes.append(bands.shaded(curves.confidence))
    return theme.finish(
        fig,
        title="Is the question taken in before the answer is fetched?",
        notes=notes,
        height=_ROW * places[-1]["row"],
        legend=legend,
        subtitles=True,
    )


@typed
def phase_boundaries(phases: PhaseResult) -> go.Figure:
    """Boundaries by kind of evidence and language, with intervals; what decided, in full colour.

    A filled marker is a significant step, an open one is not, or has no test.
    """
    edges = phases.edges[phases.edges["edge"] != "encoding"]
    tags = list(phases.phases["language"])
    kinds = [k for k in KINDS if (edges["kind"] == k).any()]
    columns = min(2, len(tags))
    rows = -(-len(tags) // columns)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=["all languages" if t == ALL else theme.language_label(t) for t in tags],
        horizontal_spacing=0.04,
        vertical_spacing=0.2 / rows,
    )
    fig.update_annotations(font_size=12)
    words = [_short(k) for k in kinds]
    for i, tag in enumerate(tags):
        place: dict[str, Any] = {"row": i // columns + 1, "col": i % columns + 1}
        for edge, color in _EDGES.items():
            table = edges[(edges["edge"] == edge) & (edges["language"] == tag)]
            table = table.dropna(subset=["value"])
            fig.add_scatter(
                x=table["value"].tolist(),
                y=[_short(k) for k in table["kind"]],
                error_x=whiskers(table["value"], table["low"], table["high"]),
                customdata=table[["p"]].to_numpy().tolist(),
                mode="markers",
                marker={
                    "color": color,
                    "size": 9,
                    "symbol": ["circle" if f else "circle-open" for f in table["found"]],
                },
                name=_EDGE_WORDS[edge],
                legendgroup=edge,
                showlegend=i == 0,
                hovertemplate="%{y}: %{x} (p = %{customdata[0]:.3g})<extra></extra>",
                **place,
            )
            row = phases.row(tag)
            if np.isfinite(row[edge]):
                fig.add_vline(
                    x=row[edge], line={"color": color, "width": 1, "dash": "dash"}, **place
                )
        bands.layer_axis(fig, phases.n_layers, title=False, ticks=5, **place)
        # Plotly puts the first category at the bottom.
        fig.update_yaxes(type="category", categoryorder="array", categoryarray=words[::-1], **place)
    fig.update_xaxes(title_text=_POINTS, row=rows)
    fig.update_layout(hovermode="closest")
    notes = [phases.verdict(), "filled: significant step; dashed: median of what decided"]
    return theme.finish(
        fig,
        title="Where each kind of evidence takes its step",
        notes=notes,
        height=rows * max(200, 22 * len(kinds) + 40),
        legend=list(_EDGE_WORDS.values()),
        subtitles=True,
    )


@typed
def paired_curves(
    paired: PairedCurves, *, language: str = ALL, kinds: Sequence[str] | None = None
) -> go.Figure:
    """Two models' curves (left) and their difference with its interval (right), by kind.

    Filled points differ significantly, adjusted over the layers.

    Args:
        paired: From `compare_curves`.
        language: Of the prompts; `all` pools them.
        kinds: Which; by default all.

    Raises:
        ValueError: an unknown kind or language.
    """
    table = paired.table[paired.table["language"] == language]
    if table.empty:
        raise InputError(
            f"No language {language!r} here; there are {list(paired.table['language'].unique())}."
        )
    names = list(kinds or dict.fromkeys(table["kind"]))
    if unknown := [k for k in names if k not in set(table["kind"])]:
        raise InputError(
            f"No kinds {unknown} here; there are {list(dict.fromkeys(table['kind']))}."
        )
    titles = [text for k in names for text in (f"{_short(k)} ({KINDS[k].unit})", "difference")]
    fig, _ = theme.small_plots(titles, columns=2, height=_ROW)
    for i, kind in enumerate(names):
        mine = table[table["kind"] == kind]
        _draw_pair(fig, mine, paired.names, 1 - paired.confidence, row=i + 1)
        for col in (1, 2):
            bands.layer_axis(fig, paired.n_layers, title=False, ticks=5, row=i + 1, col=col)
    fig.update_xaxes(title_text=_POINTS, row=len(names))
    first, second = paired.names
    return theme.finish(
        fig,
        title=f"{first} and {second}",
        notes=[
            "right less wrong answer" + _of_language(language),
            f"difference: {second} less {first}, {percent(paired.confidence, whole=False)} "
            "interval; filled: significant",
        ],
        height=_ROW * len(names),
        legend=list(paired.names),
        subtitles=True,
    )


@typed
def paired_effects(paired: PairedEffects, *, language: str = ALL) -> go.Figure:
    """Two models' last-layer effects (left) and their difference with its interval (right).

    Filled points differ significantly, adjusted over the layers; the cross is the difference of the
    controls.

    Args:
        paired: From `compare_effects`.
        language: Of the prompts; `all` pools them.

    Raises:
        ValueError: an unknown language.
    """
    table = paired.table[paired.table["language"] == language]
    if table.empty:
        raise InputError(
            f"No language {language!r} here; there are {list(paired.table['language'].unique())}."
        )
    what, axis = _EFFECTS[paired.effect]
    if paired.change:
        what = "change of the right answer"
    unit = KINDS[paired.options["kind"]].unit if "kind" in paired.options else "nats"
    if paired.effect != "late relevance":
        what = f"{what} ({unit})"
    fig, _ = theme.small_plots([what, "difference"], columns=2, height=_EFFECT)
    fig.update_annotations(font_size=11)
    _draw_pair(fig, table, paired.names, 1 - paired.confidence, row=1)
    known = table.dropna(subset=["control"])
    if len(known):
        fig.add_scatter(
            x=known["layer"].tolist(),
            y=known["control"].tolist(),
            mode="markers",
            marker={"color": theme.NEUTRAL, "size": 6, "symbol": "x"},
            name="control",
            hovertemplate="control %{y:.3f}<extra></extra>",
            row=1,
            col=2,
        )
    for col in (1, 2):
        bands.layer_axis(fig, paired.n_layers, title=False, ticks=5, row=1, col=col)
    fig.update_xaxes(title_text=axis)
    first, second = paired.names
    made = [f"{key}: {value}" for key, value in paired.options.items()]
    return theme.finish(
        fig,
        title=f"{paired.effect.capitalize()}: {first} and {second}",
        notes=[
            " · ".join([range_of(table["n"], "prompt") + _of_language(language), *made]),
            f"difference: {second} less {first}, {percent(paired.confidence, whole=False)} "
            "interval; filled: significant",
        ],
        height=_EFFECT,
        legend=[*paired.names, *(["control"] if len(known) else [])],
        subtitles=True,
    )


def _draw_pair(
    fig: go.Figure, table: pd.DataFrame, names: Sequence[str], level: float, *, row: int
) -> None:
    """Both models' means in a row's first plot, the difference in its second."""
    for (side, color), name in zip(_SIDES.items(), names, strict=True):
        fig.add_scatter(
            x=table["layer"].tolist(),
            y=table[side].tolist(),
            mode="lines+markers",
            marker={"size": 5, "symbol": "square" if side == "first" else "circle"},
            line={"color": color, "width": 2},
            name=theme.plain(name),
            legendgroup=side,
            showlegend=row == 1,
            hovertemplate="%{y:.3f}",
            row=row,
            col=1,
        )
    drawn = table.rename(columns={"difference": "mean"})
    bands.add_band(fig, drawn, theme.PALETTE[2], name="difference", row=row, col=2)
    fig.add_scatter(
        x=table["layer"].tolist(),
        y=table["difference"].tolist(),
        mode="markers",
        marker={
            "color": theme.PALETTE[2],
            "size": 7,
            "symbol": ["circle" if p < level else "circle-open" for p in table["p"]],
        },
        customdata=table[["p"]].to_numpy().tolist(),
        showlegend=False,
        hovertemplate="p = %{customdata[0]:.3g}<extra></extra>",
        row=row,
        col=2,
    )
    right: dict[str, Any] = {"row": row, "col": 2}
    fig.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1}, **right)
    fig.update_yaxes(nticks=4, row=row)


def _mark_boundary(
    fig: go.Figure, phases: PhaseResult, kind: str, language: str, **place: Any
) -> None:
    edges = phases.edges
    found = edges[(edges["kind"] == kind) & (edges["language"] == language)].dropna(
        subset=["value"]
    )
    for mark in found.to_dict("records"):
        color = _EDGES.get(str(mark["edge"]), theme.NEUTRAL)
        if mark["high"] > mark["low"]:
            fig.add_vrect(
                x0=mark["low"],
                x1=mark["high"],
                fillcolor=theme.translucent(color, 0.15),
                line_width=0,
                **place,
            )
        dash = "solid" if mark["found"] else "dot"
        fig.add_vline(x=mark["value"], line={"color": color, "width": 2, "dash": dash}, **place)


def _short(kind: str) -> str:
    return kind.replace("_", " ")


def _of_language(language: str) -> str:
    return "" if language == ALL else f" · {theme.language_label(language)}"
