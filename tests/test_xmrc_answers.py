"""Answers, their scores and errors: what is planted is found again, with its intervals."""

import json
import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import readings
import test_generate
import test_interventions as reference

import tiny
from xlens.engine import generate
from xlens.engine.interventions import add
from xlens.prompts import Prompt, Prompts
from xlens.stats import Resampling
from xlens.tasks.xmrc import (
    ERRORS,
    Predictions,
    ReadingPrompts,
    ReadingResult,
    ReadingSet,
    ReadingTemplate,
    Verdict,
    answer_questions,
    baseline_predictions,
    classify,
    mismatched,
    predictions_of,
    read_reading,
    reading_prompts,
    reading_scores,
    settings,
)
from xlens.tasks.xmrc.answers import KEY
from xlens.tasks.xmrc.errors import gibberish, identify, script_share
from xlens.tasks.xmrc.replies import first_line
from xlens.tasks.xmrc.tables import setting_of

SHORT = ReadingTemplate("", "", "Q:", "A:")


@pytest.fixture(scope="module")
def stories() -> ReadingSet:
    return readings.reading_set()


def asked(stories: ReadingSet, names, **how) -> list[ReadingPrompts]:
    return [
        reading_prompts(stories, context=c.context, question=c.question, answer=c.answer,
                        **{"shots": 0, **how})
        for c in settings(names, stories.languages)
    ]  # fmt: skip


def planted(prompts: list[ReadingPrompts], say: Callable[[Prompt], str]) -> Predictions:
    texts = [say(prompt) for group in prompts for prompt in group]
    return predictions_of(prompts, texts, model="planted", provenance={})


def gold(prompt: Prompt) -> str:
    start, stop = prompt.spans["answer"]
    return prompt.text[start:stop]


# --- models answer -------------------------------------------------------------------------------


def model_of_many_words():
    model = test_generate.endless("gemma3")
    model.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    )
    return model


@pytest.fixture(scope="module")
def talkative():
    return model_of_many_words()


def test_every_combination_in_one_run_as_each_alone(talkative, stories):
    few = stories.select(ids=["q00", "q01", "q10", "q30"], languages=["en", "de", "ru"])
    prompts = asked(few, ["en-en", "en-x", "x-x"], template=SHORT)
    how = {"max_new_tokens": 5, "progress": False}
    made = answer_questions(talkative, prompts, token_budget=200, **how)
    assert len(made) == 20 and made.model == talkative.name
    every = [prompt for group in prompts for prompt in group]
    assert list(made.table["id"]) == [prompt.id for prompt in every]
    for prompt, row in zip(every, made.table.to_dict("records"), strict=True):
        alone = generate(talkative, [prompt], stop="\n", **how).table.iloc[0]
        assert row["text"] == alone["text"] and row["n_tokens"] == alone["n_tokens"]
        assert tuple(row[name] for name in KEY) == tuple(prompt.meta[name] for name in KEY)
        assert row["question_language"] == prompt.language
        assert row["context"] in prompt.text and row["question"] in prompt.text
    assert made.table["text"].nunique() > 10
    assert made.table["prompt"].nunique() == 20
    assert [how["question_language"] for how in made.provenance["prompts"]] == [
        "en", "de", "ru", "de", "ru"
    ]  # fmt: skip


def test_values_of_interventions_keep_their_prompts(talkative, stories):
    (prompts,) = asked(stories, "en-en", template=SHORT)
    turned = prompts[::-1]  # not in the paragraphs' order
    values = reference.vectors(talkative, len(turned), seed=2)
    how = {"interventions": add(values, layers=1), "max_new_tokens": 4, "progress": False}
    wanted = generate(talkative, turned, stop="\n", **how).table["text"]
    made = answer_questions(talkative, turned, **how).table["text"]
    assert list(made) == list(wanted) and made.nunique() > 6
    clean = answer_questions(talkative, turned, max_new_tokens=4, progress=False).table["text"]
    assert (clean != made).any()


def test_a_store_keeps_answers_by_prompt(talkative, stories, tmp_path, monkeypatch):
    prompts = asked(stories.select(languages=["en", "de"]), ["en-en", "en-x"], template=SHORT)
    how = {"max_new_tokens": 3, "progress": False, "store": tmp_path / "store"}
    first = answer_questions(talkative, prompts, **how)
    monkeypatch.setattr(test_generate.MODULE, "_run", None)  # nothing runs again
    again = answer_questions(talkative, prompts, **how)
    assert again.table.equals(first.table) and again.provenance == first.provenance


