"""Batches within a token budget, shared beginnings once, and which rows they fill."""

from importlib import import_module

import kit
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlens import Prompt, harvest
from xlens.engine import Batch, Group, plan
from xlens.engine.plan import KV_BUDGETS, MIN_SAVED, PASS_SHARE
from xlens.prompts import TokenizedPrompt, parse_slot

budgets = st.integers(1, 300)


@st.composite
def families(draw):
    """Sequences with common beginnings, some of them equal, one the beginning of another."""
    heads = draw(st.lists(st.lists(st.integers(0, 1), max_size=60), min_size=1, max_size=3))
    tail = st.lists(st.integers(0, 2), min_size=1, max_size=12)
    made = [
        tuple(draw(st.sampled_from(heads)) + draw(st.sampled_from(heads)) + draw(tail))
        for _ in range(draw(st.integers(1, 14)))
    ]
    return made + [s[: draw(st.integers(1, len(s)))] for s in made[:3]]


@given(families(), budgets, st.integers(1, 3))
def test_pieces_hold_what_the_batch_held(sequences, budget, longest):
    for batch in plan(sequences, budget):
        pieces = list(batch.pieces(longest))
        assert sorted(m for piece in pieces for m in piece.members) == sorted(batch.members)
        assert [rows for piece in pieces for rows in piece.passes] == list(batch.passes)
        assert sum((piece.pass_tokens for piece in pieces), ()) == batch.pass_tokens
        for piece in pieces:
            assert len(piece.passes) <= longest or not batch.prefix_tokens
            assert {m for rows in piece.passes for m in rows} <= {*piece.members}
            longest_prefix = max(group.prefix for group in piece.groups)
            assert piece.prefix_tokens == len(piece.groups) * longest_prefix


@given(families(), budgets, st.booleans())
def test_every_sequence_runs_once_within_the_budget(sequences, budget, share):
    batches = plan(sequences, budget, share=share)
    assert sorted(i for b in batches for i in b.members) == list(range(len(sequences)))
    for batch in batches:
        prefix = {m: g.prefix for g in batch.groups for m in g.members}
        assert len({p > 0 for p in prefix.values()}) == 1
        ran = sorted(i for rows in batch.passes for i in rows)
        assert ran == sorted(i for i in prefix if len(sequences[i]) > prefix[i])
        heads = [g.prefix for g in batch.groups if g.prefix]
        assert batch.prefix_tokens == len(heads) * max(heads, default=0)
        assert batch.prefix_tokens <= budget or len(heads) == 1
        for rows, size in zip(batch.passes, batch.pass_tokens, strict=True):
            longest = max(len(sequences[i]) - prefix[i] for i in rows)
            assert size == len(rows) * longest and (size <= budget or len(rows) == 1)
            places = len(rows) * (max(heads, default=0) + longest)
            assert not heads or places <= KV_BUDGETS * budget or len(rows) == 1
    sizes = [b.padded_tokens for b in batches]
    assert sizes == sorted(sizes, reverse=True)  # what does not fit fails at once


def saved(lengths):
    """The most padding that cutting a pass in two would save."""
    lengths = sorted(lengths, reverse=True)
    return max((lengths[0] - n) * (len(lengths) - at) for at, n in enumerate(lengths))


