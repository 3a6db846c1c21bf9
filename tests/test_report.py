import json
import re
import shutil
from dataclasses import replace
from urllib.parse import unquote

import pandas as pd
import pytest
from pages import Page
from synthetic import MODEL, lens_result, save_pair, study

from xlens.report import pair_sentences, verdict, write_report
from xlens.report.pair import ordered
from xlens.runs import RunDirectory
from xlens.stats import Resampling
from xlens.studies.lens import pair_name

EVIL = "<script>alert('x')</script>"
CONFIG = {"lens": {"model": "made-up", "words": f"{EVIL} 花 الزهرة"}}
PROVENANCE = {
    "command": f"xlens run --words '{EVIL}'",
    "started": "2026-01-01T00:00:00+00:00",
    "platform": "somewhere",
    "versions": {"python": "3.11", "xlens-interp": "0.1.0"},
}


def make_run(folder, **pairs):
    run = RunDirectory.create(folder, CONFIG, PROVENANCE)
    for pair, conditions in pairs.items():
        counts = {"offered": 12, "kept": 8, "shared tokens": 4}
        table = pd.DataFrame({"pair": pair, "reason": list(counts), "n": list(counts.values())})
        save_pair(run, pair, conditions, table)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pairs = [("de", "ru"), ("zh-Hans", "ar")]
    made = {pair_name(*pair): study(*pair) for pair in pairs}
    made["de_ru"]["translation"] = replace(
        made["de_ru"]["translation"], provenance={**MODEL, "model": f"made-up {EVIL}"}
    )
    run = make_run(tmp_path_factory.mktemp("run"), **made)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def html(run):
    return run.report_file.read_text(encoding="utf-8")


def summaries(conditions):
    return {
        name: result.summary(resampling=Resampling(draws=200))
        for name, result in conditions.items()
    }


# the page ------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_every_figure_has_a_place_and_a_caption(html, run):
    page = Page(html)
    places = {e["id"] for e in page.all("div") if "role" in e and e["role"] == "img"}
    data = {e["data-figure"] for e in page.all("script") if "data-figure" in e}
    files = {p.stem for p in run.figures.glob("*.html")}
    assert places == data == files == {p.stem for p in run.figures.glob("*.json")}
    kinds = ("curves", "controls", "composition", "states")
    assert files == {"all-pairs"} | {f"{p}-{k}" for p in ("de_ru", "zh-Hans_ar") for k in kinds}
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(files)
    assert all(e["aria-label"] for e in page.all("div") if e.get("role") == "img")
    ids = [e["id"] for _, e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.all("a")]
    assert {at.removeprefix("#") for at in links if at.startswith("#")} <= set(ids)
    beside = [unquote(at) for at in links if not at.startswith("#")]
    assert {"config.yaml", "provenance.json"} <= {*beside}
    assert all((run.path / at).is_file() for at in beside)


def test_nothing_comes_from_outside(html):
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    page = Page(html)
    assert [s["src"] for s in page.all("script") if "src" in s] == ["plotly.min.js"]
    assert not page.all("link")
    assert not page.all("img")


def test_plotly_is_beside_the_page_once(run):
    assert [p.parent for p in run.path.rglob("plotly.min.js")] == [run.path]
    figure = (run.figures / "de_ru-curves.html").read_text(encoding="utf-8")
    assert 'src="../plotly.min.js"' in figure


def test_everything_from_outside_is_escaped(html):
    assert EVIL not in html
    text = Page(html).text
    assert text.count(EVIL) == 6  # title, heading, command, config, table and line of the model
    assert f"Which language do made-up {EVIL} and made-up think in?" in text


def test_the_same_results_give_the_same_bytes(run, html):
    files = [run.report_file, *sorted(run.figures.iterdir())]
    before = [f.read_bytes() for f in files]
    write_report(RunDirectory.open(run.path))
    assert [f.read_bytes() for f in files] == before


def test_the_page_shows_the_numbers_behind_the_figures(html, run):
    summary = study()["translation"].summary()
    data = re.search(r'data-figure="de_ru-curves">(.*?)</script>', html)[1]
    drawn = {t["name"]: t["y"] for t in json.loads(data)["data"]}
    russian = summary.curves[summary.curves["language"] == "ru"].sort_values("layer")
    assert drawn["Русский (ru)"] == russian["mean"].tolist()
    text = Page(html).text
    peak, final = summary.landmark("pivot_peak_prob"), summary.landmark("final_target_prob")
    for row in (peak, final):
        assert f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in text
    assert "95 % bootstrap intervals" in text


def test_one_color_per_language_in_the_whole_report(html):
    colors = {}
    for data in re.findall(r"data-figure=[^>]*>(.*?)</script>", html):
        for t in json.loads(data)["data"]:
            color = t.get("line", t["marker"] if t["type"] == "bar" else {}).get("color")
            if color and not t["name"].endswith("interval"):
                colors.setdefault(t["name"], set()).add(color)
    assert {"English (en)", "中文 (zh-Hans)", "\u2068العربية\u2069 (ar)"} <= set(colors)
    assert all(len(seen) == 1 for seen in colors.values()), colors


def test_names_carry_their_language_and_direction(html):
    marks = {e["lang"]: e["dir"] for e in Page(html).all("bdi")}
    assert marks == {"de": "ltr", "ru": "ltr", "zh-Hans": "ltr", "ar": "rtl"}
    assert Page(html).all("html") == [{"lang": "en"}]


def test_light_and_dark_wide_and_narrow(html):
    assert html.count("@media (prefers-color-scheme: dark)") == 1
    assert 'name="viewport"' in html
    assert "responsive: true" in html
    assert "max-width: 600px" in html