def test_a_line_is_an_answer_and_a_chat_ends_by_itself(stories):
    one = stories.select(ids=["q00"], languages=["en"])
    words = tiny.byte_level()
    words.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = reading_prompts(one, shots=0, template=SHORT)
    # It knows by heart what follows the prompt.
    text = plain[0].text + " Answer: the garden.\nQuestion: no more. And on."
    model, ids = test_generate.scripted(text, words)
    assert len(ids) < 128
    made = answer_questions(model, plain, max_new_tokens=30, progress=False)
    row = made.table.iloc[0]
    assert row["reason"] == "stop" and "Question" not in row["text"]
    assert row["text"] == " Answer: the garden." and row["prediction"] == "the garden."
    chat = reading_prompts(one, template=SHORT, chat=words)
    row = answer_questions(model, chat, max_new_tokens=30, progress=False).table.iloc[0]
    assert row["reason"] == "length" and "Question" in row["text"]
    assert "Question" not in row["prediction"]
    both = [plain, reading_prompts(one, template=SHORT, chat=words, pool=one)]
    with pytest.raises(ValueError, match="'q00' is asked twice in en en en"):
        answer_questions(model, both, progress=False)
    stopped = answer_questions(model, chat, stop=" g", max_new_tokens=30, progress=False)
    assert stopped.table["text"][0].endswith("the")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" Denver Broncos\nQuestion: Who?", "Denver Broncos"),
        ("\n\n Answer: Denver \n", "Denver"),
        ("Antwort:Denver", "Denver"),
        ("答案：丹佛", "丹佛"),
        ("Answered by them", "Answered by them"),
        ("Answer:\nDenver Broncos", "Denver Broncos"),
        ("Answer: \n\n Answer: Denver\nor not", "Denver"),
        ("答案: 丹佛", "丹佛"),
        ("answer：Denver", "Denver"),
        ("Answer:", ""),
        ("<think>\nBroncos? No.\n</think>\n\nDenver", "Denver"),
        ("<think></think>Answer: Denver", "Denver"),
        ("<think>a</think> <think>b</think> Denver", "Denver"),
        ("It is Denver, of course.\n</think>\nDenver", "Denver"),  # the template opened it
        (" <think>\nLet me see: Denver", ""),
        ("<think>a</think><think>Denver", ""),
        ("Denver\n<think>sure?", "Denver"),
        (" \n\t\n", ""),
        ("", ""),
    ],
)
def test_the_first_line_is_the_answer(text, line):
    assert first_line(text) == line


def test_other_prompts_are_refused(talkative, stories):
    with pytest.raises(ValueError, match="isn't of this task; make prompts with reading_prompts"):
        answer_questions(talkative, Prompts([Prompt("a", "en", "1")]), progress=False)
    with pytest.raises(ValueError, match="12 prompts but 1 answers"):
        predictions_of(asked(stories, "en-en"), ["x"], model="m", provenance={})


# --- scores --------------------------------------------------------------------------------------


def value_of(result: ReadingResult, column: str, **where: str) -> float:
    table = result.scores if "question_language" in where else result.summary
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    assert len(table) == 1
    return float(table[column].iloc[0])


def test_planted_scores_come_back(stories):
    """English: all right. German questions: half. Russian: none. German texts: three quarters."""
    prompts = asked(stories, ["en-en", "en-x", "x-x"])
    share = {("en", "en"): 12, ("en", "de"): 6, ("en", "ru"): 0, ("en", "zh-Hans"): 3,
             ("de", "de"): 9, ("ru", "ru"): 12, ("zh-Hans", "zh-Hans"): 0}  # fmt: skip

    def say(prompt: Prompt) -> str:
        cell = (prompt.meta["context_language"], prompt.language)
        return gold(prompt) if stories.ids.index(prompt.id) < share[cell] else "nonsense"

    result = reading_scores(planted(prompts, say), resampling=Resampling(draws=200))
    for (context, question), n in share.items():
        where = {"context_language": context, "question_language": question}
        for metric in ("em", "f1", "inclusion"):
            assert value_of(result, "value", metric=metric, **where) == pytest.approx(n / 12)
            assert value_of(result, "ratio", metric=metric, **where) == pytest.approx(n / 12)
    assert value_of(result, "value", setting="en-x", metric="f1") == pytest.approx(9 / 36)
    assert value_of(result, "ratio", setting="en-x", metric="f1") == pytest.approx(9 / 36)
    assert value_of(result, "value", setting="x-x", metric="f1") == pytest.approx(21 / 36)
    summary = result.summary.set_index(["setting", "metric"])
    assert summary.loc[("en-x", "f1"), "languages"] == "de ru zh-Hans"
    assert (summary["n_languages"] == [1] * 4 + [3] * 8).all()
    table = result.scores[result.scores["metric"] != "f1_content"]
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert (table["n"] == 12).all() and (table["paragraphs"] == 6).all()
    assert (table["flag"] == "").all()
    # Six paragraphs, of which three are right: that is how the interval is wide.
    half = table[(table["question_language"] == "de") & (table["setting"] == "en-x")].iloc[0]
    assert half["low"] <= 0.17 and half["high"] >= 0.83


