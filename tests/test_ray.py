"""Requests on a Ray cluster of this machine: the same as here, whatever happens to workers."""

import os
import signal
import threading
import time
from importlib import import_module

import kit
import numpy as np
import pandas as pd
import pytest
import torch
from test_shared import parallel
from test_stored import bytes_of

from xlens import engine
from xlens.engine import executors, interventions, stored
from xlens.engine.executors import Ray
from xlens.store import Store

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Ray's own: sockets and files that its processes leave to the interpreter's end.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Workers find this suite's modules where this process does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    executors.close()
    import ray

    ray.shutdown()
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stored, "SHARD_BYTES", 20_000)
    for module in ("score", "generate", "relevance", "attention"):
        monkeypatch.setattr(import_module(f"xlens.engine.{module}"), "SHARD_PROMPTS", 3)
    monkeypatch.setattr(import_module("xlens.engine.tally"), "SHARD_TOKENS", 60)


@pytest.fixture
def model(family_dir):
    return kit.model(family_dir("llama"))


TWO = Ray(workers=2, cpus=1)


def verbs(model):
    push = interventions.add(torch.ones(model.d_model), layers=1, slot="last", strength=0.5)
    each = torch.randn(len(parallel()), model.d_model, generator=torch.Generator().manual_seed(1))
    mine = interventions.add(each, layers=2, slot="last")
    asked = parallel()
    return {
        "harvest": lambda **kw: engine.harvest(
            model, asked, slots=("last", "all"), interventions=[push, mine], **kw
        ),
        "score": lambda **kw: engine.score(model, asked, [" ja", " nein"], **kw),
        "generate": lambda **kw: engine.generate(model, asked, max_new_tokens=3, **kw),
        "relevance": lambda **kw: engine.relevance(model, asked, targets=[5] * len(asked), **kw),
        "tally": lambda **kw: engine.tally(model, asked, **kw),
        "attention": lambda **kw: engine.attention(model, asked, ["question"], **kw),
        "variants": lambda **kw: engine.harvest_variants(
            model, asked, {"plain": (), "pushed": push}, layers=[2], **kw
        ),
        "score variants": lambda **kw: engine.score_variants(
            model, asked, [" ja"], {"plain": (), "pushed": push}, **kw
        ),
    }


def test_every_verb_gives_the_bytes_that_it_gives_here(model, tmp_path):
    for name, run in verbs(model).items():
        here, there = tmp_path / name / "here", tmp_path / name / "ray"
        run(store=here, progress=False)
        found = run(store=there, progress=False, executor=TWO)
        assert bytes_of(here) == bytes_of(there), name
        for info in Store(there).entries():
            (host,) = Store(there).open(info.id).hosts
            assert host.endswith("(cpu)")
        one = next(iter(found.values())) if isinstance(found, dict) else found
        assert one.provenance["hosts"] == [host]


def test_without_a_store_and_with_an_object(model, tmp_path):
    """Shards go through a folder that is gone afterwards; a model object is sent."""
    twin = model.random_twin()
    run = verbs(twin)["score"]
    here, there = run(store=tmp_path, progress=False), run(progress=False, executor=TWO)
    pd.testing.assert_frame_equal(here.table, there.table)
    assert len(Store(tmp_path).entries()) == 1


def test_workers_write_to_a_shared_folder(model, tmp_path):
    run = verbs(model)["harvest"]
    run(store=tmp_path / "here", progress=False)
    run(store=tmp_path / "ray", progress=False, executor=Ray(workers=1, cpus=1, shared=True))
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "ray")
    (info,) = Store(tmp_path / "ray").entries()
    assert Store(tmp_path / "ray").open(info.id).hosts and not list(info.path.glob("*.claim"))


def test_a_lost_worker_s_shard_is_computed_again(model, tmp_path, caplog):
    run = verbs(model)["relevance"]
    run(store=tmp_path / "here", progress=False)
    run(store=tmp_path / "warm", progress=False, executor=TWO)  # workers are there
    import ray

    killed = []

    def kill():
        """The first worker that computes, in the middle of it."""
        pool = executors.pool.Pool.last
        while not any(task for _, task in pool.flight.values()):
            time.sleep(0.001)
        actor = next(actor for actor, task in list(pool.flight.values()) if task)
        ray.kill(actor)
        killed.append(actor)

    thread = threading.Thread(target=kill)
    thread.start()
    run(store=tmp_path / "ray", progress=False, executor=TWO)
    thread.join()
    assert killed and "was lost" in caplog.text
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "ray")


def test_ctrl_c_keeps_what_is_done_and_the_next_run_ends_it(model, tmp_path, monkeypatch):
    run = verbs(model)["relevance"]
    run(store=tmp_path / "here", progress=False)
    took = executors.pool.Pool.took
    done = []

    def stopping(pool, *given):
        if done:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        done.append(took(pool, *given))
        return done[-1]

    monkeypatch.setattr(executors.pool.Pool, "took", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(store=tmp_path / "ray", progress=False, executor=TWO)
    (info,) = Store(tmp_path / "ray").entries()
    assert 0 < info.done < info.shards and not list(info.path.glob("*.claim"))
    monkeypatch.undo()
    small = import_module("xlens.engine.relevance")
    monkeypatch.setattr(small, "SHARD_PROMPTS", 3)
    with kit.passes(model) as passes:
        run(store=tmp_path / "ray", progress=False, executor=TWO)
    assert passes == [], "the model of this process computes nothing"
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "ray")


def test_errors_come_back_as_they_are(model, tmp_path):
    huge = interventions.add(torch.full((model.d_model,), 3e38), layers=1, strength=3.0)
    with pytest.raises(ValueError, match="not finite"):
        engine.harvest(model, parallel(), interventions=huge, executor=TWO, progress=False)
    with (
        interventions.intervene(model, interventions.add(torch.ones(model.d_model), layers=1)),
        pytest.raises(ValueError, match="executor='local'"),
    ):
        engine.harvest(model, parallel(), executor=TWO, progress=False)
    with pytest.raises(ValueError, match="No machine of the Ray cluster has room"):
        engine.harvest(model, parallel(), executor=Ray(cpus=4096), progress=False)
    with pytest.raises(ValueError, match="No machine of the Ray cluster has room"):
        engine.harvest(model, parallel(), executor="ray?gpus=0.5", progress=False)


def test_a_folder_that_workers_can_not_write(model, tmp_path, monkeypatch):
    pool = executors.pool.Pool
    give, seen = pool.give, []

    def misled(self, actor, task, how):
        task.entry.path, real = tmp_path / "nowhere" / task.entry.id, task.entry.path
        seen.append(real)
        try:
            give(self, actor, task, how)
        finally:
            task.entry.path = real

    monkeypatch.setattr(pool, "give", misled)
    shared = Ray(workers=1, cpus=1, shared=True)
    with pytest.raises(ValueError, match=r"can't write to .*: it does not see"):
        engine.harvest(model, parallel(), store=tmp_path, executor=shared, progress=False)
    assert seen and not list(seen[0].glob("*.claim"))


def test_a_worker_with_another_model_gets_this_one(family_dir, tmp_path):
    """Weights that were changed after loading can't be loaded again: the model is sent."""
    import xlens

    changed = xlens.load(family_dir("gpt2"), device="cpu")
    with torch.no_grad():
        changed.hf_model.get_input_embeddings().weight.mul_(1.5)
    here = engine.harvest(changed, parallel(), progress=False, store=tmp_path)
    there = engine.harvest(changed, parallel(), progress=False, executor=TWO)
    assert np.array_equal(here.get("last").numpy(), there.get("last").numpy())
