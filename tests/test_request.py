"""A request is a value: compared, hashed, pickled, told in JSON, and computed from that alone."""

import errno
import json
import os
import pickle
import socket
import sys
import types
from importlib import import_module
from pathlib import Path

import kit
import pytest
import torch
from test_shared import parallel

from xlens import cluster, engine
from xlens.engine import Execution, executors, interventions
from xlens.engine.executors import Ray
from xlens.engine.executors.worker import Worker
from xlens.store import Store


@pytest.fixture(scope="module")
def model(family_dir):
    return kit.model(family_dir("llama"))


class Elsewhere:
    """Computes each shard from its pickle, as a process elsewhere would."""

    here = False

    def __init__(self):
        self.requests = []

    def check(self):
        pass

    def run(self, model, jobs, how):
        for request, entry in jobs:
            self.requests.append(request)
            for shard in entry.todo():
                parcel = pickle.dumps(request.shard(shard).sent())
                found = pickle.loads(parcel).on(model.device).compute(model, how)
                entry.write(shard, *found, host="elsewhere")
            entry.finish()


def verbs(model):
    drawn = torch.Generator().manual_seed(0)
    each = torch.randn(len(parallel()), model.d_model, generator=drawn)
    push = interventions.add(each, layers=2, slot="last", strength=0.5)
    states = engine.harvest(model, parallel(), slots="question:each", layers=1, progress=False)
    changed = [push, interventions.patch(states, layers=1, slot="question:each")]
    units = interventions.scale([0, 3], 0.0, site="mlp_post", layers=1)
    ids = [5] * len(parallel())
    return {
        "harvest": (engine.harvest, {"slots": ["all", "last"], "interventions": changed}),
        "site": (engine.harvest, {"site": "z", "slots": "question:mean", "interventions": units}),
        "score": (engine.score, {"candidates": [" ja", " nein"], "interventions": push}),
        "generate": (engine.generate, {"max_new_tokens": 3, "stop": ["\n"], "interventions": push}),
        "relevance": (engine.relevance, {"targets": ids}),
        "tally": (engine.tally, {"interventions": push}),
        "attention": (engine.attention, {"spans": ["question"]}),
        "variants": (engine.harvest_variants, {"variants": {"a": (), "b": changed}, "layers": 2}),
        "scored": (
            engine.score_variants,
            {"candidates": [" ja"], "variants": {"a": (), "b": push}},
        ),
    }


NAMES = ["harvest", "site", "score", "generate", "relevance", "tally", "attention"]
NAMES += ["variants", "scored"]


def shards(folder):
    return {p.name + p.parent.name: p.read_bytes() for p in folder.rglob("shard-*")}


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_is_computed_from_the_request_alone(name, model, tmp_path, monkeypatch):
    monkeypatch.setattr("xlens.engine.stored.SHARD_BYTES", 2_000)
    for module in ("score", "generate", "relevance", "attention"):
        monkeypatch.setattr(import_module(f"xlens.engine.{module}"), "SHARD_PROMPTS", 3)
    monkeypatch.setattr(import_module("xlens.engine.tally"), "SHARD_TOKENS", 60)
    run, options = verbs(model)[name]
    options = options | {"progress": False}
    run(model, parallel(), **options, store=tmp_path / "here")
    sent = Elsewhere()
    found = run(model, parallel(), **options, store=tmp_path / "there", executor=sent)
    here, there = shards(tmp_path / "here"), shards(tmp_path / "there")
    assert here and here == there
    if name not in ("variants", "scored"):  # whose shards are entries
        assert all(request.shards > 1 for request in sent.requests)
    one = found["b"] if isinstance(found, dict) else found
    assert one.provenance["hosts"] == ["elsewhere"]
    for request in sent.requests:
        again = pickle.loads(pickle.dumps(request.sent()))
        assert again == request and hash(again) == hash(request) and again.json == request.json
        assert json.loads(request.json) == request.key
        entry = Store(tmp_path / "there").entry(request.key, shards=request.shards)
        assert entry.complete and entry.hosts == {"elsewhere"}
    without = run(
        model, parallel(), **options, executor=Elsewhere()
    )  # through a folder for a while
    assert (without["b"] if isinstance(without, dict) else without).provenance["hosts"]


def test_requests_differ_in_what_decides_and_not_in_how_they_run(model):
    asked = Elsewhere()
    for options in (
        {},
        {"token_budget": 50},
        {"share_prefixes": False},
        {"layers": 1},
        {"slots": "all"},
        {"dtype": torch.float16},
        {"site": "mlp_out"},
        {"interventions": interventions.add(torch.ones(model.d_model), layers=1)},
    ):
        engine.harvest(model, parallel(), executor=asked, progress=False, **options)
    first, *others = asked.requests
    assert [request == first for request in others] == [True, True, *[False] * 5]
    assert len({*asked.requests}) == 6


def test_only_what_is_needed_is_sent(model):
    """A shard of prompts doesn't carry the others' vectors, nor what they were made of."""
    many = [p for n in range(50) for p in kit.mixed() if not n or p.text]
    prompts = [type(p)(p.text, p.language, f"{n}", p.spans) for n, p in enumerate(many)]
    each = torch.zeros(len(prompts), model.d_model)
    sizes = []

    class Measured(Elsewhere):
        def run(self, model, jobs, how):
            request, _ = jobs[0]
            sizes.extend(len(pickle.dumps(request.part(0, n).sent())) for n in (1, len(prompts)))
            super().run(model, jobs, how)

    push = interventions.add(each, layers=1, slot="last")
    engine.harvest(
        model, prompts, layers=1, interventions=push, progress=False, executor=Measured()
    )
    assert sizes[0] < 20_000 < sizes[1]


