"""What leaves a device: few copies, in the model's dtype, through memory that is used again.

CUDA's part is played by a lane that fills its buffers only when it is waited for.
"""

from collections import Counter
from importlib import import_module

import kit
import pytest
import torch
from test_shared import SLOTS, parallel

import xlens
from xlens.engine import attention, copies, harvest, harvest_variants, interventions, tally
from xlens.engine.copies import HostCopies, Lane
from xlens.prompts import Prompt
from xlens.store import parts


class LateLane(Lane):
    """A device's way to the host, on the CPU: what is sent is there when it is waited for."""

    def __init__(self, log):
        self.device, self._free, self.log = torch.device("cpu"), [], log

    def send(self, flat):
        size = flat.numel() * flat.element_size()
        buffer = self._buffer(size)
        buffer.fill_(255)  # NaN, and what nobody may read yet
        self.log["copies"] += 1
        self.log[flat.dtype] += size
        return buffer, lambda: buffer[:size].view(flat.dtype).copy_(flat)

    def pinned(self, size):
        self.log["allocations"] += 1
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8)


@pytest.fixture
def log(monkeypatch):
    found = Counter()
    monkeypatch.setattr(copies, "lane_of", lambda _: LateLane(found))
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_copy_a_pass_through_memory_used_again(family, dtype, family_dir, monkeypatch):
    model = xlens.load(family_dir(family), dtype=dtype, device="cpu")
    prompts = parallel()
    asked = {"slots": "all", "share_prefixes": False, "token_budget": 60, "progress": False}
    wanted = harvest(model, prompts, **asked)
    passes = []
    handle = model.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
    log = Counter()
    monkeypatch.setattr(copies, "lane_of", lambda _: LateLane(log))
    try:
        got = harvest(model, prompts, **asked)
    finally:
        handle.remove()
    assert torch.equal(got.slot("all").values, wanted.slot("all").values)
    assert log["copies"] == len(passes) > 3
    assert log["allocations"] <= 3
    # The model's own dtype on the way, widened on the host.
    assert {key for key in log if isinstance(key, torch.dtype)} == {dtype}
    assert log[dtype] == got.slot("all").values.numel() * dtype.itemsize


def test_every_slot_and_shared_beginnings(family_dir, log):
    model = kit.model(family_dir("llama"))
    got = harvest(model, parallel(), slots=SLOTS, token_budget=60, progress=False)
    copied = log["copies"]
    assert copied
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "lane_of", lambda _: None)
        wanted = harvest(model, parallel(), slots=SLOTS, token_budget=60, progress=False)
    for slot in SLOTS:
        assert torch.equal(got.slot(slot).values, wanted.slot(slot).values), slot


def test_a_narrower_dtype_is_made_before_it_leaves(family_dir, log):
    model = kit.model(family_dir("gpt2"))
    asked = [Prompt("abc def", "en", "1")]
    harvest(model, asked, slots="all", dtype=torch.bfloat16, progress=False)
    assert torch.bfloat16 in log and torch.float32 not in log


def test_a_batch_that_failed_leaves_nothing(family_dir, log):
    model = kit.model(family_dir("llama"))
    asked = {"slots": SLOTS, "token_budget": 60, "progress": False}
    wanted = harvest(model, parallel(), share_prefixes=False, **asked)
    failures = iter([False, False, True, False, False, True])

    def sometimes(_module, _args):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = model.blocks[-1].register_forward_pre_hook(sometimes)
    try:
        got = harvest(model, parallel(), **asked)
    finally:
        handle.remove()
    for slot in SLOTS:
        assert kit.relative_error(got.slot(slot).values, wanted.slot(slot).values) < 2e-5, slot


def test_a_batch_lands_while_the_next_one_runs():
    order = []
    mine = HostCopies()
    mine._lanes[torch.device("cpu")] = LateLane(Counter())
    for n in range(3):
        mine.take(torch.full((2,), float(n)), lambda host: order.append(host.tolist()))
        order.append(f"ran {n}")
        mine.commit()
        mine.then(lambda n=n: order.append(f"told {n}"))
    mine.finish()
    landed = [[float(n)] * 2 for n in range(3)]
    assert order == ["ran 0", "ran 1", landed[0], "told 0", "ran 2", landed[1], "told 1",
                     landed[2], "told 2"]  # fmt: skip


