"""The streamed softmax against the whole one."""

import importlib
import math
from collections import Counter

import kit
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from xlens.engine import Streamed, stream
from xlens.lens import energy
from xlens.lens.energy import token_energy
from xlens.models import Readout
from xlens.models.passes import widest

MODULE = importlib.import_module("xlens.engine.stream")


def make_readout(d_model, d_vocab, *, bias=False, softcap=None, scale=1.0, norm=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unembed = nn.Linear(d_model, d_vocab, bias=bias)
    ln_final = nn.LayerNorm(d_model) if norm else nn.Identity()
    with torch.no_grad():
        for weight in [*unembed.parameters(), *ln_final.parameters()]:
            weight.normal_(generator=generator)
    return Readout(
        ln_final, unembed, softcap=softcap, logit_scale=scale, fingerprint=lambda: "planted"
    )


def naive(readout: Readout, resid, targets=None, top_k=1) -> Streamed:
    """Everything from the full logits, in double precision."""
    logits = readout.logits(resid).double()
    logprobs = logits.log_softmax(-1)
    probs = logprobs.exp()
    top = logprobs.topk(top_k, dim=-1)
    masses = ranks = None
    if targets is not None:
        there = targets >= 0
        at = logprobs.gather(-1, targets.clamp_min(0).flatten(1).repeat(len(resid), 1, 1))
        at = at.view(*resid.shape[:2], *targets.shape[1:]).masked_fill(~there, -math.inf)
        masses = at.logsumexp(-1)
        best = at.amax(-1)
        ranks = 1 + (logprobs.unsqueeze(2) > best.unsqueeze(-1) + 1e-5).sum(-1)
        ranks = ranks.masked_fill(~there.any(-1), 0)
    return Streamed(
        entropy=(-(probs * logprobs).sum(-1) / math.log(2)).float(),
        kl=((probs[-1] * (logprobs[-1] - logprobs)).sum(-1) / math.log(2)).float(),
        top_ids=top.indices,
        top_logprobs=top.values.float(),
        set_logprobs=None if masses is None else masses.float(),
        set_ranks=ranks,
    )


def random_sets(generator, n_rows, n_sets, size, d_vocab):
    """Disjoint sets in each row, padded with -1; some are empty."""
    sets = torch.full((n_rows, n_sets, size), -1)
    for row in sets:
        order = torch.randperm(d_vocab, generator=generator)
        for s, place in enumerate(row):
            ids = order[s * size : (s + 1) * size]
            ids = ids[: int(torch.randint(size + 1, (), generator=generator))]
            place[: len(ids)] = ids
    return sets


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(2, 9)),
    d_vocab=st.integers(2, 90),
    row_tile=st.integers(1, 20),
    vocab_tile=st.integers(1, 40),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    scale=st.sampled_from([1.0, 0.3]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_streamed_is_naive(shape, d_vocab, row_tile, vocab_tile, bias, softcap, scale, seed, data):
    top_k = data.draw(st.integers(1, min(7, d_vocab)))
    n_sets, size = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    readout = make_readout(shape[-1], d_vocab, bias=bias, softcap=softcap, scale=scale, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    resid = 3 * torch.randn(shape, generator=generator)
    targets = random_sets(generator, shape[1], n_sets, size, d_vocab)

    options = {"targets": targets, "top_k": top_k}
    got = stream(readout, resid, **options, row_tile=row_tile, vocab_tile=vocab_tile)
    wanted = naive(readout, resid, **options)

    close = {"atol": 2e-4, "rtol": 1e-5}
    torch.testing.assert_close(got.entropy, wanted.entropy, **close)
    torch.testing.assert_close(got.kl, wanted.kl.clamp_min(0), **close)
    torch.testing.assert_close(got.top_logprobs, wanted.top_logprobs, **close)
    logprobs = readout.logits(resid).double().log_softmax(-1)
    torch.testing.assert_close(  # the ids named have the log-probabilities stated
        got.top_logprobs, logprobs.gather(-1, got.top_ids).float(), **close
    )
    assert all(len(set(row.tolist())) == top_k for row in got.top_ids.flatten(0, 1))
    torch.testing.assert_close(got.set_logprobs, wanted.set_logprobs, **close)
    # Ties are rounding's to decide: between those surely above and those perhaps above.
    best = logprobs.gather(-1, targets.clamp_min(0).flatten(1).repeat(shape[0], 1, 1))
    best = best.view(*shape[:2], n_sets, size).masked_fill(targets < 0, -math.inf).amax(-1)
    surely, perhaps = (
        1 + (logprobs.unsqueeze(2) > best.unsqueeze(-1) + by).sum(-1) for by in (1e-4, -1e-4)
    )
    there = ~best.isneginf()
    assert ((got.set_ranks >= surely) & (got.set_ranks <= perhaps))[there].all()

    empty = (targets < 0).all(-1)
    assert got.set_logprobs[:, empty].isneginf().all() and not got.set_ranks[:, empty].any()
    assert (got.set_logprobs.exp().sum(-1) <= 1 + 1e-6).all()  # disjoint
    assert (got.kl[-1] < 1e-4).all() and (got.entropy >= 0).all()


def test_top_ids_are_the_naive_ones():
    readout = make_readout(8, 1000, bias=True)
    resid = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(1))
    got = stream(readout, resid, top_k=10, row_tile=7, vocab_tile=33)
    assert torch.equal(got.top_ids, naive(readout, resid, top_k=10).top_ids)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_on_a_models_readout(family, family_dir):
    readout = kit.model(family_dir(family)).readout
    resid = torch.randn(4, 30, readout.d_model, generator=torch.Generator().manual_seed(0))
    got = stream(readout, resid, layers=range(4), top_k=5, row_tile=13, vocab_tile=101)
    wanted = naive(readout, resid, top_k=5)
    for name in ("entropy", "kl", "top_logprobs"):
        torch.testing.assert_close(
            getattr(got, name), getattr(wanted, name), atol=1e-4, rtol=1e-5, msg=name
        )


def test_the_answer_does_not_depend_on_the_tiles():
    readout = make_readout(16, 500)
    generator = torch.Generator().manual_seed(0)
    resid = torch.randn(5, 11, 16, generator=generator)
    targets = random_sets(generator, 11, 2, 6, 500)
    whole = stream(readout, resid, targets=targets, row_tile=10_000, vocab_tile=10_000)
    for row_tile, vocab_tile in ((1, 1), (5, 499), (12, 7), (256, 64)):
        tiles = stream(readout, resid, targets=targets, row_tile=row_tile, vocab_tile=vocab_tile)
        assert torch.equal(tiles.top_ids, whole.top_ids)
        assert torch.equal(tiles.set_ranks, whole.set_ranks)
        for name in ("entropy", "kl", "top_logprobs", "set_logprobs"):
            torch.testing.assert_close(
                getattr(tiles, name), getattr(whole, name), atol=1e-4, rtol=1e-5, msg=name
            )


def test_peaked_and_flat_distributions():
    """Where exponentials overflow or all is equal: exact answers are known."""
    readout = make_readout(4, 64, norm=False)
    with torch.no_grad():
        readout._weight.zero_()
        readout._weight[5, 0] = 1.0
    resid = torch.tensor([[[0.0, 0, 0, 0]], [[500.0, 0, 0, 0]], [[math.log(63), 0, 0, 0]]])
    read = stream(readout, resid, targets=torch.tensor([[[5], [6]]]), top_k=1, vocab_tile=3)
    torch.testing.assert_close(
        read.entropy[:, 0], torch.tensor([6.0, 0.0, 1 + math.log2(63) / 2]), atol=1e-4, rtol=0
    )
    # Against the last, which has 1/2 on token 5 and 1/126 on each other.
    flat = 0.5 * math.log2(0.5 * 64) + 0.5 * math.log2(64 / 126)
    assert read.kl[0, 0].item() == pytest.approx(flat, abs=1e-4)
    assert read.kl[2, 0].item() == 0
    assert read.set_logprobs[1, 0].tolist() == pytest.approx([0, -500])
    assert read.set_ranks[:, 0].tolist() == [[1, 1], [1, 2], [1, 2]]


def test_a_token_never_outranks_itself(family_dir):
    """Though its logit as a target and in a tile differ in the last bits."""
    for family in tiny.FAMILIES:
        readout = kit.model(family_dir(family)).readout
        resid = 5 * torch.randn(2, 300, readout.d_model, generator=torch.Generator().manual_seed(3))
        best = readout.logits(resid[0]).argmax(-1)
        alone = {"layers": [0], "targets": best[:, None, None]}
        read = stream(readout, resid[:1], **alone, vocab_tile=97)
        assert (read.set_ranks == 1).all()
        torch.testing.assert_close(
            read.set_logprobs[..., 0], read.top_logprobs[..., 0], atol=1e-5, rtol=1e-5
        )


def test_kl_of_a_layer_with_itself_is_zero_and_only_if_asked():
    readout = make_readout(8, 200)
    layer = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    read = stream(readout, layer.repeat(3, 1, 1), vocab_tile=17)
    assert (read.kl < 1e-5).all()
    plain = stream(readout, layer)
    assert plain.set_logprobs is None and plain.set_ranks is None
    targets = torch.zeros(6, 1, 1, dtype=torch.long)
    every = stream(readout, layer, targets=targets)
    few = stream(readout, layer, targets=targets, statistics=(), top_k=0)
    assert few.kl is None and few.entropy is None and few.set_ranks is None
    assert few.top_ids.shape == few.top_logprobs.shape == (1, 6, 0)
    assert torch.equal(few.set_logprobs, every.set_logprobs)


@pytest.mark.parametrize("n_layers", [1, 5])
def test_memory_is_bounded_by_the_tiles(n_layers, monkeypatch):
    readout = make_readout(8, 2_000)
    resid = torch.randn(n_layers, 60, 8)
    seen: list[tuple[int, int]] = []
    whole = Readout._project

    def watched(self, normed, *items):
        out = whole(self, normed, *items)
        seen.append(tuple(out.shape))
        return out

    monkeypatch.setattr(Readout, "_project", watched)
    stream(readout, resid, targets=torch.zeros(60, 2, 3, dtype=torch.long), row_tile=20,
           vocab_tile=64)  # fmt: skip
    assert len(seen) > 90
    assert all(rows <= 20 and width <= 64 for rows, width in seen)


class Operations(TorchDispatchMode):
    """Counts what torch is asked for, by name, and the dtypes that come of it."""

    def __init__(self):
        super().__init__()
        self.names, self.dtypes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names[func._schema.name] += 1
        if isinstance(out, torch.Tensor):
            self.dtypes[out.dtype] += 1
        return out


def test_nothing_waits_for_a_device_from_tile_to_tile(monkeypatch):
    """On a GPU `nonzero` and `item` wait until everything asked for has been computed."""
    readout, resid = make_readout(8, 500), torch.randn(3, 60, 8)
    targets = torch.randint(500, (60, 2, 3))
    wanted = stream(readout, resid, targets=targets, row_tile=30, vocab_tile=50)
    monkeypatch.setattr(MODULE, "looks_first", lambda _: False)
    found, seen = [], []
    for tile in (50, 25):
        with Operations() as counted:
            found.append(stream(readout, resid, targets=targets, row_tile=30, vocab_tile=tile))
        waits = ("nonzero", "_local_scalar_dense", "masked_select", "is_nonzero")
        seen.append(sum(counted.names[f"aten::{name}"] for name in waits))
    assert seen[0] == seen[1] <= 1  # twice the tiles; the targets are looked at once
    for got in found:
        for name, value in vars(wanted).items():
            torch.testing.assert_close(getattr(got, name), value, msg=name)


def test_a_tile_of_the_vocabulary_is_widened_once_for_many_tiles_of_rows(monkeypatch):
    readout, widened = make_readout(8, 500), []
    whole = Readout.onto
    monkeypatch.setattr(
        Readout, "onto", lambda self, items: (widened.append(items), whole(self, items))[1]
    )
    stream(readout, torch.randn(2, 300, 8), row_tile=20, vocab_tile=100)
    assert len(widened) == 5


def test_no_fp64_where_a_device_has_none(monkeypatch):
    readout, resid = make_readout(8, 500), torch.randn(3, 20, 8)
    targets = torch.randint(500, (20, 2, 3))
    wanted = stream(readout, resid, targets=targets)
    assert widest(torch.device("mps")) == torch.float32
    assert {widest(torch.device(d)) for d in ("cpu", "cuda")} == {torch.float64}
    monkeypatch.setattr(MODULE, "widest", lambda _: torch.float32)
    with Operations() as counted:
        got = stream(readout, resid, targets=targets)
    assert torch.float64 not in counted.dtypes
    for name, value in vars(wanted).items():
        torch.testing.assert_close(getattr(got, name), value, msg=name, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": torch.tensor([[[50]]])}, r"Target id 50 lies outside the vocabulary of 50"),
        ({"top_k": -1}, r"top_k is -1; accepted are 0 to d_vocab = 50"),
        ({"top_k": 51}, r"top_k is 51"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        stream(make_readout(4, 50), torch.randn(2, 1, 4), **options)


# --- token energy ---


def test_energy_of_an_orthonormal_vocabulary_is_one():
    readout = make_readout(12, 12, norm=False)
    with torch.no_grad():
        readout._weight.copy_(nn.init.orthogonal_(torch.empty(12, 12)) * 7)
    resid = torch.randn(3, 5, 12)
    torch.testing.assert_close(token_energy(readout, resid), torch.ones(3, 5))


def test_energy_is_its_definition_and_ignores_length():
    readout = make_readout(10, 77, bias=True)
    resid = torch.randn(4, 6, 10)
    rows = readout.W_U.T * readout.norm_gain
    unit = rows / rows.norm(dim=-1, keepdim=True)
    states = resid / resid.norm(dim=-1, keepdim=True)
    wanted = ((states @ unit.T) ** 2).mean(-1).sqrt() / ((unit @ unit.T).norm() / 77)
    torch.testing.assert_close(token_energy(readout, resid), wanted)
    torch.testing.assert_close(token_energy(readout, 1e3 * resid), wanted)


def test_energy_is_low_off_the_vocabulary_and_high_on_it():
    readout = make_readout(8, 40, norm=False)
    with torch.no_grad():
        readout._weight[:, 4:] = 0  # no token points there
    resid = torch.zeros(2, 1, 8)
    resid[0, 0, 6] = 1
    resid[1, 0, 1] = 1
    off, on = token_energy(readout, resid)[:, 0].tolist()
    assert off == 0 and on > 0.5


def test_energy_does_not_depend_on_the_tile(monkeypatch):
    readout = make_readout(8, 100)
    resid = torch.randn(2, 3, 8)
    wanted = token_energy(readout, resid)
    monkeypatch.setattr("xlens.lens.energy._TILE", 7)
    monkeypatch.setattr("xlens.lens.energy._made", {})  # of the other tiles
    torch.testing.assert_close(token_energy(readout, resid), wanted)


def test_the_vocabulary_is_gone_through_once_for_the_same_weights(monkeypatch):
    model = kit.fresh("llama")
    gone, own = [], energy._computed
    monkeypatch.setattr(energy, "_computed", lambda readout: gone.append(readout) or own(readout))
    resid = torch.randn(2, 3, model.d_model)
    before = token_energy(model.readout, resid)
    assert torch.equal(token_energy(model.readout, resid), before)
    assert len(gone) == 1
    with torch.no_grad():
        model.hf_model.get_output_embeddings().weight[:9] *= -3
        model.hf_model.get_output_embeddings().weight[:9, 0] += 1
    after = token_energy(model.readout, resid)
    assert len(gone) == 2
    assert not torch.allclose(after, before)
    monkeypatch.setattr(energy, "_made", {})
    assert torch.equal(token_energy(model.readout, resid), after)
