"""Options inside the model: which language's a layer favours, and whether the right one."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.figures import bands, theme
from xlens.lengths import WORDS
from xlens.lens.result import lens_title
from xlens.tasks.choices import LatentSummary
from xlens.wording import range_of

_LINES = (
    (("share", "{pivot} options", 0), ("share_control", "control: another item's", 1)),
    (("right_pivot", "right among {pivot} options", 0), ("right_native", "right, own options", 2)),
)
_TITLES = ("share of {pivot} options", "right option first")


@typed
def latent_share(result: LatentSummary) -> go.Figure:
    """The pivot's share of the options' probability, and how often its best option is right.

    A column per language; above the share with its control, below how often the most probable
    option is the right one, in the pivot's words and in the language's own; dotted what guessing
    gets. Lines are means over items, shaded their intervals. The control shows what the pivot
    language gets whatever the question: only what lies above it says something.

    Args:
        result: `LatentOptions.summary()`.
    """
    table = result.table
    languages = list(dict.fromkeys(table["language"]))
    pivot = theme.plain(theme.language_label(result.pivot))
    fig = make_subplots(
        rows=2,
        cols=len(languages),
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.08,
        horizontal_spacing=0.03,
        subplot_titles=[theme.language_label(tag) for tag in languages],
    )
    fig.update_annotations(font_size=12)
    last = int(table["layer"].max())
    colors = (theme.PIVOT, theme.NEUTRAL, theme.PALETTE[1])
    names: list[str] = []
    for col, language in enumerate(languages, start=1):
        for row, lines in enumerate(_LINES, start=1):
            for quantity, label, color in lines:
                name = label.format(pivot=pivot)
                names += [name] if col == 1 else []
                bands.add_band(
                    fig,
                    table[(table["language"] == language) & (table["quantity"] == quantity)],
                    colors[color],
                    name=name,
                    row=row,
                    col=col,
                    legend=col == 1,
                )
            if row == 2:
                guess = {"color": theme.NEUTRAL, "width": 1, "dash": "dot"}
                place: dict[str, Any] = {"row": row, "col": col}
                fig.add_hline(y=result.chance[language], line=guess, **place)
            named = row == 2 and col == (len(languages) + 1) // 2  # once: columns are narrow
            bands.layer_axis(fig, last, row=row, col=col, title=named, ticks=5)
    for row, title in enumerate(_TITLES, start=1):
        fig.update_yaxes(range=[0, 1], row=row)
        fig.update_yaxes(title_text=title.format(pivot=pivot), row=row, col=1)
    return theme.finish(
        fig,
        title="Which language's options does a layer favour?",
        notes=[
            f"{range_of(table['n'], 'item')} · options compared {WORDS[result.by]} · "
            f"{bands.shaded(result.confidence)} · dotted: guessing"
            f"{f' · {lens_title(result.lens)}' if result.lens != 'logit' else ''}"
        ],
        height=440,
        legend=names,
        subtitles=True,
    )
