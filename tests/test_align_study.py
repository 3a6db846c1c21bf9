"""`AlignStudy`: before, training, after; rules that choose an option; two models inside."""

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
import xlens
from xlens.models.beginnings import word_tokens
from xlens.report import write_report
from xlens.report.gain import answered
from xlens.studies import AlignStudy
from xlens.subspace import twin_states
from xlens.tasks.alignment import leaks, questions_of
from xlens.tasks.choices import Choices, answer_choices, check_labels, choice_prompts

pytest.importorskip("peft")
QUIET = {"progress": False}
KINDS = ("next-weekday", "next-month")
STUDY = AlignStudy(
    source=("de",),
    languages=("en", "de", "fr"),
    kinds=KINDS,
    n_items=8,
    n_inside=8,
    shots=0,
    n_pairs=6,
    epochs=1,
    batch=2,
    accumulate=1,
    learning_rate=1e-2,
    draws=50,
)


@pytest.fixture(scope="module")
def model():
    # Prompts fall apart into bytes here, so the context is longer than usual.
    return xlens.load(tiny.model("llama", max_position_embeddings=512), tiny.tokenizer("llama"))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A whole study, with its folder. Read it only."""
    return xlens.run(STUDY, model, out=tmp_path_factory.mktemp("align") / "run", **QUIET)


@pytest.fixture(scope="module")
def choices():
    return xlens.tasks.choices.cldr_choices(["en", "de"], KINDS).sample(6)


def rows(n_languages=2, topics=("sports", "travel"), **changed):
    made = [
        {"id": f"s{k}", "language": tag, "question": f"{tag} text {k}", "options": topics,
         "gold": k % len(topics), "mark": "→", "kind": "topic"}
        for k in range(6) for tag in ("en", "de", "fr")[:n_languages]
    ]  # fmt: skip
    return pd.DataFrame(made).assign(**changed)


# --- the study ---


@pytest.mark.slow
def test_parts_and_what_they_say(run, model):
    assert set(run.parts) >= {
        *("before/answers", "aligned-1/training", "aligned-1/answers", "shuffled-1/training"),
        *("shuffled-1/answers", "gain", "inside/states", "inside/summary", "inside/latent-first"),
    }
    found = run["gain"]
    assert found.trained == ("de", "en")
    before = run["before/answers"].accuracy
    table = found.of("aligned").set_index("language")
    assert {tag: table.loc[tag, "before"] for tag in before} == pytest.approx(before)
    assert table.loc["fr", "seen"] == False  # noqa: E712
    trained = run["aligned-1/training"]
    other = run["shuffled-1/training"]
    assert trained.digest != other.digest and trained.n_tokens == other.n_tokens
    assert len(trained.curve) == 3
    inside = run["inside/states"].similarity
    assert (inside["cka"] > inside["control"]).mean() > 0.9


@pytest.mark.slow
def test_the_model_stays_as_it_was(run, model):
    fresh = xlens.load(tiny.model("llama", max_position_embeddings=512), tiny.tokenizer("llama"))
    assert model.fingerprint == fresh.fingerprint
    states = run["before/answers"].provenance
    assert states["fingerprint"] == fresh.fingerprint
    assert run["aligned-1/answers"].provenance["fingerprint"] != fresh.fingerprint


def test_no_evaluated_item_is_trained_on():
    data = STUDY.read()
    assert not leaks(data.questions, questions_of(data.items))


@pytest.mark.slow
def test_a_run_is_taken_up_again_without_training(run, model, monkeypatch):
    from xlens.studies.steps import alignment

    monkeypatch.setattr(alignment, "train", None)
    again = xlens.run(STUDY, model, out=run.folder.path, **QUIET)
    assert again["gain"].table.equals(run["gain"].table)


@pytest.mark.slow
def test_the_bound_may_be_another_afterwards(run, model, monkeypatch):
    from dataclasses import replace

    from xlens.studies.steps import alignment

    monkeypatch.setattr(alignment, "answers", None)
    wide = xlens.run(replace(STUDY, bound=0.9), model, out=run.folder.path, **QUIET)
    assert set(wide["gain"].of("aligned")["verdict"]) == {"the same"}


@pytest.mark.slow
def test_the_page(run):
    page = write_report(run.folder).read_text(encoding="utf-8")
    for text in ("What was found", "languages never seen", "shuffled pairs", "common axes", "CKA"):
        assert text in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": ()}, "--from"),
        ({"source": ("en",)}, "both source and target"),
        ({"controls": ("nothing",)}, "Unknown controls"),
        ({"bound": 0.0}, "bound is 0"),
        ({"data": "x", "items": ("y",)}, "evaluate one of the two"),
        ({"instruction": "is"}, "No wording"),
        ({"n_items": 4}, "a look inside needs 8"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_refused_before_a_model_is_loaded(change, said):
    from dataclasses import replace

    with pytest.raises(ValueError, match=said):
        xlens.run(replace(STUDY, **change), "no-such-model", **QUIET)


# --- rules ---


def test_rules_against_scores_by_hand(model, choices):
    apart = Choices(rows(topics=("sports", "travel", "house")), "mine")  # by their first tokens
    found = {
        rule: answer_choices(model, apart, rule=rule, **QUIET).table
        for rule in ("prefix_sum", "first_token")
    }
    for tag in apart.languages:
        prompts, options = choice_prompts(apart, tag)
        for prompt, own in zip(prompts, options, strict=True):
            ids = model.tokenize([prompt])[0].ids
            with torch.inference_mode():
                logits = model.hf_model(torch.tensor([ids])).logits[0, -1]
            probs = logits.softmax(-1)
            for rule, reading in (("prefix_sum", "prefixes"), ("first_token", "first")):
                sums = [
                    float(probs[list(word_tokens(model, text.strip(), reading))].sum())
                    for text in own
                ]
                table = found[rule]
                said = table[(table["id"] == prompt.id) & (table["language"] == tag)]["said"]
                assert said.item() == int(np.argmax(sums))
    whole = answer_choices(model, choices, rule="sequence", **QUIET).table
    panel = xlens.consistency.option_scores(
        xlens.tasks.choices.score_choices(model, choices, **QUIET), choices.gold
    )
    best = panel.values.argmax(-1).ravel()
    assert whole["said"].tolist() == best.tolist()


def test_what_is_written_counts_where_it_begins_with_an_option(model, choices, monkeypatch):
    from types import SimpleNamespace

    from xlens.tasks.choices import answers

    golds = [
        choices.items(t)[i].options[choices.gold[i]] for t in ("en", "de") for i in choices.ids
    ]
    texts = [f" {text.upper()}." for text in golds]
    texts[0] = "nothing of that"
    table = pd.DataFrame({"text": texts})
    first = {"first_prompt": {"id": choices.ids[0], "language": "en", "text": "…"}}
    made = SimpleNamespace(table=table, provenance=first)
    monkeypatch.setattr(answers, "generate", lambda *_, **__: made)
    found = answer_choices(model, choices, rule="generation", **QUIET)
    assert found.table["said"].tolist()[0] == -1
    assert found.table["value"].tolist() == [0.0] + [1.0] * (len(texts) - 1)
    gold = golds[0].strip()
    assert answered(found)[-1].text == f"The model wrote none of the options; right is “{gold}”."


def test_the_page_says_what_was_chosen_not_its_number(model, choices):
    found = answer_choices(model, choices, **QUIET)
    row = found.table.iloc[0]
    options = choices.items("en")[row["id"]].options
    said, gold = options[row["said"]].strip(), options[row["gold"]].strip()
    assert answered(found)[-1].text == f"The model chose “{said}”; right is “{gold}”."
    del found.provenance["answers"]["first_options"]  # a result of before
    told = f"The model chose option {row['said'] + 1}; right is option {row['gold'] + 1}."
    assert answered(found)[-1].text == told


def test_calibration_takes_off_what_is_said_anyway(model):
    items = Choices(rows(), "mine")
    plain, fair = (
        answer_choices(model, items, calibrated=c, rule="prefix_sum", **QUIET).table["said"]
        for c in (False, True)
    )
    assert plain.nunique() <= fair.nunique() and not plain.equals(fair)


def test_labels_that_can_never_be_chosen_or_told_apart(model, monkeypatch):
    from xlens.tasks.choices import answers

    check_labels(model, Choices(rows(topics=("the dog", "a house")), "mine"), rule="prefix_sum")
    same = Choices(rows(topics=("the dog", "the house")), "mine")
    with pytest.raises(ValueError, match="begin 'the dog' and 'the house'"):
        check_labels(model, same, rule="first_token")
    with pytest.raises(ValueError, match="begin 'the dog' and 'the house'"):
        answer_choices(model, same, rule="first_token", **QUIET)  # else a tie is an answer
    real = answers.tokens_of
    monkeypatch.setattr(
        answers, "tokens_of", lambda m, v, word, how: () if "dog" in word else real(m, v, word, how)
    )
    with pytest.raises(ValueError, match="begins 'the dog', so that the rule prefix_sum can never"):
        check_labels(model, same, rule="prefix_sum")


def test_options_that_mean_nothing_to_a_rule_are_refused(model, choices):
    with pytest.raises(ValueError, match="is of the rule 'sequence'"):
        answer_choices(model, choices, rule="first_token", by="char_logprob", **QUIET)
    with pytest.raises(ValueError, match="generation has no scores"):
        answer_choices(model, choices, rule="generation", calibrated=True, **QUIET)


# --- two models inside ---


def states(model, choices, slots="last"):
    prompts = [p for tag in choices.languages for p in choice_prompts(choices, tag)[0]]
    return xlens.harvest(model, prompts, layers=[1, 2], slots=slots, **QUIET)


def test_a_model_beside_itself_and_beside_another(model, choices):
    own = states(model, choices)
    same = twin_states(own, own)
    assert same.similarity["cka"].to_numpy() == pytest.approx(1.0)
    one, two = (same.points.query("model == @name")[["x", "y"]] for name in same.names)
    assert np.allclose(one, two)
    other = twin_states(own, states(model.random_twin(1), choices))
    assert (other.similarity["cka"] < 0.99).all()
    assert len(other.explained) == 4


def test_axes_are_those_of_the_first_model(model, choices):
    own = states(model, choices)
    other = twin_states(own, states(model.random_twin(1), choices), names=("a", "b"))
    alone = twin_states(own, own, names=("a", "b"))
    ours, theirs = (t.points.query("model == 'a'")[["x", "y"]] for t in (other, alone))
    assert np.allclose(ours, theirs)


def test_other_prompts_are_refused(model, choices):
    few = choices.select(ids=choices.ids[:5])
    with pytest.raises(ValueError, match="the same prompts at the same layers"):
        twin_states(states(model, choices), states(model, few))


# --- reading comprehension ---


@pytest.mark.slow
def test_reading_is_asked_of_articles_that_were_not_trained_on(tmp_path):
    import json

    import readings

    for tag in ("en", "de"):
        story = readings.squad(tag)
        # An article for each paragraph, so that there is something to hold out.
        parts = [p for article in story["data"] for p in article["paragraphs"]]
        data = [{"title": f"article {n}", "paragraphs": [p]} for n, p in enumerate(parts)]
        text = json.dumps({"version": "1.1", "data": data})
        (tmp_path / f"stories.{tag}.json").write_text(text, encoding="utf-8")
    study = AlignStudy(
        source=("de",),
        data=str(tmp_path),
        held_out=0.5,
        n_items=8,
        inside=False,
        shots=0,
        epochs=1,
        batch=4,
        draws=50,
        incomplete="drop",
        controls=(),
    )
    data = study.read()
    assert not set(data.questions.groups.values()) & set(questions_of(data.items).groups.values())
    own = xlens.load(tiny.model("llama", max_position_embeddings=4096), tiny.tokenizer("llama"))
    parts = xlens.run(study, own, **QUIET).parts
    table = parts["gain"].of("aligned")
    assert set(table["language"]) == {"de", "en", "all", "seen"}
    assert np.isnan(table["p_mcnemar"]).any() or (table["before"] == 0).all()
    assert "inside/states" not in parts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 10**30}, "rank is .*up to 65,536"),
        ({"epochs": 10**5}, "epochs is 100000"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"schedule": "no such word"}, "schedule is 'no such word'; accepted are linear"),
        ({"targets": ("",)}, "targets holds ''"),
        ({"data": "x", "labels": "words.tsv", "kinds": ("a",)}, "--labels, --kinds: of --items"),
        ({"data": "x", "split": "val"}, "--split: of --items only"),
        ({"data": "x", "context": ""}, "language tag|empty|''"),
        ({"questions": "a\0b"}, "names no file"),
    ],
)
def test_what_can_t_be_meant_is_refused_when_it_is_asked(given, said):
    with pytest.raises(ValueError, match=said):
        AlignStudy(source=("de",), **given)
