"""Agreement between languages, beside what unrelated answers of the same accuracy would give."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.consistency import METRICS, ConsistencyResult
from xlens.figures import theme
from xlens.figures.heat import label_cells
from xlens.wording import number_of

_CELL = 34
"""Height of a cell, in pixels."""
_MOST_LABELLED = 8  # languages
_NAMES = {"rank_c": "RankC", "spearman": "Spearman's rho", "jaccard": "Jaccard"}
# Differences that can fall below zero; the others lie between 0 and 1.
_AROUND_ZERO = frozenset({"spearman", "lift", "jaccard_lift"})


@typed
def agreement_matrix(result: ConsistencyResult, metric: str = "rank_c") -> go.Figure:
    """Language × language: a measure (left) and its control of permuted items (right).

    Rows are the first language, columns the second. Intervals show on hovering.

    Args:
        result: From `xlens.consistency.consistency`.
        metric: One of `METRICS`.

    Raises:
        ValueError: an unknown measure, or one that was not computed.
    """
    tags = list(result.languages["language"])
    parts = (("value", "low", "high"), ("control", "control_low", "control_high"))
    fig = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=["result", "control: permuted items"],
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    fig.update_annotations(font_size=12)
    for i, columns in enumerate(parts):
        value, low, high = (result.matrix(metric, column=column).to_numpy() for column in columns)
        fig.add_heatmap(
            x=tags,
            y=tags,
            # JSON has no NaN, and plotly leaves a hole where there is none.
            z=[[None if v != v else v for v in row] for row in value.tolist()],
            customdata=[
                [[a, b] for a, b in zip(*row, strict=True)]
                for row in zip(low.tolist(), high.tolist(), strict=True)
            ],
            coloraxis="coloraxis",
            hovertemplate="%{y} – %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            row=1,
            col=i + 1,
        )
    centred = metric in _AROUND_ZERO
    scale, ends = ("RdBu", (-1.0, 1.0)) if centred else ("Cividis", (0.0, 1.0))
    for i, columns in enumerate(parts if len(tags) <= _MOST_LABELLED else ()):
        values = result.matrix(metric, column=columns[0]).to_numpy().tolist()
        label_cells(
            fig, values, x=tags, y=tags, scale=scale, ends=ends, place={"row": 1, "col": i + 1}
        )
    fig.update_yaxes(autorange="reversed", showgrid=False, type="category")
    fig.update_xaxes(showgrid=False, type="category")
    fig.update_layout(
        coloraxis={
            "cmin": ends[0],
            "cmax": ends[1],
            "colorscale": scale,
            "colorbar": {"thickness": 10},
        }
    )
    n = int(result.languages["n"].iloc[0])
    return theme.finish(
        fig,
        title=f"Agreement between languages: {_NAMES.get(metric, metric.replace('_', ' '))}",
        notes=[METRICS[metric], f"{number_of(n, 'item')}; rows: first language, columns: second"],
        height=max(160, _CELL * len(tags)),
        subtitles=True,
    )
