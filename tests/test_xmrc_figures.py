"""Figures of reading: what they show is what the tables say."""

import json
from dataclasses import replace

import pytest
import readings

from xlens import figures
from xlens.figures import theme
from xlens.stats import Resampling
from xlens.tasks.xmrc import (
    ERRORS,
    ReadingResult,
    mismatched,
    predictions_of,
    reading_prompts,
    reading_scores,
    settings,
)

SETTINGS = ["en-en", "en-x", "x-x"]


def result_of(names, right: int, *, control: bool = False, model: str = "m") -> ReadingResult:
    """A model that answers the first questions right, the rest in one wrong way or another."""
    stories = readings.reading_set()
    sets = [stories, mismatched(stories)] if control else [stories]
    prompts = [
        reading_prompts(each, context=c.context, question=c.question, shots=0)
        for each in sets
        for c in settings(names, stories.languages)
    ]

    def say(prompt) -> str:
        n = stories.ids.index(prompt.id)
        if n < right - 2 * (prompt.language != "en") and "answer" in prompt.spans:
            return json.loads(str(prompt.meta["references"]))[0]
        return ("", "I'm sorry", "x x x x x x x", "wrong")[n % 4]

    texts = [say(prompt) for group in prompts for prompt in group]
    return reading_scores(
        predictions_of(prompts, texts, model=model, provenance={}), resampling=Resampling(draws=50)
    )


@pytest.fixture(scope="module")
def result() -> ReadingResult:
    return result_of(["en-en", "en-x", "x-x"], 8, control=True, model="tiny <b>")


def with_chance(result: ReadingResult) -> ReadingResult:
    """As if right answers to other questions scored, in each language differently."""
    levels = {"en": 0.02, "de": 0.05, "ru": 0.08, "zh-Hans": 0.15}
    cells, means = result.scores, result.summary.set_index("setting")
    by_setting = {"en-en": 0.02, "en-x": 0.02, "x-x": 0.09}
    return replace(
        result,
        scores=cells.assign(chance=cells["answer_language"].map(levels)),
        summary=means.assign(chance=means.index.map(by_setting)).reset_index(),
    )


def test_bars_stand_where_their_languages_are(result):
    fig = figures.reading_bars(result)
    assert [bar.name for bar in fig.data if bar.showlegend is not False] == [
        "English throughout",
        "English text, question in the language",
        "all in the language",
    ]
    assert list(fig.layout.xaxis.ticktext) == ["en", "de", "ru", "zh-Hans"]
    bars = [bar for bar in fig.data if bar.showlegend is not False]
    assert list(bars[0].x) == [0] and list(bars[0].y) == pytest.approx([8 / 12])
    for bar, setting in zip(bars[1:], ("en-x", "x-x"), strict=True):
        rows = result.scores[
            (result.scores["setting"] == setting) & (result.scores["control"] == "")
        ]
        rows = rows[rows["metric"] == "f1"]
        assert [round(x) for x in bar.x] == [1, 2, 3]
        assert list(bar.y) == rows["value"].tolist() == pytest.approx([6 / 12] * 3)
        tops = [y + up for y, up in zip(bar.y, bar.error_y.array, strict=True)]
        assert tops == pytest.approx(rows["high"].tolist())
    assert bars[1].x[0] < 1 < bars[2].x[0]
    lines = [bar for bar in fig.data if bar.showlegend is False]
    assert [list(line.base) for line in lines] == [[0.0], [0.0] * 3, [0.0] * 3]
    assert {line.marker.color for line in lines} == {theme.NEUTRAL}
    assert "tiny &lt;b&gt;" in fig.layout.title.text


def test_chance_stands_across_each_bar(result):
    result = with_chance(result)
    fig = figures.reading_bars(result)
    table = result.scores[(result.scores["metric"] == "f1") & (result.scores["control"] == "")]
    lines = {round((s.x0 + s.x1) / 2, 3): (s.y0, s.y1) for s in fig.layout.shapes}
    bars = [bar for bar in fig.data if bar.showlegend is not False]
    for bar, setting in zip(bars, ("en-en", "en-x", "x-x"), strict=True):
        levels = table.loc[table["setting"] == setting, "chance"].tolist()
        assert [lines[round(x, 3)] for x in bar.x] == [(level, level) for level in levels]
    assert "by chance" in fig.layout.title.text.replace("<br>", " ")


def test_errors_of_language_are_drawn_beside_those_of_right_answers(result):
    errors = result.errors.copy()
    errors.loc[errors["kind"] == "language", "baseline"] = 0.125
    fig = figures.error_bars(replace(result, errors=errors))
    below = {
        (bar.xaxis or "x", tag): y
        for bar in fig.data
        if bar.name == "content"
        for tag, y in zip(bar.x, bar.y, strict=True)
    }
    tags = {"x": ["en"], "x2": ["de", "ru", "zh-Hans"], "x3": ["de", "ru", "zh-Hans"]}
    drawn = {(s.xref, tags[s.xref][round((s.x0 + s.x1) / 2)]): s.y0 for s in fig.layout.shapes}
    assert drawn == pytest.approx({place: y + 0.125 for place, y in below.items()})


