"""What is said under steering is judged as it was planted, and nothing is chosen on what counts."""

from dataclasses import replace
from types import SimpleNamespace

import kit
import numpy as np
import pandas as pd
import pytest

import xlens
from xlens import figures
from xlens.languages import identified, known_to_identifier, same_language
from xlens.neurons import NeuronPush
from xlens.report.process_minute import process_lead
from xlens.report.steered_outputs import (
    beyond_random,
    output_findings,
    output_lead,
    output_tables,
)
from xlens.steering import (
    OutputSteering,
    SteeringVectors,
    judge_text,
    layer_balance,
    predicted_layer,
)
from xlens.steering.judging import harmonic
from xlens.steering.outputs import ALL, OF_MEANS, SCORE, output_rates, pick_cells
from xlens.studies import ProcessStudy, SteeringStudy
from xlens.studies.steps import continuations, steering_outputs
from xlens.studies.steps.steering_outputs import check_outputs, outputs_work, steer_outputs
from xlens.tasks.sentences import Sentences, halved, long_enough

GERMAN = "und deshalb gingen die Kinder am Abend langsam nach Hause"
ENGLISH = "and so the children walked home slowly in the evening"
RUSSIAN = "и поэтому вечером дети медленно пошли домой"
CHINESE = "因此孩子们晚上慢慢地走回家去了"
NAMES = {"en": "English", "de": "German", "ru": "Russian"}


@pytest.mark.parametrize(
    "text, target, forcing, lines, words, unknown",
    [
        (GERMAN, "de", 1, 1, np.nan, 0),
        (ENGLISH, "de", 0, 0, np.nan, 0),
        (f"{GERMAN}\n{ENGLISH}", "de", None, 0, np.nan, 0),  # one of two lines
        (f"{GERMAN}\nOK", "de", 1, 1, np.nan, 0),  # two letters are no line
        (RUSSIAN, "ru", 1, 1, 1, 0),
        (f"{RUSSIAN} slowly", "ru", 1, 1, 0, 0),
        (f"{RUSSIAN} UNESCO", "ru", 1, 1, 1, 0),  # a name is no slip
        (CHINESE, "zh-Hant", 1, 1, 1, 0),
        ("…", "de", 0, np.nan, np.nan, 1),
        ("", "de", 0, np.nan, np.nan, 1),
    ],
)
def test_a_text_is_judged_by_line_and_word(text, target, forcing, lines, words, unknown):
    found = judge_text(text, target)
    wanted = {"lines": lines, "words": words, "unknown": unknown}
    if forcing is not None:
        wanted["forcing"] = forcing
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, nan_ok=True)


def test_the_identifier_prefers_no_language_and_knows_what_it_does_not():
    assert identified("en dus liepen de kinderen 's avonds langzaam naar huis") == "nl"
    assert same_language("wuu", "zh-Hans") and same_language("arz", "ar")
    assert not same_language("nl", "de")
    assert known_to_identifier("zh-Hant") and known_to_identifier("nb")
    assert not known_to_identifier("ar-Latn") and not known_to_identifier("hi-Latn")


def test_the_harmonic_mean_is_nothing_where_either_is():
    rates = np.array([[0.5, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.4, 0.4]])
    np.testing.assert_allclose(harmonic(rates), [2 / 3, 0, 0, 0, 0.4])


def outputs(rates, n=40, targets=("de", "ru")):
    """Outputs of known rates: `{condition: {target: (forcing, relevance)}}`, independent."""
    rows = []
    for condition, by in rates.items():
        for target in targets:
            forcing, relevance = by[target]
            for i in range(n):
                forced, relevant = float(i < forcing * n), float(i % 10 < relevance * 10)
                rows.append(
                    {"target": target, "condition": condition, "id": str(i), "paragraph": str(i),
                     "text": f"{condition} {i}", "identified": "", "forcing": forced,
                     "relevance": relevant, "lines": forced, "words": np.nan, "unknown": 0.0,
                     "wrong_language": relevant * (1 - forced), "truncated": False}
                )  # fmt: skip
    return pd.DataFrame(rows)


