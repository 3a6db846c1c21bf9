"""`LensStudy`: that its parts are put together as it says, on planted states and a real model."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from studied import study_pair

import tiny
import xlens
from xlens.lens import LensResult, target_sets
from xlens.report.sentences import used
from xlens.studies import LensStudy
from xlens.studies.steps import pairing
from xlens.studies.steps.latent_language import check_pair
from xlens.tasks.words import kind_of

STUDY = LensStudy(n_items=8, n_controls=4)
CONTROLS = {"shuffled", "random-init", "repetition"}
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def model():
    # Prompts fall apart into bytes here, so the context is longer than usual.
    return xlens.load(tiny.model("gpt2", n_positions=512), tiny.tokenizer("gpt2"))


@pytest.fixture(scope="module")
def words():
    return xlens.cldr_words(["ru", "zh-Hans", "de", "en"], ["month", "weekday"])


@pytest.fixture(scope="module")
def done(model, words):
    """A study of Russian to Chinese. Read it only."""
    return study_pair(model, words, "ru", "zh-Hans", study=STUDY, **QUIET)


@pytest.fixture
def harvests(monkeypatch):
    """The ids of every harvest that a study runs."""
    real, calls = pairing.harvest, []

    def harvest(model, prompts, **options):
        calls.append([p.id for p in prompts])
        return real(model, prompts, **options)

    monkeypatch.setattr(pairing, "harvest", harvest)
    return calls


def ids(result: LensResult) -> list[str]:
    return list(dict.fromkeys(result.rows.sort_values("prompt")["id"]))


def probs(result: LensResult, layer: int, language: str) -> pd.Series:
    rows = result.rows
    here = rows[(rows["layer"] == layer) & (rows["language"] == language)]
    return here.set_index("id")["prob"]


def same(a: LensResult, b: LensResult) -> bool:
    return all(getattr(a, t).equals(getattr(b, t)) for t in ("rows", "states", "top"))


# --- what is planted is found ---


def test_planted_languages_are_found_where_they_were_planted(model, words, monkeypatch):
    """Layer 1 is made to say the pivot's word, layer 2 and 3 the target's; then the study reads."""
    study = replace(STUDY, match="first", n_items=6, n_controls=3)
    prompts = xlens.translation_prompts(words, "ru", "zh-Hans")
    asked = xlens.answers(words, prompts, ["zh-Hans", "en", "ru"])
    sets = target_sets(model, asked, languages=["zh-Hans", "en"], extra=["ru"], match="first")
    spoken = {item: sets.sets.loc[item].to_dict() for item in sets.ids}
    real = pairing.harvest

    def saying(language: str, item: str) -> torch.Tensor:
        """A state whose readout points at the first token of an item's word."""
        readout = model.readout
        direction = readout.W_U[:, spoken[item][language][0]].float() * readout.norm_gain
        return 100 * (direction - direction.mean())

    def planted(asked_model, prompts, **options):
        acts = real(asked_model, prompts, **options)
        if asked_model is model:
            values = acts.slot("last").values
            for i, prompt in enumerate(prompts):
                for layer, language in {1: "en", 2: "zh-Hans", 3: "zh-Hans"}.items():
                    values[layer, i] = saying(language, prompt.id)
        return acts

    monkeypatch.setattr(pairing, "harvest", planted)
    found = study_pair(model, words, "ru", "zh-Hans", study=study, **QUIET).conditions
    result = found["translation"]
    for item in ids(result):
        assert probs(result, 1, "en")[item] > 0.5 > 10 * probs(result, 1, "zh-Hans")[item]
        assert probs(result, 3, "zh-Hans")[item] > 0.5 > 10 * probs(result, 3, "en")[item]
    summary = result.summary()
    assert summary.landmark("pivot_peak_layer")["value"] == 1
    assert summary.landmark("pivot_peak_prob")["value"] > 0.5
    assert summary.landmark("crossover_layer")["value"] == 2
    assert summary.landmark("final_target_prob")["value"] > 0.5
    # Read for other items' words the planted ones are not there (some begin with the same token).
    shuffled = found["shuffled"]
    for layer, language in ((1, "en"), (3, "zh-Hans")):
        mine, other = probs(result, layer, language), probs(shuffled, layer, language)
        assert other.median() < 0.1 * mine.median()
    # Nor are they in the twin, of which nothing was planted.
    assert found["random-init"].summary().landmark("pivot_peak_prob")["value"] < 0.1


