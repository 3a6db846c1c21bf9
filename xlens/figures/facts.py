"""Recall of facts by language and over checkpoints, with what guessing would give beside it."""

from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from xlens.acquisition import MEASURES, FactCurves, FactRecall
from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.heat import label_cells
from xlens.figures.whiskers import whiskers
from xlens.languages import english_name
from xlens.wording import number_of

ACCURACY = "accuracy"
_MOST_LABELLED = 8  # languages
_SAID = {"co": "CO (Jaccard) with the pivot", ACCURACY: "share of facts recalled"}


@typed
def fact_bars(result: FactRecall) -> go.Figure:
    """Recall by language with its interval, beside two controls: the dealt and the majority answer.

    Args:
        result: From `xlens.acquisition.recall`.
    """
    table = result.accuracy
    colors = theme.language_colors(table["language"], pivot=result.pivot)
    names = [theme.language_label(tag) for tag in table["language"]]
    fig = go.Figure()
    fig.add_bar(
        x=names,
        y=theme.numbers(table["accuracy"]),
        error_y=whiskers(table["accuracy"], table["low"], table["high"]),
        marker_color=[theme.color_of(colors, tag) for tag in table["language"]],
        name="recalled",
        showlegend=False,
    )
    for column, said, symbol in (
        ("dealt", "answers to other facts of the relation", "line-ew-open"),
        ("majority", "always the most frequent object", "diamond-open"),
    ):
        fig.add_scatter(
            x=names,
            y=theme.numbers(table[column]),
            mode="markers",
            marker={"symbol": symbol, "size": 11, "color": theme.NEUTRAL, "line_width": 2},
            name=said,
        )
    fig.update_yaxes(title=_SAID[ACCURACY], range=[0, 1.02])
    return theme.finish(
        fig,
        title="Facts recalled, by language",
        notes=[f"{number_of(int(table['n'].iloc[0]), 'fact')} · bars: interval over facts"],
        height=320,
        legend=["answers to other facts of the relation", "always the most frequent object"],
    )


@typed
def fact_relations(result: FactRecall) -> go.Figure:
    """Relation × language: the share recalled; intervals and baselines show on hovering.

    Args:
        result: From `xlens.acquisition.recall`.
    """
    table = result.relations
    tags = list(dict.fromkeys(table["language"]))
    kinds = list(dict.fromkeys(table["relation"]))

    def wide(column: str) -> list[list[float | None]]:
        found = table.pivot(index="relation", columns="language", values=column)
        return [
            theme.numbers(row) for _, row in found.reindex(index=kinds, columns=tags).iterrows()
        ]

    more = ("low", "high", "majority", "dealt", "n")
    parts = [wide(column) for column in more]
    fig = go.Figure()
    fig.add_heatmap(
        x=tags,
        y=[theme.plain(kind) for kind in kinds],
        z=wide(ACCURACY),
        customdata=[
            [[part[r][c] for part in parts] for c in range(len(tags))] for r in range(len(kinds))
        ],
        zmin=0,
        zmax=1,
        colorscale="Cividis",
        colorbar={"thickness": 10},
        hovertemplate="%{y}, %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]; "
        "most frequent object %{customdata[2]:.3f}, dealt %{customdata[3]:.3f}, "
        "%{customdata[4]} facts<extra></extra>",
        xgap=1,
        ygap=1,
    )
    if len(tags) <= _MOST_LABELLED:
        labels: dict[str, Any] = {
            "x": tags,
            "y": [theme.plain(kind) for kind in kinds],
            "ends": (0.0, 1.0),
        }
        label_cells(fig, wide(ACCURACY), **labels, scale="Cividis")
    fig.update_yaxes(autorange="reversed", showgrid=False, type="category")
    fig.update_xaxes(showgrid=False, type="category")
    return theme.finish(
        fig,
        title="Facts recalled, by relation and language",
        notes=["share of the facts of a relation that are right"],
        height=max(120, 34 * len(kinds)),
    )


