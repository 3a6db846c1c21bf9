import inspect
import json
import re
import sys
from dataclasses import replace

import pytest
from synthetic import LABELS, lens_result, study, trace_result

from xlens import figures
from xlens.figures import glyphs, theme
from xlens.figures.traces import shorten
from xlens.stats import Resampling
from xlens.terminal import cell_width


@pytest.fixture(scope="module")
def summary():
    return lens_result().summary(resampling=Resampling(draws=50))


@pytest.fixture(scope="module")
def conditions():
    return {
        name: result.summary(resampling=Resampling(draws=50)) for name, result in study().items()
    }


def lines(fig, tag):
    """The traces of a language: (interval, mean) for every plot that has them."""
    found = [t for t in fig.data if t.legendgroup == tag]
    return list(zip(found[::2], found[1::2], strict=True))


def curve(summary, tag):
    return summary.curves[summary.curves["language"] == tag].sort_values("layer")


# colours and words ---------------------------------------------------------------------------


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colors_do_not_depend_on_order_and_the_pivot_keeps_its_own():
    tags = ["zh-Hans", "ar", "hi", "ru"]
    assert figures.language_colors(tags) == figures.language_colors(reversed([*tags, "en"]))
    assert figures.language_colors(["fr"])["en"] == figures.language_colors(tags)["en"]
    assert figures.language_colors(["en"], pivot="de")["de"] == theme.PIVOT


def test_more_languages_do_not_move_the_colors_of_the_first():
    first = figures.language_colors(["ru", "de"])
    assert first.items() <= figures.language_colors(["ru", "de"], more=["ar", "de"]).items()


def test_colors_and_symbols_of_twelve_languages_differ():
    tags = ["ar", "de", "es", "fr", "hi", "ja", "ko", "ru", "sw", "tr", "zh-Hans", "pt"]
    colors = figures.language_colors(tags)
    assert len({colors[tag] for tag in [*tags, "en", "unknown"]}) == 14
    assert len({theme.symbol_of(colors, tag) for tag in [*tags, "en"]}) == 13


def test_every_color_can_be_seen_on_light_and_dark_paper():
    dark = luminance("#14171c")
    for color in (theme.PIVOT, theme.NEUTRAL, *theme.PALETTE):
        light = luminance(color)
        assert 1.05 / (light + 0.05) >= 3, color
        assert (light + 0.05) / (dark + 0.05) >= 3, color


def test_a_language_without_a_color_is_an_error(summary):
    with pytest.raises(ValueError, match=r"No colour for language 'de'.*language_colors"):
        figures.language_curves(summary, colors=figures.language_colors(["ru"]))


def test_labels_are_endonyms_with_tags_right_to_left_isolated():
    assert figures.language_label("zh-Hans") == "中文 (zh-Hans)"
    assert figures.language_label("ar") == "\u2068العربية\u2069 (ar)"
    assert figures.language_label("unknown") == "unknown"
    assert theme.isolate("abc") == "abc"


# figures of summaries ------------------------------------------------------------------------


def test_curves_draw_the_numbers_and_their_intervals(summary):
    fig = figures.language_curves(summary)
    for tag in ("en", "ru", "de"):
        table = curve(summary, tag)
        ((band, mean),) = lines(fig, tag)
        assert list(mean.x) == table["layer"].tolist()
        assert list(mean.y) == table["mean"].tolist()
        assert list(band.y) == table["high"].tolist() + table["low"].tolist()[::-1]
        assert band.fill == "toself"
    ((band, mean),) = lines(fig, "entropy")
    entropy = summary.states.query("quantity == 'entropy'").sort_values("layer")
    assert list(mean.y) == entropy["mean"].tolist()
    assert list(band.y) == entropy["high"].tolist() + entropy["low"].tolist()[::-1]


def test_what_each_language_gets_by_chance_is_drawn_as_a_thin_line(summary):
    null = lens_result(bump=0.02, end=0.03, seed=3).summary(resampling=Resampling(draws=50))
    fig = figures.language_curves(summary, chance=null)
    dotted = {t.name: t for t in fig.data if t.mode == "lines" and t.line.dash == "dot"}
    assert len(dotted) == null.curves["language"].nunique() == 3
    for tag, name in (("en", "English (en)"), ("ru", "Русский (ru)")):
        line = dotted[f"{name}: by chance"]
        assert list(line.y) == null.curves.loc[null.curves["language"] == tag, "mean"].tolist()
        (mine,) = [t for t in fig.data if t.name == name]
        assert line.line.color == mine.line.color
    assert "other prompts' words" in fig.layout.title.text.replace("<br>", " ")
    both = {"a": summary, "b": null}
    overview = figures.pairs_overview(both, chances={"a": null})
    assert sum(t.line.dash == "dot" for t in overview.data) == 3
    plain = figures.pairs_overview(both)
    assert not any(t.line.dash == "dot" for t in plain.data) and "thin" not in str(plain.layout)


