"""The logit lens on states whose truth is planted, and on models whose output is known."""

import dataclasses
import math

import kit
import numpy as np
import pandas as pd
import pytest
import torch

import tiny
import xlens
from xlens import Activations, Prompt, Prompts, harvest, logit_lens
from xlens.activations import SlotValues
from xlens.lens import (
    LensResult,
    LensSummary,
    identify_tokens,
    logit_lenses,
    shuffled_pairs,
    target_sets,
    whole_word_lens,
)
from xlens.models.beginnings import word_tokens
from xlens.stats import Resampling

TASK = {"source": "fr", "target": "zh-Hans", "task": "translation"}
N_ITEMS = 20


@pytest.fixture(scope="module")
def model():
    """Its final norm only rescales, so a row of W_U is read as its own token, surely."""
    hf = tiny.model("llama", num_hidden_layers=6)
    with torch.no_grad():
        hf.model.norm.weight.fill_(1.0)
        hf.lm_head.weight.mul_(3.0)
    return xlens.load(hf, tiny.tokenizer("llama"))


@pytest.fixture(scope="module")
def targets(model):
    """Items whose word is one token of the vocabulary in each language."""
    texts = [model.vocab.text(i) for i in range(model.d_vocab)]
    pool: list[str] = []
    taken: set[int] = set()
    for text in sorted({t for t in texts if t and t.isalpha() and len(t) > 1}):
        tokens = word_tokens(model, text, "first")
        if not taken & set(tokens):  # no token of one item's is another's
            pool.append(text)
            taken |= set(tokens)
    order = np.random.default_rng(0).permutation(len(pool))
    rows = [[pool[i] for i in order[n : n + 3]] for n in range(0, len(pool) - 3, 3)]
    words = pd.DataFrame(rows, columns=["en", "zh-Hans", "fr"]).set_axis(
        [f"item/{n}" for n in range(len(rows))]
    )
    sets = target_sets(model, words, languages=["zh-Hans", "en"], extra=["fr"], match="first")
    assert len(sets.ids) >= N_ITEMS and all(len(c) == 1 for c in sets.sets["en"])
    return sets