# --- conditions ---


def test_result_and_controls_are_about_the_same_items(done):
    assert set(done.conditions) == {"translation", *CONTROLS}
    result, shuffled = done.conditions["translation"], done.conditions["shuffled"]
    assert len(ids(result)) == STUDY.n_items
    assert ids(shuffled) == ids(result)
    # The same states, so all that does not depend on the words is the same.
    pd.testing.assert_frame_equal(shuffled.states, result.states)
    pd.testing.assert_frame_equal(shuffled.top, result.top)
    columns = ["prompt", "id", "layer", "language"]
    pd.testing.assert_frame_equal(shuffled.rows[columns], result.rows[columns])
    assert not shuffled.rows["prob"].equals(result.rows["prob"])
    assert ids(done.conditions["random-init"]) == ids(result)[: STUDY.n_controls]
    repeated = done.conditions["repetition"]
    assert set(ids(repeated)) <= set(ids(result))
    assert len(ids(repeated)) == STUDY.n_controls


def test_repetition_stays_within_the_sample(model, words):
    """Of German and Russian only a few words survive; repeating Russian would allow all of them."""
    study = LensStudy(n_items=500, n_controls=500, controls=("repetition",))
    found = study_pair(model, words, "de", "ru", study=study, **QUIET).conditions
    assert 2 <= len(ids(found["translation"])) < 10
    assert set(ids(found["repetition"])) == set(ids(found["translation"]))


def test_each_condition_says_what_it_is(done):
    result, repeated = done.conditions["translation"], done.conditions["repetition"]
    assert (result.source, result.target, result.pivot) == ("ru", "zh-Hans", "en")
    assert (result.task, result.match) == ("translation", "prefixes")
    assert (repeated.source, repeated.target, repeated.task) == ("zh-Hans", "zh-Hans", "repetition")
    assert set(result.rows["language"]) == {"zh-Hans", "en", "ru"}
    assert set(repeated.rows["language"]) == {"zh-Hans", "en"}
    assert done.conditions["shuffled"].task == "translation"


def test_shuffled_words_are_those_of_another_item_of_the_sample(model, words, done):
    """The shuffled reading of an item is the plain reading of its states for the donor's words."""
    result, shuffled = done.conditions["translation"], done.conditions["shuffled"]
    prompts = xlens.translation_prompts(words, "ru", "zh-Hans", ids=ids(result))
    asked = xlens.answers(words, prompts, ["zh-Hans", "en", "ru"])
    sets = target_sets(model, asked, languages=["zh-Hans", "en"], extra=["ru"])
    by_id = {p.id: p for p in prompts}
    item = ids(result)[0]
    tokens = torch.tensor([model.tokenize([by_id[item]])[0].ids])
    with torch.inference_mode():
        at_end = model.hf_model(tokens).logits[0, -1].softmax(-1)
    readings = {
        other: float(at_end[list(sets.sets.loc[other, "zh-Hans"])].sum()) for other in ids(result)
    }
    assert probs(result, 3, "zh-Hans")[item] == pytest.approx(readings[item], rel=1e-4)
    given = probs(shuffled, 3, "zh-Hans")[item]
    assert any(given == pytest.approx(p, rel=1e-4) for o, p in readings.items() if o != item)


def test_the_twin_has_other_weights_and_is_reproducible(model, words, done):
    result, twin = done.conditions["translation"], done.conditions["random-init"]
    assert twin.provenance["fingerprint"] != result.provenance["fingerprint"]
    assert "random" in twin.provenance["weights"]
    shared = ids(twin)
    mine = probs(result, 3, "en")[shared]
    assert not (mine - probs(twin, 3, "en")[shared]).abs().lt(1e-9).any()
    only = replace(STUDY, controls=("random-init",))
    given = study_pair(model, words, "ru", "zh-Hans", study=only, **QUIET)
    assert same(given.conditions["random-init"], twin)
    other = replace(only, seed=1)
    reseeded = study_pair(model, words, "ru", "zh-Hans", study=other, **QUIET)
    assert reseeded.conditions["random-init"].provenance["fingerprint"] not in (
        twin.provenance["fingerprint"],
        result.provenance["fingerprint"],
    )


