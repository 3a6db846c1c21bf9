"""Figures about the atlas: how its loss fell, and how recall follows the number of documents."""

from itertools import cycle

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import theme
from xlens.figures.whiskers import whiskers
from xlens.testbed.atlas.build import TrainingCurves
from xlens.testbed.atlas.evaluate import AtlasReport


@typed
def loss_curve(curves: TrainingCurves) -> go.Figure:
    """Loss by step of base model and twin."""
    names = {"base": "base model", "post": "post-trained twin"}
    fig = go.Figure()
    for (phase, table), color in zip(
        curves.table.groupby("phase", sort=False), cycle(theme.PALETTE), strict=False
    ):
        fig.add_scatter(
            x=table.step.tolist(),
            y=table.loss.tolist(),
            mode="lines",
            line={"color": color, "width": 1},
            name=names.get(str(phase), str(phase)),
        )
    fig.update_xaxes(title="step")
    fig.update_yaxes(title="loss (nats per token)", type="log")
    return theme.finish(
        fig,
        title="Loss of the batch before its update",
        height=350,
        legend=list(names.values()),
    )


@typed
def dose_response(report: AtlasReport) -> go.Figure:
    """Recall by documents that state a fact, at each checkpoint, and of the facts without any.

    Core facts, all languages, with 95 % Wilson intervals; dotted, of the final model: facts hidden
    from the language asked, facts stated nowhere, and these with their answers dealt at random.
    """
    apart = ("hidden", "control")
    series = report.series
    fig = go.Figure()
    # Hidden and control facts have no number of documents: they are lines, not points.
    revisions = series[~series.what.isin(apart)].groupby("revision", sort=False)
    for (revision, table), color in zip(revisions, cycle(theme.PALETTE), strict=False):
        fig.add_scatter(
            x=table.what.tolist(),
            y=table.share.tolist(),
            error_y=whiskers(table.share, table.low, table.high),
            mode="lines+markers",
            line={"color": color},
            name=str(revision),
        )
    final = series[series.revision == "final"].set_index("what").share
    control = report.control[report.control.of == "all"].iloc[0]
    for name, share, color in (
        ("hidden here, stated in English", final["hidden"], theme.PIVOT),
        ("stated nowhere", final["control"], theme.NEUTRAL),
        ("stated nowhere, answers dealt at random", control.chance, theme.NEUTRAL),
    ):
        fig.add_hline(y=float(share), line={"color": color, "dash": "dot"}, annotation_text=name)
    fig.update_xaxes(title="documents in the language asked, in the whole text", type="category")
    fig.update_yaxes(title="share of facts recalled", range=[0, 1.02])
    return theme.finish(
        fig,
        title="Recall by how often the text states a fact",
        notes=["bars: 95% interval · dotted: other facts, of the final model"],
        height=400,
        legend=[str(revision) for revision, _ in revisions],
    )
