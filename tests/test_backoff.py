"""Out of memory: the budget is halved, what is left is planned again, nothing is kept twice."""

import gc
import sys
import weakref
from contextlib import contextmanager

import kit
import pytest
import torch
from test_shared import SLOTS, parallel

from xlens.engine import backoff, trust
from xlens.engine.generate import generate
from xlens.engine.harvest import harvest
from xlens.engine.relevance import relevance
from xlens.prompts import Prompt

NO_ROOM = "CUDA out of memory. Tried to allocate more than there is."


def _out_above(model, limit, monkeypatch):
    """Fail where a pass is larger than `limit` tokens, in the middle of the model."""

    def check(_module, args, kwargs):
        shape = (args[0] if args else kwargs["hidden_states"]).shape
        if shape[0] * shape[1] > limit:
            raise torch.cuda.OutOfMemoryError(NO_ROOM)

    return model.blocks[1].register_forward_pre_hook(check, with_kwargs=True)


def test_the_exact_sequence_of_budgets(family_dir, monkeypatch, caplog):
    model = kit.model(family_dir("gpt2"))
    prompts = [Prompt("x" + chr(97 + i) * 7, "en", str(i)) for i in range(20)]
    wanted = harvest(model, prompts, share_prefixes=False, progress=False)
    lengths = [len(t) for t in model.tokenize(prompts)]
    budgets = []
    real_plan = backoff.plan

    def watched(codes, budget, **options):
        budgets.append((budget, len(codes)))
        return real_plan(codes, budget, **options)

    monkeypatch.setattr(backoff, "plan", watched)
    handle = _out_above(model, 3 * max(lengths), monkeypatch)
    try:
        got = harvest(model, prompts, share_prefixes=False, token_budget=10**6, progress=False)
    finally:
        handle.remove()
    # From what was really run, halved each time until three prompts fit.
    size = len(lengths) * max(lengths)
    expected = [10**6]
    budget = size // 2
    while True:
        expected.append(budget)
        padded = max(1, budget // max(lengths)) * max(lengths)
        if padded <= 3 * max(lengths):
            break
        budget = min(budget, padded) // 2
    assert [b for b, _ in budgets] == expected
    assert budgets[-1][1] == len(prompts)
    assert caplog.text.count("Out of memory: going on with a token budget") == len(expected) - 1
    assert kit.relative_error(got.get("last"), wanted.get("last")) < 1e-5


def test_what_was_done_stays_and_every_row_is_its_own(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    prompts = parallel()
    wanted = harvest(model, prompts, slots=SLOTS, share_prefixes=False, progress=False)
    assert trust.shares_prefixes(model)
    failures = iter([False, False, True, False, False, True])

    def sometimes(_module, _args):
        if next(failures, False):
            raise torch.cuda.OutOfMemoryError(NO_ROOM)

    handle = model.blocks[-1].register_forward_pre_hook(sometimes)
    try:
        got = harvest(model, prompts, slots=SLOTS, token_budget=60, progress=False)
    finally:
        handle.remove()
    assert next(failures, "used up") == "used up"
    for slot in SLOTS:
        error = kit.relative_error(got.slot(slot).values, wanted.slot(slot).values)
        assert error < 2e-5, slot


def test_of_prompts_with_one_beginning_a_failure_loses_one_pass(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    begun = "the old house on the hill is red and the small one is blue, said "
    ends = [f"{name} and {name * 2}" for name in "abcdefghijkl"]
    prompts = [Prompt(begun + end, "en", end, spans={"begun": (0, len(begun) + 3)}) for end in ends]
    slots = ["all", "last", "begun:mean"]
    wanted = harvest(model, prompts, slots=slots, share_prefixes=False, progress=False)
    rows: list[int] = []
    moves: list[int] = []

    @contextmanager
    def bar(*_):
        yield lambda done: moves.append(len(done))

    def once(_module, args):
        rows.append(len(args[0]))
        if len(rows) == 4:  # of the beginning, then of three passes behind it
            raise torch.cuda.OutOfMemoryError(NO_ROOM)

    monkeypatch.setattr(sys.modules["xlens.engine.states"], "token_bar", bar)
    handle = model.blocks[-1].register_forward_pre_hook(once)
    try:
        got = harvest(model, prompts, slots=slots, token_budget=20, progress=False)
    finally:
        handle.remove()
    assert rows[0] == rows[4] == 1 and min(rows[1:4]) > 1, "a beginning, and passes of several"
    assert sum(rows[5:]) == len(prompts) - sum(rows[1:3])
    assert sum(moves) == len(prompts) and [n for n in moves if n] == [*rows[1:3], *rows[5:]]
    for slot in slots:
        assert kit.relative_error(got.slot(slot).values, wanted.slot(slot).values) < 2e-5, slot


@pytest.mark.parametrize("verb", ["harvest", "generate", "relevance"])
def test_what_a_failed_pass_held_is_let_go_before_the_cache_is_cleared(
    verb, family_dir, monkeypatch
):
    """Else clearing it frees nothing: the smaller pass would stand beside the larger one."""
    model, prompts = kit.model(family_dir("llama")), list(parallel())
    held, alive = [], []

    def full(_module, args):
        shape = args[0].shape
        if shape[0] * shape[1] > 60:
            held.append(weakref.ref(args[0]))
            raise torch.cuda.OutOfMemoryError(NO_ROOM)

    def cleared(*, garbage_collection):
        assert garbage_collection
        gc.collect()  # as it does first
        alive.extend(ref() is not None for ref in held)

    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", cleared)
    run = {
        "harvest": lambda: harvest(model, prompts, slots="all", progress=False),
        "generate": lambda: generate(model, prompts, max_new_tokens=2, progress=False),
        "relevance": lambda: relevance(model, prompts, targets=[5] * len(prompts), progress=False),
    }
    handle = model.blocks[1].register_forward_pre_hook(full)
    try:
        run[verb]()
    finally:
        handle.remove()
    assert alive and not any(alive)


def test_a_single_prompt_that_does_not_fit(family_dir, monkeypatch):
    model = kit.model(family_dir("gpt2"))
    handle = _out_above(model, 3, monkeypatch)
    try:
        with pytest.raises(MemoryError, match=r"A prompt of \d+ tokens alone does not fit"):
            harvest(model, [Prompt("abcdefgh", "en", "1")], token_budget=64, progress=False)
    finally:
        handle.remove()


def test_a_probe_that_ran_out_of_memory_says_nothing_of_the_cache(monkeypatch, caplog):
    model = kit.fresh("llama")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(trust, "run_batch", full)
        assert not trust.shares_prefixes(model)
    assert trust.shares_prefixes(model) and not caplog.records


def test_other_errors_are_not_swallowed(family_dir):
    model = kit.model(family_dir("gpt2"))

    def broken(*_args):
        raise RuntimeError("something else")

    handle = model.blocks[0].register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            harvest(model, [Prompt("abc", "en", "1")], share_prefixes=False, progress=False)
    finally:
        handle.remove()