def test_curves_say_what_they_show(summary):
    fig = figures.language_curves(summary)
    assert "Translation from German to Russian" in fig.layout.title.text
    assert "8 prompts" in fig.layout.title.text
    assert "95 % interval" in fig.layout.title.text
    assert fig.layout.xaxis2.title.text == "residual point (0 = embedding, 6 = after last block)"
    assert fig.layout.xaxis2.tickvals == (0, 1, 2, 3, 4, 5, 6)
    assert tuple(fig.layout.yaxis2.range) == (0, 1)
    shown = [t.name for t in fig.data if t.showlegend]
    assert shown == ["English (en)", "Deutsch (de)", "Русский (ru)"]


def test_crossover_is_marked_only_where_there_is_one(summary):
    value = summary.landmark("crossover_layer")["value"]
    fig = figures.language_curves(summary)
    assert [s.x0 for s in fig.layout.shapes if s.type == "line"] == [value]
    marks = summary.landmarks.copy()
    marks.loc[marks["name"] == "crossover_layer", ["value", "low", "high"]] = float("nan")
    assert not figures.language_curves(replace(summary, landmarks=marks)).layout.shapes


def test_missing_means_leave_a_gap_and_no_broken_interval(summary):
    curves = summary.curves.copy()
    curves.loc[curves["layer"] == 2, ["mean", "low", "high"]] = float("nan")
    fig = figures.language_curves(replace(summary, curves=curves))
    ((band, mean),) = lines(fig, "en")
    assert 2 not in band.x
    assert mean.y[2] != mean.y[2]
    assert "NaN" not in figures.figure_block(fig, "f", label="l")


def test_states_draw_all_three_quantities(summary):
    fig = figures.state_curves(summary)
    for kind in ("entropy", "kl", "energy"):
        table = summary.states[summary.states["quantity"] == kind].sort_values("layer")
        ((band, mean),) = lines(fig, kind)
        assert list(mean.y) == table["mean"].tolist()
        assert max(band.y) == table["high"].max()
    assert "bits" in fig.layout.yaxis2.title.text


def test_composition_stacks_to_one_with_unknown_in_grey(summary):
    fig = figures.composition_bars(summary)
    assert fig.layout.barmode == "stack"
    for heights in zip(*(bar.y for bar in fig.data), strict=True):
        assert sum(heights) == pytest.approx(1)
    assert fig.data[0].marker.color == theme.PIVOT
    assert (fig.data[-1].name, fig.data[-1].marker.color) == ("unknown", theme.NEUTRAL)
    assert "日本語 (ja)" in [bar.name for bar in fig.data]


def test_small_shares_are_drawn_together(summary):
    table = summary.composition.copy()
    japanese = table["language"] == "ja"
    table.loc[table["language"] == "unknown", "share"] += table.loc[japanese, "share"].max() - 0.02
    table.loc[japanese, "share"] = 0.02
    fig = figures.composition_bars(replace(summary, composition=table))
    names = [bar.name for bar in fig.data]
    assert "日本語 (ja)" not in names
    other = fig.data[names.index("other")]
    assert list(other.y) == pytest.approx([0.02] * 7)


def test_controls_are_beside_the_result_on_one_scale(conditions):
    fig = figures.controls(conditions)
    titles = [a.text for a in fig.layout.annotations]
    assert titles[:3] == [
        "result: translation",
        "control: shuffled words",
        "control: random weights",
    ]
    assert "4 to 8 prompts" in fig.layout.title.text
    drawn = lines(fig, "en")
    assert len(drawn) == 4
    for (band, mean), one in zip(drawn, conditions.values(), strict=True):
        assert list(mean.y) == curve(one, "en")["mean"].tolist()
        assert max(band.y) == curve(one, "en")["high"].max()
    assert [mean.showlegend for _, mean in drawn] == [True, False, False, False]
    ranges = {tuple(getattr(fig.layout, f"yaxis{i}").range) for i in ("", 2, 3, 4)}
    assert ranges == {(0, 1)}


