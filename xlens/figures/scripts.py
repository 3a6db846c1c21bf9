"""Language or script: every measure by what two varieties share, layer by layer."""

import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.subspace import POOLED, measure_name
from xlens.subspace.relations import RELATIONS
from xlens.subspace.script_probe import CROSSED, OWN, ScriptProbe
from xlens.subspace.scripts import ScriptControl
from xlens.wording import number_of, percent

_ROW = 220
_LETTERS = 33  # above one of two plots, at 420 pixels
_COLORS = {
    "language": theme.PIVOT,
    "script": theme.PALETTE[0],
    "neither": theme.PALETTE[4],
    "made": theme.PALETTE[2],
    "words": theme.NEUTRAL,
    "letters": theme.PALETTE[6],  # not grey as words: both are in every plot
}
_SYMBOLS = {
    "language": "circle",
    "script": "square",
    "neither": "diamond",
    "made": "star",
    "words": "triangle-up",
    "letters": "triangle-down",
}
_POINTS = "residual point (0 = embedding)"


@typed
def script_columns(
    control: ScriptControl, measures: Sequence[str] | None = None, *, kind: str = "value"
) -> go.Figure:
    """A small plot per measure: a line for each relation, from shared language to shuffled twin.

    Args:
        control: From `subspace.script_control`.
        measures: Which; by default all that have this kind.
        kind: `value` or `length_controlled`.

    Raises:
        ValueError: nothing of that kind and measure.
    """
    table = control.table[control.table["kind"] == kind].assign(n=lambda t: t["n_pairs"])
    measures = list(measures or dict.fromkeys(table["measure"]))
    if (odd := sorted({*measures} - {*table["measure"]})) or not measures:
        held = sorted(set(control.table["measure"]))
        raise InputError(f"No {odd or kind} of kind {kind!r} here; there are {held}.")
    titles = ["<br>".join(textwrap.wrap(measure_name(m), _LETTERS)) for m in measures]
    fig, places = theme.small_plots(titles, columns=2, height=_ROW)
    names: list[str] = []
    for i, (measure, place) in enumerate(zip(measures, places, strict=True)):
        mine = table[table["measure"] == measure]
        for name, words in RELATIONS.items():
            rows = mine[mine["relation"] == name].dropna(subset=["mean"])
            if rows.empty:
                continue
            bands.add_band(
                fig,
                rows,
                _COLORS[name],
                name=words,
                symbol=_SYMBOLS[name],
                legend=words not in names,
                group=name,
                **place,
            )
            names += [words] * (words not in names)
        bands.layer_axis(fig, max(control.layers), title=False, ticks=5, **place)
        fig.update_yaxes(nticks=5, rangemode="tozero", **place)
        lowest = i + 2 >= len(measures)
        fig.update_xaxes(title_text=_POINTS if lowest else None, **place)
    level = percent(control.confidence, whole=False)
    notes = [
        f"{number_of(control.n_items, 'sentence')} · "
        f"{POOLED.get(control.pooling, control.pooling)}",
        f"means over pairs of varieties · shaded: {level} interval over documents",
    ]
    notes += ["length and tokens a character taken out"] if kind != "value" else []
    return theme.finish(
        fig,
        title="Alike by language, or by script?",
        notes=notes,
        height=_ROW * places[-1]["row"],
        legend=names,
        subtitles=True,
    )


@typed
def script_probe_curves(probe: ScriptProbe) -> go.Figure:
    """How often a probe of two languages is right as trained, and with their scripts swapped."""
    fig, (place,) = theme.small_plots(["telling two languages apart"], columns=1, height=300)
    squares = probe.squares[probe.squares["kind"] == "value"]
    for (first, second), mine in squares.groupby(["first", "second"], sort=False):
        # Thin lines: what the mean of pairs that are read and pairs that aren't would hide.
        fig.add_scatter(
            x=mine["layer"],
            y=mine["mean"],
            mode="lines",
            line={"color": theme.NEUTRAL, "width": 0.7},
            opacity=0.6,
            name=f"trained on {first} and {second}",
            showlegend=False,
            **place,
        )
    names: list[str] = []
    for n, (asked, words) in enumerate(((OWN, "scripts as trained"), (CROSSED, "scripts swapped"))):
        table = probe.table
        rows = table[(table["asked"] == asked) & (table["kind"] == "value")]
        bands.add_band(
            fig,
            rows,
            theme.PALETTE[n],
            name=words,
            symbol=("square", "circle")[n],
            legend=True,
            **place,
        )
        names.append(words)
    fig.add_hline(y=0.5, line={"color": theme.NEUTRAL, "width": 1})
    bands.layer_axis(fig, max(probe.layers), title=False, **place)
    fig.update_xaxes(title_text=_POINTS, **place)
    fig.update_yaxes(title_text="accuracy", range=[-0.02, 1.02], **place)
    level = percent(probe.confidence, whole=False)
    return theme.finish(
        fig,
        title="Does a language probe read the script?",
        notes=[
            "1: reads the language · 0: reads the script",
            f"shaded: {level} interval · thin: each pair of languages, scripts swapped",
        ],
        height=300,
        legend=names,
        subtitles=True,
    )
