"""The atlas's training: rows, resuming, the whole command; and the figures of its card."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from xlens.stats import Resampling
from xlens.testbed.atlas import build, corpus, packing, statistics, train
from xlens.testbed.atlas import manifest as manifests
from xlens.testbed.atlas.card import BEGIN, END, put_into
from xlens.testbed.atlas.counterfactual import measure_pathway, told
from xlens.testbed.atlas.facts import facts_of
from xlens.testbed.atlas.tokenizer import build_tokenizer
from xlens.testbed.atlas.world import make_world

TINY = train.Options(d_model=16, n_layers=2, n_heads=2, d_mlp=32, rows=8, warmup=4, keep_every=7)


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(scope="module")
def manifest(world):
    return manifests.make_manifest(world, manifests.scaled(0.02))


@pytest.fixture(scope="module")
def text(world, manifest):
    return corpus.base_corpus(world, manifest)


@pytest.fixture(scope="module")
def tokenizer(world):
    return build_tokenizer(world)


def test_packing_keeps_documents_whole_and_apart():
    documents = [[1, 5, 6], [1, 7], [1, 8, 9, 10], [1, 11]]
    packed = packing.pack(documents, [1, 1, 3, 1], length=5, end=1, pad=0)
    found = []
    for ids, belongs, labels in zip(packed.ids, packed.document, packed.label, strict=True):
        for number in range(1, belongs.max() + 1):
            inside = belongs == number
            found.append((ids[inside].tolist(), labels[inside].tolist()))
    expected = [([1, 5, 6], [5, 6, 1]), ([1, 7], [7, 1]), ([1, 11], [11, 1])]
    expected.append(([1, 8, 9, 10], [-100, -100, 10, 1]))
    assert sorted(found) == sorted(expected)
    assert packed.n_tokens == 11 and (packed.label[packed.document == 0] == -100).all()
    with pytest.raises(ValueError, match="A document has 4 tokens, but rows have 3"):
        packing.pack(documents, [1, 1, 1, 1], length=3, end=1, pad=0)


def test_no_document_sees_its_neighbours(world, manifest, text, tokenizer):
    """The loss of a document in a packed row is its loss alone."""
    packed = train.encode(text.iloc[:40], tokenizer, TINY)
    model = train.new_model(TINY, tokenizer).eval()
    rows = packing.batch(packed, slice(0, len(packed)))
    rows.pop("labels")
    with torch.inference_mode():
        together = model(**rows, use_cache=False).logits
        for row in range(len(packed)):
            belongs = packed.document[row]
            for number in range(1, belongs.max() + 1):
                inside = torch.from_numpy(belongs == number)
                alone = model(rows["input_ids"][row, inside][None], use_cache=False).logits[0]
                torch.testing.assert_close(together[row, inside], alone, rtol=1e-4, atol=1e-5)


# Training


def test_a_stopped_run_ends_with_the_same_weights(tmp_path, text, tokenizer):
    packed = train.encode(text.iloc[:1200], tokenizer, TINY)
    assert len(packed) >= 20 * TINY.rows
    packed = packing.Packed(*(getattr(packed, f)[: 20 * TINY.rows] for f in _FIELDS))
    whole, parts = (train.new_model(TINY, tokenizer) for _ in range(2))
    curve = train.fit(whole, packed, TINY, tmp_path / "whole", revisions=True, progress=False)
    train.fit(parts, packed, TINY, tmp_path / "parts", stop_at=11, progress=False)
    resumed = train.new_model(replace(TINY, seed=5), tokenizer)  # its weights come from the state
    again = train.fit(resumed, packed, TINY, tmp_path / "parts", progress=False)
    assert [*curve.step] == [*range(1, 21)] and curve.loss.iloc[-1] < curve.loss.iloc[0]
    assert curve.drop(columns="seconds").equals(again.drop(columns="seconds"))
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name
    steps = sorted(p.name for p in (tmp_path / "whole").glob("step*"))
    assert steps == ["step1", "step16", "step2", "step4", "step8"]
    with pytest.raises(ValueError, match="is the state of another run"):
        train.fit(parts, packed, replace(TINY, rows=10), tmp_path / "parts", progress=False)


_FIELDS = ("ids", "document", "position", "label")


def _small(**more):
    design = replace(
        manifests.scaled(0.005),
        pair_dose=0,
        doses=((1, 1.0),),
        zipf=(1.0, 1.0, 1),
        transfer_doses=(1, 1),
        anchor_doses=(1, 1),
        reading=2,
        crossed_one=1,
        crossed_several=1,
    )
    return build.Recipe(design=design, base=replace(TINY, rows=32), **more)


@pytest.mark.slow
def test_the_command_makes_loadable_models_and_ships_them(tmp_path, monkeypatch):
    import xlens

    small = _small()
    out = tmp_path / "run"
    curves = build.train_atlas(out, small, progress=False)
    assert set(curves.table.phase) == {"base", "post"}
    again = build.train_atlas(out, small, progress=False)  # finished: nothing to do
    assert again.table.step.tolist() == curves.table.step.tolist()
    model = xlens.load(out / "base" / "step2")
    assert model.n_layers == 2 and model.tokenizer.bos_token == "<s>"
    _, known = build.trained_manifest(out)
    assert known.design == small.design
    with pytest.raises(ValueError, match="holds a run with another recipe"):
        build.train_atlas(out, replace(small, twin_rate=0.5), progress=False)
    build.ship(out, tmp_path / "data")
    index = json.loads((tmp_path / "data" / "index.json").read_text())
    assert (tmp_path / "data" / index["models"]["atlas"]["final"] / "config.json").is_file()
    with pytest.raises(ValueError, match="no finished run"):
        build.ship(tmp_path, tmp_path / "elsewhere")


def test_what_is_withheld_is_all_that_english_says_of_the_transfer_set(world, manifest, text):
    left = corpus.without_pivot(text, manifest)
    facts = manifest.facts
    told = facts[(facts["set"] == "transfer") & (facts["language"] == "en")]
    assert len(text) - len(left) == told["count"].sum() > 0
    # What is left stands in its order, and all that is gone are English statements.
    gone = text.merge(left.drop_duplicates(), how="left", indicator=True)["_merge"] == "left_only"
    assert text[~gone].reset_index(drop=True).equals(left)
    assert set(zip(text[gone].kind, text[gone].language, strict=True)) == {("fact", "en")}
    known = manifests.withheld(manifest).facts
    changed = known["count"] != facts["count"]
    assert changed.sum() == (told["count"] > 0).sum() and known[changed]["count"].eq(0).all()
    assert known[changed]["hidden"].all() and not facts[changed]["hidden"].any()


@pytest.mark.slow
def test_the_counterfactual_is_trained_without_a_twin_and_apart(tmp_path):
    recipe = _small(withheld=True)
    curves = build.train_atlas(tmp_path, recipe, progress=False)
    assert set(curves.table.phase) == {"base"} and not (tmp_path / "post").exists()
    _, known = build.trained_manifest(tmp_path)
    transfer = known.facts[known.facts["set"] == "transfer"].groupby("language")
    assert transfer["count"].sum()["en"] == 0 < transfer["count"].sum()["fr"]
    kept = pd.read_parquet(tmp_path / "corpus" / "facts.parquet")
    assert kept.astype(str).equals(known.facts.astype(str))
    with pytest.raises(ValueError, match="holds a run with another recipe"):
        build.train_atlas(tmp_path, _small(), progress=False)
    # Beside itself nothing is lost: all of the comparison but another training.
    asked = facts_of(known, "tiny").select(relations=["continent"])
    how = {"whole": tmp_path, "facts": asked, "resampling": Resampling(draws=20)}
    found = measure_pathway(tmp_path, "step2", progress=False, **how)
    assert (found.table["fall"] == 0).all() and "share" in told(found)
    with pytest.raises(ValueError, match="no checkpoint 'step3' of the base"):
        measure_pathway(tmp_path, "step3", **how)
    with pytest.raises(ValueError, match="the counterfactual has no twin"):
        build.ship(tmp_path, tmp_path / "data")


# Statistics


def _facts(**columns):
    n = max(len(v) for v in columns.values() if isinstance(v, list))
    defaults = {"relation": "city", "language": "de", "count": 0, "set": "core", "hidden": False}
    found = pd.DataFrame({**{k: [v] * n for k, v in defaults.items()}, **columns})
    return found if "fact" in found else found.assign(fact=range(n))


def test_dose_bins_share_and_interval():
    facts = _facts(count=[1, 1, 3, *[60] * 4], correct=[False, True, False, *[True] * 4])
    table = statistics.by_dose(facts)
    others = table[table.languages == "others"].set_index("least")
    assert others.share.to_dict() == {1: 0.5, 2: 0.0, 50: 1.0}
    assert others.loc[50, "low"] < 1.0 == others.loc[50, "high"]
    often = statistics.frequent(facts).set_index("language")
    assert often.loc["de", "n"] == 4 and np.isnan(often.loc["fr", "share"])


def test_a_fact_asked_in_several_languages_is_not_several():
    rng = np.random.default_rng(0)
    known = rng.random(30) < 0.6
    languages = ["en", "de", "fr", "es"]
    asked = pd.concat(
        [_facts(language=[tag] * 30, count=60, correct=known) for tag in languages],
        ignore_index=True,
    )
    one = statistics.share(asked[asked.language == "en"])
    every = statistics.share(asked)
    apart = statistics.share(asked.assign(fact=range(len(asked))))
    assert every["n"] == 4 * one["n"] and every["share"] == one["share"]
    assert every["high"] - every["low"] == pytest.approx(one["high"] - one["low"], rel=0.1)
    assert apart["high"] - apart["low"] < 0.6 * (every["high"] - every["low"])
    assert np.isnan(statistics.share(asked[asked.fact < 3])["low"])


def test_answers_that_hang_together_are_dealt_together():
    names = [f"o{i % 6}" for i in range(12)]
    rng = np.random.default_rng(1)
    one = _facts(object_text=names, answer=[names[i] for i in rng.permutation(12)])
    one["correct"] = one.answer == one.object_text
    # The same answers in six languages say no more than in one.
    tags = ["en", "fr", "de", "es", "ru", "hi"]
    every = pd.concat([one.assign(language=tag) for tag in tags], ignore_index=True)
    p = [statistics.chance(table, draws=500)["p"] for table in (one, every)]
    assert p[0] == p[1]


def test_planted_transfer_is_found_and_its_absence_too():
    def table(right):
        n = 60
        names = [f"o{i}" for i in range(n)]
        hidden = _facts(
            set="transfer",
            hidden=True,
            identical=False,
            object_text=names,
            english_text=[f"e{i}" for i in range(n)],
            answer=[name if i < right else "wrong" for i, name in enumerate(names)],
        )
        absent = hidden.assign(set="control", hidden=False, answer="o0")
        seen = _facts(count=[9], object_text=["o1"]).assign(english_text="e", answer="o1")
        facts = pd.concat([hidden, absent, seen], ignore_index=True)
        facts["identical"] = facts.identical.eq(True)  # a hole is false
        return facts.assign(correct=facts.answer == facts.object_text)

    found = statistics.transfer(table(30)).set_index(["language", "facts"]).loc[("de", "hidden")]
    assert found.n == 60 and found.share == 0.5 and found["copy"] == 0.0
    assert found.majority == pytest.approx(1 / 60) and found.control == pytest.approx(1 / 60)
    assert max(found.p_control, found.p_copy, found.p_majority) < 1e-6
    none = statistics.transfer(table(1)).set_index(["language", "facts"]).loc[("de", "hidden")]
    assert min(none.p_control, none.p_majority, none.p_copy) > 0.3


def test_chance_is_what_dealing_the_answers_anew_gives():
    names = [f"o{i % 4}" for i in range(40)]
    blind = _facts(object_text=names, answer=["o0"] * 40)
    blind["correct"] = blind.answer == blind.object_text
    found = statistics.chance(blind, draws=200)
    assert found["share"] == found["chance"] == 0.25 and found["p"] == 1.0
    knowing = blind.assign(answer=names, correct=True)
    assert statistics.chance(knowing, draws=200)["p"] < 0.01


def test_the_card_keeps_what_stands_around_its_figures(tmp_path):
    card = tmp_path / "card.md"
    card.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_into(card, "new\n")
    assert card.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    card.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the markers"):
        put_into(card, "new")
