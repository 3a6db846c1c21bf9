"""Many interventions at once: the same scores as one by one, and less work."""

import kit
import numpy as np
import pytest
import torch

import tiny
from xlens.activations import Activations
from xlens.engine import (
    harvest,
    harvest_variants,
    score,
    score_variants,
    trunk,
    variants,
)
from xlens.engine.interventions import add, patch, project_out
from xlens.prompts import Prompt
from xlens.store import Store

HEAD = "Der Hund läuft. The dog runs. Le chien court. Собака бежит. 犬は走る。 "
PROMPTS = [
    Prompt(HEAD + "Die Hauptstadt von Frankreich ist", "de", "1", {"name": (62, 70)}),
    Prompt(HEAD + "法国的首都是", "zh-Hans", "2", {"name": (62, 64)}),
    Prompt("The capital is", "en", "3", {"name": (4, 11)}),
]
CANDIDATES = [" Paris", " Rom und mehr", " Rom", "巴黎"]


def changes(model, states: Activations):
    drawn = torch.Generator().manual_seed(0)
    vectors = torch.randn(model.n_layers + 1, model.d_model, generator=drawn)
    top = model.n_layers
    return {
        "none": (),
        "everywhere": add(vectors[1], layers=1, strength=2.0),
        "embedding": add(vectors[0], layers=0),
        "output": add(vectors[top], layers=top),
        "band": add(vectors[None, 1:], layers=range(1, top + 1), slot="last"),
        "removed": project_out(vectors[:2], layers=[1, top], strength=0.5),
        "spans": add(vectors[2], layers=1, slot="name:each", strength=-3.0),
        "candidates": add(vectors[1], layers=1, slot="generated"),
        "patched": patch(states, layers=1, slot="last"),
        "zero": add(vectors[1], layers=0, strength=0.0),
    }


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_each_variant_equals_a_run_of_its_own(family, family_dir):
    model = kit.model(family_dir(family))
    drawn = [Prompt(p.text[::-1], p.language, p.id, {}) for p in PROMPTS]
    asked = changes(model, harvest(model, drawn, layers=1, progress=False))
    together = score_variants(model, PROMPTS, CANDIDATES, asked, progress=False)
    differ = []
    for name, change in asked.items():
        alone = score(model, PROMPTS, CANDIDATES, interventions=change, progress=False)
        a, b = together[name].table, alone.table
        np.testing.assert_allclose(a["logprob"], b["logprob"], atol=2e-4, err_msg=name)
        assert a.drop(columns=["logprob", "mean_logprob"]).equals(
            b.drop(columns=["logprob", "mean_logprob"])
        )
        differ.append(float(a["logprob"].sum()))
    assert len({round(x, 3) for x in differ}) == len(asked) - 1  # `none` and `zero` are one
    for block in model.blocks:
        assert "forward" not in vars(block)


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_states_under_variants_equal_runs_of_their_own(family, family_dir, monkeypatch):
    model = kit.model(family_dir(family))
    monkeypatch.setattr(variants, "TRUNK_BYTES", 1)  # several chunks
    drawn = [Prompt(p.text[::-1], p.language, p.id, {}) for p in PROMPTS]
    asked = changes(model, harvest(model, drawn, layers=1, progress=False))
    asked.pop("candidates")
    how = {"layers": [1, model.n_layers], "slots": ["last", "name:mean"], "progress": False}
    together = harvest_variants(model, PROMPTS, asked, **how)
    for name, change in asked.items():
        alone = harvest(model, PROMPTS, interventions=change, **how)
        for slot in how["slots"]:
            a, b = together[name].slot(slot), alone.slot(slot)
            torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-4)
            assert a.positions.tolist() == b.positions.tolist()
        assert together[name].layers == alone.layers


def test_only_what_lies_above_runs(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    runs = [0] * model.n_layers
    for n, block in enumerate(model.blocks):

        def counted(*args, n=n, forward=block.forward, **kwargs):
            runs[n] += 1
            return forward(*args, **kwargs)

        monkeypatch.setattr(block, "forward", counted)
    top = model.n_layers - 1
    vector = torch.ones(model.d_model)
    asked = {str(s): add(vector, layers=top, strength=s) for s in (0.5, 1.0, 2.0)}
    score_variants(model, PROMPTS[2:], CANDIDATES[:1], asked, progress=False)
    assert runs == [1] * top + [3]
    assert model.blocks[0].forward.__name__ == "counted"  # what others put there is back


def test_layers_below_the_change_are_read_from_where_they_begin(family_dir):
    model = kit.model(family_dir("gpt2"))
    push = add(torch.ones(model.d_model), layers=2)
    together = score_variants(
        model, PROMPTS, CANDIDATES, {"a": push, "b": ()}, layers="all", progress=False
    )
    alone = score(model, PROMPTS, CANDIDATES, layers="all", interventions=push, progress=False)
    np.testing.assert_allclose(together["a"].table["logprob"], alone.table["logprob"], atol=2e-4)


def test_chunks_and_a_store_change_nothing(family_dir, tmp_path, monkeypatch):
    model = kit.model(family_dir("gemma3"))
    vector = torch.ones(model.d_model)
    asked = {str(s): add(vector, layers=1, strength=s) for s in (0.5, 1.0)}
    whole = score_variants(model, PROMPTS, CANDIDATES, asked, progress=False)
    monkeypatch.setattr(variants, "TRUNK_BYTES", 1)
    store = Store(tmp_path)
    cut = score_variants(model, PROMPTS, CANDIDATES, asked, store=store, progress=False)
    monkeypatch.setattr(trunk, "run_batch", None)  # from now on nothing can be computed
    again = score_variants(model, PROMPTS, CANDIDATES, asked, store=store, progress=False)
    for name in asked:
        np.testing.assert_allclose(
            whole[name].table["logprob"], cut[name].table["logprob"], atol=2e-4
        )
        assert again[name].table.equals(cut[name].table)


def test_a_stopped_sweep_keeps_its_variants(family_dir, tmp_path, monkeypatch):
    model = kit.model(family_dir("llama"))
    vector = torch.ones(model.d_model)
    asked = {str(s): add(vector, layers=1, strength=s) for s in (0.5, 1.0, 2.0)}
    store, computed, sums = Store(tmp_path), [], variants.sums

    def third_fails(*args, **kwargs):
        computed.append(1)
        if len(computed) == 3:
            raise KeyboardInterrupt
        return sums(*args, **kwargs)

    monkeypatch.setattr(variants, "sums", third_fails)
    with pytest.raises(KeyboardInterrupt):
        score_variants(model, PROMPTS, CANDIDATES, asked, store=store, progress=False)
    score_variants(model, PROMPTS, CANDIDATES, asked, store=store, progress=False)
    assert len(computed) == 4


def test_tells_how_long_it_will_take(family_dir, capsys):
    model = kit.model(family_dir("llama"))
    score_variants(model, PROMPTS, CANDIDATES, {"a": (), "b": ()})
    assert "2 runs over 12 texts: about 0." in capsys.readouterr().err


def test_refuses(family_dir):
    model = kit.model(family_dir("llama"))
    with pytest.raises(ValueError, match="variants is empty"):
        score_variants(model, PROMPTS, CANDIDATES, {})
    with pytest.raises(ValueError, match="d_model"):
        score_variants(model, PROMPTS, CANDIDATES, {"a": add(torch.ones(3), layers=1)})
    huge = add(torch.full((model.d_model,), 3e38), layers=1, strength=10.0)
    with pytest.raises(ValueError, match="not finite under"):
        score_variants(model, PROMPTS, CANDIDATES, {"a": huge}, progress=False)
