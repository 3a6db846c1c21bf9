"""Numbers about languages by layer: similarity of pairs, probes, language × language."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xlens.checks import typed
from xlens.errors import InputError
from xlens.figures import bands, theme
from xlens.figures.heat import label_cells
from xlens.subspace.distances import DISTANCES
from xlens.subspace.pairs import KINDS, LanguagePairs
from xlens.subspace.probe import FEATURES, LanguageProbe
from xlens.wording import number_of, percent

_MOST_LABELLED = 8  # languages
_ROW = 210
"""Height of a small plot with its title, in pixels."""
_POINTS = "residual point (0 = embedding)"  # which one is the last, activations don't say
POOLED = {
    "last": "last token",
    "mean": "mean of all tokens",
    "mean_without_first": "mean of all tokens but the first",
    "mean_weighted": "position-weighted mean of all tokens",
    "sentence:mean": "mean of the sentence's tokens",
}
_MEASURES = {
    "cka": "CKA",
    "cka_unbiased": "unbiased CKA",
    "cosine": "cosine",
    "cosine_centred": "cosine, centred",
    "retrieval": "retrieval (share found)",
    "retrieval_centred": "retrieval, centred (share found)",
    "mexa": "MEXA (share)",
    "mexa_centred": "MEXA, centred (share)",
    "distance": "squared distance of means (variances)",
    "direction": "cosine of mean differences",
    "mean_angle": "mean angle (degrees)",
    "geodesic": "geodesic distance (radians)",
    "chordal": "chordal distance",
    "mean_shift": "distance of means (spreads)",
    "fixed_rank": "fixed-rank distance",
    "full_rank": "full-rank distance",
}
_DASHES = {"mismatched": "dot", "same_length": "dash", "shuffled": "dot", "random": "dash"}
_CONTROLS = {"value": "", "random": ": random subspace", "shuffled": ": shuffled languages"}
_SHAPES = {"all": "circle", "inside": "square", "outside": "diamond"}


def measure_name(measure: str) -> str:
    """A measure in words."""
    return _MEASURES.get(measure, measure.replace("_", " "))


def control_name(kind: str) -> str:
    """What stands behind a measure's name: nothing for the value itself, else of which control."""
    return _CONTROLS.get(kind, "")


@typed
def pair_curves(
    pairs: LanguagePairs,
    measures: Sequence[str] | None = None,
    *,
    pivot: str | None = None,
    kind: str = "value",
    colors: Mapping[str, str] | None = None,
    columns: int = 2,
) -> go.Figure:
    """The pivot against every other language by layer: a small plot per measure.

    Shaded are intervals. Controls are grey: for each the range over the languages drawn, from the
    lowest to the highest.

    Args:
        pairs: From `language_similarity`, `score_correlation` or `subspace_distances`.
        measures: Which; by default all.
        pivot: The language that the others are compared with; by default English, or the first.
        kind: `value` or `length_controlled`.
        colors: Colours by language for the whole report.
        columns: Plots beside each other.

    Raises:
        ValueError: an unknown measure, kind or pivot, or a language without a colour.
    """
    pivot = _pivot(pairs, pivot)
    colors = theme.language_colors(pairs.languages) if colors is None else colors
    measures = list(measures or pairs.measures)
    titles = [measure_name(m) for m in measures]
    fig, places = theme.small_plots(titles, columns=columns, height=_ROW)
    names: list[str] = []
    for i, (measure, place) in enumerate(zip(measures, places, strict=True)):
        for control in _DASHES:
            name = _add_control(fig, pairs, measure, control, pivot, **place)
            if name and name not in names:
                names.append(name)
                # Shown once: where a control is first drawn.
                fig.data[-1].showlegend = True
        table = pairs.pick(measure, kind)
        table = table[(table["a"] == pivot) | (table["b"] == pivot)]
        # Pairs have no order: the pivot is on either side.
        other = table["b"].where(table["a"] == pivot, table["a"])
        for tag in bands.in_order(set(other), colors):
            name = theme.language_label(tag)
            bands.add_band(
                fig,
                table[other == tag],
                theme.color_of(colors, tag),
                name=name,
                symbol=theme.symbol_of(colors, tag),
                legend=name not in names,
                group=tag,
                **place,
            )
            names += [name] * (name not in names)
        lowest = i + columns >= len(measures)
        bands.layer_axis(fig, max(pairs.layers), title=False, ticks=5, **place)
        fig.update_yaxes(nticks=5, rangemode="tozero", **place)
        fig.update_xaxes(title_text=_POINTS if lowest else None, **place)
    notes = [f"{theme.language_label(pivot)} with each other language"]
    notes += [KINDS[kind]] if kind != "value" else []
    level = percent(pairs.confidence, whole=False)
    notes += [_sample(pairs), f"shaded: {level} interval; grey: controls' range"]
    return theme.finish(
        fig,
        title="How alike languages are, layer by layer",
        notes=notes,
        height=_ROW * places[-1]["row"],
        legend=names,
        subtitles=True,
    )


