"""Sweeps find the cell that was planted; what is reported is of items that chose nothing."""

from dataclasses import replace

import kit
import numpy as np
import pandas as pd
import pytest
import torch

import xlens
from xlens.engine import generate, room_for
from xlens.figures import languages_said
from xlens.prompts import Prompt, Prompts
from xlens.stats import holm
from xlens.steering import SteeringResult, SteeringVectors, SubspaceRemoval, sweep
from xlens.steering.sweep import _name
from xlens.studies import SteeringStudy
from xlens.studies.steps.steering import steer_choices
from xlens.studies.steps.steering_effects import choose, effects, items_table, summarised
from xlens.tasks.choices import cldr_choices
from xlens.wording import percent

PROMPTS = Prompts([Prompt(f"Der Hund {i * 7}", "de", str(i)) for i in range(6)])


@pytest.fixture(scope="module")
def model(family_dir):
    return kit.model(family_dir("llama"))


def vectors(model, rows, layers) -> SteeringVectors:
    return SteeringVectors(
        provenance={},
        vectors=np.asarray(rows, np.float32),
        layers=tuple(layers),
        source="de",
        target="en",
        method="planted",
        agreement=np.ones(len(rows)),
        slot="last",
        fingerprint=model.fingerprint,
    )


def planted(model):
    """A vector that makes the second of two tokens likelier at the output, 0 elsewhere."""
    ids = [int(i) for n in "ae" for i in model.tokenizer(n, add_special_tokens=False)["input_ids"]]
    assert len(ids) == 2
    wide = torch.zeros(model.n_layers + 1, model.d_model)
    wide[-1] = (model.readout.W_U[:, ids[1]] - model.readout.W_U[:, ids[0]]) * 50
    return vectors(model, wide.numpy(), range(model.n_layers + 1))


def test_the_sweep_finds_the_planted_layer_and_sign(model):
    found = sweep(
        model,
        PROMPTS,
        ["a", "e"],
        {"v": planted(model)},
        strengths=(-1.0, 0.0, 1.0),
        progress=False,
    ).to_frame()
    items = items_table(found, dict.fromkeys(PROMPTS.ids, 1), by="logprob")
    assert len(items) == 6 * (1 + 2 * (model.n_layers + 1))
    table = effects(items, items)
    means = table.groupby(["method", "band", "strength"])["accuracy"].mean()
    top, plain = str(model.n_layers), means.loc["none", "", 0.0]
    assert means.loc["v", top, 1.0] == 1 and means.loc["v", top, -1.0] == 0
    rest = means.drop([("v", top, 1.0), ("v", top, -1.0)])
    assert plain < 1 and (rest == plain).all()
    long = table.groupby(["method", "band", "strength"], sort=False)[["accuracy", "consistency"]]
    dev = long.mean().melt(ignore_index=False, var_name="metric").reset_index()
    best = choose(dev.assign(language="de")).iloc[0]
    assert (best["band"], best["strength"]) == (top, 1.0)
    assert best["dev_gain"] == pytest.approx(1 - plain)


def test_removal_takes_the_subspace_out_and_its_control_another(model):
    rng = np.random.default_rng(0)
    bases = {n: rng.normal(size=(2, model.d_model)) for n in (0, 1, 2)}
    removal = SubspaceRemoval.of(bases, fingerprint=model.fingerprint, method="m")
    assert removal.rank == 2 and list(removal.to_frame()["layer"]) == [0, 1, 2]
    push = removal.interventions(model, layers=[1, 2])
    states = kit_states(model, push)
    for n, gone in ((0, False), (1, True), (2, True)):
        left = np.abs(states[n] @ np.linalg.qr(bases[n].T)[0]).max()
        assert (left < 1e-4) == gone
    other = removal.random(seed=1)
    np.testing.assert_allclose(other.bases @ other.bases.swapaxes(1, 2), [np.eye(2)] * 3, atol=1e-6)
    assert np.abs(np.einsum("lrd,lsd->lrs", removal.bases, other.bases)).max() < 0.9
    with pytest.raises(ValueError, match="depend on each other"):
        SubspaceRemoval.of({0: np.ones((2, 4))}, fingerprint="", method="m")
    with pytest.raises(ValueError, match="one shape"):
        SubspaceRemoval.of({0: np.eye(2), 1: np.eye(3)}, fingerprint="", method="m")
    with pytest.raises(ValueError, match="another model"):
        SubspaceRemoval.of({0: np.eye(2)}, fingerprint="other", method="m").interventions(model)


def kit_states(model, push):
    """`[layer, prompt, d_model]` at the prompts' ends."""
    kept = xlens.harvest(model, PROMPTS, interventions=push, progress=False)
    return kept.slot("last").values.numpy()