def test_the_same_questions_are_drawn_in_every_language(stories):
    """A model that is right on the same questions everywhere has a ratio of 1, without doubt."""
    right = set(stories.ids[:7])
    say = lambda p: gold(p) if p.id in right else "no such thing"  # noqa: E731
    result = reading_scores(
        planted(asked(stories, ["en-en", "en-x", "x-x"]), say), resampling=Resampling(draws=300)
    )
    f1 = result.scores[result.scores["metric"] == "f1"]
    assert (f1["high"] - f1["low"]).min() > 0.3
    np.testing.assert_allclose(f1["ratio_low"], 1)
    np.testing.assert_allclose(f1["ratio_high"], 1)


def test_a_pivot_of_zero_or_none_makes_no_ratio(stories):
    prompts = asked(stories, ["en-en", "en-x"])
    say = lambda p: gold(p) if p.language == "de" else "nothing"  # noqa: E731
    result = reading_scores(planted(prompts, say), resampling=Resampling(draws=50))
    assert result.scores["ratio"].isna().all() and result.summary["ratio"].isna().all()
    assert set(result.scores["flag"]) == {"en-en scores 0"}
    assert value_of(result, "value", setting="en-x", metric="f1") == pytest.approx(1 / 3)
    without = reading_scores(planted(prompts[1:], say), resampling=Resampling(draws=50))
    assert set(without.scores["flag"]) == {"en-en wasn't asked"}
    german = reading_scores(planted(prompts, gold), pivot="de", resampling=Resampling(draws=50))
    assert set(german.scores["flag"]) == {"de-de wasn't asked"}


def test_settings_of_cells():
    names = {
        ("en", "en", "en"): "en-en",
        ("en", "de", "en"): "en-x",
        ("de", "en", "de"): "x-en",
        ("de", "de", "de"): "x-x",
        ("de", "ru", "de"): "de-ru-de",
        ("en", "de", "de"): "en-de-de",
    }
    assert {cell: setting_of(("", *cell), "en") for cell in names} == names


def test_saved_and_loaded(stories, tmp_path):
    made = planted(asked(stories, ["en-en", "en-x"]), gold)
    again = Predictions.load(made.save(tmp_path / "answers"))
    assert again.table.equals(made.table) and again.model == "planted"
    result = reading_scores(again, resampling=Resampling(draws=50))
    loaded = ReadingResult.load(result.save(tmp_path / "scores"))
    for name in ("scores", "summary", "errors", "items"):
        assert getattr(loaded, name).equals(getattr(result, name))
    assert loaded.to_frame().equals(result.scores)
    assert loaded.provenance["scores"]["normalisation"] == "xlens"


def test_bad_options(stories):
    made = planted(asked(stories, "en-en"), gold)
    with pytest.raises(ValueError, match="confidence is 95"):
        reading_scores(made, resampling=Resampling(confidence=95.0))
    rows = [dict(row, references=["the"]) for row in made.table.to_dict("records")]
    empty = Predictions(model="x", table=pd.DataFrame(rows), provenance={})
    log = logging.getLogger("xlens.tasks.xmrc.scores")
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(log, "warning", lambda *a: said.append(a))
        scored = reading_scores(empty, resampling=Resampling(draws=20))
        assert scored.provenance["scores"]["empty_references"] == 12
    assert said and said[0][1] == 12


# --- errors --------------------------------------------------------------------------------------


