"""Labels of heat maps can be read on their cells: contrast by WCAG, computed from the colours."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.colors import get_colorscale, sample_colorscale

import xlens
from xlens.consistency import ConsistencyResult
from xlens.figures import agreement_matrix
from xlens.figures.heat import DARK, LIGHT, color_at, contrast, ink_on, label_cells

ENOUGH = 4.5
INKS = {LIGHT: (1.0, 1.0, 1.0), DARK: (0.0, 0.0, 0.0)}


def test_contrast_is_that_of_wcag():
    assert contrast(INKS[LIGHT], INKS[DARK]) == pytest.approx(21)
    assert contrast(INKS[LIGHT], INKS[LIGHT]) == 1
    grey = (0x77 / 255,) * 3  # the published example: #777 on white just fails
    assert contrast(grey, INKS[LIGHT]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scale", ["Cividis", "RdBu", "RdBu_r"])
def test_on_every_tone_one_of_the_inks_can_be_read(scale):
    tones = [color_at(v, scale, (-1.0, 1.0)) for v in np.linspace(-1, 1, 201)]
    assert min(contrast(INKS[ink_on(tone)], tone) for tone in tones) >= ENOUGH
    # White alone, or black alone, would not do.
    assert all(min(contrast(ink, tone) for tone in tones) < ENOUGH for ink in INKS.values())


def test_values_beyond_the_ends_have_the_colours_of_the_ends():
    last = sample_colorscale(get_colorscale("Cividis"), 1.0, colortype="tuple")[0]
    assert color_at(9.0, "Cividis", (0.0, 1.0)) == last
    assert color_at(0.0, "Cividis", (0.0, 0.0)) == color_at(0.0, "Cividis", (0.0, 1.0))


def test_cells_without_a_value_have_no_label_and_no_zero_has_a_minus():
    fig = go.Figure()
    values = [[0.5, None], [float("nan"), -0.001]]
    label_cells(fig, values, x=["a", "b"], y=["c", "d"], scale="Cividis", ends=(0.0, 1.0))
    (drawn,) = fig.data
    assert list(zip(drawn.x, drawn.y, drawn.text, strict=True)) == [
        ("a", "c", "0.50"),
        ("b", "d", "0.00"),
    ]


def panel():
    tags = ["en", "de", "ru"]
    rows = [
        {"metric": metric, "source": a, "target": b, "value": value, "low": 0.0, "high": 1.0}
        | {"control": value / 3, "control_low": 0.0, "control_high": 1.0, "n": 9}
        for metric in ("rank_c", "lift")
        for value, (a, b) in zip(
            (0.05, 0.3, 0.45, 0.6, 0.75, 0.95),
            ((a, b) for a in tags for b in tags if a != b),
            strict=True,
        )
    ]
    languages = pd.DataFrame({"language": tags, "n": 9})
    return ConsistencyResult(provenance={}, languages=languages, pairs=pd.DataFrame(rows))


@pytest.mark.parametrize("metric", ["rank_c", "lift"])
def test_a_figure_s_labels_are_of_its_own_cells(metric):
    fig = agreement_matrix(panel(), metric)
    axis = fig.layout.coloraxis
    maps = [trace for trace in fig.data if trace.type == "heatmap"]
    labels = [trace for trace in fig.data if trace.type == "scatter"]
    assert len(maps) == len(labels) == 2
    for cells, told in zip(maps, labels, strict=True):
        assert (cells.xaxis, cells.yaxis) == (told.xaxis, told.yaxis)
        assert len(told.text) == 6
        scale = [tone for _, tone in axis.colorscale]
        for x, y, text, ink in zip(told.x, told.y, told.text, told.textfont.color, strict=True):
            value = cells.z[list(cells.y).index(y)][list(cells.x).index(x)]
            share = (value - axis.cmin) / (axis.cmax - axis.cmin)
            tone = sample_colorscale(scale, share, colortype="tuple")[0]
            assert text == f"{value:.2f}" and contrast(INKS[ink], tone) >= ENOUGH


def test_no_figure_leaves_its_labels_to_plotly():
    package = Path(xlens.__file__).parent
    for path in [*package.glob("figures/*.py"), *package.glob("testbed/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        assert "texttemplate" not in named, path