def test_bars_without_a_control_say_nothing_of_it():
    fig = figures.reading_bars(result_of(["en-en", "x-en"], 5), "em")
    assert "grey" not in fig.layout.title.text and not fig.layout.shapes
    assert fig.layout.yaxis.title.text == "share of exactly right answers"


def test_errors_are_stacked_to_one(result):
    fig = figures.error_bars(result)
    assert [each.text for each in fig.layout.annotations] == ["en-en", "en-x", "x-x"]
    assert [bar.name for bar in fig.data if bar.showlegend] == list(ERRORS)
    for place, languages in (("x", ["en"]), ("x2", ["de", "ru", "zh-Hans"])):
        bars = [bar for bar in fig.data if (bar.xaxis or "x") == place]
        assert all(list(bar.x) == languages for bar in bars)
        assert [sum(shares) for shares in zip(*(bar.y for bar in bars), strict=True)] == (
            pytest.approx([1] * len(languages))
        )
    english = {bar.name: bar.y[0] for bar in fig.data if (bar.xaxis or "x") == "x"}
    assert english == pytest.approx(
        {"content": 0.25, "language": 0, "gibberish": 0.25, "refusal": 0.25, "blank": 0.25}
    )


def test_models_are_compared_by_their_ratios(result):
    result, other = map(with_chance, (result, result_of(SETTINGS, 11, model="better")))
    fig = figures.ratio_scatter([result, other])
    dots = [trace for trace in fig.data if trace.mode == "markers"]
    assert [dot.name for dot in dots] == ["tiny &lt;b&gt;", "better"]
    for dot, right in zip(dots, (8, 11), strict=True):
        assert (dot.x[0], dot.y[0]) == pytest.approx(((right - 2) / right,) * 2)
    diagonal = next(trace for trace in fig.data if trace.mode == "lines")
    assert list(diagonal.x) == list(diagonal.y)
    ways = [trace for trace in fig.data if trace.mode == "lines"][1:]
    for way, dot, made in zip(ways, dots, (result, other), strict=True):
        rows = made.summary[made.summary["metric"] == "f1"].set_index("setting")
        chance = rows["chance"] / rows.loc["en-en", "value"]
        assert chance["x-x"] > chance["en-x"] > 0
        assert list(way.x) == pytest.approx([chance["x-x"], dot.x[0]])
        assert list(way.y) == pytest.approx([chance["en-x"], dot.y[0]])
    lone = result_of(["en-en", "en-x"], 5)
    with pytest.raises(ValueError, match="None of 1 results has ratios of both settings"):
        figures.ratio_scatter([lone])


def test_the_matrix_has_every_pair():
    made = result_of("matrix", 7)
    heat, labels = figures.reading_matrix(made).data
    assert len(labels.text) == len(heat.x) * len(heat.y)
    assert list(heat.x) == list(heat.y) == list(readings.LANGUAGES)
    for i, context in enumerate(heat.y):
        for j, question in enumerate(heat.x):
            row = made.scores[
                (made.scores["context_language"] == context)
                & (made.scores["question_language"] == question)
                & (made.scores["metric"] == "f1")
            ]
            assert heat.z[i][j] == row["value"].iloc[0]
    assert list(figures.reading_matrix(with_chance(made)).layout.yaxis.ticktext) == [
        "en<br>chance 0.02",
        "de<br>chance 0.05",
        "ru<br>chance 0.08",
        "zh-Hans<br>chance 0.15",
    ]


def test_bad_input(result):
    for draw in (figures.reading_bars, figures.reading_matrix):
        with pytest.raises(ValueError, match="Unknown metric 'F1'; accepted are f1, em"):
            draw(result, "F1")
    with pytest.raises(ValueError, match="Unknown metric 'F1'"):
        figures.ratio_scatter([result], "F1")
    stories = readings.reading_set()
    foreign = reading_prompts(stories, context="de", question="ru", shots=0)
    scores = reading_scores(
        predictions_of(foreign, ["x"] * 12, model="m", provenance={}),
        resampling=Resampling(draws=20),
    )
    with pytest.raises(ValueError, match="No cell of this result is of a setting"):
        figures.reading_bars(scores)


def test_files(result, tmp_path):
    drawn = {"bars": figures.reading_bars(result), "errors": figures.error_bars(result)}
    first, again = (figures.write_figures(drawn, tmp_path / x) for x in ("a", "b"))
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