def test_weights_survival_and_reproduction_are_told(html):
    text = Page(html).text
    assert "Weights: Q4_K_M, dequantised." in text
    assert "pair offered kept shared tokens German → Russian 12 8 4" in text
    assert "Run started 2026-01-01T00:00:00+00:00" in text
    assert "xlens-interp 0.1.0" in text
    assert "花 الزهرة" in text


def test_the_result_comes_first_and_controls_after_it():
    names = ["random-init", "repetition", "mine", "shuffled", "translation"]
    expected = ["translation", "shuffled", "random-init", "repetition", "mine"]
    one = lens_result().summary(resampling=Resampling(draws=10))
    assert list(ordered(dict.fromkeys(names, one))) == expected
    assert next(iter(ordered(dict.fromkeys(["shuffled", "repetition"], one)))) == "repetition"
    assert list(ordered({"b": one, "a": one})) == ["a", "b"]


def test_a_run_of_one_result_without_controls(tmp_path):
    run = make_run(tmp_path, de_ru={"translation": lens_result()})
    shutil.rmtree(run.result_folder("made-up", "de_ru/survival"))
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "No control was run" in text
    assert "All pairs" not in text
    assert {p.stem for p in run.figures.glob("*.html")} == {
        "de_ru-curves",
        "de_ru-composition",
        "de_ru-states",
    }


def test_a_run_without_results_is_refused(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    with pytest.raises(ValueError, match="no results yet"):
        write_report(run)
    assert not run.report_file.exists()


# the sentences -------------------------------------------------------------------------------


def test_a_phase_above_the_controls_is_told_with_its_numbers():
    found = summaries(study())
    assert verdict(found) == (
        "English words are more probable than in the controls and ahead of Russian ones before "
        "these overtake them: an English phase."
    )
    text = " ".join(pair_sentences(found))
    peak = found["translation"].landmark("pivot_peak_prob")
    assert f"highest, {peak['value']:.2f} [{peak['low']:.2f}, {peak['high']:.2f}]" in text
    assert "at residual point 4 [4, 4] of 6" in text
    assert "Russian is ahead of English for good from point 5 [5, 5] on." in text
    # The word of the prompt may be ahead of both.
    assert "lead" not in verdict(found) + text
    assert "Controls: the highest mean of any language is 0.010 with shuffled words" in text


def test_no_phase_where_the_interval_reaches_the_control():
    found = summaries(study(bump=0.01))
    assert verdict(found).startswith("No English phase was found")
    assert "with shuffled words" in verdict(found)
    assert "for good from point" not in " ".join(pair_sentences(found))


def test_no_phase_is_claimed_without_controls():
    found = summaries({"translation": lens_result()})
    assert "No control was run" in verdict(found)


def test_a_prompt_in_the_pivot_language_may_be_copied():
    found = summaries(study("en", "ru"))
    assert "may be copying" in verdict(found)


def test_an_answer_in_the_pivot_language_is_no_phase():
    found = summaries(study(end=0.01))
    curves, marks = found["translation"].curves, found["translation"].landmarks.copy()
    marks.loc[marks["name"] == "pivot_peak_layer", "value"] = 6.0
    marks.loc[marks["name"] == "final_pivot_prob", ["value", "low", "high"]] = (0.3, 0.2, 0.4)
    marks.loc[marks["name"] == "crossover_layer", ["value", "low", "high"]] = float("nan")
    found["translation"] = replace(found["translation"], curves=curves, landmarks=marks)
    assert "the model answers in English" in verdict(found)
    assert "There is no point from which on" in " ".join(pair_sentences(found))


def test_a_pivot_that_never_leads_is_told_apart_from_one_that_is_never_overtaken():
    behind = summaries(study(bump=0.1))
    table = behind["translation"].curves.copy()
    table.loc[table["language"] == "ru", "mean"] += 0.4
    marks = behind["translation"].landmarks.copy()
    marks.loc[marks["name"] == "crossover_layer", ["value", "low", "high"]] = float("nan")
    behind["translation"] = replace(behind["translation"], curves=table, landmarks=marks)
    assert "never ahead of Russian ones" in verdict(behind)
    ahead = summaries(study(end=0.0001))
    assert "doesn't overtake" in verdict(ahead)


def test_a_crossover_in_few_resamples_is_a_weak_finding():
    found = summaries(study())
    marks = found["translation"].landmarks.copy()
    marks.loc[marks["name"] == "crossover_layer", "share_of_draws"] = 0.6
    found["translation"] = replace(found["translation"], landmarks=marks)
    assert verdict(found).endswith("in 60 % of the resamples only: a weak finding.")
    assert "(in 60 % of the resamples)" in " ".join(pair_sentences(found))


def test_another_pivot_is_named():
    result = lens_result("de", "ru", pivot="zh-Hans")
    null = lens_result("de", "ru", pivot="zh-Hans", bump=0.001, end=0.01)
    found = summaries({"translation": result, "shuffled": null})
    assert verdict(found).endswith("a Chinese phase.")


def test_the_pivot_as_target_says_nothing():
    found = summaries({"translation": lens_result("de", "en")})
    assert "nothing can be said" in verdict(found)
    assert pair_sentences(found)[0].startswith("At the output the English word has")


def test_no_brackets_stand_around_an_interval_that_is_not_there():
    from xlens.report.cells import interval, signed
    from xlens.report.gain import change

    nan = float("nan")
    none = {"value": 0.25, "difference": 0.25, "low": nan, "high": nan, "p": nan}
    assert (interval(none), signed(none), change(none)) == ("0.25", "+0.25", "+25.0 points, p –")
    some = {**none, "low": 0.125, "high": 0.5, "p": 0.04}
    assert interval(some) == "0.25 [0.12, 0.50]"
    assert change(some) == "+25.0 points [12.5, 50.0], p 0.040"