def planted(model, targets, plan, *, layers=None, seed=0):
    """Activations in which `plan[layer]` names the language of the token at that layer.

    "en 0.5" is half that token, half another one; "" a random state.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = list(targets.ids[:N_ITEMS])
    values = torch.empty(len(plan), len(ids), model.d_model)
    for layer, what in enumerate(plan):
        for n, item in enumerate(ids):
            noise = torch.randn(model.d_model, generator=generator)
            if not what:
                values[layer, n] = noise
                continue
            language, *share = what.split()
            row = model.readout.W_U[:, targets.sets.loc[item, language][0]]
            if share:
                other = model.readout.W_U[:, 100 + n]  # a byte, no word
                row = float(share[0]) * row + (1 - float(share[0])) * other
            values[layer, n] = row
    meta = pd.DataFrame({"id": ids, "language": "zh-Hans", "n_tokens": 9, **TASK})
    meta["tokens"] = [[0] * 9] * len(ids)
    slot = SlotValues(
        values=values,
        offsets=torch.arange(len(ids) + 1),
        positions=torch.full((len(ids),), 8),
    )
    return Activations(
        slots={"last": slot},
        layers=tuple(range(len(plan))) if layers is None else layers,
        meta=meta,
        fingerprint=model.fingerprint,
        provenance={"model": "planted"},
    )


DETOUR = ["", "", "en 0.55", "en", "en 0.55", "zh-Hans", "zh-Hans"]


@pytest.fixture(scope="module")
def result(model, targets):
    return logit_lens(planted(model, targets, DETOUR), model, targets, top_k=3, progress=False)


# --- what was planted is found ---


def test_a_row_of_the_unembedding_is_read_as_its_token(result, targets):
    rows = result.rows.set_index(["layer", "language"]).sort_index()
    for layer, language in ((3, "en"), (5, "zh-Hans"), (6, "zh-Hans")):
        here = rows.loc[layer, language]
        assert (here["prob"] > 0.999).all() and (here["rank"] == 1).all()
        np.testing.assert_allclose(np.exp(here["logprob"]), here["prob"], rtol=1e-5)
        top = result.top[(result.top["layer"] == layer) & (result.top["k"] == 1)]
        wanted = [targets.sets.loc[i, language][0] for i in top["id"]]
        assert top["token"].tolist() == wanted and (top["prob"] > 0.999).all()
    assert (rows.loc[3, "zh-Hans"]["prob"] < 1e-3).all()
    assert (rows.loc[3, "fr"]["prob"] < 1e-3).all()


def test_entropy_and_divergence_of_what_was_planted(result):
    states = result.states.groupby("layer")
    assert (states["entropy"].max()[[3, 5, 6]] < 0.05).all()
    assert (states["entropy"].mean()[[2, 4]] > 0.1).all()
    assert (states["kl"].max()[[5, 6]] < 1e-3).all()
    assert (states["kl"].min()[[0, 1, 2, 3, 4]] > 1).all()


def test_the_planted_detour_has_its_landmarks(result):
    summary = result.summary(resampling=Resampling(draws=200))
    found = {name: summary.landmark(name) for name in summary.landmarks["name"]}
    assert found["pivot_peak_layer"]["value"] == 3
    assert found["pivot_peak_layer"]["low"] == found["pivot_peak_layer"]["high"] == 3
    assert found["crossover_layer"]["value"] == 5
    assert found["pivot_peak_prob"]["value"] > 0.999
    assert found["final_target_prob"]["value"] > 0.999 > 0.001 > found["final_pivot_prob"]["value"]
    assert all(x["n"] == N_ITEMS and x["low"] <= x["value"] <= x["high"] for x in found.values())


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (["", "en 0.45", "zh-Hans", "zh-Hans", "zh-Hans", "zh-Hans", "zh-Hans"], "early"),
        (["zh-Hans"] * 7, "the pivot never leads"),
        (["", "", "en", "en", "en", "en", "en"], "the target never overtakes"),
        (["", "", "en", "zh-Hans", "en", "en", "en"], "the target does not stay ahead"),
    ],
)
def test_crossover_or_none(plan, why, model, targets):
    lens = logit_lens(planted(model, targets, plan), model, targets, progress=False)
    crossing = lens.summary(resampling=Resampling(draws=50)).landmark("crossover_layer")
    if why == "early":
        assert crossing["value"] == 2
    else:
        assert math.isnan(crossing["value"]) and math.isnan(crossing["low"])


def test_curves_are_means_over_prompts_with_intervals(result):
    summary = result.summary(resampling=Resampling(draws=300, confidence=0.8, seed=4))
    assert (summary.source, summary.target, summary.pivot) == ("fr", "zh-Hans", "en")
    assert summary.confidence == 0.8 and summary.n_layers == 6
    means = result.rows.groupby(["language", "layer"])["prob"].mean()
    for row in summary.curves.itertuples():
        assert row.mean == pytest.approx(means[row.language, row.layer])
        assert row.low <= row.mean <= row.high
    assert set(summary.curves["n"]) == {N_ITEMS}
    for quantity in ("entropy", "kl", "energy"):
        mine = summary.states[summary.states["quantity"] == quantity].set_index("layer")["mean"]
        np.testing.assert_allclose(mine, result.states.groupby("layer")[quantity].mean())
    again = result.summary(resampling=Resampling(draws=300, confidence=0.8, seed=4))
    pd.testing.assert_frame_equal(again.landmarks, summary.landmarks)
    wide = result.summary(resampling=Resampling(draws=300, confidence=0.99, seed=4)).curves
    assert (wide["high"] - wide["low"] >= summary.curves["high"] - summary.curves["low"]).all()


def test_the_composition_sums_to_one_at_every_layer(result):
    composition = result.summary(resampling=Resampling(draws=10)).composition
    sums = composition.groupby("layer")["share"].sum()
    np.testing.assert_allclose(sums, 1)
    assert list(sums.index) == list(range(7))
    counted = result.top[result.top["layer"] == 5]["language"].value_counts(normalize=True)
    mine = composition[composition["layer"] == 5].set_index("language")["share"]
    for language, share in counted.items():
        assert mine[language] == pytest.approx(share)


def test_shape_of_the_tables(result, targets):
    assert len(result.rows) == 7 * N_ITEMS * 3 and len(result.states) == 7 * N_ITEMS
    assert len(result.top) == 7 * N_ITEMS * 3
    assert list(result.rows.columns) == [
        "layer", "prompt", "id", "language", "prob", "logprob", "rank", "n_tokens"
    ]  # fmt: skip
    assert (result.n_layers, result.match, result.task) == (6, "first", "translation")
    assert result.provenance["model"] == "planted"
    assert result.provenance["lens"]["targets"]["kept"] == len(targets.ids)
    frame = result.to_frame()
    assert len(frame) == len(result.rows) and {"prob", "entropy", "energy"} <= set(frame.columns)
    probs = result.rows.groupby(["layer", "prompt"])["prob"].sum()
    assert (probs <= 1 + 1e-6).all()


def test_saved_is_loaded(result, tmp_path):
    summary = result.summary(resampling=Resampling(draws=20))
    for made, kind in ((result, LensResult), (summary, LensSummary)):
        back = kind.load(made.save(tmp_path / kind.__name__))
        for field in dataclasses.fields(made):
            mine, theirs = getattr(made, field.name), getattr(back, field.name)
            if isinstance(mine, pd.DataFrame):
                pd.testing.assert_frame_equal(theirs, mine)
            else:
                assert theirs == mine, field.name
    pd.testing.assert_frame_equal(back.to_frame(), summary.curves)


# --- controls ---


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("seed", range(4))
def test_shuffled_pairs_move_every_row_whole(n, seed):
    words = pd.DataFrame(
        {"en": range(n), "fr": range(100, 100 + n)}, index=list(map(str, range(n)))
    )
    moved = shuffled_pairs(words, seed=seed)
    assert list(moved.index) == list(words.index) and list(moved.columns) == list(words.columns)
    assert sorted(moved["en"]) == list(range(n)) and (moved["en"] != words["en"]).all()
    assert (moved["fr"] - moved["en"] == 100).all()
    assert words["en"].tolist() == list(range(n))
    assert moved.equals(shuffled_pairs(words, seed=seed))


def test_shuffles_differ_by_seed_and_need_two():
    words = pd.DataFrame({"en": range(50)})
    assert not shuffled_pairs(words, seed=1).equals(shuffled_pairs(words, seed=2))
    with pytest.raises(ValueError, match="at least two items; got 1"):
        shuffled_pairs(words[:1])


def test_the_shuffled_control_is_at_chance(model, targets):
    acts = planted(model, targets, DETOUR)
    mine = targets.sets.loc[list(acts.meta["id"])]
    shuffled = dataclasses.replace(targets, sets=shuffled_pairs(mine))
    both = logit_lenses(acts, model, {"real": targets, "shuffled": shuffled}, progress=False)
    curves = {
        name: lens.rows.groupby(["language", "layer"])["prob"].mean() for name, lens in both.items()
    }
    assert curves["real"]["en", 3] > 0.999 and curves["real"]["zh-Hans", 6] > 0.999
    for layer in (2, 3, 4, 5, 6):  # where something was planted, other items' words gain nothing
        assert (curves["shuffled"].xs(layer, level="layer") < 1e-3).all()
    pd.testing.assert_frame_equal(both["real"].states, both["shuffled"].states)
    alone = logit_lens(acts, model, shuffled, progress=False)
    pd.testing.assert_frame_equal(alone.rows, both["shuffled"].rows)


def test_random_states_are_at_chance(model, targets):
    """Over many random states, a token's mean probability is one over the vocabulary."""
    means = [
        logit_lens(planted(model, targets, [""] * 7, seed=seed), model, targets, progress=False)
        .rows["prob"]
        .mean()
        for seed in range(6)
    ]
    assert np.mean(means) == pytest.approx(1 / model.d_vocab, rel=0.8)