def test_much_leaves_in_several_copies(monkeypatch):
    log, found = Counter(), []
    monkeypatch.setattr(copies, "STAGE_BYTES", 1_000)
    mine = HostCopies()
    mine._lanes[torch.device("cpu")] = LateLane(log)
    for n in range(10):
        mine.take(torch.full((100,), float(n)), lambda host: found.append(float(host.sum())))
    mine.commit()
    mine.finish()
    assert found == [100.0 * n for n in range(10)]
    assert log["copies"] == 4


def test_tallies_too(family_dir, log):
    model = kit.model(family_dir("gpt2"))
    got = tally(model, parallel(), token_budget=60, progress=False)
    assert log["copies"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "lane_of", lambda _: None)
        wanted = tally(model, parallel(), token_budget=60, progress=False)
    assert (got.counts == wanted.counts).all() and (got.sums == wanted.sums).all()


@pytest.mark.parametrize("least", [0, 10**9])
def test_rows_side_by_side_are_added_as_rows_by_index_are(least, family_dir, monkeypatch):
    """0: a run may be as short as it likes. A milliard: none is long enough."""
    model = kit.model(family_dir("llama"))
    asked = {"slots": SLOTS, "token_budget": 60, "progress": False}
    wanted = harvest(model, parallel(), **asked)
    monkeypatch.setattr(import_module("xlens.engine.states"), "RUN", least)
    got = harvest(model, parallel(), **asked)
    for slot in SLOTS:
        assert torch.equal(got.slot(slot).values, wanted.slot(slot).values), slot


def test_what_is_kept_of_a_killed_run_has_landed(family_dir, log, tmp_path, monkeypatch):
    """A batch is told as done when its states are there, and not when it ran."""
    model = kit.model(family_dir("llama"))
    asked = {"slots": SLOTS, "token_budget": 40, "share_prefixes": False, "progress": False}
    with kit.passes(model) as passes:
        wanted = harvest(model, parallel(), **asked)
    monkeypatch.setattr(parts, "PART_SECONDS", 0.0)
    with kit.passes(model, stop=len(passes) - 1), pytest.raises(KeyboardInterrupt):
        harvest(model, parallel(), **asked, store=tmp_path)
    with kit.passes(model) as rest:
        got = harvest(model, parallel(), **asked, store=tmp_path)
    assert len(rest) < len(passes) / 2
    for slot in SLOTS:
        assert torch.equal(got.slot(slot).values, wanted.slot(slot).values), slot


def variants(model):
    pushed = interventions.add(torch.ones(model.d_model), layers=1, slot="last")
    asked = {"plain": (), "pushed": pushed}
    found = harvest_variants(model, parallel(), asked, token_budget=60, progress=False)
    return [found[name].slot("last").values for name in asked]


def masses(model):
    found = attention(model, parallel(), ["context"], token_budget=60, progress=False)
    return [torch.from_numpy(x) for x in (found.mass, found.top, found.rest, found.sink)]


@pytest.mark.parametrize("verb", [variants, masses])
def test_the_last_batch_lands_in_every_verb(verb, family_dir, log):
    model = kit.model(family_dir("llama"))
    got = verb(model)
    assert log["copies"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "lane_of", lambda _: None)
        wanted = verb(model)
    for here, there in zip(got, wanted, strict=True):
        assert torch.equal(here, there)


def test_memory_of_a_batch_is_used_again_when_it_landed_or_failed_and_not_before():
    log, found, zero = Counter(), [], torch.zeros(100)
    mine = HostCopies()
    mine._lanes[torch.device("cpu")] = LateLane(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "STAGE_BYTES", 1)  # each tensor leaves at once
        for _ in range(3):
            mine.take(zero, found.append)
            mine.discard()
        assert (log["copies"], log["allocations"]) == (3, 1)
        mine.take(zero, lambda host: found.append(host.clone()))
        mine.commit()  # and lands late: meanwhile its memory is its own
        mine.discard()
        mine.take(zero + 1, lambda host: found.append(host.clone()))
        assert log["allocations"] == 2
        mine.commit()
        mine.finish()
    assert [float(x.sum()) for x in found] == [0.0, 100.0]