def row(prediction: str, **more: object) -> dict:
    return {
        "prediction": prediction,
        "context": "The Rhine rises in the Swiss Alps and flows through Basel.",
        "context_language": "en",
        "question_language": "de",
        "answer_language": "en",
        "references": ["Swiss Alps"],
        "question_references": ["Schweizer Alpen"],
        **more,
    }


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (row(""), ("blank", "no letter or digit", "")),
        (row(" – ."), ("blank", "no letter or digit", "")),
        (row("", text="<think>The text says"), ("blank", "thought only", "")),
        (row("", text="It says</think>\n"), ("blank", "thought only", "")),
        (row("", text="Answer:"), ("blank", "no letter or digit", "")),
        (row("?", text="<think>No.</think>?"), ("blank", "no letter or digit", "")),
        (row("Basel"), ("content", "stands in the context", "")),
        (row("the Rhine, rises!"), ("content", "stands in the context", "")),
        (row("I'm sorry, the text does not say."), ("refusal", "refusal phrase", "")),
        (row("Das wird im Text nicht erwähnt."), ("refusal", "refusal phrase", "")),
        (row("문맥 没有提到"), ("refusal", "refusal phrase", "")),
        (row("river river river river river river river"), ("gibberish", "repetition", "")),
        (row("กรุงเทพ" * 7, answer_language="th"), ("gibberish", "repetition", "")),
        (row("北京" * 7, answer_language="zh-Hans"), ("gibberish", "repetition", "")),
        (row("aaaaaaaaaaaa"), ("gibberish", "repetition", "")),
        (row("a�b c"), ("gibberish", "broken characters", "")),
        (row("</s><<>>||{}x"), ("gibberish", "few letters", "")),
        (row("Rheиnfall"), ("gibberish", "scripts within a word", "")),
        (row("die Schweizer Alpen"), ("language", "right answer in de", "de")),
        (row("in den hohen Bergen der Schweiz"), ("language", "identifier", "de")),
        (row("в Альпах", question_language="ru"), ("language", "script", "ru")),
        (row("在瑞士的山里"), ("language", "script of no candidate", "other")),
        (row("in the mountains of Germany"), ("content", "else", "")),
        (row("1815"), ("content", "else", "")),
        # The context's words are no answer in another language, unless they are a name.
        (
            row("flows through Basel", answer_language="ru", question_language="ru"),
            ("language", "copied from the context", "en"),
        ),
    ],
)
def test_one_rule_decides(made, wanted):
    assert tuple(classify(made)) == wanted


def test_a_cut_character_at_the_end_is_no_gibberish():
    assert gibberish("Zürich\ufffd") == "" and gibberish("北京\ufffd\ufffd") == ""
    assert gibberish("no, no, no, no") == ""


def test_languages_are_told_apart_by_script_and_identifier():
    assert script_share("Москва 2018", "ru") == 1 and script_share("Москва", "en") == 0
    assert script_share("北京のホテル", "ja") == 1
    assert script_share("서울 大學", "ko") == 1 and script_share("1999", "ar") == 1
    assert identify("die Hauptstadt von Frankreich", ("en", "de")) == "de"
    assert identify("the capital of France", ("en", "de")) == "en"
    assert identify("OK", ("en", "de")) == "unknown"
    assert identify("the capital of France", ("en", "bho")) == "unknown"  # it doesn't know Bhojpuri
    assert identify("the capital of France", ("zh-Hans", "zh-Hant")) == "unknown"
    mine = row("in den Bergen der Schweiz, irgendwo")
    assert classify(mine, langid=lambda text, tags: "en").kind == "content"
    assert classify(mine, langid=lambda text, tags: tags[-1]).language == "de"


# Four of twelve are right; the wrong ones are of each kind.
_SAID = {
    "q20": "", "q21": "in the kitchen, I think", "q30": "I'm sorry.", "q31": "no no no no no no no",
    "q40": None, "q41": None, "q50": "somewhere else", "q51": "somewhere else",
}  # fmt: skip


def say_all_kinds(prompt: Prompt) -> str:
    said = _SAID.get(prompt.id, gold(prompt))
    if said is None:  # the right answer in the question's language
        return json.loads(str(prompt.meta["question_references"]))[0]
    return said


def shares(result: ReadingResult, question: str) -> dict[str, float]:
    table = result.errors[result.errors["question_language"] == question]
    return dict(zip(table["kind"], table["share"], strict=True))


