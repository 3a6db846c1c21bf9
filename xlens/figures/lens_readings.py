"""What lenses read of texts that they never saw, language by language."""

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import bands, theme
from xlens.lens.readings import LensReadings
from xlens.wording import number_of

_ROW = 190
_COLORS = {"logit": theme.NEUTRAL, "tuned": theme.PALETTE[1], "jacobian": theme.PALETTE[0]}
_MORE = {"jacobian of it": theme.PALETTE[4], "jacobian without it": theme.PALETTE[2]}


@typed
def lens_readings(result: LensReadings, *, columns: int = 2) -> go.Figure:
    """Divergence of the output from what each lens reads, by layer, a plot for each language.

    Args:
        result: From `read_texts_through`.
        columns: Plots beside each other.
    """
    tags = list(dict.fromkeys(result.table["language"]))
    names = list(dict.fromkeys(result.table["lens"]))
    titles = [theme.language_label(tag) for tag in tags]
    fig, places = theme.small_plots(titles, columns=columns, height=_ROW)
    spare = iter(theme.PALETTE[5:])
    colors = {name: {**_COLORS, **_MORE}.get(name) or next(spare) for name in names}
    for i, (tag, place) in enumerate(zip(tags, places, strict=True)):
        mine = result.table[result.table["language"] == tag].rename(columns={"kl": "mean"})
        # At the last point every lens is the output itself.
        mine = mine[mine["layer"] < result.n_layers]  # 0 there, which no such axis has
        for name in names:
            drawn = mine[mine["lens"] == name]
            if len(drawn):
                bands.add_band(fig, drawn, colors[name], name=name, legend=i == 0, **place)
        below = i + columns >= len(tags)
        bands.layer_axis(fig, result.n_layers, title=False, ticks=6, **place)
        fig.update_xaxes(title_text="residual point" if below else None, **place)
        fig.update_yaxes(
            title_text="KL, bits" if place["col"] == 1 else None, type="log", dtick=1, **place
        )
    rows = -(-len(tags) // columns)
    n = int(result.table["n"].max())
    return theme.finish(
        fig,
        title="How far what is read is from what the model says",
        notes=[
            f"KL(output || reading) on held-out text · {number_of(n, 'text')} a language · "
            "shaded: interval",
            "jacobian: fitted on all languages; of it: on this alone; without it: on the others",
        ],
        height=_ROW * rows,
        legend=names,
        subtitles=True,
    )