def test_pairs_share_the_colors_of_the_report(summary):
    other = lens_result("zh-Hans", "ar", seed=3).summary(resampling=Resampling(draws=50))
    colors = figures.report_colors([summary, other])
    fig = figures.pairs_overview({"de_ru": summary, "zh-Hans_ar": other}, colors=colors)
    single = figures.language_curves(other, colors=colors)
    for tag in ("ar", "zh-Hans", "en"):
        seen = {mean.line.color for _, mean in [*lines(fig, tag), *lines(single, tag)]}
        assert seen == {colors[tag]}
    assert [a.text for a in fig.layout.annotations][:2] == ["de → ru", "zh-Hans → ar"]
    assert "\u2068العربية\u2069 (ar)" in [t.name for t in fig.data]


def test_nothing_to_draw_is_an_error(summary):
    with pytest.raises(ValueError, match="at least one"):
        figures.pairs_overview({})
    with pytest.raises(ValueError, match="columns=0"):
        figures.controls({"translation": summary}, columns=0)


def test_figures_are_transparent_with_fonts_for_all_scripts(summary, conditions):
    for fig in (figures.language_curves(summary), figures.controls(conditions)):
        layout = fig.layout.template.layout
        assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
        for font in ("CJK", "Naskh Arabic", "Devanagari", "sans-serif"):
            assert font in layout.font.family


def test_drawing_leaves_the_summary_and_plotly_alone(summary):
    import plotly.io as pio

    before = summary.composition.copy(), pio.templates.default
    figures.composition_bars(summary)
    assert summary.composition.equals(before[0])
    assert pio.templates.default == before[1]


# traces --------------------------------------------------------------------------------------


def test_trace_table_has_layers_from_bottom_to_top_and_tokens_below():
    trace = trace_result()
    fig = figures.trace_table(trace)
    heat, text = fig.data
    assert list(heat.y) == [0, 1, 2, 3]
    assert [list(row) for row in heat.z] == [
        [(layer + 1) * (pos + 1) / 20 for pos in range(5)] for layer in range(4)
    ]
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert list(fig.layout.xaxis.ticktext) == ["⟨bos⟩", "Blume", "␣中文", ":", "⏎"]
    assert len(text.text) == 20
    assert text.text[2] == "\u2068␣الزهرة\u2069"
    assert text.text[4] == "&lt;b&gt;x&lt;/b&gt;"  # shown as it is, not read as markup
    assert (text.text[18], heat.customdata[3][3][0]) == ("Donauda…", LABELS[6])


def test_trace_table_by_entropy():
    fig = figures.trace_table(trace_result(), color_by="entropy")
    assert fig.data[0].z[3][4] == 7.0
    assert "bits" in fig.data[0].colorbar.title.text
    with pytest.raises(ValueError, match="color_by='rank'"):
        inspect.unwrap(figures.trace_table)(trace_result(), color_by="rank")


def test_trace_text_is_aligned_by_width_with_the_last_layer_on_top():
    rows = figures.trace_text(trace_result(), columns=8).split("\n")
    assert rows[0].startswith("3 ")
    assert rows[-1].startswith("layer")
    assert set(rows[-2]) == {"─"}
    starts = set()
    for row in (rows[1], rows[-1]):  # the second column starts at the same place
        second = re.split(r" {2,}", row)[2]
        starts.add(cell_width(row[: row.index(second)]))
    assert len(starts) == 1
    assert "\u2068␣الزهرة\u2069" in rows[1]
    with pytest.raises(ValueError, match="columns=1"):
        figures.trace_text(trace_result(), columns=1)


def test_widths_of_letters():
    assert cell_width("花") == 2
    assert cell_width("फूल") == 2  # the vowel sign below takes no column
    assert cell_width("\u2068ab\u2069") == 2
    assert shorten("中文字", 4) == "中…"
    assert shorten("abcd", 4) == "abcd"


# files ---------------------------------------------------------------------------------------