def test_planted_errors_come_back(stories):
    made = planted(asked(stories, ["en-en", "en-x"]), say_all_kinds)
    of_wrong = reading_scores(made, resampling=Resampling(draws=100))
    wanted = {"content": 3, "language": 2, "gibberish": 1, "refusal": 1, "blank": 1, "failure": 3,
              "question's language": 2}  # fmt: skip
    for question in ("de", "ru", "zh-Hans"):
        assert shares(of_wrong, question) == pytest.approx({k: n / 8 for k, n in wanted.items()})
    of_all = reading_scores(made, error_denominator="all", resampling=Resampling(draws=100))
    assert shares(of_all, "de") == pytest.approx({k: n / 12 for k, n in wanted.items()})
    for result, whole in ((of_wrong, 8), (of_all, 12)):
        table = result.errors[result.errors["question_language"] == "de"]
        assert set(table["of"]) == {whole}
        assert dict(zip(table["kind"], table["n"], strict=True)) == wanted
        kinds = table[table["kind"].isin(ERRORS)]
        assert kinds["share"].sum() == pytest.approx(8 / whole)
        assert (table["low"] <= table["share"]).all() and (table["share"] <= table["high"]).all()
    # F1 of what is no error other than of content: 4 right of 7.
    assert value_of(of_wrong, "value", metric="f1_content", question_language="de",
                    context_language="en") == pytest.approx(4 / 7)  # fmt: skip
    items = of_wrong.items[of_wrong.items["question_language"] == "ru"].set_index("id")
    assert items.loc["q40", "rule"] == "right answer in ru"
    assert items.loc["q00", "kind"] == "right" and not items.loc["q00", "wrong"]


def test_a_model_that_never_ends_its_thoughts_gives_no_answer(stories):
    """The text's words in its thoughts are no answer; those after them are."""

    def say(prompt: Prompt) -> str:
        return (
            f"<think>\nIt is {gold(prompt)}"
            + ("\n</think>\n\n" * (prompt.id < "q3"))
            + (gold(prompt) * (prompt.id < "q3"))
        )

    result = reading_scores(planted(asked(stories, "en-en"), say), resampling=Resampling(draws=20))
    assert result.items["em"].tolist() == [1.0] * 6 + [0.0] * 6
    assert set(result.items["rule"][6:]) == {"thought only"}
    assert shares(result, "en")["blank"] == 1


def test_what_counts_as_wrong(stories):
    say = lambda p: f"{gold(p)} and milk" if p.id < "q3" else gold(p)  # noqa: E731
    made = planted(asked(stories, ["en-en"]), say)
    lenient, strict = (
        reading_scores(made, wrong_if=w, resampling=Resampling(draws=20)) for w in ("f1", "em")
    )
    assert lenient.items["wrong"].sum() == 0 and strict.items["wrong"].sum() == 6
    # Nothing is wrong: shares of nothing are no number.
    assert lenient.errors["share"].isna().all() and (lenient.errors["of"] == 0).all()
    every = reading_scores(made, error_denominator="all", resampling=Resampling(draws=20))
    assert (every.errors["share"] == 0).all()


def test_a_classifier_of_ones_own(stories):
    made = planted(asked(stories, ["en-en"]), lambda p: "x")
    result = reading_scores(
        made, classifier=lambda row: Verdict("refusal", "mine"), resampling=Resampling(draws=20)
    )
    assert set(result.items["rule"]) == {"mine"}
    assert result.provenance["scores"]["classifier"] == "given"


# --- without reading -----------------------------------------------------------------------------


def test_without_reading_the_scores_fall(stories):
    """A reader that copies by place is right only where the context is the question's."""
    true = asked(stories, ["en-en", "en-x"])
    other = mismatched(stories)
    false = [
        reading_prompts(other, context="en", question=tag, shots=0) for tag in stories.languages
    ]

    def read(prompt: Prompt) -> str:
        start, stop = prompt.spans["sentence_1" if prompt.id.endswith("0") else "sentence_2"]
        return prompt.text[start:stop]

    result = reading_scores(planted([*true, *false], read), resampling=Resampling(draws=50))
    table = result.scores[result.scores["metric"] == "inclusion"].groupby("control")["value"]
    assert table.mean().to_dict() == {"": 1.0, "mismatched": 0.0}
    # Exchanged contexts don't enter means and ratios.
    assert value_of(result, "value", setting="en-x", metric="inclusion") == 1


