"""What is said under steering: in which language and about what, beside its controls."""

import textwrap

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.figures import theme
from xlens.figures.steering import method_name
from xlens.figures.whiskers import whiskers
from xlens.steering import OutputSteering
from xlens.steering.outputs import ALL, CONDITIONS, PLAIN, RULE, SCORE
from xlens.wording import number_of

_METRICS = {
    "forcing": "said in that language",
    "relevance": "about the prompt",
    SCORE: "both (harmonic mean)",
    "wrong_language": "about the prompt, in another language",
}
_ROW = 16
_SYMBOLS = {"random": "x", "shuffled": "diamond-open", RULE: "star"}
_YARDSTICKS = {PLAIN: "circle-open", "asked in it": "triangle-up-open", "written": "square-open"}


def condition_name(condition: str) -> str:
    """A condition in words."""
    if condition in CONDITIONS:
        return CONDITIONS[condition].partition(":")[0]
    method, _, control = condition.partition(", ")
    return method_name(method) + (", layer by the rule" if control == RULE else "") + (
        f", {control}" if control and control != RULE else ""
    )  # fmt: skip


@typed
def output_scores(result: OutputSteering) -> go.Figure:
    """A plot per rate, a row per language: every condition with its interval.

    Args:
        result: From a `SteeringStudy` with sentences.
    """
    targets = [*result.targets, *([ALL] if len(result.targets) > 1 else [])]
    conditions = list(result.conditions)
    methods = [c for c in conditions if ", " not in c and c not in CONDITIONS]
    height = max(220, _ROW * len(targets) * max(4, len(conditions)) // 2)
    titles = ["<br>".join(textwrap.wrap(words, 24)) for words in _METRICS.values()]
    fig, places = theme.small_plots(titles, columns=2, height=height, apart=0.05, shared_yaxes=True)
    step = 0.8 / max(len(conditions), 1)
    for at, (metric, place) in enumerate(zip(_METRICS, places, strict=True)):
        table = result.pick(metric)
        for n, condition in enumerate(conditions):
            rows = table[(table["condition"] == condition) & table["target"].isin(targets)]
            method, _, control = condition.partition(", ")
            color = theme.NEUTRAL
            if method in methods and control in ("", RULE):
                color = theme.PALETTE[methods.index(method)]
            symbol = _YARDSTICKS.get(condition, _SYMBOLS.get(control, "circle"))
            name = condition_name(condition)
            y = [targets.index(t) + (n - (len(conditions) - 1) / 2) * step for t in rows["target"]]
            fig.add_scatter(
                x=rows["value"].tolist(),
                y=y,
                error_x=whiskers(rows["value"], rows["low"], rows["high"]),
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": 7},
                name=name,
                legendgroup=condition,
                showlegend=at == 0,
                hovertemplate=f"%{{x:.2f}}<extra>{name}</extra>",
                **place,
            )
        if metric == "relevance":
            fig.add_vline(x=result.chance, line={"color": theme.NEUTRAL, "width": 1}, **place)
        fig.update_xaxes(range=[-0.02, 1.02], nticks=5, **place)
    labels = ["mean" if t == ALL else theme.language_label(t) for t in targets]
    fig.update_yaxes(
        tickvals=list(range(len(targets))),
        ticktext=labels,
        # From high to low: the first row on top.
        range=[len(targets) - 0.5, -0.5],
        showgrid=False,
    )
    fig.update_xaxes(title_text="share of outputs", row=2)
    fig.update_layout(hovermode="closest")
    n = number_of(int(result.test["n"].max()), "prompt")
    source = theme.language_label(result.source)
    return theme.finish(
        fig,
        title=f"What is said when pushed from {source}",
        notes=[
            f"{n} on which nothing was chosen · bars: {result.resampling.percent} interval",
            f"line: chance of relevance ({result.chance:.2f})",
        ],
        height=2 * height,
        legend=[condition_name(c) for c in conditions],
        subtitles=True,
    )


@typed
def output_surface(result: OutputSteering) -> go.Figure:
    """Layer × strength on the development prompts: the score, mean over languages.

    Args:
        result: From a `SteeringStudy` with sentences.
    """
    dev = result.dev[result.dev["method"] != PLAIN]
    # Neurons are changed in all blocks at once: there is nothing to draw.
    wide = dev.groupby("method", sort=False)["band"].nunique()
    methods = [str(m) for m, n in wide.items() if n > 1] or [str(m) for m in wide.index]
    fig = make_subplots(
        rows=1,
        cols=len(methods),
        subplot_titles=[method_name(method) for method in methods],
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    fig.update_annotations(font_size=12)
    bands: list[str] = []
    for col, method in enumerate(methods, start=1):
        mine = dev[dev["method"] == method]
        table = mine.groupby(["band", "strength"], sort=False)["score"].mean().reset_index()
        bands = list(dict.fromkeys(table["band"]))
        cells = table.pivot(index="band", columns="strength", values="score").loc[bands]
        fig.add_heatmap(
            x=[f"{s:g}" for s in cells.columns],
            y=bands,
            z=cells.to_numpy().tolist(),
            coloraxis="coloraxis",
            hovertemplate="layer %{y}, strength %{x}: %{z:.2f}<extra></extra>",
            xgap=1,
            ygap=1,
            row=1,
            col=col,
        )
        fig.update_xaxes(title_text="strength", type="category", showgrid=False, row=1, col=col)
    fig.update_yaxes(type="category", showgrid=False)
    fig.update_yaxes(title_text="residual point", col=1)
    fig.update_layout(
        coloraxis={"cmin": 0, "cmax": 1, "colorscale": "Cividis", "colorbar": {"thickness": 10}}
    )
    n = number_of(int(result.dev["n"].max()), "development prompt")
    rule = result.chosen[result.chosen["picked"] == RULE]["band"].unique()
    notes = [f"{n} a language, mean over languages"]
    notes += [f"the rule predicts layer {', '.join(map(str, rule))}"] if len(rule) else []
    return theme.finish(
        fig,
        title="Forcing × relevance by layer and strength",
        notes=notes,
        height=max(180, 20 * len(bands)),
        subtitles=True,
    )
