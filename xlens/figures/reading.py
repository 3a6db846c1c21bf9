"""Reading across languages: scores by setting and language, kinds of error, models compared."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.heat import label_cells
from xlens.figures.whiskers import whiskers
from xlens.languages import english_name
from xlens.tasks.xmrc import ERRORS, ReadingResult
from xlens.wording import range_of

_METRICS = {
    "f1": "token F1",
    "em": "share of exactly right answers",
    "inclusion": "share of answers that include the right one",
    "f1_content": "token F1 of answers in content",
}
_SETTINGS = {
    "en-en": ("{pivot} throughout", theme.PIVOT),
    "en-x": ("{pivot} text, question in the language", theme.PALETTE[0]),
    "x-en": ("text in the language, {pivot} question", theme.PALETTE[2]),
    "x-x": ("all in the language", theme.PALETTE[4]),
}
_ERRORS = dict(
    zip(
        ERRORS,
        (theme.PALETTE[0], theme.PIVOT, theme.PALETTE[1], theme.PALETTE[2], theme.NEUTRAL),
        strict=True,
    )
)
_DOTTED = {"color": theme.NEUTRAL, "dash": "dot"}
_ACROSS = {"color": theme.INK}  # always on a bar, so on dark paper, too
_CELL = 44
"""Height of a cell, in pixels."""


@typed
def reading_bars(result: ReadingResult, metric: str = "f1") -> go.Figure:
    """A score by language and setting, with intervals; short grey lines are exchanged contexts.

    The grey lines are the control: the same questions with another paragraph, if these were asked,
    too. Only what stands above them was read. Dotted lines are what right answers to other
    questions get, of F1: languages differ in that.

    Args:
        result: From `reading_scores`.
        metric: `f1`, `em`, `inclusion` or `f1_content`.

    Raises:
        ValueError: an unknown metric, or no setting that has a name.
    """
    table = _named(result, _metric(result, metric))
    real, control = table[table["control"] == ""], table[table["control"] != ""]
    order = [result.pivot, *(x for x in dict.fromkeys(real["x"]) if x != result.pivot)]
    drawn = [setting for setting in _SETTINGS if (real["setting"] == setting).any()]
    others = [setting for setting in drawn if setting != "en-en"]
    fig = go.Figure()
    names: list[str] = []
    width = 0.8 / max(1, len(others))
    for setting in drawn:
        label, color = _SETTINGS[setting]
        names.append(label.format(pivot=english_name(result.pivot, variant=True)))
        # The pivot's bar stands alone, in the middle of its place.
        aside = 0 if setting == "en-en" else others.index(setting) - (len(others) - 1) / 2
        for part, more in (
            (real, {"name": names[-1], "marker_color": theme.translucent(color, 0.5)}),
            (control, {"showlegend": False, "marker_color": theme.NEUTRAL}),
        ):
            mine = part[part["setting"] == setting]
            tags, values = mine["x"].tolist(), mine["value"].tolist()
            places = [order.index(tag) + aside * width for tag in tags]
            shape: dict[str, Any] = {
                "x": places,
                "width": 0.94 * width,
                "customdata": [theme.language_label(tag) for tag in tags],
            }
            if part is real:
                ends = whiskers(mine["value"], mine["low"], mine["high"], color)
                shape |= {"y": values, "error_y": ends, "marker_line_width": 0}
                shape["hovertemplate"] = "%{customdata}: %{y:.3f}"
            else:  # a bar of no height: its outline is the line
                shape |= {"y": [0.0] * len(values), "base": values}
                shape["marker_line"] = {"color": theme.NEUTRAL, "width": 3}
                shape["hovertemplate"] = "%{customdata}, another text: %{base:.3f}<extra></extra>"
            fig.add_bar(**shape, **more)
            if part is real:
                _add_levels(fig, places, mine["chance"].tolist(), 0.47 * width, _DOTTED)
    fig.update_layout(barmode="overlay", hovermode="closest")
    fig.update_xaxes(
        tickvals=list(range(len(order))), ticktext=order, range=[-0.6, len(order) - 0.4]
    )
    fig.update_xaxes(title="language")
    fig.update_yaxes(title_text=_METRICS[metric], rangemode="tozero")
    asked = range_of(real["n"], "question")
    paragraphs = range_of(real["paragraphs"], "paragraph")
    percent = result.resampling.percent
    notes = [f"{asked} on {paragraphs} · whiskers: {percent} interval"]
    notes += [f"grey lines: the same questions, {result.other_text}"] if len(control) else []
    if real["chance"].notna().any():
        notes.append("dotted: by chance, right answers to other questions")
    return theme.finish(
        fig, title=f"Reading: {result.model}", notes=notes, height=300, legend=names
    )


@typed
def reading_matrix(result: ReadingResult, metric: str = "f1") -> go.Figure:
    """Language of the text × language of the question. Intervals show on hovering.

    Below each language of the text: what right answers to other questions get in it, of F1.

    Args:
        result: Of the setting `matrix`.
        metric: As in `reading_bars`.

    Raises:
        ValueError: an unknown metric, or answers in other languages than their texts only.
    """
    table = _metric(result, metric)
    same = table["answer_language"] == table["context_language"]
    table = table[(table["control"] == "") & same]
    if table.empty:
        raise InputError("No answer of this result is in its context's language.")
    rows, cols = (list(dict.fromkeys(table[f"{p}_language"])) for p in ("context", "question"))
    wide = {
        name: table.pivot(index="context_language", columns="question_language", values=name)
        .loc[rows, cols]
        .to_numpy()
        .tolist()
        for name in ("value", "low", "high")
    }
    fig = go.Figure(
        go.Heatmap(
            x=cols,
            y=rows,
            z=[[None if v != v else v for v in row] for row in wide["value"]],
            customdata=[
                list(zip(low, high, strict=True))
                for low, high in zip(wide["low"], wide["high"], strict=True)
            ],
            colorscale="Cividis",
            zmin=0,
            zmax=float(table["value"].max()) or 1.0,
            colorbar={"thickness": 10},
            hovertemplate="text %{y}, question %{x}: %{z:.3f} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    ends = (0.0, float(table["value"].max()) or 1.0)
    label_cells(fig, wide["value"], x=cols, y=rows, scale="Cividis", ends=ends, size=11)
    fig.update_yaxes(autorange="reversed", showgrid=False, type="category", title="text")
    fig.update_xaxes(showgrid=False, type="category", title="question")
    notes = [f"{_METRICS[metric]} · {range_of(table['n'], 'question')}"]
    if table["chance"].notna().any():
        by_text = table.groupby("context_language")["chance"].first()
        ticks = [f"{tag}<br>chance {by_text[tag]:.2f}" for tag in rows]
        fig.update_yaxes(tickmode="array", tickvals=rows, ticktext=ticks)
        notes.append("chance: right answers to other questions")
    return theme.finish(
        fig,
        title=f"Reading: {result.model}",
        notes=notes,
        height=max(160, _CELL * len(rows)),
    )


@typed
def error_bars(result: ReadingResult) -> go.Figure:
    """Kinds of error by language, stacked, a plot per setting.

    A line in each bar: how far errors of language would reach if they were as many as the same
    rules find among right answers to other questions.

    Args:
        result: From `reading_scores`.

    Raises:
        ValueError: no setting that has a name.
    """
    table = _named(result, result.errors)
    table = table[(table["control"] == "") & table["kind"].isin(ERRORS)]
    settings = [name for name in _SETTINGS if (table["setting"] == name).any()]
    widths = [max(1, table[table["setting"] == s]["x"].nunique()) for s in settings]
    fig = make_subplots(
        rows=1,
        cols=len(settings),
        shared_yaxes=True,
        column_widths=widths,
        subplot_titles=[result.setting_name(setting) for setting in settings],
        horizontal_spacing=0.03,
    )
    fig.update_annotations(font_size=12)
    for col, setting in enumerate(settings, start=1):
        for kind, color in _ERRORS.items():
            mine = table[(table["setting"] == setting) & (table["kind"] == kind)]
            fig.add_bar(
                x=mine["x"].tolist(),
                y=mine["share"].fillna(0).tolist(),
                customdata=mine[["n", "of"]].to_numpy().tolist(),
                name=kind,
                legendgroup=kind,
                showlegend=col == 1,
                marker_color=color,
                marker_line_width=0,
                hovertemplate="%{y:.2f} (%{customdata[0]} of %{customdata[1]})",
                row=1,
                col=col,
            )
        kinds = table[table["setting"] == setting].set_index(["kind", "x"])
        tags = kinds.loc["content"].index
        reach = kinds.loc["content"]["share"].fillna(0) + kinds.loc["language"]["baseline"]
        _add_levels(
            fig,
            [float(n) for n in range(len(tags))],
            reach[tags].tolist(),
            0.4,
            _ACROSS,
            row=1,
            col=col,
        )
    notes = ["told apart by rules; the text is in the first language, the question in the second"]
    if (table["kind"].eq("language") & table["baseline"].notna()).any():
        notes.append("line: as many errors of language as among right answers to other questions")
    fig.update_layout(barmode="stack", bargap=0.25, legend_traceorder="normal")
    fig.update_yaxes(range=[0, 1] if result.shares_of == "wrong answers" else None)
    fig.update_yaxes(title_text=f"share of {result.shares_of}", row=1, col=1)
    fig.update_xaxes(type="category")
    return theme.finish(
        fig,
        title=f"Why answers are wrong: {result.model}",
        notes=notes,
        height=280,
        legend=list(_ERRORS),
        subtitles=True,
    )


@typed
def ratio_scatter(results: Sequence[ReadingResult], metric: str = "f1") -> go.Figure:
    """Models by what is left of the pivot's score: all in the language (x), question only (y).

    Above the diagonal a model loses more by the text's language than by the question's. Dotted
    lines begin where right answers to other questions would stand, of F1.

    Args:
        results: One a model, each with the settings `en-en`, `en-x` and `x-x`.
        metric: As in `reading_bars`.

    Raises:
        ValueError: an unknown metric, or no model with both ratios.
    """
    _known(metric)
    fig = go.Figure()
    names: list[str] = []
    dots: list[tuple[float, float]] = []
    chances: list[list[float]] = []
    highest = 1.0
    for n, result in enumerate(results):
        table = result.summary[result.summary["metric"] == metric].dropna(subset="ratio")
        rows = {str(row["setting"]): row for row in table.to_dict("records")}
        if not {"en-x", "x-x"} <= set(rows):
            continue
        mono, cross = rows["x-x"], rows["en-x"]
        highest = max(highest, mono["ratio_high"], cross["ratio_high"])
        names.append(result.model)
        dots.append((mono["ratio"], cross["ratio"]))
        chances.append([row["chance"] / rows["en-en"]["value"] for row in (mono, cross)])
        fig.add_scatter(
            x=[mono["ratio"]],
            y=[cross["ratio"]],
            error_x=whiskers(*_ratio(mono), theme.NEUTRAL),
            error_y=whiskers(*_ratio(cross), theme.NEUTRAL),
            mode="markers",
            name=theme.plain(result.model),
            marker={"size": 9, "color": theme.PALETTE[n % len(theme.PALETTE)]},
            hovertemplate="all in the language %{x:.2f}, question only %{y:.2f}",
        )
    if not names:
        raise InputError(
            f"None of {len(results)} results has ratios of both settings: ask en-en, en-x and x-x "
            "of each model, and look at the column `flag` of `.summary`."
        )
    percent = results[0].resampling.percent
    end = 1.05 * highest
    fig.add_scatter(
        x=[0, end],
        y=[0, end],
        mode="lines",
        line={"color": theme.NEUTRAL, "dash": "dot", "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )
    for (x, y), (low_x, low_y) in zip(dots, chances, strict=True) if metric == "f1" else ():
        fig.add_scatter(
            x=[low_x, x],
            y=[low_y, y],
            mode="lines",
            line={"color": theme.NEUTRAL, "dash": "dot", "width": 1},
            showlegend=False,
            hoverinfo="skip",
        )
    fig.update_xaxes(range=[0, end], title="all in the language, of the pivot's score")
    fig.update_yaxes(range=[0, end], title="question only, of the pivot's score")
    fig.update_layout(hovermode="closest")
    return theme.finish(
        fig,
        title="What is left of the score in other languages",
        notes=[
            f"{_METRICS[metric]}, mean over languages · {percent} intervals",
            *(["dotted: from where right answers to other questions stand"] * (metric == "f1")),
        ],
        height=400,
        legend=names,
    )


def _metric(result: ReadingResult, metric: str) -> pd.DataFrame:
    _known(metric)
    return result.scores[result.scores["metric"] == metric]


def _known(metric: str) -> None:
    if metric not in _METRICS:
        raise InputError(f"Unknown metric {metric!r}; accepted are {', '.join(_METRICS)}.")


def _named(result: ReadingResult, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of settings that have a name, with the language that isn't the pivot as `x`."""
    found = table[table["setting"].isin(_SETTINGS)]
    if found.empty:
        raise InputError(
            f"No cell of this result is of a setting {', '.join(_SETTINGS)} with the pivot "
            f"{result.pivot!r}; draw it with reading_matrix, or score with another pivot=."
        )
    parts = [found[f"{part}_language"] for part in ("question", "context")]
    return found.assign(x=parts[0].where(parts[0] != result.pivot, parts[1]))


def _add_levels(
    fig: go.Figure,
    places: Sequence[float],
    levels: Sequence[float],
    half: float,
    line: Mapping[str, Any],
    **place: Any,
) -> None:
    """A short line across each bar, at the height of what stands beside it."""
    for x, level in zip(places, levels, strict=True):
        if math.isfinite(level):
            ends = {"x0": x - half, "x1": x + half, "y0": level, "y1": level}
            fig.add_shape(type="line", line={"width": 2, **line}, **ends, **place)


def _ratio(row: Mapping[Any, Any]) -> tuple[list[float], list[float], list[float]]:
    return [row["ratio"]], [row["ratio_low"]], [row["ratio_high"]]
