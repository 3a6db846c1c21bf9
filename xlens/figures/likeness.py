"""How like facts are to their pivot's, beside others of the relation: by layer, over training."""

from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from xlens.acquisition import Transfer, TransferCurves
from xlens.acquisition.likeness import MEASURES
from xlens.acquisition.transfer import BY
from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.whiskers import whiskers

_PLACES = {"subject:last": "at the subject's last token", "last": "at the prompt's last token"}
_SAID = {"cosine": "cosine", "cosine_centred": "centred cosine"}
_BY = {
    "all": "all facts",
    "answers": "by what is right",
    "frequency": "by frequency and answer",
    "relations": "by kind of relation",
    "sets": "by set of facts",
}
_HEIGHT = 260


@typed
def likeness_by_layer(
    result: Transfer,
    by: str = "answers",
    *,
    language: str = "all",
    measure: str = "cosine_centred",
) -> go.Figure:
    """What the similarity to the same fact in the pivot has over that to others of its relation.

    A plot for each place, a band for each group that has facts.

    Args:
        result: From `xlens.acquisition.transfer`.
        by: What facts are grouped by, one of `BY`.
        language: One of the languages, or `all`.
        measure: `cosine` or `cosine_centred`.

    Raises:
        ValueError: another grouping, language or measure than there is, or none with facts.
    """
    table = _picked(result.table, by, language, measure)
    slots = [str(slot) for slot in dict.fromkeys(table["slot"])]
    fig, places = theme.small_plots([_PLACES.get(s, s) for s in slots], columns=1, height=_HEIGHT)
    names: list[str] = []
    for slot, place in zip(slots, places, strict=True):
        rows = table[table["slot"] == slot]
        for color, group in _colored(by, rows):
            own = rows[rows["group"] == group]
            bands.add_band(
                fig, _above(own), color, name=group, legend=group not in names, symbol="circle",
                **place,
            )  # fmt: skip
            names += [group] * (group not in names)
        bands.layer_axis(fig, int(rows["layer"].max()), title=place is places[-1], **place)
        fig.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1}, **place)
        fig.update_yaxes(title=f"{_SAID[measure]} above others", **place)
    return theme.finish(
        fig,
        title=f"Similarity to the same fact in the pivot, {_BY[by]}",
        notes=[
            f"{_language(language)} · {_SAID[measure]}, less that with other facts of the relation",
            _counted(table),
            "shaded: interval over facts",
        ],
        height=_HEIGHT * len(slots),
        legend=names,
        subtitles=True,
    )


@typed
def likeness_over_training(
    result: TransferCurves,
    by: str = "answers",
    *,
    layer: int,
    language: str = "all",
    measure: str = "cosine_centred",
) -> go.Figure:
    """The same at one layer, over checkpoints: groups are those of the last one's answers.

    Args:
        result: From `xlens.acquisition.transfer_curves`.
        by: What facts are grouped by.
        layer: A residual point.
        language: One of the languages, or `all`.
        measure: `cosine` or `cosine_centred`.

    Raises:
        ValueError: as `likeness_by_layer`, or no such layer.
    """
    table = _picked(result.table, by, language, measure)
    if layer not in set(table["layer"]):
        raise InputError(f"Layer {layer} isn't there; there are {sorted(set(table['layer']))}.")
    table = table[table["layer"] == layer]
    stepped = bool(table["step"].notna().all() and table["step"].nunique() > 1)
    slots = [str(slot) for slot in dict.fromkeys(table["slot"])]
    fig, places = theme.small_plots([_PLACES.get(s, s) for s in slots], columns=1, height=_HEIGHT)
    names: list[str] = []
    for slot, place in zip(slots, places, strict=True):
        rows = table[table["slot"] == slot]
        for color, group in _colored(by, rows):
            own = rows[rows["group"] == group]
            fig.add_scatter(
                x=(own["step"] if stepped else own["model"]).tolist(),
                y=theme.numbers(own["above"]),
                error_y=whiskers(own["above"], own["above_low"], own["above_high"]),
                mode="lines+markers",
                line={"color": color},
                name=group,
                legendgroup=group,
                showlegend=group not in names,
                **place,
            )
            names += [group] * (group not in names)
        kind = "log" if stepped and table["step"].min() > 0 else "linear"
        title = ("training step" if stepped else "model") if place is places[-1] else None
        fig.update_xaxes(title=title, type=kind if stepped else "category", **place)
        fig.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1}, **place)
        fig.update_yaxes(title=f"{_SAID[measure]} above others", **place)
    return theme.finish(
        fig,
        title=f"Similarity to the same fact in the pivot over training, {_BY[by]}",
        notes=[
            f"{_language(language)} · residual point {layer} · groups: answers of {result.last}",
            f"{_SAID[measure]}, less that with other facts of the relation",
            _counted(table[table["model"] == result.last]),
            "bars: interval over facts",
        ],
        height=_HEIGHT * len(slots),
        legend=names,
        subtitles=True,
    )


def _picked(table: pd.DataFrame, by: str, language: str, measure: str) -> pd.DataFrame:
    known = {"by": [*BY], "language": list(dict.fromkeys(table["language"]))}
    known["measure"] = [*MEASURES]
    for name, value in (("by", by), ("language", language), ("measure", measure)):
        if value not in known[name]:
            raise InputError(f"{name}={value!r}; accepted are {known[name]}.")
    rows = table[
        (table["by"] == by) & (table["language"] == language) & (table["measure"] == measure)
    ]
    if not (rows["n"] > 0).any():
        raise InputError(f"There are no facts {_BY[by]}; nothing can be drawn.")
    return rows


def _colored(by: str, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Groups with facts, and the colour of each: the same whichever others have some."""
    groups = [*BY[by]] or list(dict.fromkeys(rows["group"]))
    there = set(rows.loc[rows["n"] > 0, "group"])
    # Coloured before they are sifted, so that a group keeps its colour where others are empty.
    colored = zip(cycle(theme.PALETTE), groups, strict=False)
    return [(color, group) for color, group in colored if group in there]


def _above(rows: pd.DataFrame) -> pd.DataFrame:
    columns = {"above": "mean", "above_low": "low", "above_high": "high"}
    return rows[["layer", "n", *columns]].rename(columns=columns)


def _counted(table: pd.DataFrame) -> str:
    """How many facts in how many languages each group has, at the place where it has most."""
    most = table.groupby("group", sort=False)["n"].max()
    return "answers: " + ", ".join(f"{n:,} {group}" for group, n in most.items() if n)


def _language(language: str) -> str:
    return "all languages" if language == "all" else theme.language_label(language)
