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
from xlens.engine import harvest, harvest_to_store, interventions, stored
from xlens.engine import harvest as _harvest_function
from xlens.store import Store, parts

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


@pytest.mark.parametrize("site", ["resid", "z"])
def test_a_single_point(site, model, tmp_path):
    asked = {"layers": [1], "site": site, "progress": False}
    plain = harvest(model, parallel(), **asked)
    for _ in range(2):
        kept = harvest(model, parallel(), store=tmp_path, **asked)
        same(plain, kept, exactly=False)
        assert (kept.site, kept.n_heads) == (site, plain.n_heads)


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


# --- relevance and variants; epoch and versions ---


def related(model, **kw):
    kw = {"slots": ["all", "question:mean"], "rule": "attnlrp", "progress": False} | kw
    return engine.relevance(model, parallel(), targets=[5] * len(parallel()), **kw)


def varied(model, **kw):
    push = interventions.add(torch.ones(model.d_model), layers=1, slot="last", strength=0.5)
    kw = {"slots": SLOTS, "layers": [2, model.n_layers], "progress": False} | kw
    return engine.harvest_variants(model, parallel(), {"plain": (), "pushed": push}, **kw)


def bytes_of(folder):
    files = sorted(f for f in folder.rglob("*") if f.suffix in (".safetensors", ".parquet"))
    files += sorted(folder.rglob("manifest.json"))
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def test_relevance_is_computed_once_for_all_slots_and_taken_up_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("xlens.engine.relevance"), "SHARD_PROMPTS", 3)
    plain = related(model)
    related(model, store=tmp_path / "whole")
    with kit.passes(model, stop=2), pytest.raises(KeyboardInterrupt):
        related(model, store=tmp_path / "cut")
    (info,) = Store(tmp_path / "cut").entries()
    assert 0 < info.done < info.shards
    first = related(model, store=tmp_path / "cut")
    with kit.passes(model) as passes:
        second = related(model, store=tmp_path / "cut")
        sums = related(model, store=tmp_path / "cut", slots="context:sum")
    assert passes == []
    for found in (first, second):
        assert torch.allclose(torch.tensor(found.values), torch.tensor(plain.values), rtol=1e-3)
        pd.testing.assert_frame_equal(found.rows, plain.rows)
        pd.testing.assert_frame_equal(found.targets, plain.targets, rtol=1e-4)
    wanted = related(model, slots="context:sum")
    assert torch.allclose(torch.tensor(sums.values), torch.tensor(wanted.values), rtol=1e-3)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "cut")
    for how in ({"scalar": "logprob"}, {"rule": "gradient"}, {"at": "question:first"}):
        with kit.passes(model) as passes:
            related(model, store=tmp_path / "cut", **how)
        assert passes


def test_variants_are_computed_once_and_end_with_the_same_bytes(model, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("xlens.engine.variants"), "TRUNK_BYTES", 5_000)
    plain, whole = varied(model), varied(model, store=tmp_path / "whole")
    with kit.passes(model, stop=5), pytest.raises(KeyboardInterrupt):
        varied(model, store=tmp_path / "cut")
    done = [info for info in Store(tmp_path / "cut").entries() if info.complete]
    assert 0 < len(done) < len(Store(tmp_path / "whole").entries())
    again = varied(model, store=tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")
    with kit.passes(model) as passes:
        varied(model, store=tmp_path / "cut")
    assert passes == []
    for name in plain:
        same(again[name], whole[name])
        same(again[name], plain[name], exactly=False)


def test_entries_of_another_epoch_are_never_served_and_can_be_pruned(model, tmp_path, monkeypatch):
    from xlens.cli.store import ls
    from xlens.store import EPOCH

    store = Store(tmp_path)
    harvest(model, parallel(), store=store, progress=False)
    store.entry({"kind": "harvest", "layers": [1]}, shards=1)  # as before there were epochs
    monkeypatch.setattr("xlens.engine.request.EPOCH", EPOCH + 1)
    with kit.passes(model) as passes:
        harvest(model, parallel(), store=store, progress=False)
    assert passes
    said = []
    monkeypatch.setattr("builtins.print", said.append)
    ls(root=tmp_path)
    assert sum("of epoch none: never served" in line for line in said) == 1
    assert sum(f"of epoch {EPOCH + 1}: never served" in line for line in said) == 1
    assert len(store.prune(old=True, dry_run=True).removed) == 2
    store.prune(old=True)
    (left,) = store.entries()
    assert left.key["epoch"] == EPOCH


@pytest.mark.parametrize("kind", ["harvest", "score", "generate", "relevance", "variants"])
def test_a_stored_result_names_the_versions_that_computed_it(kind, model, tmp_path, monkeypatch):
    run = {
        "harvest": lambda: harvest(model, parallel(), store=tmp_path, progress=False),
        "score": lambda: scored(model, store=tmp_path),
        "generate": lambda: generated(model, store=tmp_path),
        "relevance": lambda: related(model, store=tmp_path),
        "variants": lambda: varied(model, store=tmp_path)["pushed"],
    }[kind]
    before = run().provenance["versions"]
    later = {**before, "pandas": "99.9"}
    monkeypatch.setattr(stored, "versions", lambda: later)
    assert run().provenance["versions"] == before


@pytest.mark.parametrize("run", [scored, generated, related])
def test_a_kill_within_a_table_loses_only_the_last_seconds(run, model, tmp_path, monkeypatch):
    """Scores, texts and relevance are kept in parts, too; the end is the same, byte for byte."""
    with kit.passes(model) as alone:
        run(model, store=tmp_path / "whole", token_budget=40)
    monkeypatch.setattr(parts, "PART_SECONDS", 0.0)
    stop = len(alone) * 2 // 3
    with kit.passes(model, stop=stop), pytest.raises(KeyboardInterrupt):
        run(model, store=tmp_path / "cut", token_budget=40)
    folder = Store(tmp_path / "cut").entries()[0].path
    assert list(folder.glob("*.part-*"))
    with kit.passes(model) as rest:
        run(model, store=tmp_path / "cut", token_budget=40)
    assert len(rest) < len(alone) * 2 // 3, "what is kept is not run again"
    assert not list(folder.glob("*.part-*"))
    assert bytes_of(folder) == bytes_of(Store(tmp_path / "whole").entries()[0].path)