RATES = {
    "none": {"de": (0.0, 0.9), "ru": (0.0, 0.9)},
    "v": {"de": (0.8, 0.5), "ru": (0.2, 1.0)},
    "v, rule": {"de": (0.4, 0.5), "ru": (0.2, 1.0)},
    "v, random 0": {"de": (0.0, 0.2), "ru": (0.2, 0.2)},
    "v, random 1": {"de": (0.0, 0.4), "ru": (0.4, 0.4)},
}


def test_planted_rates_are_found_and_scores_are_by_pair_and_of_averages():
    test, swept = output_rates(outputs(RATES))
    found = test.set_index(["condition", "target", "metric"])["value"]
    assert found["v", "de", "forcing"] == pytest.approx(0.8)
    de, ru = 2 * 0.8 * 0.5 / 1.3, 2 * 0.2 / 1.2
    assert found["v", "de", SCORE] == pytest.approx(de)
    assert found["v", ALL, SCORE] == pytest.approx((de + ru) / 2)
    # Of averages: .5 forcing, .75 relevance; a language without the one hides behind the other.
    assert found["v", ALL, OF_MEANS] == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    assert found["v, random", "ru", "forcing"] == pytest.approx(0.3)  # draws are averaged
    assert found["none", "de", "wrong_language"] == pytest.approx(0.9)
    assert found["v", "de", "wrong_language"] == pytest.approx(3 / 40)  # 8 in another
    assert np.isnan(found["v", "de", "words"])
    change = test.set_index(["condition", "target", "metric"])["change"]
    assert change["v", ALL, SCORE] == pytest.approx((de + ru) / 2)
    lost = swept.set_index("target")["lost"]
    assert lost["de"] == pytest.approx(de - 2 * 0.4 * 0.5 / 0.9)
    assert lost[ALL] == pytest.approx(lost["de"] / 2 + lost["ru"] / 2)


def test_a_cell_that_is_the_rules_own_loses_nothing_for_certain():
    table = outputs(RATES)
    same = (table["target"] == "ru") & (table["condition"] == "v, rule")
    plain = table[(table["target"] == "ru") & (table["condition"] == "v")]
    table.loc[same, "text"] = plain["text"].to_numpy()
    _, swept = output_rates(table)
    row = swept.set_index("target").loc["ru"]
    assert row[["lost", "low", "high"]].tolist() == [0, 0, 0]
    other = swept.set_index("target").loc["de"]
    assert other["low"] < other["lost"] < other["high"]


def vectors(rows, target, fingerprint="", layers=(1, 2, 3)):
    return SteeringVectors(
        provenance={}, vectors=np.asarray(rows, np.float32), layers=layers, source="en",
        target=target, method="planted", agreement=np.ones(len(rows)), slot="last",
        fingerprint=fingerprint,
    )  # fmt: skip


def test_the_rule_finds_where_alike_and_apart_are_in_balance():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=400), rng.normal(size=(4, 400))
    # Four languages whose vectors correlate by r have the first eigenvalue (1 + 3r) / 4.
    mixes = [0.99, 1 / 3, 0.0]
    made = {
        tag: vectors([r**0.5 * shared + (1 - r) ** 0.5 * own[k] for r in mixes], tag)
        for k, tag in enumerate(("de", "fr", "ru", "sw"))
    }
    found = layer_balance(made)
    np.testing.assert_allclose(found["alignment"], [(1 + 3 * r) / 4 for r in mixes], atol=0.06)
    np.testing.assert_allclose(found["separability"], 1 - found["alignment"])
    assert predicted_layer(found, [1, 2, 3]) == 2
    assert predicted_layer(found, [1, 3]) == 3  # |2 · .25 - 1| < |2 · .99 - 1|
    assert predicted_layer(found, [9]) is None
    with pytest.raises(ValueError, match="two languages"):
        layer_balance({"de": made["de"]})


