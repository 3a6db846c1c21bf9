"""No limit and no threshold treats one script worse than another without a word."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import readings
import test_generate
from test_xmrc_answers import SHORT, asked, gold, planted

from xlens.engine import generate, room_for
from xlens.prompts import Prompts
from xlens.report.reading_tables import (
    leaderboard_rows,
    reading_findings,
    score_head,
    score_rows,
)
from xlens.stats import Resampling
from xlens.studies.steps.leaderboard import leaderboard
from xlens.tasks.xmrc import ReadingPrompts, answer_questions, mismatched, reading_scores
from xlens.tasks.xmrc.metrics import chance_levels
from xlens.wording import percent

FEW = Resampling(draws=20)
# The same answer: letters of one byte, of three, and of three without words.
GOLDS = ("the Ministry of Foreign Affairs", "กระทรวงการต่างประเทศ", "外務省の大臣官房")


@pytest.fixture(scope="module")
def model():
    return test_generate.endless("gemma3")


@pytest.fixture(scope="module")
def stories():
    return readings.reading_set()


def test_a_limit_cuts_off_no_right_answer(model):
    sizes = [len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in GOLDS]
    assert max(sizes) > 2 * min(sizes)  # scripts differ
    assert room_for(GOLDS, model.tokenizer) == max(sizes) + 8
    assert room_for(GOLDS[:1], model.tokenizer, least=500) == 500
    # A served model's tokens are not known: no tokenizer has more than one a byte.
    assert room_for(GOLDS) == max(len(t.encode()) for t in GOLDS) + 8
    assert room_for([], model.tokenizer, least=12) == 12


def test_answers_have_the_room_that_right_ones_need(model, stories, monkeypatch):
    seen = {}

    def spy(*args, max_new_tokens, **how):
        seen["room"] = max_new_tokens
        return generate(*args, max_new_tokens=2, **how)

    monkeypatch.setattr("xlens.tasks.xmrc.answers.generate", spy)
    (prompts,) = asked(stories, "en-en", template=SHORT)
    long = json.dumps([GOLDS[1] * 8])
    some = [replace(prompts[0], meta={**prompts[0].meta, "references": long}), *prompts[1:3]]
    answer_questions(model, Prompts(some), progress=False)
    size = len(model.tokenizer(f" {GOLDS[1] * 8}", add_special_tokens=False)["input_ids"])
    assert seen["room"] == size + 8 > 32
    answer_questions(model, Prompts(some), max_new_tokens=5, progress=False)
    assert seen["room"] == 5


def test_texts_that_were_cut_stand_in_every_cell(stories):
    groups = asked(stories, ["en-en", "en-x"])
    russian = next(n for n, group in enumerate(groups) if group[0].language == "ru")
    n = len(groups[russian])
    cut = [
        replace(p, meta={**p.meta, "cut": int(i < n // 2)}) for i, p in enumerate(groups[russian])
    ]
    how = {**groups[russian].how, "skipped": ["a", "b"], "unpaired": ["c"]}
    groups[russian] = ReadingPrompts(cut, how)
    result = reading_scores(planted(groups, gold), resampling=FEW)
    cells = result.scores[result.scores["metric"] == "f1"].set_index("question_language")
    assert cells["text_cut"].to_dict() == {
        tag: pytest.approx((n // 2) / n if tag == "ru" else 0) for tag in cells.index
    }
    assert cells["left_out"].to_dict() == {tag: 3 * (tag == "ru") for tag in cells.index}
    parts = {"scores": result}
    head, rows = score_head(parts), score_rows(parts)
    assert head[8] == "text cut" and {len(row) for row in rows} == {len(head)}
    assert [row[8] for row in rows if row[1] == "ru"] == [percent((n // 2) / n)]
    (said,) = [s for s in reading_findings(readings.summed(parts)) if "Texts were cut" in s]
    assert "in 1 of 4 combinations" in said and "most in en-ru-en" in said
    # The leaderboard has their mean over languages; and where nothing is cut, no column.
    titles, (row,) = leaderboard_rows(leaderboard({"m": result}))
    assert row[titles.index("text cut")] == percent((n // 2) / n / 3)
    whole = reading_scores(planted(asked(stories, ["en-en", "en-x"]), gold), resampling=FEW)
    assert "text cut" not in score_head({"scores": whole})
    assert not [
        s for s in reading_findings(readings.summed({"scores": whole})) if "Texts were cut" in s
    ]


# --- what counts as wrong ---


def test_wrong_is_below_the_languages_own_chance(stories):
    """Words that right answers to other questions share, too, make no answer right."""
    groups = asked(stories, ["en-en", "en-x"])
    levels = pd.DataFrame(
        {"language": ["en"], "chance": [0.1], "shares": [0.5], "wrong_to": [0.4], "pairs": [99]}
    )

    def partly(prompt):
        return f"{gold(prompt)} and six words that nobody asked for"  # F1 of 2/9 to 4/10

    made = planted(groups, partly)
    found = reading_scores(made, chance=levels, resampling=FEW)
    assert found.items["f1"].between(0.1, 0.4).all() and found.items["wrong"].all()
    (f1,) = set(found.scores.loc[found.scores["metric"] == "f1", "chance"])
    assert f1 == 0.1
    at = levels.assign(wrong_to=float(found.items["f1"].min()))
    lowest = reading_scores(made, chance=at, resampling=FEW).items  # no higher: still wrong
    assert lowest["wrong"].tolist() == (lowest["f1"] <= lowest["f1"].min()).tolist()
    none = reading_scores(made, chance=levels.assign(wrong_to=0.0), resampling=FEW)
    assert not none.items["wrong"].any()


def test_a_languages_chance_is_that_of_its_own_answers():
    """Half of the pairs share one of two words in one language, none do in the other."""
    alike = [(str(i), [f"w{i} {'red' if i % 2 else 'blue'}"]) for i in range(60)]
    apart = [(str(i), [f"w{i} v{i}"]) for i in range(60)]
    found = chance_levels({"en": alike, "de": apart}, normalisation="xlens").set_index("language")
    assert found["shares"].to_dict() == {"en": pytest.approx(0.5, abs=0.05), "de": 0}
    assert found["wrong_to"].to_dict() == {"en": pytest.approx(0.5), "de": 0}
    assert found.loc["en", "chance"] == pytest.approx(0.25, abs=0.03)


# --- whether a model reads at all ---


@pytest.mark.parametrize("reads", [False, True])
def test_a_model_reads_where_the_difference_is_above_0(stories, reads):
    """Not where two intervals lie apart: exchanged texts are of the same questions."""
    (real,) = asked(stories, "en-en")
    (other,) = asked(mismatched(stories, seed=1), "en-en")
    second = {p.id for p in real[1::2]}  # of two about each text

    def say(prompt):
        known = prompt.id in second and (prompt.meta["control"] == "" or not reads)
        return json.loads(str(prompt.meta["references"]))[0] if known else "nonsense"

    found = reading_scores(planted([real, other], say), resampling=Resampling(draws=300))
    row = found.scores.query("metric == 'f1' and control == ''").iloc[0]
    assert row["above"] == pytest.approx(0.5 * reads)
    assert found.reads == reads == (row["above_low"] > 0)
    apart = found.scores.query("metric == 'f1'").set_index("control")
    assert not apart.loc["", "low"] > apart.loc["mismatched", "high"]  # the intervals overlap