# --- on models: the last layer is the model's own output ---


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama", "qwen3"])
def test_the_last_layer_is_the_models_own_probability(family, family_dir):
    model = kit.model(family_dir(family))
    words = pd.DataFrame(
        {
            "en": ["dog", "water", "book"],
            "zh-Hans": ["狗", "水", "书"],
            "fr": ["chien", "eau", "livre"],
        },
        index=["a", "b", "c"],
    )
    prompts = Prompts(
        Prompt(f'Français: "{words["fr"][i]}" - 中文: "', "zh-Hans", i, meta=TASK)
        for i in words.index
    )
    sets = target_sets(model, words, languages=["zh-Hans", "en"], extra=["fr"])
    prompts = prompts.select(ids=sets.ids)
    acts = harvest(model, prompts, progress=False)
    lens = logit_lens(acts, model, sets, progress=False)
    last = lens.rows[lens.rows["layer"] == model.n_layers].set_index(["id", "language"])
    for i, ids in zip(acts.meta["id"], acts.meta["tokens"], strict=True):
        logprobs = kit.logits(model, ids)[-1].double().log_softmax(-1)
        for language in sets.all_languages:
            members = list(sets.sets.loc[i, language])
            row = last.loc[(i, language)]
            assert row["n_tokens"] == len(members)
            if not members:
                assert np.isnan(row["prob"]) and np.isnan(row["rank"])
                continue
            wanted = logprobs[members].logsumexp(0)
            assert row["logprob"] == pytest.approx(wanted.item(), abs=1e-4)
            assert row["prob"] == pytest.approx(wanted.exp().item(), rel=1e-4)
            rank = 1 + int((logprobs > logprobs[members].max() + 1e-5).sum())
            assert row["rank"] == rank
    assert (lens.states[lens.states["layer"] == model.n_layers]["kl"] < 1e-4).all()