def test_the_result_and_its_shuffled_control_cost_one_pass(model, words, harvests):
    study_pair(model, words, "ru", "zh-Hans", study=STUDY, **QUIET)
    assert [len(call) for call in harvests] == [8, 4, 4]


@pytest.mark.parametrize("n_items", [8, 500])
def test_the_seed_chooses_items_and_nothing_else_does(model, words, n_items):
    study = LensStudy(n_items=n_items, controls=())
    one, two = (study_pair(model, words, "ru", "zh-Hans", study=study, **QUIET) for _ in range(2))
    assert same(one.conditions["translation"], two.conditions["translation"])
    reseeded = study_pair(
        model, words, "ru", "zh-Hans", study=replace(study, seed=1), **QUIET
    ).conditions["translation"]
    assert ids(reseeded) != ids(one.conditions["translation"])
    kept = int(one.survival.set_index("reason").loc["kept", "n"])
    assert len(ids(reseeded)) == min(n_items, kept)


def test_survival_adds_up(done, words):
    counts = done.survival.set_index("reason")["n"]
    assert set(done.survival["pair"]) == {"ru → zh-Hans"}
    assert counts["offered"] == len(words.complete(["ru", "zh-Hans", "en"]))
    assert counts["offered"] == counts["kept"] + counts.drop(["offered", "kept"]).sum()
    assert counts["kept"] >= STUDY.n_items
    assert dict(counts) == done.conditions["translation"].provenance["lens"]["targets"]


# --- tasks and readings ---


@pytest.mark.parametrize(
    ("task", "conditions"),
    [
        ("repetition", {"repetition", "shuffled", "random-init"}),
        ("cloze", {"cloze", "shuffled", "random-init", "repetition"}),
    ],
)
def test_tasks_within_the_target_language(model, words, task, conditions):
    study = LensStudy(task=task, n_items=4, n_controls=2)
    found = study_pair(model, words, "ru", "zh-Hans", study=study, **QUIET)
    assert set(found.conditions) == conditions
    assert (found.source, found.target) == ("zh-Hans", "zh-Hans")
    for result in found.conditions.values():
        assert (result.source, result.target) == ("zh-Hans", "zh-Hans")
        assert set(result.rows["language"]) == {"zh-Hans", "en"}
    assert found.conditions[task].task == task


def test_a_whole_word_is_no_more_probable_than_its_beginning(model, words):
    study = LensStudy(n_items=8, controls=("shuffled",))
    begun, whole = (
        study_pair(model, words, "ru", "zh-Hans", study=replace(study, match=how), **QUIET)
        for how in ("prefixes", "whole")
    )
    one, other = begun.conditions["translation"], whole.conditions["translation"]
    assert other.match == "whole"
    assert ids(other) == ids(one)
    assert ids(whole.conditions["shuffled"]) == ids(one)
    pd.testing.assert_frame_equal(other.states, one.states, check_exact=False, rtol=1e-4, atol=1e-5)
    for language in ("zh-Hans", "en"):
        beginning, rest = probs(one, 3, language), probs(other, 3, language)
        assert (rest <= beginning * (1 + 1e-4) + 1e-12).all()
        assert (rest > 0).all()


# --- what a prompt gives away ---


@pytest.mark.parametrize(("source", "target"), [("ru", "zh-Hans"), ("zh-Hans", "ru"), ("de", "ru")])
def test_demonstrations_never_show_the_answer(source, target):
    words = xlens.cldr_words([source, target, "en"], ["territory", "month", "weekday"])
    # Not all of them: building prompts is slow while every annotation is checked.
    some = [
        *words.complete().ids[:60:2],
        *(i for i in words.complete().ids if kind_of(i) != "territory"),
    ]
    prompts = xlens.translation_prompts(words, source, target, ids=some)
    given, asked = words.words(source), words.words(target)
    for prompt in prompts:
        start, stop = prompt.spans["demonstrations"]
        shown = {word.casefold() for word in re.findall('"([^"]*)"', prompt.text[start:stop])}
        assert len(shown) == 8
        assert not shown & {given[prompt.id].casefold(), asked[prompt.id].casefold()}
        assert prompt.text.endswith('"') and prompt.text.count("\n") == 4
        assert asked[prompt.id] not in prompt.text[stop:]


