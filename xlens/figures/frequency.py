"""Recall by how often a corpus states a fact, with the facts that it never states beside."""

import plotly.graph_objects as go

from xlens.acquisition import FrequencyResponse
from xlens.checks import typed
from xlens.figures import theme

_NEVER = 0.5
"""Where facts of frequency 0 stand on a logarithmic axis."""


@typed
def frequency_curves(result: FrequencyResponse, facts: str = "every") -> go.Figure:
    """Share recalled by bins of frequency, a line per language; facts that nothing states at 0.

    Args:
        result: From `xlens.acquisition.frequency_response`.
        facts: `every`, or `different`: those whose object is another string than in the pivot.

    Raises:
        ValueError: other facts than these, or none of them.
    """
    table = result.bins[result.bins["facts"] == facts]
    if table.empty:
        there = ", ".join(dict.fromkeys(result.bins["facts"]))
        raise ValueError(f"There are no bins of facts={facts!r}; there are those of {there}.")
    tags = [tag for tag in dict.fromkeys(table["language"]) if tag != "all"]
    colors = theme.language_colors(tags, pivot=result.pivot)
    fig = go.Figure()
    shown: list[str] = []
    for tag in (tag for tag in colors if tag in tags):
        rows = table[(table["language"] == tag) & (table["n"] > 0)]
        shown.append(theme.language_label(tag))
        for part, mode in ((rows["most"] == 0, "markers"), (rows["most"] > 0, "lines+markers")):
            own = rows[part]
            fig.add_scatter(
                x=[centre or _NEVER for centre in own["centre"].tolist()],
                y=own["share"].tolist(),
                customdata=own[["least", "most", "n", "low", "high"]].to_numpy().tolist(),
                error_y={
                    "array": (own["high"] - own["share"]).fillna(0).tolist(),
                    "arrayminus": (own["share"] - own["low"]).fillna(0).tolist(),
                    "thickness": 1,
                },
                mode=mode,
                line={"color": theme.color_of(colors, tag)},
                marker={"symbol": theme.symbol_of(colors, tag)},
                name=shown[-1],
                legendgroup=tag,
                showlegend=mode != "markers",
                hovertemplate="%{y:.2f} [%{customdata[3]:.2f}, %{customdata[4]:.2f}] of "
                "%{customdata[2]} facts",
            )
    decades = range(len(str(int(table["most"].max()))) + 1)
    fig.update_xaxes(
        title="documents that state a fact",
        type="log",
        tickvals=[_NEVER, *(10**k for k in decades)],
        ticktext=["never", *(f"{10**k:,}" for k in decades)],
    )
    fig.update_yaxes(title="share of facts recalled", range=[0, 1.02])
    note = "all facts" if facts == "every" else "facts whose object is another string in the pivot"
    return theme.finish(
        fig,
        title="Recall by how often a fact is stated",
        notes=[note, "bars: interval over facts · bins without facts are left out"],
        height=360,
        legend=shown,
    )
