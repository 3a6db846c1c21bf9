"""What exchanging and taking away what is read does to the answer, by layer."""

from collections.abc import Mapping

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import bands, theme
from xlens.languages import english_names
from xlens.lens.verdict import CausalSummary
from xlens.wording import number_of

_ROW = 280
_COLORS = {
    "concept": theme.PALETTE[1],
    "pivot": theme.PALETTE[0],
    "other": theme.PALETTE[2],
    "random": theme.NEUTRAL,
}
_PLOTS = {
    ("exchange", "last"): "Exchanged at the last position",
    ("exchange", "after"): "Exchanged at all positions after the word",
    ("ablation", "last"): "Taken away at the last position",
}


@typed
def causal_curves(summary: CausalSummary, *, names: Mapping[str, str] | None = None) -> go.Figure:
    """Change of the donor's against the own word's log-odds, by layer, a plot for each way.

    Args:
        summary: From `causal_summary`.
        names: English names of the languages of the whole report (`english_names`).
    """
    names = names or english_names([summary.pivot, summary.target])
    said = {
        "concept": "what languages share",
        "pivot": f"{names[summary.pivot]} alone",
        "other": "another language alone",
        "random": "random direction",
    }
    held = {(w, p) for w, p in zip(summary.curves["way"], summary.curves["where"], strict=True)}
    there = {key: title for key, title in _PLOTS.items() if key in held}
    fig, places = theme.small_plots(list(there.values()), columns=len(there), height=_ROW)
    for n, ((way, where), place) in enumerate(zip(there, places, strict=True)):
        mine = summary.curves[(summary.curves["way"] == way) & (summary.curves["where"] == where)]
        for what, name in said.items():
            rows = mine[mine["what"] == what]
            bands.add_band(fig, rows, _COLORS[what], name=name, legend=n == 0, **place)
        bands.layer_axis(fig, summary.n_layers, ticks=6, **place)
        fig.update_yaxes(title_text="change in log-odds, nats" if n == 0 else None, **place)
    return theme.finish(
        fig,
        title="What an exchange of what is read does to the answer",
        notes=[
            f"Donor's against own word in {names[summary.target]} at the output · "
            f"{number_of(summary.n_items, 'item')} · {bands.shaded(summary.confidence)}",
            "All changes of a prompt at a point are equally long",
        ],
        height=_ROW,
        legend=list(said.values()),
        subtitles=True,
    )
