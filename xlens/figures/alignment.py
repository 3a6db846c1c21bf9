"""Before and after a training: gains by language, the loss, and two models' states side by side."""

from collections.abc import Mapping
from itertools import cycle

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.whiskers import whiskers
from xlens.gain import ALL, BEFORE, SEEN, UNSEEN, Gain
from xlens.lens import TwinCurves
from xlens.subspace import TwinStates
from xlens.training.fit import Training
from xlens.wording import number_of, percent

MEANS = {ALL: "all languages", SEEN: "languages in training", UNSEEN: "languages never seen"}
_ROW = 200
_MOST = 400
"""Points of a language that a map draws; centroids are of all."""


@typed
def gain_bars(result: Gain) -> go.Figure:
    """Difference to before by language, with intervals, of the alignment and its controls.

    Shaded what counts as no difference. Filled: a language in training; open: one never seen.
    """
    fig = go.Figure()
    conditions = list(dict.fromkeys(result.table["condition"]))
    order = [*_languages(result), *(m for m in MEANS if m in set(result.table["language"]))]
    labels = {tag: MEANS[tag] if tag in MEANS else theme.language_label(tag) for tag in order}
    percents = 100
    fig.add_vrect(
        x0=-percents * result.bound,
        x1=percents * result.bound,
        fillcolor=theme.translucent(theme.NEUTRAL, 0.2),
        line_width=0,
    )
    fig.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1})
    colors = cycle((theme.PIVOT, theme.NEUTRAL, *theme.PALETTE))
    for condition, color in zip(conditions, colors, strict=False):
        table = result.of(condition).set_index("language").loc[order]
        shift = percents * table["difference"]
        fig.add_scatter(
            x=shift.tolist(),
            y=[labels[tag] for tag in order],
            error_x=whiskers(shift, percents * table["low"], percents * table["high"]),
            mode="markers",
            orientation="h",  # so that groups stand apart along y
            marker={
                "color": color,
                "size": 9,
                "symbol": [
                    "circle" if seen or tag in (SEEN, ALL) else "circle-open"
                    for tag, seen in zip(order, table["seen"], strict=True)
                ],
            },
            name=condition,
            hovertemplate="%{x:+.1f}",
        )
    # Grouped, markers of a language stand side by side instead of on each other.
    fig.update_layout(hovermode="closest", scattermode="group")
    fig.update_yaxes(autorange="reversed", type="category")
    fig.update_xaxes(title="after less before, in percentage points")
    table = result.of(conditions[0])
    notes = [
        f"{number_of(int(table['n'].iloc[0]), 'item')} · bars: "
        f"{percent(result.confidence, whole=False)} intervals · shaded: no difference",
        *(["filled: in training · open: never seen"] if result.trained else []),
    ]
    return theme.finish(
        fig,
        title="What changed, by language",
        notes=notes,
        height=36 * len(order) + 40,
        legend=conditions,
    )


@typed
def training_loss(trainings: Mapping[str, Training]) -> go.Figure:
    """Loss by step of every training."""
    fig = go.Figure()
    for (name, training), color in zip(trainings.items(), cycle(theme.PALETTE), strict=False):
        fig.add_scatter(
            x=training.curve["step"].tolist(),
            y=training.curve["loss"].tolist(),
            mode="lines+markers" if len(training.curve) < 30 else "lines",
            line={"color": color, "width": 1.5},
            marker={"size": 4},
            name=name,
        )
    fig.update_xaxes(title="step")
    fig.update_yaxes(title="loss (nats per learned token)")
    return theme.finish(
        fig,
        title="Loss of each step before its update",
        notes=["on translations alone"],
        height=300,
        legend=list(trainings),
    )


@typed
def twin_similarity(result: TwinStates) -> go.Figure:
    """CKA of the two models' states by layer, a line per language, dotted with items exchanged."""
    fig, (place,) = theme.small_plots([""], columns=1, height=320)
    colors = theme.language_colors(result.languages)
    table = result.similarity.rename(columns={"cka": "mean"})
    # A row for each of two models, layer, language and item.
    n = len(result.points) // max(1, len(result.layers) * len(result.languages) * 2)
    names: list[str] = []
    for tag in bands.in_order(set(result.languages), colors):
        mine = table[table["language"] == tag].assign(n=n)
        color = theme.color_of(colors, tag)
        names.append(theme.language_label(tag))
        bands.add_band(
            fig,
            mine,
            color,
            name=names[-1],
            symbol=theme.symbol_of(colors, tag),
            legend=True,
            group=tag,
            **place,
        )
        fig.add_scatter(
            x=mine["layer"].tolist(),
            y=mine["control"].tolist(),
            mode="lines",
            line={"color": color, "width": 1, "dash": "dot"},
            showlegend=False,
            legendgroup=tag,
            hoverinfo="skip",
            **place,
        )
    bands.layer_axis(fig, max(result.layers), **place)
    fig.update_yaxes(title="CKA of the two models' states", range=[-0.25, 1.05])
    return theme.finish(
        fig,
        title=f"How alike are {result.names[0]} and {result.names[1]} inside?",
        notes=[
            f"{number_of(n, 'item')} · shaded: {percent(result.confidence, whole=False)} interval "
            "· dotted: items exchanged"
        ],
        height=320,
        legend=names,
    )


