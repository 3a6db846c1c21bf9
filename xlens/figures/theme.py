"""One look for every figure: template, colours by language, names in words.

Colours are chosen once for a whole report and handed to every figure, so that a language keeps its
colour. They keep a contrast of at least 3:1 on white and on near-black paper; each language also
has its own marker shape, for readers who can't tell the colours apart.
"""

import html
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import endonym, english_names

FONT = (
    '"Noto Sans", "Noto Sans CJK SC", "Noto Naskh Arabic", "Noto Sans Devanagari", '
    "system-ui, sans-serif"
)
INK = "#1f2430"
"""Text on light paper; a page in dark mode replaces it (`xlens.figures.export.PAGE_SCRIPT`)."""
NEUTRAL = "#828892"
"""Grey that reads on light and dark paper: entropy, unknown words, axis lines."""
GRID = "rgba(130,136,146,0.25)"
PIVOT = "#d46a00"
PALETTE = (
    "#2b7bba",
    "#bb3079",
    "#8e5be8",
    "#1692a3",
    "#1d8a5b",
    "#d9517f",
    "#8a6d1f",
    "#7c8c10",
    "#c23b2e",
    "#4a8a2a",
    "#a95bb5",
    "#4f5fd0",
)
_SYMBOLS = (
    *("square", "diamond", "triangle-up", "x", "star", "cross", "pentagon", "triangle-down"),
    *("hexagon", "triangle-left", "triangle-right", "hourglass"),
)
_AXIS = 44
"""Height of ticks and title of the axis below the plots, in pixels."""
OTHER, UNKNOWN = "other", "unknown"
"""Names that stand for no one language: drawn in grey, last."""

LAYERS = "residual point (0 = embedding, {last} = after last block)"


def template() -> go.layout.Template:
    """The template of every figure: transparent paper, fonts for all scripts, quiet grid."""
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": NEUTRAL,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": NEUTRAL,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12}},
        "tickfont": {"size": 11},
    }
    layout = go.Layout(
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=list(PALETTE),
        margin={"l": 56, "r": 16, "t": 76, "b": 56},
        title={
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 12, "t": 22},
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "font": {"size": 15},
        },
        xaxis=axis,
        yaxis=axis,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0,
            "yanchor": "bottom",
            "yref": "container",
            "bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 12},
        },
        hoverlabel={"font": {"family": FONT, "size": 12}},
        hovermode="x unified",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL},
    )
    return go.layout.Template(layout=layout)


@typed
def language_colors(
    tags: Iterable[str], *, pivot: str = "en", more: Iterable[str] = ()
) -> dict[str, str]:
    """One colour per language, the same whatever the order of `tags`.

    Args:
        tags: BCP-47 tags of the languages that matter most: they get the colours that are easiest
            to tell apart.
        pivot: Always has the same colour of its own, whether in `tags` or not.
        more: Tags of further languages.

    Returns:
        Colours as `#rrggbb` by tag, in the order of drawing: pivot, `tags`, `more`, other, unknown.
        Beyond twelve languages besides the pivot colours and marker shapes repeat.
    """
    no_language = {pivot, OTHER, UNKNOWN}
    first = sorted(set(tags) - no_language)
    rest = sorted(set(more) - no_language - set(first))
    colors = {pivot: PIVOT}
    colors |= {tag: PALETTE[i % len(PALETTE)] for i, tag in enumerate([*first, *rest])}
    return colors | {OTHER: NEUTRAL, UNKNOWN: NEUTRAL}


def color_of(colors: Mapping[str, str], tag: str) -> str:
    """The colour of `tag`.

    Raises:
        ValueError: `colors` doesn't name `tag`.
    """
    if tag not in colors:
        raise InputError(
            f"No colour for language {tag!r}: the colours given name {sorted(colors)}. "
            "Make them with language_colors(tags) from every tag of the report."
        )
    return colors[tag]


def symbol_of(colors: Mapping[str, str], tag: str) -> str:
    """The marker shape of `tag`: circles for the pivot, the others by their colour."""
    color = color_of(colors, tag)
    return _SYMBOLS[PALETTE.index(color)] if color in PALETTE else "circle"


