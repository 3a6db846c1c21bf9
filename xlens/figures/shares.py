"""Whose words are read at which relative depth, model beside model."""

from collections.abc import Mapping

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.figures import bands, theme
from xlens.lens.share import LanguageShares

_ROW = 210


@typed
def language_shares_curves(
    result: LanguageShares, *, titles: Mapping[str, str] | None = None, columns: int = 2
) -> go.Figure:
    """Share of each language's words by relative depth, a plot for each model, pair and lens.

    Args:
        result: From `language_shares`.
        titles: What each name is called; the name itself where there is none.
        columns: Plots beside each other.
    """
    table = result.table.dropna(subset=["depth"]).rename(columns={"share": "mean"})
    # `add_band` draws by `layer`: here that is the relative depth.
    table = table.assign(layer=table["depth"])
    names = list(dict.fromkeys(table["name"]))
    colors = theme.language_colors(table["language"].unique(), pivot=result.pivot)
    called = [theme.plain(titles[name] if titles and name in titles else name) for name in names]
    fig, places = theme.small_plots(called, columns=columns, height=_ROW)
    known: list[str] = []
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        mine = table[table["name"] == name]
        for tag in bands.in_order(set(mine["language"]), colors):
            label = theme.language_label(tag)
            bands.add_band(
                fig,
                mine[mine["language"] == tag],
                theme.color_of(colors, tag),
                name=label,
                symbol=theme.symbol_of(colors, tag),
                legend=label not in known,
                group=tag,
                **place,
            )
            known += [] if label in known else [label]
        # Between two rows there is no room for it beside the lower plot's title.
        lowest = number + columns >= len(names)
        fig.update_xaxes(
            title_text="relative depth" if lowest else None, range=[-0.02, 1.02], **place
        )
        fig.update_yaxes(
            title_text="share of what is read" if place["col"] == 1 else None,
            range=[0, 1.02],
            **place,
        )
    return theme.finish(
        fig,
        title="Whose words are read, by relative depth",
        notes=[f"0 the embedding, 1 the output · {bands.shaded(result.confidence)}"],
        height=_ROW * -(-len(names) // columns),
        legend=known,
        subtitles=True,
    )