def test_cells_are_chosen_by_target_and_the_weaker_push_wins():
    rows = [("none", "", 0.0, 0.0), ("v", "1", 1.0, 0.5), ("v", "2", 2.0, 0.6),
            ("v", "3", 1.0, 0.6), ("v", "1", 2.0, 0.4)]  # fmt: skip
    dev = pd.DataFrame(
        [{"target": "de", "method": m, "band": b, "strength": s, "score": v} for m, b, s, v in rows]
    )
    found = pick_cells(dev, 1)[["picked", "band", "strength"]].to_numpy().tolist()
    assert found == [["sweep", "3", 1.0], ["rule", "1", 1.0]]
    assert list(pick_cells(dev, None)["picked"]) == ["sweep"]


def made_up(n=60, tags=("en", "de", "ru")):
    texts = {
        "en": ENGLISH,
        "de": GERMAN,
        "ru": RUSSIAN,
        "zh-Hans": "因此孩子们晚上慢慢地走回家去了",
    }
    frame = pd.DataFrame(
        [
            {"id": str(i), "language": tag, "text": f"{texts[tag]} {i}", "document": str(i // 2)}
            for tag in tags
            for i in range(n)
        ]
    )
    return Sentences(frame, "made up", "none")


STUDY = SteeringStudy(
    sentences="made up",
    steer=("mean_difference",),
    layers=(1, 2),
    strengths=(-1.0, 1.0),
    n_estimate=12,
    n_dev=4,
    n_test=8,
    n_controls=2,
    max_new_tokens=4,
)


@pytest.fixture(scope="module")
def model(family_dir):
    return kit.model(family_dir("llama"))


@pytest.fixture
def planted(monkeypatch):
    """A push of strength 1 at layer 2 says the target's words about the prompt; others don't."""
    asked: list[str] = []

    def said(model, prompts, *, interventions, **_):
        edits = interventions
        real = bool(edits) and float(edits[0].values[0, 0, 0]) == 7.0
        at = (edits[0].layers, edits[0].strength) if edits else ()
        rows = []
        for prompt in prompts:
            asked.append(prompt.id)
            text = ENGLISH if prompt.language == "en" else GERMAN
            if real and at == ([2], 1.0):
                text = GERMAN if edits[0].values[0, 0, 1] == 1 else RUSSIAN
            elif real and at == ([1], 1.0):
                text = GERMAN if int(prompt.id) % 4 else ENGLISH
            about = f" about {prompt.id}." if not edits or real else " about nothing."
            rows.append({"id": prompt.id, "text": f" {text}{about}", "reason": "length"})
        return SimpleNamespace(to_frame=lambda: pd.DataFrame(rows))

    def scored(model, prompts, candidates, **_):
        rows = [
            {"id": p.id, "candidate": n, "logprob": 0.0 if f" about {p.id}." in text else -1.0}
            for p, mine in zip(prompts, candidates, strict=True)
            for n, text in enumerate(mine)
        ]
        return SimpleNamespace(table=pd.DataFrame(rows))

    def vector(states, source, target, *, method, shuffled=None):
        rows = np.zeros((states.values.shape[0] if False else len(states.layers), 8))
        if shuffled is None:
            rows[:, 0], rows[:, 1] = 7.0, target == "de"
        rows[:, 2] = 1 + rows[:, 1]
        return vectors(rows, target, states.fingerprint, tuple(states.layers))

    monkeypatch.setattr(continuations, "generate", said)
    monkeypatch.setattr(continuations, "score", scored)
    monkeypatch.setattr(steering_outputs, "steering_vectors", vector)
    return asked


def test_a_planted_push_is_found_and_judged_on_prompts_that_chose_nothing(model, planted):
    found = steer_outputs(model, made_up(), study=STUDY, progress=False)
    cells = found.chosen[found.chosen["picked"] == "sweep"]
    assert cells[["band", "strength"]].to_numpy().tolist() == [["2", 1.0]] * 2
    parts = found.split.groupby("part")["id"].agg(set)
    assert {k: len(v) for k, v in parts.items()} == {"estimate": 12, "dev": 4, "test": 8}
    assert set(found.outputs["id"]) == parts["test"]
    assert set(planted) == parts["dev"] | parts["test"]
    # The forecast counts what is said, where the rule's own cell isn't that of the sweep as well.
    texts = made_up()
    cell = found.chosen.set_index(["target", "picked"])[["band", "strength"]]
    same = sum(cell.loc[t, "sweep"].equals(cell.loc[t, "rule"]) for t in ("de", "ru"))
    forecast = outputs_work(texts, STUDY, model).said
    assert forecast == STUDY.max_new_tokens * (len(planted) + same * len(parts["test"]))
    value = found.test.set_index(["condition", "target", "metric"])["value"]
    for target in ("de", "ru"):
        assert value["mean_difference", target, SCORE] == 1
        assert value["none", target, "forcing"] == 0
        assert value["none", target, "wrong_language"] == 1  # right text in the wrong language
        assert value["mean_difference, random", target, SCORE] == 0
        assert value["mean_difference, shuffled", target, SCORE] == 0
    assert found.chance == pytest.approx(1 / 4)
    assert value["mean_difference, random", "de", "relevance"] == 0
    said = output_findings(found, NAMES)[0]
    assert "100 % of the outputs are in the target language" in said and "1.00 [" in said
    assert any(
        "was predicted" in text or "predict" in text for text in output_findings(found, NAMES)
    )
    lead = output_lead(found, NAMES)
    assert "pushed from English" in lead and lead.endswith("in 2 of 2 pushes")
    first = found.test["condition"] == "mean_difference"  # as if it did what random changes do
    none = found.test["value"].where(~first, 0.0), found.test["low"].where(~first, 0.0)
    weak = replace(found, test=found.test.assign(value=none[0], low=none[1]))
    assert output_lead(weak, NAMES).endswith("in 0 of 2 pushes")
    assert process_lead({"outputs": found}, NAMES, 0.05).startswith("Pushed from English")
    assert "not told from random" in beyond_random(weak, NAMES).rows[0][-1]
    whole, by_language, *_ = output_tables(found, NAMES)
    assert {row[0]: row for row in whole.rows}["mean difference"][1].startswith("1.00")
    beside = ["no steering", "asked in the language", "what was written there"]
    assert by_language.head[1:4] == beside
    assert [row[0] for row in by_language.rows] == ["German", "Russian"]
    drawn = [figures.output_scores(found), figures.output_surface(found), found.plot()]
    names = {trace.name for trace in drawn[0].data}
    assert {"no steering", "mean difference", "mean difference, random"} <= names
    assert drawn[1].data[0].z[1][1] == 1


def test_what_is_written_shows_how_far_the_judges_can_be_right(model, planted):
    found = steer_outputs(model, made_up(), study=STUDY, progress=False)
    written = found.outputs[found.outputs["condition"] == "written"]
    assert (written["forcing"] == 1).mean() > 0.9 and (written["relevance"] == 0).all()
    assert found.said.groupby(["target", "condition"])["share"].sum().to_numpy() == pytest.approx(1)


def test_the_study_runs_with_vectors_and_neurons_and_writes_its_page(model, tmp_path):
    study = replace(STUDY, steer=("mean_difference", "neurons"), n_controls=1)
    found = xlens.run(study, model, data=made_up(), out=tmp_path, progress=False)
    result = found["sentences/outputs"]
    assert isinstance(result, OutputSteering)
    assert set(result.chosen["method"]) == {"mean_difference", "neurons"}
    assert {"neurons", "neurons, random", "asked in it", "written"} <= set(result.conditions)
    again = OutputSteering.load(result.save(tmp_path / "again"))
    assert again.to_frame().equals(result.to_frame()) and again.targets == ("de", "ru")
    xlens.report.write_report(xlens.runs.RunDirectory(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "about it, wrong language" in page and "Beginnings of sentences" in page
    plan = study.plan(study.taken(made_up()), model)
    assert plan.parts == ("sentences/outputs",) and plan.total.said > 0


def test_process_asks_of_sentences_alone_whether_it_is_language_or_script(model, tmp_path):
    study = ProcessStudy(sentences="made up", n_items=20, draws=50)
    data = made_up(20, ("en", "de", "ru", "zh-Hans"))
    found = xlens.run(study, model, data=data, out=tmp_path, progress=False)
    assert study.parts(study.taken(data)) == (
        "sentences/scripts", "sentences/similarity", "sentences/map",
    )  # fmt: skip
    assert "script" in set(found["sentences/scripts"].to_frame()["relation"])
    xlens.report.write_report(xlens.runs.RunDirectory(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "No language is there in two scripts" in page and "are languages alike inside" in page
    assert "Every two varieties" in page and "multiple-choice" not in page


def test_a_push_of_neurons_sets_the_one_and_silences_the_other(model):
    push = NeuronPush(
        on={0: (1, 2)}, off={0: (3,), 1: (0,)}, means=np.full((2, 16), 0.5), source="en",
        target="de", site="mlp_gate", blocks=(0, 1),
    )  # fmt: skip
    assert push.layers == (1, 2)
    edits = push.interventions(model, strength=2.0)
    assert [(e.how, e.units, e.numbers.tolist()) for e in edits] == [
        ("set", (1, 2), [1.0, 1.0]),
        ("scale", (3,), [0.0]),
        ("scale", (0,), [0.0]),
    ]
    other = push.random(seed=1)
    assert {k: len(v) for k, v in other.off.items()} == {0: 1, 1: 1}
    assert not {*other.on[0], *other.off[0]} & {1, 2, 3}
    with pytest.raises(ValueError, match="No unit of de or en"):
        push.interventions(model, layers=[9])
    # Counted in some blocks only: a row is a block's by its place, not by its number.
    means = np.repeat([[1.0], [5.0]], 16, axis=1)
    some = replace(push, on={1: (2,)}, off={}, means=means, blocks=(1, 3))
    assert [e.numbers.tolist() for e in some.interventions(model)] == [[1.0]]


def test_sentences_are_cut_after_half_their_words():
    found = halved(made_up(2), "de")
    begun, rest = found.prompts[0].text, found.rest["0"]
    assert begun + rest == f"{GERMAN} 0" and begun == "und deshalb gingen die Kinder"
    assert rest.startswith(" am")
    chinese = halved(made_up(2, ("en", "zh-Hans")), "zh-Hans")
    assert 4 < len(chinese.prompts[0].text) < 12
    short = made_up(3).frame.assign(text=lambda t: t["text"].where(t["id"] != "1", "zu kurz"))
    assert long_enough(Sentences(short, "made up")) == ("0", "2")


@pytest.mark.parametrize(
    "study, tags, said",
    [
        ({}, ("de", "ru"), "Sentences are steered from 'en'"),
        ({"steer_languages": ("en",)}, ("en", "de"), "others than that"),
        ({"n_estimate": 100}, ("en", "de"), "60 of the 60 sentences are long enough"),
        ({"steer": ("lsar",)}, ("en", "de"), "leads to no language"),
    ],
)
def test_what_can_not_be_steered_is_refused(study, tags, said):
    with pytest.raises(ValueError, match=said):
        check_outputs(made_up(tags=tags), replace(STUDY, **study))


def test_a_language_that_nobody_could_identify_is_refused():
    frame = made_up(tags=("en", "ru")).frame
    romanised = frame.assign(language=frame["language"].replace("ru", "ru-Latn"))
    with pytest.raises(ValueError, match=r"can't name ru-Latn"):
        check_outputs(Sentences(romanised, "made up"), STUDY)
    with pytest.raises(ValueError, match="running text"):
        xlens.run(SteeringStudy(languages=("en", "de"), steer=("neurons",)), "atlas")