def translucent(color: str, alpha: float) -> str:
    """`#rrggbb` as an `rgba(...)` colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def isolate(text: str) -> str:
    """`text` in Unicode isolates if it holds right-to-left letters, else unchanged.

    Without them a right-to-left word reorders the punctuation and the digits around it.
    """
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{text}\u2069"
    return text


def plain(text: str) -> str:
    """`text` shown as it is by Plotly, which reads labels as a small HTML."""
    return html.escape(text, quote=False)


@typed
def language_label(tag: str) -> str:
    """A language in its own words with its tag, as in `Deutsch (de)`; for legends."""
    if tag in (OTHER, UNKNOWN):
        return tag
    try:
        name = endonym(tag)
    except ValueError:  # CLDR covers fewer languages than there are tags
        return plain(tag)
    return f"{plain(isolate(name))} ({plain(tag)})"


def numbers(values: Iterable[float]) -> list[float | None]:
    """For Plotly, which takes no NaN."""
    return [None if v != v else float(v) for v in values]


def task_words(task: str, source: str, target: str, names: Mapping[str, str] | None = None) -> str:
    """What was asked, in plain English: `Translation from German to Russian`.

    Args:
        task: `translation`, `repetition`, `cloze`, or another name.
        source: Language of the word shown.
        target: Language asked for.
        names: Of the languages of the whole report; by default of these two, told apart.
    """
    names = names or english_names([source, target])
    if task == "translation":
        return f"Translation from {names[source]} to {names[target]}"
    if task == "repetition":
        return f"Repeating a word in {names[target]}"
    if task == "cloze":
        return f"Filling a gap in {names[target]}"
    return f"{task}: {names[source]} to {names[target]}"


def small_plots(
    titles: Sequence[str], *, columns: int, height: int, apart: float = 0.1, **options: Any
) -> tuple[go.Figure, list[dict[str, Any]]]:
    """Plots in rows, each with its title, and the place (`row`, `col`) of each.

    Args:
        titles: One for each plot; lines are apart by `<br>`.
        columns: Most plots in a row.
        height: Of a plot with its title, in pixels.
        apart: Space between columns, as a share of the width.
        **options: Further ones of plotly's `make_subplots`.
    """
    columns = max(1, min(columns, len(titles)))
    rows = -(-len(titles) // columns)
    lines = max(title.count("<br>") + 1 for title in titles)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(titles),
        horizontal_spacing=apart,
        # Plotly wants shares of the whole height; room for ticks and titles is in pixels.
        vertical_spacing=(36 + 16 * lines) / (height * rows),
        **options,
    )
    fig.update_annotations(font_size=12)
    return fig, [{"row": i // columns + 1, "col": i % columns + 1} for i in range(len(titles))]


def finish(
    fig: go.Figure,
    *,
    title: str,
    notes: Sequence[str] = (),
    height: int,
    legend: Sequence[str] = (),
    subtitles: bool = False,
) -> go.Figure:
    """Give `fig` its title, its height and margins that cut nothing off at 420 pixels' width.

    Args:
        fig: Changed in place and returned.
        title: Bold, broken into lines.
        notes: Smaller lines below the title.
        height: Of the plots alone, in pixels.
        legend: The names in the legend, which is below the plots.
        subtitles: Whether the plots have titles of their own, which are above them.
    """
    head = [f"<b>{plain(line)}</b>" for line in textwrap.wrap(title, 46)]
    small = [line for note in notes for line in textwrap.wrap(note, 60)]
    head += [f'<span style="font-size:12px">{plain(line)}</span>' for line in small]
    top = 32 + 18 * len(head) + 16 * subtitles
    # A legend's rows at 420 pixels: an entry is a line sample and about seven pixels a letter.
    wide = max((46 + 7 * len(name) for name in legend), default=0)
    rows = -(-len(legend) // max(1, 400 // wide)) if wide else 0
    bottom = 50 + 28 * rows
    if rows:  # right below the axis: where a wide page needs fewer rows, no gap is between
        under = {"yref": "paper", "y": -_AXIS / height, "yanchor": "top"}
        fig.update_layout(legend=under)
    return fig.update_layout(
        template=template(),
        title_text="<br>".join(head),
        meta={"title": title},
        height=height + top + bottom,
        margin={"t": top, "b": bottom},
    )


def figure_title(fig: go.Figure) -> str:
    """The title that `finish` gave a figure, in one line and without notes; empty without one."""
    layout: Any = fig.layout
    return str((layout.meta or {}).get("title", ""))