def test_items_that_the_labels_give_away_are_counted_like_the_others(model):
    words = xlens.cldr_words(["ru", "zh-Hans", "en"], ["language"])
    study = replace(STUDY, match="first", shots=1)
    found = pairing.Pairing(model, words, "ru", "zh-Hans", study, "translation")
    counts = found.survival().set_index("reason")["n"].to_dict()
    named = {"language/ru", "language/zh"}  # 'Русский: …', '中文: …'
    assert counts["named by a label"] >= 2 and not named & set(found.candidates.ids)
    assert counts["offered"] == len(words) == len(found.candidates) + len(found.dropped)
    reasons = {why: n for why, n in counts.items() if why not in ("offered", "kept")}
    assert counts["offered"] == counts["kept"] + sum(reasons.values())
    assert f"named by a label {counts['named by a label']}" in used(counts, "words")


# --- resuming ---


def test_a_finished_study_is_loaded_not_run(model, words, done, tmp_path, harvests):
    first = study_pair(model, words, "ru", "zh-Hans", study=STUDY, folder=tmp_path, **QUIET)
    assert len(harvests) == 3
    again = study_pair(model, words, "ru", "zh-Hans", study=STUDY, folder=tmp_path, **QUIET)
    assert len(harvests) == 3
    for name, result in again.conditions.items():
        assert same(result, first.conditions[name]) and same(result, done.conditions[name])
        assert result.provenance == first.conditions[name].provenance
    pd.testing.assert_frame_equal(again.survival, first.survival)


def test_a_stopped_study_goes_on(model, words, done, tmp_path, harvests, monkeypatch):
    counted = pairing.harvest

    def stopping(model, prompts, **options):
        if len(harvests) == 1:
            raise KeyboardInterrupt
        return counted(model, prompts, **options)

    monkeypatch.setattr(pairing, "harvest", stopping)
    with pytest.raises(KeyboardInterrupt):
        study_pair(model, words, "ru", "zh-Hans", study=STUDY, folder=tmp_path, **QUIET)
    (pair,) = tmp_path.glob("results/*/ru_zh-Hans")
    assert {p.name for p in pair.iterdir()} == {"translation", "shuffled", "survival"}
    # Half of a condition's folder, as a crash leaves it, does not count as a result.
    (pair / "random-init").mkdir()
    (pair / "random-init" / "rows.parquet").write_bytes(b"half a")
    monkeypatch.setattr(pairing, "harvest", counted)
    rest = study_pair(model, words, "ru", "zh-Hans", study=STUDY, folder=tmp_path, **QUIET)
    assert [len(call) for call in harvests] == [8, 4, 4]
    assert all(same(result, done.conditions[name]) for name, result in rest.conditions.items())


@pytest.mark.parametrize("what", ["model", "words", "n_items", "seed"])
def test_results_of_another_study_are_not_served(model, words, tmp_path, what):
    study = LensStudy(n_items=4, controls=())
    study_pair(model, words, "ru", "zh-Hans", study=study, folder=tmp_path, **QUIET)
    if what == "model":
        other = tiny.model("gpt2", n_positions=512, seed=1)
        model = xlens.load(other, tiny.tokenizer("gpt2"))
    elif what == "words":
        words = words.select(kinds=["weekday"])
    else:
        study = replace(study, **{what: 3})
    # What is an option is told by the run's config already.
    said = {"n_items": "differs in lens.n_items", "seed": "differs in lens.seed"}
    expected = said.get(what, rf"another study \({what} changed since\): give another")
    with pytest.raises(ValueError, match=expected):
        study_pair(model, words, "ru", "zh-Hans", study=study, folder=tmp_path, **QUIET)


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pivot": "english"}, "Unknown language tag 'english'"),
        ({"n_items": 1}, "n_items is 1 and n_controls 40; .* at least 2"),
        ({"n_controls": 1}, "n_items is 100 and n_controls 1; .* at least 2"),
        ({"controls": ("placebo",)}, r"Unknown controls \['placebo'\]; accepted are \['shuffled'"),
        ({"top_k": 0}, "top_k is 0 .* accepted are 1 or more"),
        ({"shots": -1}, "shots -1; accepted are .* 0 or more"),
    ],
)
def test_a_study_checks_its_options(options, message):
    with pytest.raises(ValueError, match=message):
        LensStudy(**options)


