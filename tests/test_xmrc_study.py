"""Studies of reading: what is refused early, which questions are compared, what the page says."""

import json
import re

import kit
import numpy as np
import pytest
import readings
from studied import study_reading

from xlens.report.reading import write_reading_report
from xlens.report.reading_tables import leaderboard_rows, reading_findings, score_rows
from xlens.results import Result
from xlens.runs import ACROSS, RunDirectory
from xlens.stats import Resampling
from xlens.studies import ReadingStudy
from xlens.studies.steps.context_retrieval import check_reading
from xlens.studies.steps.leaderboard import compared, leaderboard
from xlens.tasks.xmrc import (
    ReadingResult,
    ReadingSet,
    mismatched,
    paired,
    predictions_of,
    reading_prompts,
    reading_scores,
    settings,
)

SMALL = {"n_items": 12, "n_controls": 4, "shots": 0, "max_new_tokens": 3}


def untitled() -> ReadingSet:
    """The stories as XQuAD lies on the hub: no titles, paragraphs not numbered."""
    frame = readings.reading_set().frame.drop(columns=["paragraph", "title"])
    return ReadingSet(frame, "untitled")


def page(path, models: dict[str, dict[str, Result]]) -> str:
    """The report of results that were made elsewhere."""
    run = RunDirectory.create(path, {"xmrc": {"model": list(models)}}, {"command": "x"})
    models = {model: readings.summed(parts) for model, parts in models.items()}
    for model, parts in models.items():
        for name, part in parts.items():
            part.save(run.result_folder(model, name))
    if len(models) > 1 and (board := compared(models, ReadingStudy(), {})):
        board.save(run.result_folder(ACROSS, "leaderboard"))
    return write_reading_report(run).read_text(encoding="utf-8")


def scores(names, languages, *, left_out=(), model="m", control=False, reading=None):
    """A model that answers English questions right, others every second time."""
    stories = (reading or readings.reading_set()).select(languages=languages)
    sets = [stories, mismatched(stories)] if control else [stories]
    prompts = [
        reading_prompts(each.select(ids=[i for i in each.ids if i not in left_out]),
                        context=c.context, question=c.question, shots=0)
        for each in sets
        for c in settings(names, languages)
    ]  # fmt: skip
    texts = [
        json.loads(str(p.meta["references"]))[0] if p.language == "en" or p.id[-1] == "0" else "x"
        for group in prompts
        for p in group
    ]
    return reading_scores(
        predictions_of(prompts, texts, model=model, provenance={}), resampling=Resampling(draws=50)
    )


# --- refused before a model is loaded ------------------------------------------------------------


def test_rules_that_do_not_cover_an_answers_language_show_early():
    stories = readings.reading_set()
    for rules in ("xlens", "squad"):
        check_reading(stories, ReadingStudy(normalisation=rules, shots=0))
    # Only answers are normalised: a question may be in any language.
    check_reading(stories, ReadingStudy(settings=("en-x",), normalisation="mlqa", shots=0))
    for asked in ({"settings": ("x-x",)}, {"questions": ("de",), "answers": ("ru",)}):
        with pytest.raises(ValueError, match=r"MLQA's rules cover en, .*, not 'ru'"):
            check_reading(stories, ReadingStudy(normalisation="mlqa", shots=0, **asked))
    wrong = ReadingStudy()
    object.__setattr__(wrong, "normalisation", "mqla")  # types are checked here before
    with pytest.raises(ValueError, match=r"normalisation: 'mqla' .str. given; accepted is one of"):
        wrong.__post_init__()


# --- combinations without a setting's name -------------------------------------------------------


def test_a_study_whose_combinations_have_no_name(tmp_path):
    model = kit.fresh("gpt2", n_positions=512)
    study = ReadingStudy(context=("en",), questions=("de", "ru"), answers=("de",), **SMALL)
    parts = study_reading(model, readings.reading_set(), study=study, folder=tmp_path / "m")
    found = parts["scores"]
    assert isinstance(found, ReadingResult) and found.summary.empty
    assert list(found.summary.columns) == list(scores("en-en", ["en"]).summary.columns)
    (saved,) = tmp_path.glob("m/results/*/scores")
    loaded = ReadingResult.load(saved)
    assert list(loaded.summary.columns) == list(found.summary.columns)
    assert [row[:4] for row in score_rows(parts)] == [
        ["en", "de", "de", "12"],
        ["en", "ru", "de", "12"],
    ]
    assert any(s.startswith("With another") for s in reading_findings(parts))
    html = page(tmp_path / "run", {"m": parts, "n": parts})
    heads = [head.strip() for head in re.findall(r"<h2>(.*?)</h2>", html, re.S)]
    assert "Leaderboard" not in html and len(heads) == 4 and heads[0].startswith("One prompt")
    with pytest.raises(ValueError, match="have none of the settings"):
        leaderboard({"m": found})