@typed
def fact_curves(result: FactCurves, metric: str = ACCURACY) -> go.Figure:
    """A measure over models or checkpoints, a line per language, its control dotted.

    Along the steps of training where all names say one, else in the order asked.

    Args:
        result: From `xlens.acquisition.curves`.
        metric: `accuracy`, or one of `MEASURES`.

    Raises:
        ValueError: an unknown measure.
    """
    if metric not in (ACCURACY, *MEASURES):
        raise InputError(
            f"There is no measure {metric!r}; there are {', '.join((ACCURACY, *MEASURES))}."
        )
    table = result.table[result.table["metric"] == metric]
    tags = list(dict.fromkeys(result.table["language"]))
    colors = theme.language_colors(tags, pivot=result.pivot)
    fig = go.Figure()
    shown: list[str] = []
    # In the order of the colours (the pivot first), which is that of every other figure.
    for tag in colors:
        rows = table[table["language"] == tag]
        if rows.empty:
            continue
        shown.append(theme.language_label(tag))
        places = _places(rows)
        _line(fig, rows, places, theme.color_of(colors, tag), shown[-1], colors, tag)
        fig.add_scatter(
            x=places,
            y=theme.numbers(rows["control"]),
            mode="lines",
            line={"color": theme.color_of(colors, tag), "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    _axis(fig, table)
    said = _SAID.get(metric) or MEASURES[metric][0]
    least = MEASURES[metric][2] if metric in MEASURES else 0
    fig.update_yaxes(title=said, range=[least - 0.02, 1.02])
    called = "CO" if metric == "co" else metric
    beside = f"Recall beside that in {english_name(result.pivot)}: {called}"
    what = "Facts recalled" if metric == ACCURACY else beside
    control = "answers to other facts" if metric == ACCURACY else "right and wrong permuted"
    return theme.finish(
        fig,
        title=f"{what}, over {'training' if _stepped(table) else 'models'}",
        notes=[said, f"bars: interval over facts · dotted: {control}"],
        height=360,
        legend=shown,
    )


@typed
def fact_groups(result: FactCurves) -> go.Figure:
    """Recall of each group of facts over models or checkpoints, as the mean over languages.

    Args:
        result: From `xlens.acquisition.curves`, of facts that have groups.

    Raises:
        ValueError: there are no groups.
    """
    if result.groups.empty:
        raise InputError("These facts have no groups; nothing can be drawn by them.")
    fig = go.Figure()
    groups = list(dict.fromkeys(result.groups["group"]))
    means = result.groups[result.groups["language"] == "all"]
    for group, color in zip(groups, cycle(theme.PALETTE), strict=False):
        rows = means[means["group"] == group]
        places = _places(rows)
        _line(fig, rows, places, color, theme.plain(str(group)))
        fig.add_scatter(
            x=places,
            y=theme.numbers(rows["control"]),
            mode="lines",
            line={"color": color, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
        )
    _axis(fig, means)
    fig.update_yaxes(title=_SAID[ACCURACY], range=[0, 1.02])
    return theme.finish(
        fig,
        title="Facts recalled, by group",
        notes=["all languages · bars: interval over facts · dotted: answers to other facts"],
        height=360,
        legend=list(map(str, groups)),
    )


def _line(
    fig: go.Figure,
    rows: pd.DataFrame,
    places: list[Any],
    color: str,
    name: str,
    colors: dict[str, str] | None = None,
    tag: str = "",
) -> None:
    symbol = theme.symbol_of(colors, tag) if colors else "circle"
    fig.add_scatter(
        x=places,
        y=theme.numbers(rows["value"]),
        error_y=whiskers(rows["value"], rows["low"], rows["high"]),
        mode="lines+markers",
        line={"color": color},
        marker={"symbol": symbol},
        name=name,
    )


def _stepped(table: pd.DataFrame) -> bool:
    return bool(table["step"].notna().all() and table["step"].nunique() > 1)


def _places(rows: pd.DataFrame) -> list[Any]:
    return rows["step"].tolist() if _stepped(rows) else rows["model"].tolist()


def _axis(fig: go.Figure, table: pd.DataFrame) -> None:
    if _stepped(table):
        fig.update_xaxes(title="training step", type="log" if table["step"].min() > 0 else "linear")
    else:
        fig.update_xaxes(title="model", type="category")
