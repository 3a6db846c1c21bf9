"""`ReadingStudy` and `xlens xmrc`: parts are saved, resumed, compared, reported and refused."""

import json
from contextlib import nullcontext
from dataclasses import asdict, replace

import kit
import numpy as np
import pandas as pd
import pytest
import readings
import serving
import yaml
from pages import same_sentences
from studied import study_reading

import tiny
from xlens.cli import main
from xlens.report import write_report
from xlens.report.reading import write_table
from xlens.report.reading_inside import phase_findings, stability_rows
from xlens.report.reading_tables import (
    oracle_rows,
    reading_findings,
    score_head,
    score_rows,
)
from xlens.runs import RunDirectory
from xlens.served import ServedModel
from xlens.stats import Resampling
from xlens.studies import Loading, ReadingStudy, Serving
from xlens.studies.running.places import places
from xlens.studies.steps import context_retrieval
from xlens.studies.steps.context_retrieval import check_reading
from xlens.studies.steps.leaderboard import find_pairs, given_pairs, leaderboard
from xlens.studies.steps.reading_phases import phase_questions
from xlens.studies.steps.reading_prompts import combinations
from xlens.studies.steps.reading_summary import stability_and_scores
from xlens.tasks.xmrc import (
    Predictions,
    ReadingResult,
    mismatched,
    predictions_of,
    reading_prompts,
    reading_scores,
    settings,
)