def test_an_executor_by_name():
    assert executors.find("local").here
    assert executors.find("ray") == Ray()
    assert executors.find("ray://head:10001") == Ray(address="ray://head:10001")
    told = executors.find("ray://head:10001?workers=4&cpus=2&gpus=0.5&shared=yes")
    assert told == Ray(address="ray://head:10001", workers=4, cpus=2, gpus=0.5, shared=True)
    assert executors.find("ray?gpus=0") == Ray(gpus=0.0)
    for wrong in (
        "",
        "rays",
        "ray:8",
        "rayhead:8",
        "ray?",
        "ray://head",
        "ray?cores=2",
        "ray?cpus=two",
        "slurm",
    ):
        with pytest.raises(ValueError, match="Unknown executor"):
            executors.find(wrong)
    with pytest.raises(ValueError, match="cpus is 0"):
        Ray(cpus=0)
    with pytest.raises(ValueError, match="token_budget is 0"):
        Execution(token_budget=0)


def test_without_ray_it_is_said_before_anything_runs(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with kit.passes(model) as passes, pytest.raises(ValueError, match=r"pip install 'xlens.*ray"):
        engine.harvest(model, parallel(), executor="ray", progress=False)
    assert passes == []
    with pytest.raises(ValueError, match="not installed"):
        executors.use("ray")
    assert executors.find(None).here


class FakeRay(types.ModuleType):
    """Connects to nothing."""

    def __init__(self, answer):
        super().__init__("ray")
        self.answer, self.asked = answer, []

    def is_initialized(self):
        return bool(self.asked)

    def init(self, **options):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.asked.append(options)


def test_a_cluster_that_does_not_answer_is_said_before_anything_runs(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray := FakeRay(None))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    for address in (f"ray://{nobody}", "ray://no.such.host.invalid:10001"):
        with kit.passes(model) as passes:
            with pytest.raises(ValueError, match=rf"No Ray cluster can be reached at {address} \("):
                engine.harvest(model, parallel(), executor=address, progress=False)
            with pytest.raises(ValueError, match="No Ray cluster can be reached"):
                executors.use(address)
        assert passes == [] and not ray.asked and executors.find(None).here
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(ValueError, match=f"No Ray cluster can be reached at {nobody}"):
        executors.find("ray").check()
    monkeypatch.delenv("RAY_ADDRESS")
    for problem in (ConnectionError("gone"), RuntimeError("version"), TimeoutError("slow")):
        ray.answer = problem
        with pytest.raises(ValueError, match=rf"reached at this machine \({problem}\)"):
            executors.find("ray").check()
    ray.answer = ImportError("no grpc")
    with pytest.raises(ValueError, match=r"not installed whole \(no grpc\): pip install 'xlens"):
        executors.find("ray").check()


def test_one_process_asks_one_cluster(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray := FakeRay(None))
    monkeypatch.setattr(cluster, "_connected", {})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "_require_answer", lambda _: None)
    executors.find("ray://one:1").check()
    executors.find("ray://one:1").check()
    executors.find("ray").check()
    assert [options["address"] for options in ray.asked] == ["ray://one:1"]
    with pytest.raises(ValueError, match=r"already \(ray://one:1\), and can't ask ray://two:1"):
        executors.find("ray://two:1").check()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_shared_folder_that_a_worker_can_not_write(code, model, tmp_path, monkeypatch):
    """Said with the worker's machine and the reason, before anything is computed."""
    engine.harvest(model, parallel(), executor=(asked := Elsewhere()), progress=False)
    (request,) = asked.requests
    worker = Worker(torch.get_num_threads(), gpu=False)
    worker._model = model
    entry = Store(tmp_path).entry(request.key, shards=request.shards)
    assert entry.claim(0)

    def refused(self, data):
        raise OSError(code, os.strerror(code))

    ask = (request.shard(0).sent(), Execution(progress=False), entry.path, entry.key)
    why = rf"worker on .*\(cpu\) can't write to .*: {os.strerror(code)}\. Give a store in"
    with monkeypatch.context() as patched, kit.passes(model) as passes:
        patched.setattr(Path, "write_bytes", refused)
        with pytest.raises(ValueError, match=why):
            worker.write(*ask, (0, request.shards))
    assert passes == [] and not list(entry.path.glob("probe*"))
    with pytest.raises(ValueError, match=r"can't write to .*: it does not see the driver's files"):
        worker.write(*ask[:2], tmp_path / "elsewhere", entry.key, (0, request.shards))
    worker.write(*ask, (0, request.shards))
    assert 0 in Store(tmp_path).entry(request.key, shards=request.shards).done


def test_what_has_no_name_is_not_sent(model):
    hook = model.blocks[0].register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ValueError, match="can't be run elsewhere"):
            engine.harvest(model, parallel(), executor=Elsewhere(), progress=False)
    finally:
        hook.remove()


def test_the_executor_in_use_runs_what_names_none(model, monkeypatch):
    base = import_module("xlens.engine.executors.base")
    monkeypatch.setattr(base, "_in_use", base._in_use)
    executors.use(used := Elsewhere())
    engine.score(model, parallel(), [" ja"], progress=False)
    engine.score(model, parallel(), [" ja"], progress=False, executor="local")
    assert len(used.requests) == 1