def test_files_have_the_same_bytes_and_refer_to_nothing_outside(summary, tmp_path):
    for folder in ("a", "b"):
        fig = figures.language_curves(summary)
        files = figures.write_figure(
            fig, tmp_path / folder / "figures", "de_ru-curves", plotlyjs="../plotly.min.js"
        )
        assert [f.name for f in files] == ["de_ru-curves.html", "de_ru-curves.json"]
    for name in ("de_ru-curves.html", "de_ru-curves.json"):
        one, other = (tmp_path / folder / "figures" / name for folder in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()
    html = (tmp_path / "a/figures/de_ru-curves.html").read_text(encoding="utf-8")
    assert 'src="../plotly.min.js"' in html
    assert 'id="de_ru-curves"' in html
    assert (tmp_path / "a/plotly.min.js").is_file()
    assert not re.search(r"https?://", html)
    assert "prefers-color-scheme: dark" in html
    assert len(html) < 100_000


def test_json_is_read_back_as_the_same_figure(summary, tmp_path):
    import plotly.io as pio

    fig = figures.composition_bars(summary)
    figures.write_figure(fig, tmp_path, "bars")
    assert pio.from_json((tmp_path / "bars.json").read_text(encoding="utf-8")) == fig


def test_text_cannot_end_the_script_of_its_page():
    trace = trace_result()
    cells = trace.cells.assign(label="</script><script>alert(1)</script>")
    fig = figures.trace_table(replace(trace, cells=cells))
    block = figures.figure_block(fig, "t", label='"><script>alert(2)</script>')
    assert block.count("<script") == 1
    assert "alert(1)" in block
    data = re.search(r"<script[^>]*>(.*)</script>", block)[1]
    assert json.loads(data)["data"][0]["customdata"][0][0][0].startswith("&lt;/script&gt;")


def test_bad_names_and_formats_are_refused(summary, tmp_path):
    fig = figures.state_curves(summary)
    for name in ("../out", "a b", "", "-x"):
        with pytest.raises(ValueError, match="can't name"):
            figures.write_figure(fig, tmp_path, name)
    with pytest.raises(ValueError, match=r"list of formats from png, svg, pdf"):
        figures.write_figure(fig, tmp_path, "f", static=["gif"])
    with pytest.raises(ValueError, match=r"static of write_figure: 'png' .* Collection"):
        figures.write_figure(fig, tmp_path, "f", static="png")
    assert not list(tmp_path.iterdir())


def test_without_kaleido_the_message_says_what_to_install(summary, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(figures.StaticExportError, match=r"pip install 'xlens-interp\[static\]'"):
        figures.write_figure(figures.state_curves(summary), tmp_path, "f", static=["png"])
    assert (tmp_path / "f.html").is_file()
    assert not (tmp_path / "f.png").exists()


def test_missing_glyphs_are_named_and_nothing_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "_covered", lambda: ((0x20, 0x4FF), (0x2010, 0x27EF)))
    fig = figures.trace_table(trace_result())
    missing = glyphs.missing_glyphs(fig)
    assert missing["CJK"] == "中文花"
    assert "फ" in missing["DEVANAGARI"]
    assert set(missing) == {"ARABIC", "CJK", "DEVANAGARI"}
    pytest.importorskip("kaleido")
    with pytest.raises(figures.StaticExportError, match=r"DEVANAGARI: .*fonts-noto"):
        figures.write_figure(fig, tmp_path, "t", static=["png"])
    assert not (tmp_path / "t.png").exists()


def test_fonts_that_cannot_be_asked_for_are_not_missed(monkeypatch):
    monkeypatch.setattr(glyphs.shutil, "which", lambda name: None)
    glyphs._covered.cache_clear()
    try:
        assert glyphs.missing_glyphs(figures.trace_table(trace_result())) == {}
    finally:
        glyphs._covered.cache_clear()


@pytest.mark.filterwarnings("default")  # the browser's driver, not ours
def test_pictures_are_drawn_where_a_browser_is(tmp_path):
    pytest.importorskip("kaleido")
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        pytest.skip("no Chromium or Chrome")
    fig = figures.trace_table(trace_result())
    if glyphs.missing_glyphs(fig):
        pytest.skip("no fonts for Chinese, Arabic and Hindi")
    files = figures.write_figure(fig, tmp_path, "t", static=("png", "svg", "pdf"))
    starts = {f.suffix: f.read_bytes()[:5] for f in files}
    assert starts[".png"][1:4] == b"PNG"
    assert starts[".svg"] == b"<svg "
    assert starts[".pdf"] == b"%PDF-"
    svg = (tmp_path / "t.svg").read_text(encoding="utf-8")
    assert "फूल" in svg
