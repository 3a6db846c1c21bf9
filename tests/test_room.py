"""Keys and values take a share of what is free on a GPU; on the CPU so many budgets."""

import kit
import pytest
import torch

from xlens.engine import backoff, decode, generate, harvest, room, variants
from xlens.engine.interventions import check
from xlens.engine.plan import KV_BUDGETS, plan
from xlens.models import HookedModel
from xlens.prompts import Prompt


def test_keys_and_values_are_as_large_as_said(family_dir):
    from transformers import DynamicCache

    for family in ("gpt2", "llama", "gemma3"):
        model, cache = kit.model(family_dir(family)), DynamicCache()
        with torch.inference_mode():
            model.body(torch.ones(1, 5, dtype=torch.long), past_key_values=cache, use_cache=True)
        held = sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
        assert room.kv_bytes(model) == held // 5, family


def test_no_more_than_a_share_of_what_is_free(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    assert room.kv_places(model, 100) == KV_BUDGETS * 100
    monkeypatch.setattr(HookedModel, "device", torch.device("cuda"))
    monkeypatch.setattr(HookedModel, "devices", (torch.device("cuda"),))
    one = room.kv_bytes(model) * room.SHARE
    for free, places in ((1, 100), (300, 256), (511, 256), (512, 512), (10**6, 800)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, n=free: (n * one - 10, 0))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 30)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 20)
        assert room.kv_places(model, 100) == places


@pytest.mark.parametrize("places", [200, 400])
def test_a_plan_keeps_to_its_places(places):
    head = tuple(range(60))
    batches = plan([(*head, 100 + i, i) for i in range(40)], 100, places=places)
    rows = [len(rows) for batch in batches for rows in batch.passes]
    assert sum(rows) == 40 and max(rows) * 62 <= places


def test_what_variants_hold_counts_the_beginnings_too(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    lengths = [10] * 100
    per_token = model.d_model * model.dtype.itemsize + room.kv_bytes(model)
    monkeypatch.setattr(variants, "TRUNK_BYTES", 200 * per_token)
    tokens = model.tokenize([Prompt("abc", "en", "1")])
    edits = {"plain": check((), model, tokens)}
    bounds = variants._bounds(model, range(100), lengths, edits, (model.n_layers,))
    assert bounds[1] == 21  # the first that is over


def test_what_runs_keeps_to_these_places(family_dir, monkeypatch):
    model, asked = kit.model(family_dir("llama")), []
    prompts = [Prompt("the king and " + tail, "en", tail) for tail in ("a", "b", "c d")]
    for module in (backoff, decode):
        monkeypatch.setattr(module, "kv_places", lambda *_: 23)

        def watched(*args, places=None, **options):
            asked.append(places)
            return plan(*args, places=places, **options)

        monkeypatch.setattr(module, "plan", watched)
    harvest(model, prompts, progress=False)
    assert asked == [23]
    generate(model, prompts, max_new_tokens=2, progress=False)
    assert asked == [23, 23]


def test_the_fullest_of_several_devices_tells(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    one, devices = room.kv_bytes(model) * room.SHARE, [torch.device("cuda", n) for n in range(2)]
    monkeypatch.setattr(HookedModel, "device", devices[0])
    monkeypatch.setattr(HookedModel, "devices", tuple(devices))
    monkeypatch.setattr(room, "_free", lambda device: one * (300, 150)[device.index])
    assert room.kv_places(model, 100) == 256  # each holds the keys and values of its blocks


def test_labels_keep_to_the_places_too():
    head = tuple(range(60))
    sequences = [(*head, 100 + i, i) for i in range(40)]
    batches = plan(sequences, 100, apart=[0] * 40, places=200)
    assert max(len(rows) for batch in batches for rows in batch.passes) * 62 <= 200
