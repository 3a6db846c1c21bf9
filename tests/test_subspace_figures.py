"""Figures of subspaces draw the numbers of their results; the example of the docs runs."""

import re
from pathlib import Path

import pytest

import tiny
import xlens
from xlens import figures, subspace
from xlens.figures import theme
from xlens.stats import Resampling
from xlens.testbed.planted import planted_activations
from xlens.wording import percent


@pytest.fixture(scope="module")
def acts():
    return planted_activations(
        languages=["en", "de", "ar"], n_items=30, d_model=24, n_layers=4, semantic_rank=4, noise=0.3
    ).activations


@pytest.fixture(scope="module")
def pairs(acts):
    return subspace.language_similarity(acts, n_controls=3)


@pytest.fixture(scope="module")
def places(acts):
    return subspace.language_map(acts, n_controls=3)


def named(fig, name):
    return [t for t in fig.data if t.name == name]


def test_curves_draw_values_intervals_and_controls(pairs):
    fig = figures.pair_curves(pairs, ["cka", "mexa"])
    for n, measure in enumerate(["cka", "mexa"]):
        table = pairs.pick(measure).query("a == 'en' and b == 'de'")
        line = named(fig, "Deutsch (de)")[n]
        assert list(line.x) == [0, 1, 2, 3] and list(line.y) == table["mean"].tolist()
        band = named(fig, "Deutsch (de): interval")[n]
        assert list(band.y) == table["high"].tolist() + table["low"].tolist()[::-1]
        control = pairs.pick(measure, "mismatched").query("a == 'en'").groupby("layer")
        grey = named(fig, "control: mismatched pairs")[n]
        wanted = control["high"].max().tolist() + control["low"].min().tolist()[::-1]
        assert list(grey.y) == wanted
        assert theme.NEUTRAL in grey.line.color
    shown = [t.name for t in fig.data if t.showlegend]
    assert sorted(shown) == sorted(
        [
            "control: mismatched pairs",
            "control: mismatched pairs of the same length",
            "Deutsch (de)",
            "\u2068العربية\u2069 (ar)",
        ]
    )
    assert "30 items" in fig.layout.title.text and "last token" in fig.layout.title.text
    assert [a.text for a in fig.layout.annotations] == ["CKA", "MEXA (share)"]


def test_curves_of_another_pivot_and_kind_with_the_colors_of_the_report(pairs):
    colors = figures.language_colors(["de", "ar", "zh-Hans"])
    fig = figures.pair_curves(pairs, ["cka"], pivot="de", kind="length_controlled", colors=colors)
    (english,) = named(fig, "English (en)")
    wanted = pairs.pick("cka", "length_controlled").query("a == 'en' and b == 'de'")
    assert list(english.y) == wanted["mean"].tolist()
    assert english.line.color == theme.PIVOT
    assert "prompt length taken out" in " ".join(fig.layout.title.text.split("<br>"))
    with pytest.raises(ValueError, match=r"pivot='fr'; accepted are \['en', 'de', 'ar'\]"):
        figures.pair_curves(pairs, pivot="fr")
    with pytest.raises(ValueError, match=r"No 'cosine' of kind 'length_controlled'"):
        figures.pair_curves(pairs, ["cosine"], kind="length_controlled")
    with pytest.raises(ValueError, match="No colour for language"):
        figures.pair_curves(pairs, colors=figures.language_colors(["fr"]))


def test_curves_of_correlations_and_distances(acts):
    scores = subspace.score_correlation(
        acts, pooling="last", n_controls=3, resampling=Resampling(draws=20)
    )
    fig = figures.pair_curves(scores)
    assert {a.text for a in fig.layout.annotations} == {"pearson 1", "spearman 1"}
    far = subspace.subspace_distances(acts, n_controls=2)
    fig = figures.pair_curves(far)
    assert len(named(fig, "control: random subspaces of equal rank")) == 3


def test_matrix_is_symmetric_on_one_scale_with_its_control_in_words(pairs):
    fig = figures.pair_matrix(pairs, "cka", layers=[0, 2])
    first, second, *labels = fig.data
    assert {trace.mode for trace in labels} == {"text"} and len(labels) == 2
    assert list(first.x) == ["en", "de", "ar"]
    wanted = pairs.matrix("cka", 2)
    for i, a in enumerate(wanted.index):
        for j, b in enumerate(wanted.columns):
            value = second.z[i][j]
            assert value is None if i == j else value == wanted.loc[a, b]
    assert first.coloraxis == second.coloraxis == "coloraxis"
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1)
    assert "mismatched pairs: 0." in fig.layout.title.text.replace("<br>", " ")
    drawn = figures.pair_matrix(pairs, "cka").data
    assert sum(trace.type == "heatmap" for trace in drawn) == 4
    with pytest.raises(ValueError, match="No layer 9"):
        figures.pair_matrix(pairs, "cka", layers=[9])