SMALL = {"n_items": 4, "n_controls": 2, "shots": 0, "max_new_tokens": 3}
INSIDE = {"phases": True, "n_phases": 4, "relevance_rule": "gradient"}
LINE = ["--n-items", "4", "--n-controls", "2", "--shots", "0", "--max-new-tokens", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    return tiny.make("gpt2", path, n_positions=512, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files as a user has them: one per language."""
    path = tmp_path_factory.mktemp("data") / "stories"
    path.mkdir()
    for tag in readings.LANGUAGES:
        text = json.dumps(readings.squad(tag), ensure_ascii=False)
        (path / f"stories.{tag}.json").write_text(text, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))


def run(*line: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in line])
    return int(done.value.code or 0)


# --- what is asked ---


def test_languages_and_settings_become_combinations():
    def asked(**options) -> list[str]:
        return ["-".join(c) for c in combinations(ReadingStudy(**options), ["en", "de", "ru"])]

    assert asked(questions=("en,de", "ru")) == ["en-en-en", "en-de-en", "en-ru-en"]
    assert asked(context=("de",), questions=("en",), answers=("de", "en")) == [
        *("de-en-de", "de-en-en")
    ]
    assert asked(settings=("en-x",), context=("de",)) == ["de-en-de", "de-ru-de"]
    assert len(asked(settings=("full",))) == 9
    assert asked() == ["en-en-en", "en-de-en", "en-ru-en", "de-de-de", "ru-ru-ru"]
    assert ReadingStudy(context=("zh-hans",)).pivot == "zh-Hans"
    assert ReadingStudy(chat="True").chat == "yes"  # what becomes of a bare yes in YAML


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ("en-y",)}, "Unknown settings"),
        ({"settings": ("en-x",), "context": ("en", "de")}, "beside settings"),
        ({"controls": ("none",)}, "Unknown controls"),
        ({"chat": "maybe"}, "accepted are auto, yes and no"),
        ({"n_phases": 3}, "at least 4"),
        ({"shots": -1}, "at least 0"),
        ({"questions": ("xx-yy-zz",)}, "xx-yy-zz"),
    ],
)
def test_a_wrong_study_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReadingStudy(**options)


@pytest.mark.usefixtures("as_users_have_it")
def test_questions_that_cannot_be_asked_show_before_a_model_is_loaded():
    stories = readings.reading_set()
    for options, message in (
        ({"questions": ("fr",)}, "No questions in 'fr'"),
        ({"questions": ("en",), "instruction": "fr"}, "no reading template in fr"),
        ({"questions": ("en",), "shots": 99, "chat": "no"}, "need 99 demonstrations"),
        ({"questions": ("en",), **INSIDE, "kinds": ("x",)}, "Unknown kinds of evidence"),
        ({"questions": ("en",), **INSIDE, "relevance_rule": "x"}, "rule"),
        ({"settings": ("x-en",), **INSIDE}, "phases need texts and answers in 'en'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_reading(stories, ReadingStudy(**options))
    one = stories.select(ids=["q00", "q10"])
    with pytest.raises(ValueError, match="two paragraphs or more with two questions"):
        check_reading(one, ReadingStudy(questions=("en",), shots=0, **INSIDE))


def test_two_questions_of_each_paragraph_are_looked_at():
    stories = readings.reading_set()
    languages = settings(["en-en", "en-x", "x-x"], stories.languages)
    study = ReadingStudy(phases=True, n_phases=7)
    few, chosen = phase_questions(stories, languages, study)
    assert [len(ids) for ids in few.paragraphs.values()] == [2, 2, 2]
    assert {(c.context, c.answer) for c in chosen} == {("en", "en")} and len(chosen) == 4
    _, within = phase_questions(stories, settings("x-x", stories.languages), study)
    assert [c.question for c in within] == ["de", "ru", "zh-Hans"]
    # The same answer to both in one language: such a pair tells nothing apart.
    same = readings.reading_set()
    frame = same.frame.copy()
    here = (frame["id"] == "q01") & (frame["language"] == "en")
    twin = frame[(frame["id"] == "q00") & (frame["language"] == "en")].iloc[0]
    at = frame.index[here][0]
    frame.at[at, "answers"], frame.at[at, "starts"] = twin["answers"], twin["starts"]
    few, _ = phase_questions(replace(same, frame=frame), languages, ReadingStudy(n_phases=99))
    assert "0/0" not in few.paragraphs and len(few.paragraphs) == 5


# --- the study ---


@pytest.mark.slow
def test_parts_are_kept_and_read_again(folder, tmp_path, monkeypatch):
    model = kit.model(folder)
    stories = readings.reading_set().select(languages=["en", "de"])
    drawn = Resampling(60, 0.9, 0, "paragraph")
    asked = SMALL | INSIDE | asdict(drawn)
    study = ReadingStudy(context=("en",), questions=("en", "de"), **asked)
    found = study_reading(model, stories, study=study, folder=tmp_path, progress=False)
    assert tuple(found) == study.parts(stories)
    for name, part in found.items():
        if name not in ("first-sentence", "random-span", "phases-control"):  # no model, or another
            kit.names_its_model(part, model)
    for name in ("scores", "first-sentence", "depth", "phases", "stability", "phases-control"):
        assert Resampling.of(found[name].provenance) == drawn, name
    answers, scores = found["predictions"], found["scores"]
    assert isinstance(answers, Predictions) and isinstance(scores, ReadingResult)
    assert list(answers.table.groupby("control", sort=False).size()) == [8, 4]
    write_table(found, tmp_path / "predictions.csv")
    table = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    assert len(table) == 12 and table["f1"].tolist() == scores.items["f1"].tolist()
    assert json.loads(table["references"][0]) == answers.table["references"][0]
    assert set(found["curves"].meta["language"]) == {"en", "de"}
    assert found["curves"].meta["paragraph"].nunique() == 2
    assert found["depth"].n_layers == model.n_layers
    said = phase_findings(found)
    assert any("no p can be below 0.25." in s for s in said)
    assert any(s.startswith("The same with random weights, in one language: no two") for s in said)
    assert stability_rows(found["stability"])[0][:3] == ["index", "English", "German"]
    # One language besides the pivot.
    assert stability_and_scores({"x": found}, Resampling()) is None
    rows = score_rows(found)
    assert [row[:4] for row in rows] == [["en", "en", "en", "4"], ["en", "de", "en", "4"]]
    first = score_rows({k: found[k] for k in ("scores", "first-sentence")})
    assert [len(row) for row in first] == [len(row) - 1 for row in rows]  # no random words

    (saved,) = tmp_path.glob("results/*/depth/result.json")
    saved.unlink()  # as a kill would leave it
    for name in ("answer_questions", "baseline_predictions"):
        monkeypatch.setattr(context_retrieval, name, None)
    again = study_reading(model, stories, study=study, folder=tmp_path, progress=False)
    assert again["scores"].to_frame().equals(scores.to_frame())
    assert again["depth"].to_frame().equals(found["depth"].to_frame())
    other = replace(study, seed=1)
    fewer = stories.select(ids=stories.ids[2:])
    for changed in ((other, stories, "differs in xmrc.seed"), (study, fewer, r"\(data changed")):
        with pytest.raises(ValueError, match=changed[2]):
            study_reading(model, changed[1], study=changed[0], folder=tmp_path, progress=False)


def test_sentences_are_left_out_for_right_and_own_answers(folder):
    options = SMALL | {"controls": (), "settings": ("en-en", "en-x"), "questions": ("en", "de")}
    study = ReadingStudy(**options, oracle=True, per_paragraph=2)
    assert study.parts(None) == ("predictions", "scores", "oracle", "summary", "oracle-summary")
    parts = study_reading(kit.model(folder), readings.reading_set(), study=study, progress=False)
    assert parts["predictions"].table["paragraph"].nunique() == 2  # two questions on each
    items = parts["oracle"].items
    gold = items[items["target"] == "right answer"]
    assert sorted(gold["question_language"].value_counts().to_dict().items()) == [
        ("de", 2),
        ("en", 2),
    ]
    head, rows = oracle_rows(parts["oracle-summary"])
    assert head[:4] == ["text", "question", "answer", "target"] and rows[0][-1] == "2"
    (said,) = [s for s in reading_findings(parts) if "left out in turn" in s]
    assert "the right answer in" in said and "chance 33 %" in said


def test_a_chat_is_found_by_its_template(folder):
    model = kit.fresh("gpt2", n_positions=512)
    stories = readings.reading_set().select(languages=["en"])
    study = ReadingStudy(questions=("en",), controls=(), **{**SMALL, "shots": None})
    words = model.tokenizer
    words.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"

    def how(study) -> dict:
        found = study_reading(model, stories, study=study, progress=False)
        assert list(found) == ["predictions", "scores", "summary"]
        return found["predictions"].provenance["prompts"][0]

    made = how(study)
    assert made["chat"] and made["shots"] == 0
    assert made["limit"] == model.n_ctx - 3
    longer = kit.fresh("gpt2", n_positions=2048)
    model, plain = longer, replace(study, chat="no")
    made = how(plain)
    assert not made["chat"] and made["shots"] == 3


def test_another_chat_template_is_another_study(tmp_path):
    """The weights and the ids of tokens are the same, but other texts are asked."""
    model = kit.fresh("gpt2", n_positions=1024)
    stories = readings.reading_set().select(languages=["en"])
    study = ReadingStudy(questions=("en",), controls=(), **{**SMALL, "shots": None})
    for brackets, said in (("<>", None), ("<>", None), ("[]", r"prompts.* changed since")):
        start, end = brackets
        template = f"{{% for m in messages %}}{start}{{{{ m.role }}}}{end}{{{{ m.content }}}}\n"
        model.tokenizer.chat_template = f"{template}{{% endfor %}}"
        with nullcontext() if said is None else pytest.raises(ValueError, match=said):
            study_reading(model, stories, study=study, folder=tmp_path, progress=False)


def test_what_is_too_long_is_refused_before_anything_runs(monkeypatch):
    model = kit.fresh("gpt2", n_positions=64)
    stories = readings.reading_set().select(languages=["en"])
    monkeypatch.setattr(context_retrieval, "answer_questions", None)
    study = ReadingStudy(questions=("en",), **SMALL)
    with pytest.raises(ValueError, match="more than 61 tokens"):
        study_reading(model, stories, study=study, progress=False)


def test_served_models_have_no_inside():
    served = ServedModel("tiny", "http://localhost:1/v1")
    study = ReadingStudy(questions=("en",), **SMALL, **INSIDE)
    with pytest.raises(ValueError, match="gives text only"):
        study_reading(served, readings.reading_set(), study=study, progress=False)


@pytest.mark.slow
@serving.needed
def test_a_served_model_answers_as_it_does_here(
    served_folder, served_address, data, tmp_path, capsys
):
    study = ReadingStudy(settings=("en-en", "x-x"), questions=("en", "de"), chat="no", **SMALL)
    stories = readings.reading_set()
    served = ServedModel(
        str(served_folder), served_address, chat=False, price_in=1.0, price_out=2.0
    )
    found, here = (
        study_reading(model, stories, study=study, progress=False)
        for model in (served, kit.model(served_folder))
    )
    assert tuple(found) == study.parts(stories)
    texts = here["predictions"].table["text"]
    assert found["predictions"].table["text"].tolist() == texts.tolist() and texts.nunique() > 4
    assert found["scores"].to_frame().equals(here["scores"].to_frame())
    spent = found["predictions"].provenance
    assert spent["cost"] == (spent["tokens"]["in"] + 2 * spent["tokens"]["out"]) / 1e6
    # Beside one that is loaded, in one table, asked for chat.
    name = f"{served_folder}@{served_address}"
    line = ["xmrc", served_folder, name, "--data", data, "--questions", "en,de", *LINE]
    assert run(*line, "--out", tmp_path / "run") == 0
    assert "Sorted by F1" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"chat completions at {served_address}" in page and "turns of a chat" in page


# --- several models ---


def planted(name: str, right: dict[str, int]) -> ReadingResult:
    """A model that answers the first questions right, as many as are said for a language."""
    stories = readings.reading_set()
    prompts = [
        reading_prompts(stories, context=c.context, question=c.question, shots=0)
        for c in settings(["en-en", "en-x"], stories.languages)
    ]
    texts = [
        json.loads(p.meta["references"])[0]
        if stories.ids.index(p.id) < right.get(p.language, 0)
        else ("", "nonsense")[stories.ids.index(p.id) % 2]
        for group in prompts
        for p in group
    ]
    return reading_scores(
        predictions_of(prompts, texts, model=name, provenance={}), resampling=Resampling(draws=50)
    )


def test_the_leaderboard_says_what_was_planted():
    results = {
        "m": planted("m", {"en": 12, "de": 4}),
        "m-it": planted("m-it", {"en": 12, "de": 12, "ru": 6}),
        "z": planted("z", {"en": 6, "de": 12, "ru": 12, "zh-Hans": 12}),
    }
    board = leaderboard(results, pairs=find_pairs(list(results)), resampling=Resampling(draws=200))
    table = board.table.set_index("model")
    assert list(table.index) == ["z", "m-it", "m"] and board.setting == "en-x"
    assert table["f1"].tolist() == pytest.approx([1, 0.5, 1 / 9])
    assert table["f1_pivot"].tolist() == pytest.approx([0.5, 1, 1])
    assert table["ratio"]["m-it"] == pytest.approx(0.5)
    assert table["base"].tolist() == ["", "m", ""]
    by = board.languages.set_index(["model", "language"])["f1"]
    assert by["m-it", "ru"] == pytest.approx(0.5) and by["m", "de"] == pytest.approx(1 / 3)
    (pair,) = board.pairs.to_dict("records")
    assert (pair["base"], pair["post"], pair["n"]) == ("m", "m-it", 12)
    assert pair["difference"] == pytest.approx(0.5 - 1 / 9)
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    errors = board.errors.set_index(["model", "kind"])
    assert np.isnan(errors["share"]["z", "blank"]) and errors["of"]["z", "blank"] == 0
    assert errors["n"]["m-it", "blank"] == 9 and errors["of"]["m-it", "blank"] == 18
    only = {"a": results["m"], "b": reading_scores_of_one()}
    with pytest.raises(ValueError, match="in common"):
        leaderboard(only)


def test_a_share_of_what_is_not_read_is_no_finding():
    """English as good with exchanged texts as with its own: known or guessed, not read."""
    stories = readings.reading_set()
    sets = (stories, mismatched(stories))
    prompts = [
        reading_prompts(each, context="en", question=tag, shots=0)
        for each in sets
        for tag in ("en", "de")
    ]
    for knows, told in ((("", "mismatched"), False), (("",), True)):
        texts = [
            json.loads(p.meta["references"])[0] if p.meta["control"] in knows else "nonsense"
            for group in prompts
            for p in group
        ]
        made = predictions_of(prompts, texts, model="m", provenance={})
        said = " ".join(
            reading_findings(
                readings.summed({"scores": reading_scores(made, resampling=Resampling(draws=50))})
            )
        )
        assert ("of English's" in said) == told
        assert ("shares of it say nothing" in said) != told
        parts = {"scores": reading_scores(made, resampling=Resampling(draws=50))}
        at = score_head(parts).index("F1 of en-en")
        shares = [row[at] for row in score_rows(parts)]
        assert (shares == ["–", "–"]) != told


def reading_scores_of_one() -> ReadingResult:
    stories = readings.reading_set()
    prompts = reading_prompts(stories, context="de", question="de", shots=0)
    said = predictions_of(prompts, ["x"] * len(prompts), model="b", provenance={})
    return reading_scores(said, resampling=Resampling(draws=50))


def folders_of(names: list[str]) -> dict[str, str]:
    return {place.name: place.folder for place in places(names, Loading(), Serving())}


def test_pairs_by_name_and_by_hand():
    names = ["a", "a-it", "b_Instruct", "b", "c-chat", "d"]
    assert find_pairs(names) == (("a", "a-it"), ("b", "b_Instruct"))
    assert find_pairs(names, [("d", "c-chat"), ("a", "a-it")])[0] == ("d", "c-chat")
    for given, message in ((("d", "e"), r"\['e'\]"), (("d", "d"), "with itself")):
        with pytest.raises(ValueError, match=message):
            find_pairs(names, [given])
    odd = ["./no-such@http://host:80/v1", "模型"]
    folders = folders_of(["org/m", "big@http://host:80/v1", "big@https://other/v1", *odd])
    assert list(folders.values()) == ["org--m", "big", "big-2", "no-such", "model"]
    assert given_pairs(["org/m:big@http://host:80/v1"], folders) == [("org--m", "big")]
    with pytest.raises(ValueError, match="give BASE:POST"):
        given_pairs(["org/m"], folders)
    with pytest.raises(ValueError, match="named twice"):
        folders_of(["m", "m"])


# --- the command ---


def test_the_command_reports_and_goes_on(folder, data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    line = ["xmrc", folder, "--data", data, "--context", "en", "--questions", "en,de", "ru", *LINE]
    line += ["--phases", "--n-phases", "4", "--relevance-rule", "gradient"]
    kinds = ["--kinds", "readable", "patch_last_question", "patch_last_context"]
    assert run(*line, *kinds, "--out", out) == 0
    said = capsys.readouterr().out
    assert "Report: " in said and "mean of en-x" in said and "predictions.csv" in said
    assert "To answer with the text's first sentence" in said
    same_sentences(out / "report.html", said)
    html = (out / "report.html").read_text(encoding="utf-8")
    for name in ("f1", "errors", "curves", "boundaries", "relevance", "depth"):
        assert (out / "figures" / f"tiny-gpt2-{name}.html").is_file()
        assert f'id="tiny-gpt2-{name}"' in html
    assert "Leaderboard" not in html and "another article" in html
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["xmrc"]
    assert config["questions"] == ["en", "de", "ru"] and config["model"] == str(folder)
    before = (out / "report.html").read_bytes()
    write_report(RunDirectory.open(out))
    assert (out / "report.html").read_bytes() == before
    monkeypatch.setattr(Loading, "load", None)  # nothing is left to do
    assert run("--config", out / "config.yaml", "xmrc", "--out", out) == 0


@pytest.mark.slow
def test_several_models_are_compared(folder, data, tmp_path, capsys):
    (tmp_path / "tiny-gpt2-it").symlink_to(folder)
    out = tmp_path / "run"
    models = [folder, tmp_path / "tiny-gpt2-it"]
    other = tiny.make("gemma3", tmp_path / "other", max_position_embeddings=512)
    line = ["xmrc", *models, other, "--data", data, "--questions", "en,de", *LINE]
    more = ["--settings", "en-en", "en-x", "x-x", "--pair", f"{folder}:{other}", "--out", out]
    assert run(*line, *more) == 0
    said = capsys.readouterr().out
    same_sentences(out / "report.html", said)
    assert "[2/3]" in said and "Sorted by F1 in en-x" in said
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Leaderboard" in html and "side by side" in html
    assert {p.name for p in (out / "results").iterdir()} == {
        *("tiny-gpt2", "tiny-gpt2-2", "other", "all-models")
    }
    assert run("xmrc", folder, folder, "--data", data, *more[:4], "--out", tmp_path / "x") == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing"], "--data FOLDER"),
        ([], "Name the languages of xquad"),
        (["--questions", "en,de"], "--data FOLDER"),  # no hub here
        (["--data", "DATA", "--questions", "fr"], "'fr'"),
        (["--data", "DATA", "--n-items", "0"], "at least 1"),
        (["--data", "DATA", "--pair", "a:b"], "give BASE:POST"),
        (["--data", "DATA", "--served", "localhost"], "expected an address"),
        (["--data", "DATA", "--served", "http://h/v1", "--phases"], "text only"),
        (["--data", "DATA", "--served", "http://h/v1", "--api-key-env", "NO_KEY"], "NO_KEY"),
        (["--data", "DATA"], "no-such-model"),
    ],
)
def test_the_command_refuses_before_it_loads(options, message, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Loading, "load", None)
    monkeypatch.delenv("NO_KEY", raising=False)
    given = [str(data) if option == "DATA" else option for option in options]
    assert run("xmrc", "./no-such-model", *given, "--out", tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "x").exists()
