"""One prompt through the lens: the most probable token at every layer and position."""

from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.heat import label_cells
from xlens.lens.result import TraceResult
from xlens.terminal import cell_width, text_table

_NAMES = {"prob": "probability", "entropy": "entropy (bits)"}
# Even steps of lightness, the same for every kind of colour vision.
_SCALE = "Cividis"
_COLUMNS = 8
"""Width of a label in a cell, in columns of a terminal: 8 Latin letters, 4 Chinese."""


@typed
def trace_table(trace: TraceResult, *, color_by: Literal["prob", "entropy"] = "prob") -> go.Figure:
    """Layers × positions with the most probable next token as text; the embedding is lowest.

    Long tokens are cut in the cells and whole on hovering.

    Args:
        trace: What to draw.
        color_by: Colour of a cell: the probability of its token (0..1) or the entropy (bits) of
            its distribution.

    Raises:
        ValueError: another `color_by`.
    """
    if color_by not in _NAMES:
        raise InputError(f"color_by={color_by!r}: give one of {sorted(_NAMES)}.")
    tokens = trace.tokens.sort_values("pos")
    positions: list[int] = tokens["pos"].tolist()
    table = {key: _grid(trace.cells, key, positions) for key in ("label", "prob", "entropy")}
    layers = sorted(set(trace.cells["layer"].tolist()))
    # Entropy has no end of its own worth showing: log2 of a vocabulary is never reached.
    top = 1.0 if color_by == "prob" else max(max(row) for row in table["entropy"]) or 1.0
    fig = go.Figure(
        go.Heatmap(
            x=positions,
            y=layers,
            z=table[color_by],
            customdata=[
                [
                    [_shown(table["label"][i][j]), table["prob"][i][j], table["entropy"][i][j]]
                    for j in range(len(positions))
                ]
                for i in range(len(layers))
            ],
            hovertemplate="layer %{y}, position %{x}<br>%{customdata[0]}<br>"
            "probability %{customdata[1]:.3f}<br>entropy %{customdata[2]:.2f} bits<extra></extra>",
            colorscale=_SCALE,
            zmin=0,
            zmax=top,
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": _NAMES[color_by], "side": "right", "font": {"size": 12}},
                "thickness": 10,
                "outlinewidth": 0,
                "tickfont": {"size": 11},
            },
        )
    )
    label_cells(
        fig,
        table[color_by],
        x=positions,
        y=layers,
        scale=_SCALE,
        ends=(0.0, top),
        text=[[_shown(shorten(label, _COLUMNS)) for label in row] for row in table["label"]],
        size=11,
    )
    fig.update_xaxes(
        title_text="tokens of the prompt",
        tickmode="array",
        tickvals=positions,
        ticktext=[_shown(shorten(label, 2 * _COLUMNS)) for label in tokens["label"]],
        tickangle=-40,
        showgrid=False,
        range=[-0.5, len(positions) - 0.5],
    )
    fig.update_yaxes(
        title_text="residual point",  # its ends are told above: few layers leave no room here
        showgrid=False,
        dtick=1,
        range=[layers[0] - 0.5, layers[-1] + 0.5],
    )
    theme.finish(
        fig,
        title="Most probable next token at each layer",
        notes=[
            f"point 0 = embedding, {trace.n_layers} = after last block",
            "␣ space · ⏎ line break · ⟨E4 B8⟩ part of a letter, as bytes",
        ],
        height=22 * len(layers) + 60,
    )
    # A cell needs its width: a long prompt makes a wide figure, which its page scrolls.
    return fig.update_layout(width=max(420, 66 * len(positions) + 150), hovermode="closest")


@typed
def trace_text(trace: TraceResult, *, columns: int = 10) -> str:
    """The trace as a table for a terminal: the last layer on top, the prompt's tokens below.

    Args:
        trace: What to write.
        columns: Greatest width of a cell in columns of the terminal, 2 or more.

    Returns:
        Lines without a line break at the end. Chinese, Japanese and Korean letters count as two
        columns, accents and marks as none; right-to-left words are isolated.

    Raises:
        ValueError: `columns` below 2.
    """
    if columns < 2:
        raise InputError(f"columns={columns}: a cell needs 2 columns or more.")
    tokens = trace.tokens.sort_values("pos")
    positions: list[int] = tokens["pos"].tolist()
    layers = sorted(set(trace.cells["layer"].tolist()))
    rows = [["layer", *(str(label) for label in tokens["label"])]]
    for layer, labels in zip(layers, _grid(trace.cells, "label", positions), strict=True):
        rows.append([str(layer), *labels])
    cut = [[theme.isolate(shorten(cell, columns)) for cell in row] for row in reversed(rows)]
    *above, prompt = text_table([], cut).split("\n")
    return "\n".join([*above, "─" * max(map(cell_width, [*above, prompt])), prompt])


def shorten(text: str, columns: int) -> str:
    """`text`, cut to `columns` columns of a terminal, the last one then `…`."""
    from rich.cells import set_cell_size

    if cell_width(text) <= columns:
        return text
    return set_cell_size(text, columns - 1).rstrip() + "…"  # a space for half of a wide letter


def _shown(text: str) -> str:
    return theme.plain(theme.isolate(text))


def _grid(cells: pd.DataFrame, key: str, positions: list[int]) -> list[list[Any]]:
    """Values of a column as rows by layer (lowest first), columns by position."""
    table = cells.pivot(index="layer", columns="pos", values=key).sort_index()
    return table.reindex(columns=positions).to_numpy().tolist()