def test_probe_draws_accuracy_beside_its_controls_and_chance(acts):
    probe = subspace.language_probe(acts, subspace.LSAR(), n_controls=2)
    fig = figures.probe_curves(probe)
    (line,) = named(fig, "what is left without the subspace")
    value = probe.table.query("features == 'outside' and kind == 'value'")
    assert list(line.y) == value["mean"].tolist()
    (shuffled,) = named(fig, "the whole state: shuffled languages")
    wanted = probe.table.query("features == 'all' and kind == 'shuffled'")
    assert list(shuffled.y) == wanted["mean"].tolist() and shuffled.line.dash == "dot"
    assert [s.y0 for s in fig.layout.shapes] == [1 / 3]
    assert "LSAR()" in fig.layout.title.text
    alone = figures.probe_curves(subspace.language_probe(acts, n_controls=1))
    assert len([t for t in alone.data if t.showlegend is not False]) == 2


def test_maps_show_every_item_mean_and_spread(places):
    fig = figures.language_maps(places, layers=[0, 3])
    colors = figures.language_colors(places.languages)
    points, ring, mean = named(fig, "Deutsch (de)")[3:]
    wanted = places.points.query("layer == 3 and language == 'de'")
    assert list(points.x) == wanted["x"].tolist() and list(points.y) == wanted["y"].tolist()
    cloud = places.centroids.query("layer == 3 and language == 'de'").iloc[0]
    assert (mean.x[0], mean.y[0]) == (cloud["x"], cloud["y"])
    far = max(
        (x - cloud["x"]) ** 2 + (y - cloud["y"]) ** 2 for x, y in zip(ring.x, ring.y, strict=True)
    )
    assert far**0.5 == pytest.approx(cloud["sd_major"])
    assert points.marker.color == ring.line.color == mean.marker.color == colors["de"]
    assert [t.name for t in fig.data if t.showlegend].count("Deutsch (de)") == 1
    apart = places.separation.query("layer == 3 and where == 'map' and kind == 'value'")
    assert (
        f"{percent(apart['mean'].item())} between languages (shuffled"
        in fig.layout.annotations[1].text
    )
    assert (fig.layout.yaxis.scaleanchor, fig.layout.yaxis2.scaleanchor) == ("x", "x2")
    with pytest.raises(ValueError, match=r"No layers \[9\] on this map"):
        figures.language_maps(places, layers=[9])


def test_the_animation_has_a_frame_per_layer_on_one_scale(places):
    fig = figures.language_map_animation(places)
    assert [f.name for f in fig.frames] == ["0", "1", "2", "3"]
    assert [s.label for s in fig.layout.sliders[0].steps] == ["0", "1", "2", "3"]
    assert fig.layout.sliders[0].pad.l >= 90, "beside the buttons at any width"
    tall = fig.layout.height - fig.layout.margin.t - fig.layout.margin.b
    legend = fig.layout.legend
    assert legend.yref == "paper" and legend.yanchor == "top"
    assert 100 < -legend.y * tall < fig.layout.margin.b, "below the slider, however few its rows"
    reach = fig.layout.xaxis.range[1]
    for frame in fig.frames:
        assert len(frame.data) == len(fig.data) == 9
        assert max(abs(v) for t in frame.data for v in (*t.x, *t.y)) <= reach
    html = figures.figure_block(fig, "f", label="l")
    assert "NaN" not in html and html == figures.figure_block(fig, "f", label="l")


def test_a_layer_of_one_point_is_drawn(acts):
    from dataclasses import replace

    slot = acts.slot("last")
    values = slot.values.clone()
    values[0] = 1
    still = replace(acts, slots={"last": replace(slot, values=values)})
    places = subspace.language_map(still, n_controls=1)
    assert "shows –" in figures.language_maps(places).layout.annotations[0].text
    assert len(figures.language_map_animation(places).frames) == 4


@pytest.mark.slow
def test_the_example_of_the_docs_runs(monkeypatch, capsys):
    """As it stands, but on a tiny model, few words, and without opening a browser."""
    import plotly.graph_objects as go

    text = (Path(__file__).parent.parent / "docs" / "subspace.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    model = xlens.load(tiny.model("gpt2"), tiny.tokenizer("gpt2"))
    words, shown = xlens.cldr_words, []
    monkeypatch.setattr(xlens, "load", lambda source: model, raising=False)
    monkeypatch.setattr(
        xlens, "cldr_words", lambda tags, kinds: words(tags, ["month"]), raising=False
    )
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    exec(compile(code, "docs/subspace.md", "exec"), {})
    assert len(shown) == 2 and all(fig.data for fig in shown)
    assert "outside" in capsys.readouterr().out
