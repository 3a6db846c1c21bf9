"""Language neurons: where they are, and what text loses without them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import theme
from xlens.figures.heat import label_cells
from xlens.neurons import LanguageNeurons, NeuronEffects
from xlens.neurons.effects import BEYOND, RANDOM
from xlens.neurons.effects import NEURONS as OWN
from xlens.wording import percent, rounded

_CELL = 26
_MOST_NUMBERS = 8  # languages: with more, a number doesn't fit into its cell at 420 pixels
_DONE = {
    "off": "switched off",
    "mean": "set to their mean in that language",
    "boost": "boosted",
}


@typed
def neuron_places(neurons: LanguageNeurons) -> go.Figure:
    """Language × block: how many units belong to each language there.

    Args:
        neurons: From `xlens.neurons.language_neurons`.
    """
    wide = neurons.counts.pivot(index="language", columns="layer", values="n")
    wide = wide.loc[list(neurons.languages), list(neurons.layers)]
    totals = neurons.sizes()
    fig = go.Figure(
        go.Heatmap(
            x=[str(layer) for layer in wide.columns],
            y=[f"{tag} ({totals[tag]})" for tag in wide.index],
            z=wide.to_numpy().tolist(),
            colorscale="Cividis",
            zmin=0,
            colorbar={"thickness": 10},
            hovertemplate="%{y}, block %{x}: %{z} units<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    fig.update_yaxes(autorange="reversed", showgrid=False, type="category")
    fig.update_xaxes(showgrid=False, type="category", title="block", nticks=10, tickangle=0)
    return theme.finish(
        fig,
        title="Where the language neurons are",
        notes=[
            f"{neurons.kept} of {neurons.width * len(neurons.layers)} units; in brackets a "
            "language's, of which several languages may share one"
        ],
        height=max(160, _CELL * len(neurons.languages)),
    )


@typed
def neuron_losses(effects: NeuronEffects) -> go.Figure:
    """Whose units lack × language of the text: loss a token beyond random units, and theirs.

    A dot marks cells that are told from 0 (adjusted p below the level). Intervals on hovering.

    Args:
        effects: From `xlens.neurons.neuron_effects`.

    Raises:
        ValueError: no language had units.
    """
    if effects.table.empty:
        raise InputError("No language had units that could be changed: there is nothing to draw.")
    fig, places = theme.small_plots(
        ["beyond random units", "random units alone"], columns=1, height=_height(effects)
    )
    # By the units themselves: both plots share the scale, and the controls can't stretch it.
    most = float(effects.of(OWN)["difference"].abs().max()) or 1.0
    level = 1 - effects.confidence
    labels: list[Any] = []
    for kind, place in zip((BEYOND, RANDOM), places, strict=True):
        rows = effects.of(kind)
        whose = list(dict.fromkeys(rows["neurons"]))
        cells = {
            name: rows.pivot(index="neurons", columns="language", values=name)
            .loc[whose, list(effects.languages)]
            .to_numpy()
            for name in ("difference", "low", "high", "p")
        }
        few = len(effects.languages) <= _MOST_NUMBERS
        marks = np.where(cells["p"] < level, "•", "")
        fig.add_heatmap(
            x=list(effects.languages),
            y=whose,
            z=cells["difference"].tolist(),
            customdata=np.dstack([cells["low"], cells["high"]]).tolist(),
            coloraxis="coloraxis",
            hovertemplate="without the units of %{y}, text in %{x}: %{z:.3f} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}] nats<extra></extra>",
            xgap=1,
            ygap=1,
            **place,
        )
        text = [
            [
                f"{rounded(value, '.2f')}{mark}" if few else mark
                for value, mark in zip(*row, strict=True)
            ]
            for row in zip(cells["difference"], marks, strict=True)
        ]
        labels.append((cells["difference"].tolist(), whose, text, place))
        fig.update_yaxes(autorange="reversed", title="units of", **place)
    for values, whose, text, place in labels:
        where: dict[str, Any] = {"x": list(effects.languages), "y": whose, "scale": "RdBu_r"}
        label_cells(fig, values, **where, ends=(-most, most), text=text, place=place)
    fig.update_xaxes(title="text in", row=2, col=1)
    fig.update_yaxes(showgrid=False, type="category")
    fig.update_xaxes(showgrid=False, type="category", tickangle=0)
    fig.update_layout(
        coloraxis={
            "cmin": -most,
            "cmax": most,
            "colorscale": "RdBu_r",
            "colorbar": {"thickness": 10},
        }
    )
    return theme.finish(
        fig,
        title=f"Loss with a language's units {_DONE[effects.how]}",
        notes=[
            "nats a token, less that of the model as it is",
            f"•: told from 0, p < {percent(level)} over all cells",
        ],
        height=2 * _height(effects),
        subtitles=True,
    )


def _height(effects: NeuronEffects) -> int:
    return max(190, 70 + _CELL * len(effects.languages))