@typed
def pair_matrix(
    pairs: LanguagePairs,
    measure: str,
    *,
    layers: Sequence[int] | None = None,
    kind: str = "value",
    columns: int = 2,
) -> go.Figure:
    """Language × language at some layers, one colour scale for all; controls in words.

    Args:
        pairs: What to draw.
        measure: Which number.
        layers: Residual points; by default up to four, from the lowest to the highest.
        kind: `value`, `length_controlled` or a control.
        columns: Plots beside each other.

    Raises:
        ValueError: an unknown measure, kind or layer.
    """
    layers = spaced(pairs.layers, 4) if layers is None else list(layers)
    tags = [theme.plain(tag) for tag in pairs.languages]
    tables = [pairs.matrix(measure, layer, kind=kind) for layer in layers]
    columns = max(1, min(columns, len(layers)))
    rows = -(-len(layers) // columns)
    fig = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"residual point {layer}" for layer in layers],
        horizontal_spacing=0.12,
        vertical_spacing=0.22 / rows,
    )
    fig.update_annotations(font_size=12)
    for i, table in enumerate(tables):
        values = [[None if v != v else v for v in row] for row in table.to_numpy().tolist()]
        fig.add_heatmap(
            x=tags,
            y=tags,
            z=values,
            coloraxis="coloraxis",
            hovertemplate="%{y} – %{x}: %{z:.3f}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            row=i // columns + 1,
            col=i % columns + 1,
        )
    fig.update_yaxes(autorange="reversed", showgrid=False)
    fig.update_xaxes(showgrid=False, type="category")
    label = measure_name(measure)
    # Shares, cosines and correlations end at 1: a scale of their own would show noise in full
    # colour. Distances have no end.
    lowest = min((v for table in tables for v in table.min() if v == v), default=0.0)
    limits = {} if measure in DISTANCES else {"cmin": min(0.0, float(lowest)), "cmax": 1.0}
    highest = max((v for table in tables for v in table.max() if v == v), default=1.0)
    ends = (limits.get("cmin", float(lowest)), limits.get("cmax", float(highest)))
    for i, table in enumerate(tables if len(tags) <= _MOST_LABELLED else ()):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        cells = table.to_numpy().tolist()
        label_cells(fig, cells, x=tags, y=tags, scale="Cividis", ends=ends, place=place)
    fig.update_layout(
        coloraxis={
            "cmin": ends[0],
            "cmax": ends[1],
            "colorscale": "Cividis",
            "colorbar": {"title": {"text": label, "side": "right"}, "thickness": 10},
        },
        hovermode="closest",
    )
    notes = [KINDS[kind]] if kind != "value" else []
    notes.append(_sample(pairs))
    if kind == "value":
        notes += _controls(pairs, measure, layers)
    return theme.finish(
        fig,
        title=f"{label} between languages",
        notes=notes,
        height=rows * max(220, 30 * len(tags) + 60),
        subtitles=True,
    )


