"""Two runs or results against each other: a point for every number that both have."""

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.comparison import CompareResult
from xlens.figures import theme
from xlens.wording import number_of

_MOST_PLOTS, _MOST_POINTS = 6, 2_000


@typed
def compared_points(result: CompareResult) -> go.Figure:
    """Second against first, a small plot for the first number of each part.

    On the line nothing differs. Of more than six parts those with the largest differences are
    drawn, beside their own size.
    """
    drawn: dict[str, tuple[str, float]] = {}
    for row in result.summary.to_dict("records"):
        size = max(abs(row["first"]), abs(row["second"]), 1e-12)
        drawn.setdefault(str(row["part"]), (str(row["measure"]), abs(row["difference"]) / size))
    parts = sorted(drawn, key=lambda part: -drawn[part][1])[:_MOST_PLOTS]
    # Chosen by size, shown in the result's own order.
    parts = [part for part in drawn if part in parts]
    titles = [theme.plain(f"{part}: {drawn[part][0]}".removeprefix(": ")) for part in parts]
    columns = min(2, max(1, len(parts)))
    fig, places = theme.small_plots(titles, columns=columns, height=280)
    for part, place in zip(parts, places, strict=True):
        table = result.table
        own = table[(table["part"] == part) & (table["measure"] == drawn[part][0])]
        own = own.dropna(subset=["difference"])
        own = own.iloc[:: max(1, -(-len(own) // _MOST_POINTS))]
        ends = [float(own[["first", "second"]].min().min())]
        ends.append(float(own[["first", "second"]].max().max()))
        line = {"color": theme.NEUTRAL, "width": 1}
        fig.add_scatter(
            x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip", **place
        )
        fig.add_scatter(
            x=own["first"].tolist(),
            y=own["second"].tolist(),
            mode="markers",
            marker={"color": theme.PIVOT, "size": 5},
            text=[theme.plain(where) for where in own["where"]],
            hovertemplate="%{text}<br>%{x:.3g} → %{y:.3g}<extra></extra>",
            showlegend=False,
            **place,
        )
    fig.update_layout(hovermode="closest")
    first, second = result.names
    return theme.finish(
        fig,
        title="Second against first",
        notes=[
            f"across: {first} · up: {second}",
            f"{number_of(len(result.table), 'number')} in both · on the line: no difference",
        ],
        height=280 * -(-len(parts) // columns),
        subtitles=True,
    )
