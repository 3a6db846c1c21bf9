"""What the logit lens saw along the layers: probabilities, entropy, composition."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.figures import bands, theme
from xlens.lens.result import LensSummary
from xlens.wording import number_of

_STATES = {
    "entropy": "entropy (bits)",
    "kl": "KL from the output (bits)",
    "energy": "token energy",
}


@typed
def language_curves(
    summary: LensSummary,
    *,
    chance: LensSummary | None = None,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Probability of each language's word by layer, below a strip with the entropy.

    Lines are means over prompts, shaded their intervals. A dotted line and its shaded interval mark
    where the target language overtakes the pivot for good, if it does.

    Args:
        summary: What to draw.
        chance: The same states read for other prompts' words (`shuffled`): what each language gets
            by chance, as thin dotted lines.
        colors: Colours by language for the whole report (`language_colors`); by default those of
            this summary's languages.
        names: English names of the languages of the whole report (`english_names`).

    Raises:
        ValueError: `colors` lacks a language of the summary.
    """
    colors = bands.colors_or_default(colors, {"": summary})
    fig = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.2, 0.8], vertical_spacing=0.05
    )
    entropy = summary.states.query("quantity == 'entropy'")
    bands.add_band(fig, entropy, theme.NEUTRAL, name="entropy", row=1, col=1)
    drawn = bands.add_languages(fig, summary, colors, row=2, col=1)
    notes = [bands.sample_note(summary)]
    if chance is not None:
        bands.add_chance(fig, chance, colors, row=2, col=1)
        notes.append(bands.CHANCE)
    _mark_crossover(fig, summary)
    fig.update_yaxes(title_text="entropy<br>(bits)", rangemode="tozero", nticks=3, row=1, col=1)
    fig.update_yaxes(title_text="probability of the word", range=[0, 1], row=2, col=1)
    bands.layer_axis(fig, summary.n_layers, row=2, col=1)
    bands.layer_axis(fig, summary.n_layers, row=1, col=1, title=False)
    return theme.finish(
        fig,
        title=theme.task_words(summary.task, summary.source, summary.target, names),
        notes=notes,
        height=400,
        legend=drawn,
    )


@typed
def state_curves(summary: LensSummary, *, names: Mapping[str, str] | None = None) -> go.Figure:
    """Entropy (bits), KL divergence from the output (bits) and token energy by layer.

    Lines are means over prompts, shaded their intervals; one plot below the other, as their units
    differ.

    Args:
        summary: What to draw.
        names: As in `language_curves`.
    """
    kinds = [kind for kind in _STATES if (summary.states["quantity"] == kind).any()]
    fig = make_subplots(rows=len(kinds), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, kind in enumerate(kinds, start=1):
        table = summary.states[summary.states["quantity"] == kind]
        bands.add_band(fig, table, theme.NEUTRAL, name=kind, row=row, col=1)
        fig.update_yaxes(title_text=_STATES[kind].replace(" (", "<br>("), nticks=5, row=row, col=1)
        bands.layer_axis(fig, summary.n_layers, row=row, col=1, title=row == len(kinds))
    return theme.finish(
        fig,
        title="How sure each layer is",
        notes=[
            theme.task_words(summary.task, summary.source, summary.target, names),
            bands.sample_note(summary),
        ],
        height=150 * len(kinds),
    )


@typed
def composition_bars(
    summary: LensSummary,
    *,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """Languages of the most probable tokens by layer, as stacked shares that sum to 1.

    Languages that stay below 4 % at every layer are drawn together as `other`, unless they are the
    source, the target or the pivot.

    Args:
        summary: What to draw.
        colors: As in `language_curves`; `other` is hatched grey, `unknown` grey and on top.
        names: As in `language_curves`.

    Raises:
        ValueError: `colors` lacks a language that is drawn.
    """
    colors = bands.colors_or_default(colors, {"": summary})
    layers = list(range(summary.n_layers + 1))
    named = set(bands.composed(summary))
    # Drawn, not measured: shares are only added up.
    shares = summary.composition.assign(
        language=[t if t in named else theme.OTHER for t in summary.composition["language"]]
    )
    shares = shares.groupby(["language", "layer"])["share"].sum()
    tags = bands.in_order(set(shares.index.get_level_values("language")), colors)
    fig = go.Figure()
    for tag in tags:
        fig.add_bar(
            x=layers,
            y=shares[tag].reindex(layers, fill_value=0.0).tolist(),
            name=theme.language_label(tag),
            marker_color=theme.color_of(colors, tag),
            marker_line_width=0,
            marker_pattern_shape="/" if tag == theme.OTHER else "",
            hovertemplate="%{y:.2f}",
        )
    fig.update_layout(barmode="stack", bargap=0.12, legend_traceorder="normal")
    fig.update_yaxes(title_text="share of the top tokens", range=[0, 1])
    bands.layer_axis(fig, summary.n_layers)
    return theme.finish(
        fig,
        title="Languages of the most probable tokens",
        notes=[
            theme.task_words(summary.task, summary.source, summary.target, names),
            f"{number_of(bands.count(summary), 'prompt')} · unknown: no language could be told",
        ],
        height=280,
        legend=[theme.language_label(tag) for tag in tags],
    )


def _mark_crossover(fig: go.Figure, summary: LensSummary) -> None:
    """Mark the layer where the target overtakes the pivot, with its interval, if there is one."""
    found = summary.landmarks.query("name == 'crossover_layer'").dropna(subset="value")
    # One row or none: a crossover that isn't there has no value.
    for value, low, high in found[["value", "low", "high"]].itertuples(index=False):
        place: dict[str, Any] = {"row": 2, "col": 1}
        if low < high:
            fill = theme.translucent(theme.NEUTRAL, 0.16)
            fig.add_vrect(x0=low, x1=high, fillcolor=fill, line_width=0, layer="below", **place)
        fig.add_vline(
            x=value,
            line={"color": theme.NEUTRAL, "dash": "dot", "width": 1.5},
            annotation_text="crossover",
            annotation_position="top left",
            annotation_font_size=11,
            **place,
        )