@typed
def twin_maps(result: TwinStates, layer: int | None = None) -> go.Figure:
    """Both models' states at a layer on the same axes, the first one's principal components.

    Args:
        result: From `twin_states`.
        layer: A residual point; None: the middle one.

    Raises:
        ValueError: a layer that isn't there.
    """
    at = result.layers[len(result.layers) // 2] if layer is None else layer
    if at not in result.layers:
        raise InputError(f"No layer {at}; there are {', '.join(map(str, result.layers))}.")
    fig, places = theme.small_plots(list(result.names), columns=2, height=340, shared_yaxes="all",
                                    shared_xaxes="all")  # fmt: skip
    colors = theme.language_colors(result.languages)
    names = [theme.language_label(tag) for tag in bands.in_order(set(result.languages), colors)]
    points = result.points[result.points["layer"] == at]
    for name, place in zip(result.names, places, strict=True):
        for tag, label in zip(bands.in_order(set(result.languages), colors), names, strict=True):
            mine = points[(points["model"] == name) & (points["language"] == tag)].head(_MOST)
            fig.add_scatter(
                x=mine["x"].tolist(),
                y=mine["y"].tolist(),
                mode="markers",
                marker={
                    "color": theme.color_of(colors, tag),
                    "symbol": theme.symbol_of(colors, tag),
                    "size": 6,
                    "opacity": 0.75,
                },
                text=mine["id"].tolist(),
                name=label,
                legendgroup=tag,
                showlegend=place == places[0],
                hovertemplate="%{text}",
                **place,
            )
    fig.update_layout(hovermode="closest")
    return theme.finish(
        fig,
        title=f"States at layer {at}, on common axes",
        notes=[f"principal components of {result.names[0]} alone · a point is an item"],
        height=340,
        legend=names,
        subtitles=True,
    )


def _languages(result: Gain) -> list[str]:
    """Those in training first, then by what changed."""
    table = result.table
    table = table[(table["against"] == BEFORE) & ~table["language"].isin(MEANS)]
    table = table.drop_duplicates("language")
    order = table.sort_values(["seen", "difference"], ascending=[False, False], kind="stable")
    return order["language"].tolist()


@typed
def twin_entropies(curves: TwinCurves, quantity: str = "entropy") -> go.Figure:
    """How sure each layer of two models is, a plot for each language.

    Args:
        curves: From `xlens.lens.twin_curves`.
        quantity: `entropy`, or `kl` (divergence from the model's own output).

    Raises:
        ValueError: another quantity.
    """
    labels = [theme.language_label(tag) for tag in curves.languages]
    fig, places = theme.small_plots(labels, columns=2, height=_ROW)
    for n, (tag, place) in enumerate(zip(curves.languages, places, strict=True)):
        for k, (name, color) in enumerate(
            zip(curves.names, (theme.NEUTRAL, theme.PIVOT), strict=True)
        ):
            rows = curves.of(quantity, name)
            bands.add_band(
                fig,
                rows[rows["language"] == tag],
                color,
                name=name,
                symbol=("square", "circle")[k],
                legend=n == 0,
                group=name,
                **place,
            )
        lowest = n + 2 >= len(places)
        bands.layer_axis(fig, curves.n_layers, title=lowest, ticks=5, **place)
        fig.update_yaxes(nticks=5, rangemode="tozero", **place)
    level = percent(curves.confidence, whole=False)
    said = {"entropy": "entropy of what is read, in bits", "kl": "bits from the model's own output"}
    return theme.finish(
        fig,
        title="How sure each layer is, in both models",
        notes=[said[quantity], f"last position of each prompt · shaded: {level} interval"],
        height=_ROW * places[-1]["row"],
        legend=curves.names,
        subtitles=True,
    )