def test_without_the_last_layer_there_is_no_divergence(model, targets):
    acts = planted(model, targets, ["en", "zh-Hans"], layers=(2, 5))
    lens = logit_lens(acts, model, targets, progress=False)
    assert lens.states["kl"].isna().all() and lens.states["entropy"].notna().all()
    summary = lens.summary(resampling=Resampling(draws=20))
    kl = summary.states[summary.states["quantity"] == "kl"]
    assert kl[["mean", "low", "high"]].isna().all(axis=None) and (kl["n"] == 0).all()
    assert summary.landmark("pivot_peak_layer")["value"] == 2


# --- bad input ---


def test_a_pivot_without_words_is_refused(model, targets):
    for pivot in ("xx", "de", ""):
        with pytest.raises(ValueError, match=rf"pivot is '{pivot}', and the words .* zh-Hans, en"):
            logit_lens(planted(model, targets, DETOUR), model, targets, pivot=pivot)
    with pytest.raises(ValueError, match="pivot is 'de', and the words to be read are en, fr"):
        words = pd.DataFrame({"en": ["dog"], "fr": ["chien"]}, index=["1"])
        whole_word_lens(model, Prompts([Prompt("a", "en", "1")]), words, pivot="de")


def test_states_of_another_model_are_refused(model, targets, family_dir):
    acts = planted(model, targets, DETOUR)
    other = kit.model(family_dir("llama"))
    with pytest.raises(ValueError, match=r"Readout belongs to another model .*planted"):
        logit_lens(acts, other, targets, progress=False)
    with torch.no_grad():
        model.hf_model.lm_head.weight[0, 0] += 1
    try:
        with pytest.raises(ValueError, match="Readout belongs to another model"):
            logit_lens(acts, model, targets, progress=False)
    finally:
        with torch.no_grad():
            model.hf_model.lm_head.weight[0, 0] -= 1


def changed(acts, **meta):
    return dataclasses.replace(acts, meta=acts.meta.assign(**meta))


def test_one_result_is_about_one_pair_and_task(model, targets):
    acts = planted(model, targets, DETOUR)
    mixed = ["de", *["fr"] * (N_ITEMS - 1)]
    for bad, message in (
        (changed(acts, source=mixed), r"source = \['de', 'fr'\]"),
        (dataclasses.replace(acts, meta=acts.meta.drop(columns="task")), r"task = nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            logit_lens(bad, model, targets, progress=False)


def test_items_without_target_sets_and_ragged_slots(model, targets):
    acts = planted(model, targets, DETOUR)
    unknown = changed(acts, id=["item/none", *acts.meta["id"][1:]])
    with pytest.raises(ValueError, match=r"1 of 20 items have no target sets, first 'item/none'"):
        logit_lens(unknown, model, targets, progress=False)
    slot = acts.slot("last")
    offsets = torch.tensor([0, 2, *range(2, N_ITEMS + 1)])[: N_ITEMS + 1]
    ragged = dataclasses.replace(slot, offsets=offsets)
    with pytest.raises(ValueError, match=r"one row per prompt; slot .* has several"):
        logit_lens(
            dataclasses.replace(acts, slots={"last": ragged}), model, targets, progress=False
        )
    with pytest.raises(ValueError, match="No slot 'first'"):
        logit_lens(acts, model, targets, slot="first", progress=False)


# --- which language a token is in ---


def test_tokens_are_identified_or_unknown():
    texts = [" собака", "の", "中国人", "하늘", None, "", " ", "1999", "x", ":", "the house is big"]
    found = identify_tokens(texts)
    assert found[0] == "ru" and found[1] == "ja" and found[3] == "ko" and found[-1] == "en"
    assert found[4:10] == ["unknown"] * 6
    assert len(found) == len(texts) and set(found) <= {*xlens.lens.identify.CANDIDATES, "unknown"}


def test_a_language_that_cannot_be_identified():
    # Its tokens count as unknown; nothing is refused.
    assert identify_tokens(["Hund", "ᏣᎳᎩ"], ["chr"])[1:] == ["unknown"]
    chinese = "這個國家的歷史"
    assert identify_tokens([chinese]) == ["zh-Hans"]
    assert identify_tokens([chinese], ["zh-Hant"]) == ["zh-Hant"]  # the script that is studied