def test_the_matrix_is_drawn_whatever_its_tags_look_like(tmp_path):
    for n, languages in enumerate((["en", "de", "zh-Hans"], ["en", "de", "ru"], ["en", "de"])):
        page(tmp_path / str(n), {"m": {"scores": scores("matrix", languages)}})
        drawn = (tmp_path / str(n) / "figures" / "m-matrix.html").is_file()
        assert drawn == (len(languages) > 2)  # of two, all combinations have a name


# --- the same questions --------------------------------------------------------------------------


def lengths(model, stories: ReadingSet, names) -> dict[tuple[str, str], int]:
    return {
        ("-".join(c), p.id): len(model.tokenizer(p.text)["input_ids"])
        for c in names
        for p in reading_prompts(stories, context=c.context, question=c.question, shots=0)
    }


def test_what_is_skipped_in_one_combination_is_skipped_in_all(tmp_path):
    stories = readings.reading_set().select(languages=["en", "de", "ru"])
    names = settings(["en-en", "en-x", "x-x"], stories.languages)
    model = kit.fresh("gpt2", n_positions=512)
    found = lengths(model, stories, names)
    longest = {id: max(n for key, n in found.items() if key[1] == id) for id in stories.ids}
    limit = sorted(longest.values())[7]
    fits = [id for id, n in longest.items() if n <= limit]
    short = kit.fresh("gpt2", n_positions=limit + 3)
    study = ReadingStudy(too_long="skip", oracle=True, **SMALL)
    parts = study_reading(short, stories, study=study, progress=False)
    answers = parts["predictions"].table
    assert 4 < len(fits) < 12 and any(n <= limit for (_, id), n in found.items() if id not in fits)
    for control in ("", "mismatched"):
        mine = answers[answers["control"] == control]
        cells = mine.groupby(["context_language", "question_language"])["id"].agg(list)
        assert len(cells) == 5 and all(ids == cells.iloc[0] for ids in cells)
        assert set(cells.iloc[0]) <= set(fits)
        assert control or set(cells.iloc[0]) == set(fits)
    scored = parts["scores"]
    real = scored.scores[(scored.scores["control"] == "") & (scored.scores["metric"] == "f1")]
    assert set(real["n"]) == {len(fits)}
    assert not scored.summary["flag"].str.contains("other questions").any()
    how = scored.provenance["prompts"][:5]
    gone = [len(each["skipped"]) + len(each["unpaired"]) for each in how]
    assert gone == [12 - len(fits)] * 5 and how[0]["unpaired"]
    told = parts["oracle"]
    assert set(told.items["id"]) <= set(fits) and len(told.items) + len(told.left_out) == 5 * 4 * 2
    assert set(told.left_out["reason"]) <= {"no answer", "too long with its answer"}
    html = page(tmp_path, {"m": parts})
    alone = sum(len(each["unpaired"]) for each in scored.provenance["prompts"])
    assert f"so were {alone} prompts whose question was too long in another combination" in html


def test_questions_of_their_own_are_not_paired():
    """TyDiQA: no question is asked in two languages, and none is left out for that."""
    stories = readings.reading_set().select(languages=["en", "ru"])
    frame = stories.frame.assign(id=stories.frame["language"] + stories.frame["id"])
    tydi = ReadingSet(frame, "tydi", parallel=False)
    study = ReadingStudy(settings=("en-en", "x-x"), too_long="skip", **SMALL | {"controls": ()})
    parts = study_reading(kit.fresh("gpt2", n_positions=512), tydi, study=study, progress=False)
    assert len(parts["predictions"].table) == 24
    flags = parts["scores"].summary.set_index(["setting", "metric"])["flag"]
    assert flags["x-x", "em"] in ("other questions than en-en", "en-en scores 0")


