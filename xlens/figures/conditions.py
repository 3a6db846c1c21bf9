"""Several summaries beside each other: all language pairs, or a result and its controls."""

from collections.abc import Mapping

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.lens.result import LensSummary, lens_title

_ROW = 200
"""Height of a small plot with its title, in pixels."""
_CONDITIONS = {"shuffled": "shuffled words", "random-init": "random weights"}


@typed
def condition_label(name: str, *, control: bool) -> str:
    """A condition of a study in words: `result: translation`, `control: shuffled words`."""
    return f"{'control' if control else 'result'}: {_CONDITIONS.get(name, name)}"


@typed
def pairs_overview(
    summaries: Mapping[str, LensSummary],
    *,
    chances: Mapping[str, LensSummary] | None = None,
    titles: Mapping[str, str] | None = None,
    colors: Mapping[str, str] | None = None,
    columns: int = 2,
) -> go.Figure:
    """Every language pair's probabilities by layer, as small plots with shared axes.

    Args:
        summaries: By the pair's name; drawn in this order.
        chances: By the pair's name, where there is one: the same states read for other prompts'
            words, as thin dotted lines.
        titles: By the pair's name, where languages, lens and the model's name don't tell pairs
            apart, as of checkpoints.
        colors: As in `language_curves`, for all pairs together.
        columns: Plots beside each other.

    Raises:
        ValueError: no summary, or `colors` lacks a language.
    """
    models = [str(s.provenance.get("model", "")) for s in summaries.values()]
    whose = [f", {model}" if len(set(models)) > 1 else "" for model in models]
    usual = [
        f"{s.source} → {s.target}{'' if s.lens == 'logit' else f', {lens_title(s.lens)}'}{model}"
        for s, model in zip(summaries.values(), whose, strict=True)
    ]
    called = [theme.plain(titles[name]) for name in summaries] if titles else usual
    fig, names = _grid(summaries, called, colors, columns, chances or {})
    return theme.finish(
        fig,
        title="All language pairs",
        notes=[bands.samples_note(summaries), *([bands.CHANCE] if chances else [])],
        height=_ROW * -(-len(summaries) // columns),
        legend=names,
        subtitles=True,
    )


@typed
def controls(
    summaries: Mapping[str, LensSummary],
    *,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    columns: int = 2,
) -> go.Figure:
    """The result beside its controls, with the same axes.

    Args:
        summaries: By condition: the result (`translation`) first, then its controls (`shuffled`,
            `random-init`, ...).
        colors: As in `language_curves`.
        names: As in `language_curves`.
        columns: Plots beside each other.

    Raises:
        ValueError: no summary, or `colors` lacks a language.
    """
    titles = [theme.plain(condition_label(name, control=i > 0)) for i, name in enumerate(summaries)]
    fig, drawn = _grid(summaries, titles, colors, columns, {})
    first = next(iter(summaries.values()))
    return theme.finish(
        fig,
        title="Result and controls",
        notes=[
            theme.task_words(first.task, first.source, first.target, names),
            bands.samples_note(summaries),
        ],
        height=_ROW * -(-len(summaries) // columns),
        legend=drawn,
        subtitles=True,
    )


def _grid(
    summaries: Mapping[str, LensSummary],
    titles: list[str],
    colors: Mapping[str, str] | None,
    columns: int,
    chances: Mapping[str, LensSummary],
) -> tuple[go.Figure, list[str]]:
    """One small plot of probabilities for each summary; also the names in the legend."""
    if not summaries:
        raise InputError("No summary to draw; give at least one, as {name: LensResult.summary()}.")
    if columns < 1:
        raise InputError(f"columns={columns}: give the number of plots in a row, 1 or more.")
    colors = bands.colors_or_default(colors, summaries)
    fig, places = theme.small_plots(
        titles, columns=columns, height=_ROW, apart=0.05, shared_xaxes="all", shared_yaxes="all"
    )
    names: dict[str, None] = {}
    for i, ((pair, summary), place) in enumerate(zip(summaries.items(), places, strict=True)):
        shown = set(names)
        names |= dict.fromkeys(bands.add_languages(fig, summary, colors, known=shown, **place))
        if pair in chances:
            bands.add_chance(fig, chances[pair], colors, **place)
        fig.update_yaxes(range=[0, 1], nticks=3, **place)
        # The lowest plot of a column carries the axis.
        lowest = i + columns >= len(summaries)
        bands.layer_axis(fig, summary.n_layers, title=False, ticks=5, **place)
        fig.update_xaxes(showticklabels=lowest, **place)
    last = max(s.n_layers for s in summaries.values())
    # Once for all columns: a title under each would overlap with its neighbour's.
    fig.add_annotation(
        text=theme.LAYERS.format(last=last),
        showarrow=False,
        **{"x": 0.5, "xref": "paper", "xanchor": "center"},
        **{"y": 0, "yref": "paper", "yanchor": "top", "yshift": -22},
    )
    return fig, list(names)
