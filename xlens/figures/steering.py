"""Steering: every cell that was tried, and what the chosen one did to items that chose nothing."""

import textwrap

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.whiskers import whiskers
from xlens.steering import EFFECTS, SteeringResult
from xlens.wording import number_of, percent, range_of

_NAMES = {
    "accuracy": "accuracy",
    "consistency": "consistency with {target}",
    "transfer": "transfer from {target}",
    "same_wrong": "same wrong option as {target}",
    "gold_nll": "surprise at the right option",
}
_CELL = 20
_METHODS = {
    "mean_difference": "mean difference",
    "pca": "first singular vector",
    "pca_centred": "first component",
    "lda": "LDA",
    "lsar": "LSAR subspace removed",
}


def method_name(method: str) -> str:
    """A method, or the control of one, in words."""
    name, _, control = method.partition(", ")
    return ", ".join([_METHODS.get(name, name.replace("_", " ")), *([control] if control else [])])


@typed
def steering_surface(result: SteeringResult, metric: str = "accuracy") -> go.Figure:
    """Layer × strength for each method: the change against no steering, mean over languages.

    On the development items, on which the framed cell was chosen; what it is worth, only the test
    items say (`steering_effects`).

    Args:
        result: From a `SteeringStudy`.
        metric: One of `xlens.steering.EFFECTS`.

    Raises:
        ValueError: an unknown metric.
    """
    methods = list(result.chosen["method"])
    surfaces = {method: result.surface(method, metric) for method in methods}
    fig = make_subplots(
        rows=1,
        cols=len(methods),
        subplot_titles=[method_name(method) for method in methods],
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    fig.update_annotations(font_size=12)
    largest = max(float(s.abs().max().max()) for s in surfaces.values()) or 1.0
    for col, (method, surface) in enumerate(surfaces.items(), start=1):
        strengths = [f"{s:g}" for s in surface.columns]
        labels = [str(band) for band in surface.index]
        fig.add_heatmap(
            x=strengths,
            y=labels,
            z=surface.to_numpy().tolist(),
            coloraxis="coloraxis",
            hovertemplate="layer %{y}, strength %{x}: %{z:+.3f}<extra></extra>",
            xgap=1,
            ygap=1,
            row=1,
            col=col,
        )
        cell = result.chosen[result.chosen["method"] == method].iloc[0]
        x, y = strengths.index(f"{cell['strength']:g}"), labels.index(str(cell["band"]))
        fig.add_shape(
            type="rect",
            x0=x - 0.5,
            x1=x + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line={"color": theme.PIVOT, "width": 2.5},
            row=1,
            col=col,
        )
        fig.update_xaxes(title_text="strength", type="category", showgrid=False, row=1, col=col)
    fig.update_yaxes(type="category", showgrid=False)
    fig.update_yaxes(title_text="residual point", col=1)
    # Blue is better in every plot: of these two less is.
    better = "RdBu_r" if metric in ("gold_nll", "same_wrong") else "RdBu"
    fig.update_layout(
        coloraxis={
            "cmin": -largest,
            "cmax": largest,
            "colorscale": better,
            "colorbar": {"thickness": 10},
        }
    )
    n = number_of(int(result.dev["n"].max()), "development item")
    target = theme.language_label(result.target)
    name = _NAMES[metric].format(target=target)
    return theme.finish(
        fig,
        title=f"Steering towards {target}: change in {name}",
        notes=[f"{n} a language, mean over languages", "frame: chosen"],
        height=max(180, _CELL * len(next(iter(surfaces.values())))),
        subtitles=True,
    )


@typed
def steering_effects(result: SteeringResult) -> go.Figure:
    """Changes against no steering on the test items: a plot per metric, a row per language.

    Each method beside its controls, random directions and shuffled languages; the target
    language's own prompts, pushed the same way, show the harm. Bars are intervals, paired by
    item.

    Args:
        result: From a `SteeringStudy`.
    """
    table = result.test[result.test["condition"] != "none"]
    metrics = [m for m in EFFECTS if m in set(table["metric"])]
    conditions = list(dict.fromkeys(table["condition"]))
    target = theme.language_label(result.target)
    fig = make_subplots(
        rows=1,
        cols=len(metrics),
        subplot_titles=[
            "<br>".join(textwrap.wrap(_NAMES[m].format(target=target), 15)) for m in metrics
        ],
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    fig.update_annotations(font_size=12)
    pairs = list(dict.fromkeys(zip(table["language"], table["vector"], strict=True)))
    # The target's own rows last; the others stay in their order.
    pairs.sort(key=lambda pair: pair[0] == result.target)
    labels = {
        pair: theme.language_label(pair[0])
        if pair[0] != result.target
        else f"{target} (vector of {theme.language_label(pair[1])})"
        for pair in pairs
    }
    methods = list(result.chosen["method"])
    step = 0.8 / len(conditions)
    for col, metric in enumerate(metrics, start=1):
        for n, condition in enumerate(conditions):
            method, _, control = condition.partition(", ")
            rows = table[(table["metric"] == metric) & (table["condition"] == condition)]
            rows = rows.dropna(subset=["change"])
            at = [
                # Rows are whole numbers, and conditions lie around them at even distances.
                pairs.index(pair) + (n - (len(conditions) - 1) / 2) * step
                for pair in zip(rows["language"], rows["vector"], strict=True)
            ]
            color = theme.PALETTE[methods.index(method)] if not control else theme.NEUTRAL
            symbol = {"": "circle", "random": "x", "shuffled": "diamond-open"}[control]
            fig.add_scatter(
                x=rows["change"].tolist(),
                y=at,
                error_x=whiskers(rows["change"], rows["change_low"], rows["change_high"]),
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": 7},
                customdata=rows[["value", "n"]].to_numpy().tolist(),
                name=method_name(condition),
                legendgroup=condition,
                showlegend=col == 1,
                hovertemplate="%{x:+.3f}, to %{customdata[0]:.3f} (%{customdata[1]} items)"
                f"<extra>{method_name(condition)}</extra>",
                row=1,
                col=col,
            )
        fig.update_xaxes(zeroline=True, zerolinecolor=theme.NEUTRAL, row=1, col=col)
    fig.update_yaxes(
        tickvals=list(range(len(pairs))),
        ticktext=[labels[pair] for pair in pairs],
        range=[len(pairs) - 0.5, -0.5],
        showgrid=False,
    )
    fig.update_xaxes(nticks=4)
    fig.update_layout(hovermode="closest")
    n = number_of(int(result.test["n"].max()), "test item")
    level = result.resampling.percent
    return theme.finish(
        fig,
        title=f"Steering towards {target}: change on the test items",
        notes=[f"{n}, on which nothing was chosen · bars: {level} interval of the change"],
        height=max(240, 22 * len(pairs) * len(conditions) // 2),
        legend=[method_name(c) for c in conditions],
        subtitles=True,
    )


@typed
def languages_said(result: SteeringResult) -> go.Figure:
    """Languages of free continuations, by language of the prompt and method.

    Args:
        result: From a `SteeringStudy`; with some outputs.

    Raises:
        ValueError: nothing was continued.
    """
    if result.outputs.empty:
        raise InputError("This study continued no prompts: n_outputs was 0.")
    table = result.languages_said()
    colors = theme.language_colors(
        set(result.outputs["language"]), pivot=result.target, more=set(table["said"])
    )
    bars = list(dict.fromkeys(zip(table["language"], table["condition"], strict=True)))
    cut = table.groupby(["language", "condition"])["truncated"].first().to_dict()
    names = [
        f"{theme.language_label(tag)}, {'no steering' if c == 'none' else method_name(c)}"
        + (f" ({percent(cut[tag, c])} cut off)" if cut.get((tag, c)) else "")
        for tag, c in bars
    ]
    fig = go.Figure()
    said = [tag for tag in colors if tag in set(table["said"])]
    for tag in said:
        found = table[table["said"] == tag].set_index(["language", "condition"])["share"]
        fig.add_bar(
            x=[float(found.get(bar, 0.0)) for bar in bars],
            y=names,
            orientation="h",
            marker={"color": theme.color_of(colors, tag)},
            name=theme.language_label(tag),
        )
    fig.update_layout(barmode="stack", hovermode="closest")
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(range=[0, 1], title_text="share of continuations")
    return theme.finish(
        fig,
        title="In which language does the steered model go on?",
        notes=[f"{range_of(table['n'], 'prompt')} each, identified by py3langid"],
        height=max(200, 24 * len(bars)),
        legend=[theme.language_label(tag) for tag in said],
    )