@given(families(), budgets | st.just(10_000), st.booleans())
def test_no_pass_is_padded_by_more_than_a_pass_costs(sequences, budget, share):
    cost = max(MIN_SAVED, budget // PASS_SHARE)
    for batch in plan(sequences, budget, share=share):
        prefix = {m: g.prefix for g in batch.groups for m in g.members}
        assert saved(g.prefix for g in batch.groups) <= 2 * cost
        assert all(saved(len(sequences[i]) - prefix[i] for i in p) <= cost for p in batch.passes)


def test_what_is_alike_in_length_runs_together():
    lengths = (90, 60, 88, 61, 89, 62, 87, 63)
    heads = [tuple(range(k * 1_000, k * 1_000 + n)) for k, n in enumerate(lengths)]
    sequences = [(*head, *[1] * rest, k) for head in heads for k, rest in enumerate((2, 3, 30))]
    long, short = plan(sequences, 2_048)
    assert [g.prefix for g in long.groups] == [92, 91, 90, 89]  # two tokens of what follows too
    assert [g.prefix for g in short.groups] == [65, 64, 63, 62]
    assert long.pass_tokens == short.pass_tokens == (4 * 29, 8 * 2)
    # Prefixes apart are two passes more: what saves more than one and less than two stays.
    few = [row for row in sequences if row[0] in (0, 1_000, 3_000)]
    (batch,) = plan(few, 2_048)
    prefixes = [g.prefix for g in batch.groups]
    assert prefixes == [92, 63, 62] and MIN_SAVED < saved(prefixes) < 2 * MIN_SAVED
    # Where passes are large, as on a GPU, one costs more than that.
    (batch,) = plan(sequences, 40_000)
    assert batch.pass_tokens == (24 * 29,)


@given(families(), budgets)
def test_groups_begin_alike_and_are_worth_it(sequences, budget):
    for group in (g for b in plan(sequences, budget) for g in b.groups if g.prefix):
        assert len({sequences[m][: group.prefix] for m in group.members}) == 1
        assert (len(group.members) - 1) * group.prefix >= MIN_SAVED


@given(st.lists(st.integers(1, 60), max_size=60), budgets)
def test_alike_in_length_together_and_batches_full(lengths, budget):
    sequences = [tuple(range(i * 100, i * 100 + n)) for i, n in enumerate(lengths)]
    batches = plan(sequences, budget)
    rows = [rows for b in batches for rows in b.passes]
    assert all(not b.prefix_tokens and b.passes == (b.members,) for b in batches)
    rows.sort(key=lambda r: -max(lengths[i] for i in r))
    in_order = [lengths[i] for r in rows for i in r]
    assert sum(len(r) * max(lengths[i] for i in r) for r in rows) == sum(
        b.padded_tokens for b in batches
    )
    assert in_order == sorted(lengths, reverse=True)


def test_examples():
    apart = [(1, 1, 1), (2,) * 9, (3,) * 4, (4,) * 4]
    assert [b.passes for b in plan(apart, 12)] == [((2, 3, 0),), ((1,),)]
    assert plan([], 12) == []

    header = tuple(range(40))
    shots = [(*header, 50), (*header, 51, 52), header, (99,)]
    whole = Batch((Group(0, (3,)),), ((3,),), 0, (1,))
    shared = Batch((Group(40, (0, 1, 2)),), ((1, 0),), 40, (4,))
    assert plan(shots, 64) == [shared, whole]
    assert plan(shots[2:], 64, share=True)[0].prefix_tokens == 0


def test_nested_beginnings_are_shared_where_that_saves_most():
    base, long = tuple(range(30)), tuple(range(100, 200))
    sequences = [(*base, *long, i) for i in range(3)] + [(*base, 300 + i) for i in range(2)]
    groups = {g for b in plan(sequences, 1_000) for g in b.groups}
    assert Group(130, (0, 1, 2)) in groups


def test_beginnings_nested_without_end():
    sequences = [tuple(range(n)) for n in range(1, 1_300)]  # each begins the next
    batches = plan(sequences, 10_000)
    assert sorted(m for b in batches for m in b.members) == list(range(len(sequences)))


def test_bad_input():
    with pytest.raises(ValueError, match="token_budget is 0"):
        plan([(1,)], 0)
    with pytest.raises(ValueError, match="at least one token"):
        plan([(1, 2), ()], 8)


def said(model, ids, mask, positions, layers, keep, cache=None):
    """A forward pass whose states say where they stand and which token they are."""
    here = mask[:, -ids.shape[1] :].bool()
    resid = torch.zeros(*ids.shape, model.d_model)
    resid[..., 0], resid[..., 1] = positions, ids
    resid[~here] = torch.nan  # padding
    for layer in layers:
        keep(layer, resid + layer)


@settings(max_examples=25, deadline=None)
@given(sequences=families(), budget=budgets, share=st.booleans(), data=st.data())
def test_rows_are_filled_with_the_prompts_own_states(sequences, budget, share, data, family_dir):
    model = kit.model(family_dir("gpt2"))
    prompts = []
    for n, ids in enumerate(sequences):
        ids = (9, *ids)
        start = data.draw(st.integers(1, len(ids) - 1))
        stop = data.draw(st.integers(start + 1, len(ids)))
        offsets = ((0, 1),) * len(ids)
        prompts.append(
            TokenizedPrompt(Prompt("x", "en", str(n)), ids, offsets, {"s": (start, stop)})
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "tokenize", lambda *_, **__: prompts)
        patch.setattr(import_module("xlens.engine.forward"), "forward", said)
        # The package's attribute of this name is the function.
        patch.setattr(import_module("xlens.engine.states"), "shares_prefixes", lambda _: True)
        acts = harvest(
            model,
            [p.prompt for p in prompts],
            layers=[0, 2],
            slots=["last", "all", "s:first", "s:last", "s:mean", "s:each", "s:predict"],
            token_budget=budget,
            share_prefixes=share,
            progress=False,
        )
    for name, kept in acts.slots.items():
        for i, prompt in enumerate(prompts):
            where = list(prompt.positions(parse_slot(name)))
            wanted = torch.tensor([[p, prompt.ids[p]] for p in where], dtype=torch.float32)
            positions = kept.positions[kept.offsets[i] : kept.offsets[i + 1]].tolist()
            if name == "s:mean":
                wanted = wanted.mean(0, keepdim=True)
                assert positions == [-1]
            else:
                assert positions == where
            got = acts.rows(name, i)[..., :2]
            torch.testing.assert_close(got, wanted + torch.tensor([0, 2]).view(2, 1, 1))


def test_prefixes_that_do_not_fit_a_budget_run_one_after_the_other():
    sequences = [(g,) * 100 + (1, i) for g in range(5) for i in range(3)]
    sequences += [(9,) * 300 + (1, i) for i in range(3)]
    batches = plan(sequences, 250)
    groups = [len(b.groups) for b in batches if b.prefix_tokens]
    assert sorted(groups) == [1, 1, 2, 2]
    for batch in batches:
        # Only one prefix that is itself longer than the budget may exceed it.
        assert batch.prefix_tokens <= 250 or len(batch.groups) == 1