def scored(*cells):
    """A table of scores from `(method, band, strength, {id: option scores})`."""
    return pd.DataFrame(
        [
            {
                "method": method,
                "band": band,
                "strength": strength,
                "id": id,
                "candidate": n,
                "logprob": value,
                "mean_logprob": value / 2,
            }
            for method, band, strength, answers in cells
            for id, values in answers.items()
            for n, value in enumerate(values)
        ]
    )


def test_effects_by_hand():
    gold = {"a": 0, "b": 1}
    english = items_table(
        scored(("none", "", 0.0, {"a": (-1, -2, -3), "b": (-1, -2, -3)})), gold, by="logprob"
    )
    german = items_table(
        scored(
            ("none", "", 0.0, {"a": (-3, -2, -1), "b": (-2, -3, -1)}),
            ("v", "3", 1.0, {"a": (-1, -2, -3), "b": (-1, -2, -3)}),
        ),
        gold,
        by="logprob",
    )
    found = effects(german, english).set_index(["method", "id"])
    assert found.loc[("none", "a"), "accuracy"] == 0
    assert found.loc[("none", "a"), "consistency"] == pytest.approx(-1)
    assert found.loc[("none", "b"), "consistency"] == pytest.approx(-0.5)
    assert found.loc[("v", "a"), "consistency"] == pytest.approx(1)
    assert found.loc[("v", "a"), "transfer"] == 1 and np.isnan(found.loc[("v", "b"), "transfer"])
    # English is wrong in b with option 0; steered German says the same, plain German doesn't.
    assert found.loc[("v", "b"), "same_wrong"] == 1 and found.loc[("none", "b"), "same_wrong"] == 0
    assert found.loc[("none", "a"), "gold_nll"] == 1.5


def test_summaries_pair_items_and_average_a_controls_draws():
    items = pd.DataFrame(
        [
            {"language": "de", "vector": "de", "condition": c, "id": str(i), "accuracy": a(i)}
            | {"consistency": 0.0, "transfer": np.nan, "same_wrong": 0.0, "gold_nll": 1.0}
            for c, a in {
                "none": lambda i: float(i % 2),
                "v": lambda i: 1.0,
                "v, random 0": lambda i: float(i % 2),
                "v, random 1": lambda i: 1.0,
            }.items()
            for i in range(40)
        ]
    )
    found = summarised(items).set_index(["condition", "metric"])
    assert found.loc[("none", "accuracy"), "value"] == 0.5
    assert (
        found.loc[("none", "accuracy"), ["change", "change_low", "change_high"]].tolist() == [0] * 3
    )
    assert found.loc[("v", "accuracy"), "change"] == 0.5
    assert 0.3 < found.loc[("v", "accuracy"), "change_low"] < 0.5
    assert found.loc[("v, random", "accuracy"), "value"] == 0.75
    assert np.isnan(found.loc[("v", "transfer"), "value"])


def test_changes_are_adjusted_for_methods_as_well_as_languages():
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        [
            {"language": tag, "vector": tag, "condition": c, "id": str(i), "accuracy": rng.random()}
            | {"consistency": 0.0, "transfer": np.nan, "same_wrong": 0.0, "gold_nll": 1.0}
            for tag in ("de", "fr", "ru")
            for c in ("none", "v", "w", "v, random 0", "w, random 0")
            for i in range(20)
        ]
    )
    table = summarised(items)
    table = table[table["metric"] == "accuracy"]
    for family in (["v", "w"], ["v, random", "w, random"]):
        mine = table[table["condition"].isin(family)]
        assert len(mine) == 6
        assert mine["p_adjusted"].to_numpy() == pytest.approx(holm(mine["p"].to_numpy()))


def test_ties_go_to_the_weaker_push_and_the_lower_layer():
    rows = [("none", "", 0.0, 0.5, 0.1), ("v", "4", 1.0, 0.6, 0.2), ("v", "3", 2.0, 0.6, 0.2)]
    rows += [("v", "12", 1.0, 0.6, 0.2), ("v", "2", 1.0, 0.6, 0.1), ("w", "2-3", -1.0, 0.4, 0.9)]
    dev = pd.DataFrame(
        [
            {"language": "de", "method": m, "band": b, "strength": s, "metric": k, "value": v}
            for m, b, s, accuracy, consistency in rows
            for k, v in (("accuracy", accuracy), ("consistency", consistency))
        ]
    )
    found = choose(dev)
    assert found[["method", "band", "strength"]].to_numpy().tolist() == [
        ["v", "4", 1.0],
        ["w", "2-3", -1.0],
    ]
    assert found["dev_gain"].tolist() == pytest.approx([0.1, -0.1])