def test_baselines(stories):
    prompts = asked(stories, ["en-en", "x-x"])
    first = baseline_predictions(prompts)
    said = set(first.table[first.table["context_language"] == "en"]["prediction"])
    assert said == {"Once there was a story."} and first.model == "first sentence"
    drawn = baseline_predictions(prompts, "random span", seed=1)
    for made in drawn.table.to_dict("records"):
        assert made["prediction"] in made["context"] and made["prediction"]
    again, other = (baseline_predictions(prompts, "random span", seed=s) for s in (1, 2))
    assert again.table.equals(drawn.table) and not other.table.equals(drawn.table)
    f1 = reading_scores(drawn, resampling=Resampling(draws=20)).scores
    assert f1[f1["metric"] == "f1"]["value"].mean() < 0.4


@pytest.mark.parametrize("source", readings.sources())
def test_baselines_are_hardly_ever_right(source, tmp_path):
    found = readings.read(source, ["en", "zh"], tmp_path)
    prompts = asked(found.sample(240) if source == "xquad" else found, ["en-en", "x-x"])
    # The stories' first sentence holds no answer, and their texts are three sentences long.
    limits = {"xquad": ((0.04, 0.15), (0.005, 0.12)), "stories": ((0, 0.1), (0, 0.45))}[source]
    for baseline, (low, high) in zip(("first sentence", "random span"), limits, strict=True):
        result = reading_scores(
            baseline_predictions(prompts, baseline), resampling=Resampling(draws=50)
        )
        f1 = result.scores[result.scores["metric"] == "f1"]
        assert f1["value"].between(low, high).all()
        content = result.errors[result.errors["kind"] == "content"]["share"]
        assert (content > 0.9).all()


# Written for the tests: short answers as they are given to questions about texts.
_SHORT = """in the old town|in der Altstadt|en el casco antiguo
after the war|nach dem Krieg|después de la guerra
the green house on the hill|das grüne Haus auf dem Hügel|la casa verde de la colina
because it was too cold|weil es zu kalt war|porque hacía demasiado frío
two of the three brothers|zwei der drei Brüder|dos de los tres hermanos
more than a hundred years|mehr als hundert Jahre|más de cien años
with his left hand|mit seiner linken Hand|con su mano izquierda
the king and his daughter|der König und seine Tochter|el rey y su hija"""


@pytest.mark.parametrize("source", readings.sources())
@pytest.mark.parametrize("other", ["de", "es"])
def test_the_identifier_on_short_answers(source, other):
    """Sure in most cases, and then hardly ever wrong; what the documentation says."""
    if source == "stories":
        rows = [line.split("|") for line in _SHORT.splitlines()]
        texts = [(row[0], row[{"de": 1, "es": 2}[other]]) for row in rows]
    else:
        read = read_reading(readings.XQUAD, languages=["en", other])
        pairs = zip(read.items("en").values(), read.items(other).values(), strict=True)
        texts = [(a.answers[0], b.answers[0]) for a, b in pairs]
    told = [
        (tag, identify(text, ("en", other)))
        for both in texts
        if both[0].casefold() != both[1].casefold()
        for tag, text in zip(("en", other), both, strict=True)
        if sum(map(str.isalpha, text)) >= 3
    ]
    right = sum(tag == found for tag, found in told) / len(told)
    unknown = sum(found == "unknown" for _, found in told) / len(told)
    assert right > 0.7 and 1 - right - unknown < 0.012


# --- a real model --------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not readings.XQUAD.is_dir(), reason="XQuAD is not here")
def test_gemma_reads_better_than_chance():
    import xlens

    model = xlens.load("gemma-3-270m")
    every = read_reading(readings.XQUAD, languages=["en", "de"])
    few = every.sample(12, seed=1)
    prompts = [
        *(reading_prompts(few, question=tag, pool=every) for tag in ("en", "de")),
        reading_prompts(mismatched(few), question="en", pool=every),
    ]
    result = reading_scores(
        answer_questions(model, prompts, progress=False), resampling=Resampling(draws=50)
    )
    f1 = result.scores[result.scores["metric"] == "f1"].set_index(list(KEY))["value"]
    assert f1["", "en", "en", "en"] > 0.15
    assert f1["", "en", "en", "en"] > f1["mismatched", "en", "en", "en"] + 0.1
