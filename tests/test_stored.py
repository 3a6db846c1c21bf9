"""Harvests in a store: the same values, computed once, resumed after a stop, read in slices."""

from importlib import import_module

import kit
import pandas as pd
import pytest
import torch
from test_shared import parallel
from test_store import change
from test_store_crash import flipped

from xlens import engine
from xlens.engine import Store, harvest, harvest_to_store, interventions, stored
from xlens.engine import harvest as _harvest_function
from xlens.engine.store import parts

SLOTS = ("last", "all", "context:mean")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stored, "SHARD_BYTES", 20_000)


@pytest.fixture
def model(family_dir):
    return kit.model(family_dir("gemma3"))


def same(a, b, exactly=True):
    assert a.layers == b.layers and list(a.slots) == list(b.slots)
    assert a.meta.equals(b.meta)
    for slot in a.slots:
        one, other = a.slot(slot), b.slot(slot)
        assert torch.equal(one.offsets, other.offsets)
        assert torch.equal(one.positions, other.positions)
        if exactly:
            assert torch.equal(one.values, other.values)
        else:
            assert kit.relative_error(one.values, other.values) < 2e-5


def test_the_same_values_and_no_second_computation(model, tmp_path):
    plain = harvest(model, parallel(), slots=SLOTS, progress=False)
    first = harvest(model, parallel(), slots=SLOTS, store=tmp_path, progress=False)
    same(plain, first, exactly=False)
    with kit.passes(model) as passes:
        second = harvest(model, parallel(), slots=SLOTS, store=Store(tmp_path), progress=False)
    assert passes == []
    same(first, second)


def test_slices_and_parts(model, tmp_path):
    kept = harvest_to_store(model, parallel(), tmp_path, slots=SLOTS, progress=False)
    assert len(kept.bounds) > 3
    whole = kept.load()
    part = kept.load(layers=[2], slots=["last"])
    assert torch.equal(part.get("last", layer=2), whole.get("last", layer=2))
    pieces = list(kept.parts(layers=[1]))
    assert sum(map(len, pieces)) == len(whole)
    joined = torch.cat([p.get("last", layer=1) for p in pieces])
    assert torch.equal(joined, whole.get("last", layer=1))
    with pytest.raises(ValueError, match=r"layers \[99\] were not harvested"):
        kept.load(layers=[99])


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(model, tmp_path):
    kw = {"slots": SLOTS, "progress": False}
    whole = harvest_to_store(model, parallel(), tmp_path / "whole", **kw)
    with kit.passes(model, stop=3), pytest.raises(KeyboardInterrupt):
        harvest_to_store(model, parallel(), tmp_path / "cut", **kw)
    (info,) = Store(tmp_path / "cut").entries()
    assert 0 < info.done < len(whole.bounds) - 1 and not info.complete
    again = harvest_to_store(model, parallel(), tmp_path / "cut", **kw)
    names = ["manifest.json", *(f.name for f in whole.entry.path.glob("*.safetensors"))]
    for name in names:
        assert (again.entry.path / name).read_bytes() == (whole.entry.path / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [0, 1]},
        {"slots": "all"},
        {"dtype": torch.float16},
        {"prepend_bos": False},
        {"interventions": "push"},
    ],
)
def test_whatever_changes_the_values_is_another_entry(change, model, tmp_path):
    if change == {"interventions": "push"}:
        push = interventions.add(torch.ones(model.d_model), layers=1)
        change = {"interventions": [push]}
    one = harvest_to_store(model, parallel(), tmp_path, progress=False)
    other = harvest_to_store(model, parallel(), tmp_path, progress=False, **change)
    assert one.entry.id != other.entry.id
    assert harvest_to_store(model, parallel(), tmp_path, progress=False).entry.id == one.entry.id


def test_another_model_is_another_entry(model, tmp_path):
    one = harvest_to_store(model, parallel(), tmp_path, progress=False)
    twin = harvest_to_store(model.random_twin(), parallel(), tmp_path, progress=False)
    assert one.entry.id != twin.entry.id