@pytest.fixture(scope="module")
def choices():
    return cldr_choices(["en", "de", "fr"], seed=0)


STUDY = SteeringStudy(
    steer=("mean_difference", "lda", "lsar"),
    layers=(1, "1-2"),
    strengths=(1.0,),
    removal_strengths=(0.2,),
    n_estimate=10,
    n_dev=4,
    n_test=5,
    n_controls=2,
    n_outputs=2,
    max_new_tokens=3,
    shots=1,
)


def test_the_study_keeps_its_items_apart_and_reports_every_control(model, choices, tmp_path):
    found = steer_choices(model, choices, study=STUDY, progress=False)
    parts = found.split.groupby("part")["id"].agg(set)
    assert {k: len(v) for k, v in parts.items()} == {"estimate": 10, "dev": 4, "test": 5}
    assert set(found.items["id"]) == parts["test"]
    assert set(found.dev["n"]) <= set(range(5))
    assert list(found.chosen["method"]) == list(STUDY.steer)
    kinds = [f"{m}{c}" for m in STUDY.steer for c in ("", ", random", ", shuffled")]
    own = found.test[(found.test["language"] == "de") & (found.test["metric"] == "accuracy")]
    assert list(own["condition"]) == ["none", *kinds]
    harm = found.test[(found.test["language"] == "en") & (found.test["vector"] == "fr")]
    assert set(harm["condition"]) == {"none", *STUDY.steer}
    consistent = harm[(harm["metric"] == "consistency") & (harm["condition"] == "none")]
    assert consistent["value"].item() == pytest.approx(1)
    assert set(found.outputs["id"]) <= parts["test"] and len(found.outputs) == 2 * 2 * 4
    said = found.languages_said()
    cut = found.outputs.groupby(["language", "condition"])["truncated"].mean()
    assert found.outputs["truncated"].any()  # three tokens are few
    for row in said.itertuples():
        assert row.truncated == cut[row.language, row.condition]
    names = languages_said(found).data[0].y
    assert any(f"({percent(cut.max())} cut off)" in name for name in names)
    assert said.groupby(["language", "condition"])["share"].sum().tolist() == pytest.approx([1] * 8)
    surface = found.surface("lda", "accuracy", "fr")
    assert list(surface.index) == ["1", "1-2"] and list(surface.columns) == [1.0]
    both = [found.surface("lda", "gold_nll", tag).to_numpy() for tag in ("de", "fr")]
    np.testing.assert_allclose(found.surface("lda", "gold_nll"), np.mean(both, 0), atol=1e-6)
    with pytest.raises(ValueError, match="metric='x'"):
        found.surface("lda", "x")
    again = SteeringResult.load(found.save(tmp_path))
    assert again.to_frame().equals(found.to_frame()) and again.target == "en"


def test_free_continuations_have_the_room_of_the_longest_option(model, choices, monkeypatch):
    seen = set()

    def spy(*args, max_new_tokens, **how):
        seen.add(max_new_tokens)
        return generate(*args, max_new_tokens=1, **how)

    monkeypatch.setattr("xlens.studies.steps.steering.generate", spy)
    few = replace(STUDY, steer=("mean_difference",), max_new_tokens=None, n_controls=1)
    steer_choices(model, choices, study=few, progress=False)
    options = [
        f" {option}"
        for tag in choices.languages
        for item in choices.items(tag).values()
        for option in item.options
    ]
    assert seen == {room_for(options, model.tokenizer, least=12)}


def test_the_study_refuses_before_it_runs(model, choices, as_users_have_it):
    with pytest.raises(ValueError, match="needed: 100 to estimate"):
        steer_choices(model, choices.sample(30), progress=False)
    with pytest.raises(ValueError, match="accepted is"):
        SteeringStudy(steer=("nothing",))
    with pytest.raises(ValueError, match="other than 0"):
        SteeringStudy(strengths=(0.0,))
    with pytest.raises(ValueError, match=r"Steering is to 'sw', but .* has en, de, fr"):
        steer_choices(model, choices, study=SteeringStudy(pivot="sw"), progress=False)
    with pytest.raises(ValueError, match="at least 2"):
        SteeringStudy(n_dev=1)
    with pytest.raises(ValueError, match="a sweep needs"):
        sweep(model, PROMPTS, (" a", " b"), {}, progress=False)


def test_strengths_that_differ_little_are_cells_of_their_own():
    names = {_name(("mean_difference", "2", strength)) for strength in (1.0, 1.0000001, 2.0)}
    assert len(names) == 3