def test_a_study_takes_any_spelling_of_a_tag(model, words):
    study = LensStudy(n_items=2, controls=(), pivot="eng")
    found = study_pair(model, words, "rus", "zh_hans", study=study, **QUIET)
    assert study.pivot == "en"
    assert (found.source, found.target) == ("ru", "zh-Hans")


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("ru", "ru", {}, "source and target are both 'ru'"),
        ("ru", "en", {}, "'en' is also the pivot"),
        ("ru", "de", {"pivot": "de"}, "'de' is also the pivot"),
        ("ru", "ja", {}, "No words in 'ja'"),
        ("ja", "ru", {}, "No words in 'ja'"),
        ("ru", "de", {"pivot": "fr"}, "No words in 'fr'"),
        ("ru", "de", {"shots": 19}, "needs 19 demonstrations"),
        ("ru", "xx", {}, "Unknown language tag 'xx'"),
    ],
)
def test_a_pair_is_checked_before_the_model_runs(
    model, words, harvests, source, target, options, message
):
    study = LensStudy(**options)
    with pytest.raises(ValueError, match=message):
        check_pair(words, source, target, study=study)
    with pytest.raises(ValueError, match=message):
        study_pair(model, words, source, target, study=study, **QUIET)
    assert not harvests


def test_too_few_words_are_left(model, words, harvests):
    """German months, all but the English ones, leave nothing to tell apart."""
    months = words.select(kinds=["month"])
    with pytest.raises(ValueError, match="left for ru, en after the collision filter"):
        study_pair(model, months, "de", "ru", study=STUDY, **QUIET)
    assert not harvests


# --- a real model ---


@pytest.mark.slow
@pytest.mark.real
def test_gemma_from_german_to_russian():
    """English words rise inside and Russian ones win at the end, in Gemma 3 270M."""
    model = xlens.load("gemma-3-270m")
    words = xlens.cldr_words(["de", "ru", "en"], ["weekday", "month", "unit"])
    study = LensStudy(n_items=12, n_controls=6, controls=("shuffled",))
    found = study_pair(model, words, "de", "ru", study=study, **QUIET)
    result, shuffled = found.conditions["translation"], found.conditions["shuffled"]
    summary, chance = result.summary(), shuffled.summary()
    peak, floor = (s.landmark("pivot_peak_prob") for s in (summary, chance))
    assert peak["value"] > 2 * floor["value"]
    assert summary.landmark("pivot_peak_layer")["value"] < model.n_layers
    at_end = {tag: probs(result, model.n_layers, tag).mean() for tag in ("ru", "en")}
    assert at_end["ru"] > at_end["en"]
    assert "Q4_K_M" in result.provenance["weights"]

    # The last layer's reading is the model's own output.
    prompts = xlens.translation_prompts(words, "de", "ru", ids=ids(result))
    last = result.top[result.top["layer"] == model.n_layers]
    for prompt in list(prompts)[:3]:
        tokens = torch.tensor([model.tokenize([prompt])[0].ids])
        with torch.inference_mode():
            own = model.hf_model(tokens).logits[0, -1].float().softmax(-1)
        mine = last[last["id"] == prompt.id].sort_values("k")
        assert list(mine["token"])[:3] == own.topk(3).indices.tolist()
        read = torch.tensor(mine["prob"].tolist())
        torch.testing.assert_close(read, own[mine["token"].tolist()], rtol=1e-3, atol=1e-6)