def test_interventions_are_seen_by_harvest(model):
    vector = torch.linspace(-1, 1, model.d_model)
    push = interventions.add(vector, layers=2, slot="last")
    clean = _harvest_function(model, parallel(), progress=False)
    pushed = _harvest_function(model, parallel(), interventions=[push], progress=False)
    difference = pushed.get("last") - clean.get("last")
    torch.testing.assert_close(difference[:, 2], vector.expand(len(clean), -1), atol=1e-4, rtol=0)
    assert difference[:, :2].abs().max() == 0 and difference[:, 3:].abs().min(-1).values.max() > 0


def scored(model, **options):
    return engine.score(model, parallel(), [" ja", " nein, nie", "好"], progress=False, **options)


def generated(model, **options):
    return engine.generate(model, parallel(), max_new_tokens=3, progress=False, **options)


@pytest.mark.parametrize(("run", "module"), [(scored, "score"), (generated, "generate")])
def test_tables_too_are_computed_once_and_taken_up_again(run, module, model, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module(f"xlens.engine.{module}"), "SHARD_PROMPTS", 3)
    push = interventions.add(torch.ones(model.d_model), layers=1, slot="last", strength=0.5)
    each = torch.randn(len(parallel()), model.d_model, generator=torch.Generator().manual_seed(1))
    for how in ([], [push, interventions.add(each, layers=2, slot="last")]):
        plain = run(model, interventions=how)
        folder = tmp_path / str(len(how))
        with kit.passes(model, stop=4), pytest.raises(KeyboardInterrupt):
            run(model, interventions=how, store=folder)
        (info,) = Store(folder).entries()
        assert 0 < info.done < info.shards
        first = run(model, interventions=how, store=folder)
        with kit.passes(model) as seen:
            second = run(model, interventions=how, store=Store(folder))
        assert seen == []
        pd.testing.assert_frame_equal(first.table, second.table)
        pd.testing.assert_frame_equal(first.table, plain.table, rtol=1e-4, atol=2e-4)
    run(model, interventions=push, store=tmp_path / "0")
    assert len(Store(tmp_path / "0").entries()) == 2


def test_a_table_of_other_options_is_another_entry(model, tmp_path):
    one = generated(model, store=tmp_path)
    other = generated(model, store=tmp_path, stop=["\n"])
    engine.score(model, parallel(), [" ja"], store=tmp_path, progress=False)
    engine.score(model, parallel(), [" ja"], layers=[1], store=tmp_path, progress=False)
    assert len(Store(tmp_path).entries()) == 4
    assert list(one.table.columns) == list(other.table.columns)


@pytest.mark.parametrize("share", [False, True])
def test_a_kill_within_a_shard_loses_only_the_last_seconds(share, model, tmp_path, monkeypatch):
    """What was done of a shard is kept in parts; the end is the same, byte for byte."""
    monkeypatch.setattr(stored, "SHARD_BYTES", 10**9)
    kw = {"slots": SLOTS, "token_budget": 40, "share_prefixes": share, "progress": False}
    with kit.passes(model) as alone:
        whole = harvest_to_store(model, parallel(), tmp_path / "whole", **kw)
    assert len(whole.bounds) == 2 and not list(whole.entry.path.glob("*.part-*"))
    monkeypatch.setattr(parts, "PART_SECONDS", 0.0)
    stop = len(alone) * 2 // 3
    with kit.passes(model, stop=stop), pytest.raises(KeyboardInterrupt):
        harvest_to_store(model, parallel(), tmp_path / "cut", **kw)
    folder = Store(tmp_path / "cut").entries()[0].path
    kept = sorted(folder.glob("*.part-*"))
    assert len(kept) > (0 if share else 2), "one for each batch that was done"
    if len(kept) > 1:
        change(kept.pop(0), lambda b: flipped(b, -1))  # as if never written
    with kit.passes(model) as rest:
        again = harvest_to_store(model, parallel(), tmp_path / "cut", **kw)
    assert len(rest) <= len(alone) - len(kept), "what is kept is not run again"
    assert not list(folder.glob("*.part-*"))
    for name in ("manifest.json", "shard-00000.safetensors", "shard-00000.parquet"):
        assert (again.entry.path / name).read_bytes() == (whole.entry.path / name).read_bytes()
