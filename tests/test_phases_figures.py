"""Figures of phases draw the numbers of their results; the example of the docs runs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phase_kit import curves, relevance
from test_phases_compare import DE, EN, ES, depth

from xlens import figures, phases
from xlens.figures import theme
from xlens.stats import Resampling


@pytest.fixture(scope="module")
def made():
    steps = {"patch_question": 3, "depth_question": 3, "readable": 6, "ablate_context": 6}
    return curves(steps, languages=["en", "ar"], noise=0.3)


@pytest.fixture(scope="module")
def found(made):
    return phases.detect_phases(made, resampling=Resampling(draws=50), n_flips=200)


def named(fig, name):
    return [t for t in fig.data if t.name == name]


def text(fig):
    return fig.layout.title.text.replace("<br>", " ")


def test_curves_with_their_controls_and_boundaries(made, found):
    summary = made.summary(resampling=Resampling(draws=50))
    fig = figures.phase_curves(summary, found)
    for i, kind in enumerate(made.kinds):
        table = summary.pick(kind)
        (line,) = [named(fig, "right answer")[i]]
        assert list(line.y) == table.query("part == 'values'")["mean"].tolist()
        assert line.marker.symbol == "circle"
    assert {line.marker.symbol for line in named(fig, "wrong answer")} == {"x"}
    # The kind without a control has none drawn.
    assert len(named(fig, "wrong answer")) == 3
    marks = [s for s in fig.layout.shapes if s.type == "line"]
    pooled = found.edges[found.edges["language"] == "all"]
    assert [m.x0 for m in marks] == pooled["value"].tolist()
    assert [m.line.dash for m in marks] == ["solid", "dot", "solid", "solid"]
    assert "two phases: question handed over at 3" in text(fig) and "24 prompts" in text(fig)
    arabic = figures.phase_curves(summary, found, language="ar", kinds=["readable"])
    wanted = summary.pick("readable", "ar").query("part == 'values'")
    assert list(named(arabic, "right answer")[0].y) == wanted["mean"].tolist()
    assert "12 prompts" in text(arabic) and "\u2068العربية\u2069" in text(arabic)
    assert not figures.phase_curves(summary).layout.shapes
    with pytest.raises(ValueError, match="No evidence of kind 'patch_context'"):
        figures.phase_curves(summary, kinds=["patch_context"])


def test_boundaries_filled_where_significant(found):
    fig = figures.phase_boundaries(found)
    first = named(fig, "question handed over")[0]
    assert list(first.y) == ["patch question", "depth question"] and list(first.x) == [3, 3]
    assert list(first.marker.symbol) == ["circle", "circle-open"]
    assert sum(t.showlegend for t in fig.data) == 2
    assert [a.text for a in fig.layout.annotations][:1] == ["all languages"]


def test_relevance_with_its_depth():
    tokens = np.zeros((6, 4, 4))
    tokens[:4, :, 1], tokens[:, :, 2] = 1, 2
    made = phases.relevance_depth(relevance(tokens, {"question": (1, 2), "context": (2, 3)}))
    fig = figures.segment_relevance(made)
    assert list(named(fig, "question")[0].y) == [1, 1, 1, 1, 0, 0]
    (mark,) = named(fig, "context: depth")
    assert (mark.x[0], mark.y[0], mark.marker.symbol) == (5, 2, "diamond")
    assert "cumulative, 95 %" in text(fig)


def test_depth_is_drawn_prompt_by_prompt():
    made = depth({"en": EN, "de": DE})
    made = type(made)(**{**vars(made), "options": {"measure": "r", "share": 0.95, "sign": "abs"}})
    fig = figures.depth_by_language(made, control=made)
    boxes = named(fig, theme.language_label("de"))
    assert list(boxes[0].y) == [0.3, 0.3, 0.5, 0.5] and boxes[0].marker.color != theme.NEUTRAL
    assert len(named(fig, "random spans")) == 4
    assert len(named(figures.depth_by_language(made), "random spans")) == 0
    with pytest.raises(ValueError, match="No colour for language"):
        figures.depth_by_language(made, colors=figures.language_colors(["fr"]))


def test_two_models_and_their_difference(made):
    paired = phases.compare_curves(
        made, made, names=("one", "other"), resampling=Resampling(draws=20), n_flips=50
    )
    fig = figures.paired_curves(paired, kinds=["readable"], language="ar")
    table = paired.table.query("kind == 'readable' and language == 'ar'")
    assert list(named(fig, "one")[0].y) == table["first"].tolist()
    assert list(named(fig, "difference")[0].y) == table["difference"].tolist()
    markers = [t for t in fig.data if t.mode == "markers"]
    assert set(markers[0].marker.symbol) == {"circle-open"}
    with pytest.raises(ValueError, match="No language 'fr' here"):
        figures.paired_curves(paired, language="fr")
    with pytest.raises(ValueError, match=r"No kinds \['aligned_last'\] here"):
        figures.paired_curves(paired, kinds=["aligned_last"])


def test_two_models_and_their_last_layers(made):
    other = made.take(np.arange(len(made.meta)))
    other.values[made.index("readable"), :, 7:] += np.where(made.meta["language"] == "en", 2, 0)[
        :, None
    ]
    one, two = (phases.lens_gap(x, resampling=Resampling(draws=5)) for x in (made, other))
    paired = phases.compare_effects(
        one, two, names=("one", "other"), resampling=Resampling(draws=50), n_flips=200
    )
    fig = figures.paired_effects(paired)
    table = paired.table.query("language == 'all'")
    assert list(named(fig, "one")[0].y) == table["first"].tolist()
    assert list(named(fig, "other")[0].y) == table["second"].tolist()
    assert list(named(fig, "difference")[0].y) == table["difference"].tolist()
    (marks,) = [t for t in fig.data if t.mode == "markers" and t.name != "control"]
    assert list(marks.marker.symbol) == ["circle-open"] * 7 + ["circle"] * 2
    assert list(named(fig, "control")[0].y) == table["control"].tolist()
    assert "Lens gap: one and other" in text(fig) and "pivot: en" in text(fig)
    assert fig.layout.annotations[0].text == "pivot less other language (nats)"
    with pytest.raises(ValueError, match="No language 'fr' here"):
        figures.paired_effects(paired, language="fr")
    swapped = replace(
        paired, effect="swapped blocks", options={}, change=True, table=table.assign(control=np.nan)
    )
    fig = figures.paired_effects(swapped)
    assert not named(fig, "control")
    assert fig.layout.annotations[0].text == "change of the right answer (nats)"
    assert fig.layout.xaxis.title.text == "blocks swapped, from the top"


def test_stability_against_a_score():
    made = {"en": EN, "de": DE, "es": ES, "ru": EN}
    stability = {
        m: phases.stability(depth(made), resampling=Resampling(draws=20)) for m in ("a", "b", "c")
    }
    scores = pd.DataFrame(
        [{"model": m, "language": x, "f1": i / 10} for i, m in enumerate(stability) for x in made]
    )
    result = phases.correlate(stability, scores, resampling=Resampling(draws=20))
    fig = figures.stability_scatter(result, "S1_context")
    points = fig.data[1]
    assert list(points.y) == [0.1] * 3 and list(points.text) == ["de", "es", "ru"]
    assert theme.PIVOT not in points.marker.color
    assert "over 9 (few)" in text(fig) and "intervals over models: 3" in text(fig)
    with pytest.raises(ValueError, match="No index 'S4' here"):
        figures.stability_scatter(result, "S4")
    by_model = phases.correlate(stability, scores, unit="models", resampling=Resampling(draws=20))
    points = figures.stability_scatter(by_model, "S2").data[2]
    assert list(points.text) == ["c"] and list(points.y) == pytest.approx([0.2])
    assert points.marker.color[0] == theme.NEUTRAL


@pytest.mark.slow
def test_the_example_of_the_docs_runs(monkeypatch, capsys):
    """As it stands, but without opening a browser: it finds what it says it finds."""
    import plotly.graph_objects as go

    page = (Path(__file__).parent.parent / "docs" / "phases.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    shown = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    exec(compile(code, "docs/phases.md", "exec"), {})
    (said,) = re.findall(r"^# (two phases: .*)$", code, re.MULTILINE)
    assert said in capsys.readouterr().out and len(shown) == 1
