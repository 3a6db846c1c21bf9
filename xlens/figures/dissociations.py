"""Does dissimilarity inside go with inconsistency outside? rho by layer, beside its null."""

from collections.abc import Sequence

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.consistency import Dissociation
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.subspace import measure_name
from xlens.wording import number_of

_ROW = 210
_METRICS = {"spearman": "order of options", "rank_c": "RankC", "lift": "transfer beyond accuracy"}


@typed
def dissociation_curves(
    result: Dissociation,
    measures: Sequence[str] | None = None,
    *,
    kind: str = "value",
    columns: int = 2,
) -> go.Figure:
    """Spearman's rho of similarity and consistency over pairs of languages, by layer.

    A small plot per similarity measure, a line per consistency metric; filled markers where p is
    below 0.05 by permuted languages, open ones elsewhere. Grey: the middle 95 % of the permuted.

    Args:
        result: From `xlens.consistency.dissociation`.
        measures: Which similarity measures; by default all.
        kind: `value` or `accuracy_out`.
        columns: Plots beside each other.

    Raises:
        ValueError: an unknown measure or kind.
    """
    there = list(dict.fromkeys(result.table["measure"]))
    measures = list(measures or there)
    if unknown := [m for m in measures if m not in there]:
        raise InputError(f"measures={unknown!r}; there are {there}.")
    if kind not in set(result.table["kind"]):
        raise InputError(f"kind={kind!r}; there are {sorted(set(result.table['kind']))}.")
    table = result.table[result.table["kind"] == kind]
    metrics = list(dict.fromkeys(table["metric"]))
    titles = [measure_name(m) for m in measures]
    fig, places = theme.small_plots(
        titles, columns=columns, height=_ROW, apart=0.06, shared_yaxes=True
    )
    for i, (measure, place) in enumerate(zip(measures, places, strict=True)):
        mine = table[table["measure"] == measure].sort_values("layer")
        null = mine[mine["metric"] == metrics[0]].dropna()
        layer = null["layer"].tolist()
        fig.add_scatter(
            x=layer + layer[::-1],
            y=null["null_high"].tolist() + null["null_low"].tolist()[::-1],
            fill="toself",
            fillcolor=theme.translucent(theme.NEUTRAL, 0.25),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            name="permuted languages",
            showlegend=i == 0,
            **place,
        )
        for n, metric in enumerate(metrics):
            line = mine[mine["metric"] == metric]
            color = theme.PALETTE[n]
            filled = [color if p < 0.05 else "rgba(0,0,0,0)" for p in line["p"].fillna(1)]
            fig.add_scatter(
                x=line["layer"].tolist(),
                y=line["rho"].tolist(),
                customdata=line[["p", "n_pairs"]].to_numpy().tolist(),
                mode="lines+markers",
                line={"color": color, "width": 1.5},
                marker={"size": 6, "color": filled, "line": {"color": color, "width": 1.2}},
                name=_METRICS.get(metric, metric.replace("_", " ")),
                legendgroup=metric,
                showlegend=i == 0,
                hovertemplate="%{y:.2f} (p = %{customdata[0]:.3f}, %{customdata[1]} pairs)",
                **place,
            )
        low = i + columns >= len(measures)
        bands.layer_axis(fig, int(table["layer"].max()), title=False, ticks=5, **place)
        fig.update_xaxes(title_text="residual point (0 = embedding)" if low else None, **place)
    fig.update_yaxes(range=[-1.05, 1.05], nticks=5)
    fig.update_yaxes(title_text="rho over pairs", col=1)
    notes = [
        f"{number_of(len(result.languages), 'language')}, "
        f"{number_of(int(table['n_pairs'].iloc[0]), 'pair')}",
        "filled: p < 0.05 by permuted languages, each point by itself",
    ]
    if kind == "accuracy_out":
        notes.append("the languages' accuracy taken out")
    return theme.finish(
        fig,
        title="Do languages that are alike inside answer alike?",
        notes=notes,
        height=_ROW * places[-1]["row"],
        legend=[_METRICS.get(str(m), str(m)) for m in metrics],
        subtitles=True,
    )