@typed
def probe_curves(probe: LanguageProbe) -> go.Figure:
    """Accuracy of telling the language by layer: whole state, inside and outside the subspace.

    Dotted: languages shuffled. Dashed: the same with random subspaces of equal rank. The grey line
    is chance.
    """
    fig = make_subplots(rows=1, cols=1)
    there = [f for f in FEATURES if (probe.table["features"] == f).any()]
    names: list[str] = []
    for i, features in enumerate(there):
        color = theme.PALETTE[i]
        for kind in ("value", "random", "shuffled"):
            table = probe.table[
                (probe.table["features"] == features) & (probe.table["kind"] == kind)
            ].sort_values("layer")
            if table.empty:
                continue
            name = FEATURES[features] + _CONTROLS[kind]
            names.append(name)
            if kind == "value":
                bands.add_band(
                    fig,
                    table,
                    color,
                    name=name,
                    symbol=_SHAPES[features],
                    legend=True,
                    row=1,
                    col=1,
                )
                continue
            fig.add_scatter(
                x=table["layer"].tolist(),
                y=table["mean"].tolist(),
                mode="lines",
                line={"color": color, "width": 1.5, "dash": _DASHES[kind]},
                name=name,
                hovertemplate="%{y:.3f}",
            )
    fig.add_hline(y=probe.chance, line={"color": theme.NEUTRAL, "width": 1})
    fig.update_yaxes(title_text="accuracy", range=[0, 1.02])
    bands.layer_axis(fig, int(probe.table["layer"].max()), title=False)
    fig.update_xaxes(title_text=_POINTS)
    notes = [f"{number_of(len(probe.languages), 'language')}, held-out items · grey line: chance"]
    if probe.estimator:
        notes.append(f"subspace: {probe.estimator}")
    level = percent(probe.confidence, whole=False)
    notes.append(f"{POOLED.get(probe.pooling, probe.pooling)} · shaded: {level} interval")
    return theme.finish(
        fig, title="Can the language be read?", notes=notes, height=320, legend=names
    )


def spaced(layers: Sequence[int], most: int) -> list[int]:
    """Up to `most` layers, the lowest and the highest among them."""
    n = len(layers)
    if n <= most:
        return list(layers)
    return [layers[round(i * (n - 1) / (most - 1))] for i in range(most)]


def _add_control(
    fig: go.Figure,
    pairs: LanguagePairs,
    measure: str,
    control: str,
    pivot: str,
    *,
    row: int,
    col: int,
) -> str | None:
    """A grey band over the pivot's pairs; its name, or None where there is no such control."""
    table = pairs.table
    table = table[(table["measure"] == measure) & (table["kind"] == control)]
    table = table[(table["a"] == pivot) | (table["b"] == pivot)].dropna(subset=["low", "high"])
    if table.empty:
        return None
    by_layer = table.groupby("layer")
    layers = sorted(set(table["layer"].tolist()))
    low, high = by_layer["low"].min(), by_layer["high"].max()
    name = KINDS[control]
    fig.add_scatter(
        x=layers + layers[::-1],
        y=high[layers].tolist() + low[layers].tolist()[::-1],
        fill="toself",
        fillcolor=theme.translucent(theme.NEUTRAL, 0.18),
        line={"width": 1, "color": theme.NEUTRAL, "dash": _DASHES[control]},
        mode="lines",
        hoverinfo="skip",
        name=name,
        legendgroup=control,
        showlegend=False,
        row=row,
        col=col,
    )
    return name


def _pivot(pairs: LanguagePairs, pivot: str | None) -> str:
    if pivot is None:
        return "en" if "en" in pairs.languages else pairs.languages[0]
    if pivot not in pairs.languages:
        raise InputError(f"pivot={pivot!r}; accepted are {list(pairs.languages)}.")
    return pivot


def _sample(pairs: LanguagePairs) -> str:
    return f"{number_of(pairs.n_items, 'item')} · {POOLED.get(pairs.pooling, pairs.pooling)}"


def _controls(pairs: LanguagePairs, measure: str, layers: Sequence[int]) -> list[str]:
    """The range of each control at these layers, in words."""
    table = pairs.table[(pairs.table["measure"] == measure) & pairs.table["layer"].isin(layers)]
    lines: list[str] = []
    for kind in _DASHES:
        found = table[table["kind"] == kind].dropna(subset=["low", "high"])
        if not found.empty:
            lines.append(f"{KINDS[kind]}: {found['low'].min():.2f} to {found['high'].max():.2f}")
    return lines