def test_pairs_by_hand_and_what_a_ratio_says_without():
    stories = readings.reading_set()
    whole = reading_prompts(stories, shots=0)
    few = reading_prompts(stories.select(ids=stories.ids[:5]), question="de", shots=0)
    both = paired([whole, few])
    assert [group.ids for group in both] == [stories.ids[:5]] * 2 and paired([]) == []
    assert both[0].how["unpaired"] == list(stories.ids[5:]) and both[1].how["unpaired"] == []
    none = reading_prompts(stories.select(ids=stories.ids[5:]), question="de", shots=0)
    with pytest.raises(ValueError, match="No question is asked in all 2 combinations"):
        paired([few, none])
    for prompts, flag in (([whole, few], "other questions than en-en"), (both, "")):
        texts = [json.loads(p.meta["references"])[0] for group in prompts for p in group]
        made = predictions_of(prompts, texts, model="m", provenance={})
        table = reading_scores(made, resampling=Resampling(draws=20)).summary.set_index(
            ["setting", "metric"]
        )
        assert table["flag"]["en-x", "f1"] == flag and table["flag"]["en-en", "f1"] == ""
        assert table["ratio"]["en-x", "f1"] == pytest.approx(1)


def test_the_leaderboard_says_who_was_asked_what(tmp_path):
    names, languages = ["en-en", "en-x"], ["en", "de", "ru"]
    same = {name: scores(names, languages, model=name) for name in ("a", "b")}
    assert [row[-1] for row in leaderboard_rows(leaderboard(same))[1]] == ["12", "12"]
    skips = scores(names, languages, left_out=["q00", "q01", "q10"], model="c")
    other = scores(names, languages, left_out=["q50", "q51", "q40"], model="d")
    board = leaderboard({**same, "c": skips, "d": other})
    told = dict(zip(board.table["model"], (r[-1] for r in leaderboard_rows(board)[1]), strict=True))
    assert told == dict.fromkeys("ab", "12 (6 of all)") | dict.fromkeys("cd", "9 (6 of all)")
    assert board.table.set_index("model")["n"].to_dict() == {"a": 12, "b": 12, "c": 9, "d": 9}
    for results, differ in ((same, False), ({"a": same["a"], "c": skips}, True)):
        models = {name: {"scores": result} for name, result in results.items()}
        html = page(tmp_path / str(differ), models)
        assert ("not all asked the same questions" in html) == differ
        assert "questions in each" not in html


# --- articles that aren't known ------------------------------------------------------------------


def test_another_text_is_called_another_articles_only_where_that_is_known(tmp_path):
    for reading, told in ((readings.reading_set(), True), (untitled(), False)):
        result = scores(["en-en", "en-x"], ["en", "de"], control=True, reading=reading)
        assert result.other_text == ("another article's text" if told else "another text")
        said = " ".join(reading_findings(readings.summed({"scores": result})))
        assert f"With {result.other_text} F1 is" in said
        html = page(tmp_path / str(told), {"m": {"scores": result}})
        assert ("another article" in html) == told
        figure = (tmp_path / str(told) / "figures" / "m-f1.json").read_text(encoding="utf-8")
        assert ("another article" in figure) == told
    # One article only: its other paragraphs must do.
    one = readings.reading_set().select(ids=["q00", "q01", "q10"])
    result = scores(["en-en", "en-x"], ["en", "de"], control=True, reading=one)
    assert result.other_text == "another text"
    assert np.isfinite(result.scores["value"]).any()


# --- summaries -----------------------------------------------------------------------------------


def test_a_run_of_before_is_refused_with_the_command_that_makes_its_summaries(tmp_path):
    parts = {"scores": scores(["en-en", "en-x"], ["en", "de"])}
    line = "xlens xmrc m --overwrite --out x"  # to delete first what is saved is no going on
    run = RunDirectory.create(tmp_path, {"xmrc": {"model": "m"}}, {"command": line})
    parts["scores"].save(run.result_folder("m", "scores"))
    with pytest.raises(
        ValueError, match=r"has no summary of m.* from what is saved: xlens xmrc m --out x$"
    ):
        write_reading_report(run)
    for name, part in readings.summed(parts).items():
        part.save(run.result_folder("m", name))
    assert write_reading_report(run).is_file()
