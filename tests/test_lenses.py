"""Lenses: each against an independent reading, on models whose truth is known."""

import dataclasses
import json
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
import xlens
from xlens import Prompt, harvest, logit_lens, trace
from xlens.engine import jacobian as core
from xlens.engine import many_rows, score
from xlens.engine.folded import FoldedMLP
from xlens.engine.stream import stream
from xlens.lens import (
    LOGIT,
    JacobianLens,
    TunedLens,
    find_lens,
    fit_jacobian_lens,
    fit_tuned_lens,
    pooled,
    read_jacobian_lens,
    read_tuned_lens,
    whole_word_lens,
    write_jacobian_lens,
)
from xlens.models.hooks import residual
from xlens.results import load
from xlens.store import Store
from xlens.store import parts as store_parts
from xlens.tasks.running_text import fact_texts
from xlens.testbed.atlas.facts import atlas_facts

TEXTS = [
    Prompt("The cat sat on the mat and looked at the moon over the old river.", "en", "1"),
    Prompt(
        "Wo liegt die Stadt, in der der Fluss ins Meer geht, und wer hat sie gebaut?", "de", "2"
    ),
    Prompt("A short walk through the old town takes us to the harbour and back.", "en", "3"),
    Prompt("Ein Spaziergang durch die alte Stadt geht bis zum Hafen und zurück.", "de", "4"),
]
SKIP, MOST = 4, 24


def by_hand(model, ids, points, skip):
    """One row after the other, over the whole text, without a cache."""
    states = {}

    def caught(point, resid):
        states[point] = resid.detach().requires_grad_() if point == points[0] else resid
        return states[point]

    counted = list(range(skip, len(ids) - 1))
    with (
        model.evaluating(),
        torch.enable_grad(),
        residual(model.blocks, [*points, model.n_layers], caught),
    ):
        model.body(input_ids=torch.tensor([list(ids)]), use_cache=False)
    out = np.zeros((len(points), model.d_model, model.d_model))
    top, sources = states[model.n_layers], [states[p] for p in points]
    for i in range(model.d_model):
        total = top[0, counted, i].sum()
        found = torch.autograd.grad(total, sources, retain_graph=True)
        for j, gradient in enumerate(found):
            out[j, i] = gradient[0, counted].mean(0).numpy()
    return out


@pytest.fixture(scope="module")
def model():
    return xlens.load(tiny.model("llama"), tiny.tokenizer("llama"))


@pytest.fixture(scope="module")
def lenses(model):
    return fit_jacobian_lens(model, TEXTS, skip=SKIP, max_tokens=MOST, progress=False)


# --- the Jacobian lens ---


@pytest.mark.parametrize(
    "family",
    [
        f if f in ("gpt2", "gemma2") else pytest.param(f, marks=pytest.mark.slow)
        for f in (*tiny.FAMILIES, "mixtral")
    ],
)
def test_jacobians_equal_those_made_row_by_row(family):
    model = xlens.load(tiny.model(family), tiny.tokenizer(family))
    found = core.jacobians(model, TEXTS[:2], skip=SKIP, max_tokens=MOST, progress=False)
    assert found.layers == tuple(range(model.n_layers))  # the embedding among them
    ids = [t.ids[:MOST] for t in model.tokenize(TEXTS[:2])]
    wanted = sum(by_hand(model, each, found.layers, SKIP) for each in ids)
    np.testing.assert_allclose(found.sums, wanted, atol=3e-6 * np.abs(wanted).max())
    assert set(found.counts) == {2}


def test_no_value_depends_on_the_budget_or_on_neighbours(model, monkeypatch):
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False}
    monkeypatch.setattr(core, "MOST_SHARDS", 1)  # all texts in one graph
    together = core.jacobians(model, TEXTS, **how).sums
    tight = core.jacobians(model, TEXTS, token_budget=40, **how).sums
    alone = sum(core.jacobians(model, [text], **how).sums for text in TEXTS)
    monkeypatch.setattr(core, "shares_prefixes", lambda _: False)
    unshared = core.jacobians(model, TEXTS, **how).sums
    for other in (tight, alone, unshared):
        np.testing.assert_allclose(other, together, atol=1e-5 * np.abs(together).max())


def test_weights_and_their_gradients_stay_as_they_are(model):
    before = [(p.clone(), p.requires_grad) for p in model.hf_model.parameters()]
    core.jacobians(model, TEXTS[:1], skip=SKIP, max_tokens=MOST, progress=False)
    for p, (value, wanted) in zip(model.hf_model.parameters(), before, strict=True):
        assert torch.equal(p, value) and p.requires_grad == wanted and p.grad is None


def test_blocks_that_add_nothing_give_the_identity():
    hf = tiny.model("llama")
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    model = xlens.load(hf, tiny.tokenizer("llama"))
    found = fit_jacobian_lens(model, TEXTS[:2], skip=SKIP, max_tokens=MOST, progress=False)
    for lens in found.values():
        assert np.array_equal(lens.matrices, np.broadcast_to(np.eye(64), lens.matrices.shape))
        assert (lens.to_frame()["distance"] == 0).all()


def test_mlps_are_folded_where_that_spares_work(model, monkeypatch):
    made = []
    usual = FoldedMLP.matrices
    monkeypatch.setattr(FoldedMLP, "matrices", lambda self: made.append(self) or usual(self))
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False}
    core.jacobians(model, TEXTS[:1], **how)
    assert len(made) == model.n_layers
    made.clear()
    monkeypatch.setattr(core, "dealt", lambda *_: [(0,)])  # one row
    core.jacobians(model, TEXTS[:1], **how)
    assert not made


def test_an_mlp_whose_numbers_follow_their_neighbours_is_not_folded():
    hf = tiny.model("llama")
    for block in hf.model.layers:
        block.mlp.act_fn = torch.nn.Softmax(-1)
    model = xlens.load(hf, tiny.tokenizer("llama"))
    found = core.jacobians(model, TEXTS[:1], skip=SKIP, max_tokens=MOST, progress=False).sums
    (ids,) = (t.ids[:MOST] for t in model.tokenize(TEXTS[:1]))
    wanted = by_hand(model, ids, range(model.n_layers), SKIP)
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())


def counted_back(monkeypatch):
    """How often gradients went back by what is known of attention and of norms."""
    made = []
    for name in ("_attention_back", "_through"):
        usual = getattr(many_rows, name)
        monkeypatch.setattr(
            many_rows, name, lambda *a, name=name, usual=usual: made.append(name) or usual(*a)
        )
    return made


@pytest.mark.parametrize("family", ["gemma3", "llama"])  # gains of 1 + w and of w
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_norms_go_back_by_what_is_known_of_them(family, dtype, monkeypatch):
    hf = tiny.model(family)
    for name, weight in hf.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, 0.5, 0.5)
    model = xlens.load(hf.to(dtype), tiny.tokenizer(family))
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False}
    made = counted_back(monkeypatch)
    found = core.jacobians(model, TEXTS[:1], **how).sums
    norms = sum("norm" in type(m).__name__.lower() for b in model.blocks for m in b.modules())
    # The first of each: a trial, on one gradient, of what is known.
    assert made.count("_attention_back") == model.n_layers
    assert made.count("_through") == 2 * norms
    made.clear()
    monkeypatch.setattr(core, "for_many_rows", lambda _: nullcontext())
    wanted = core.jacobians(model, TEXTS[:1], **how).sums
    assert not made
    near = 3e-6 if dtype == torch.float32 else 0.04
    np.testing.assert_allclose(found, wanted, atol=near * np.abs(wanted).max())


def test_attention_and_norms_that_do_something_else_go_the_plain_way(monkeypatch):
    """A norm that hides its scale from gradients; a kernel with other weights than are known."""
    hf = tiny.model("llama")
    for block in hf.model.layers:
        norm = block.input_layernorm

        def forward(x, norm=norm):
            scale = torch.rsqrt(x.detach().pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
            return norm.weight * (x * scale)

        norm.forward = forward
    usual = many_rows._weights
    monkeypatch.setattr(many_rows, "_weights", lambda *a, **k: usual(*a, **k).roll(1, -1))
    model = xlens.load(hf, tiny.tokenizer("llama"))
    made = counted_back(monkeypatch)
    found = core.jacobians(model, TEXTS[:1], skip=SKIP, max_tokens=MOST, progress=False).sums
    assert made == ["_through"] * 3 * model.n_layers  # the other norm, and two trials
    (ids,) = (t.ids[:MOST] for t in model.tokenize(TEXTS[:1]))
    wanted = by_hand(model, ids, range(model.n_layers), SKIP)
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())


def test_a_kill_loses_no_more_than_so_much_work(model, monkeypatch):
    """Rows that go through the blocks together are fewer where a block is dear."""
    usual, at_once = core._followed, []

    def counted(begins, ends, folded, towards, each):
        at_once.append(len(towards))
        return usual(begins, ends, folded, towards, each)

    monkeypatch.setattr(core, "_followed", counted)
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False, "token_budget": 100}
    wanted = core.jacobians(model, TEXTS[:1], **how).sums
    assert at_once == [model.d_model]
    at_once.clear()
    weights = sum(p.numel() for b in model.blocks for p in b.parameters())
    monkeypatch.setattr(core, "MOST_WORK", {"cpu": 210 * weights})
    found = core.jacobians(model, TEXTS[:1], **how).sums
    assert len(at_once) > 4 and max(at_once) * (MOST - 1 - SKIP) <= 210
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())


def test_fits_are_transformerlens_s(model, lenses):
    from transformer_lens.tools.analysis import JacobianLens as Published

    texts = [t.text for t in TEXTS if t.language == "en"]
    theirs = Published.fit(
        model.bridge,
        texts,
        corpus="two texts",
        skip_first_positions=SKIP,
        max_seq_len=MOST,
        show_progress=False,
    )
    mine = lenses["en"]
    assert [n + 1 for n in theirs.source_layers] == list(mine.layers[1:])
    for n in theirs.source_layers:
        np.testing.assert_allclose(mine.matrices[n + 1], theirs.jacobians[n], atol=1e-5)


@pytest.fixture(params=["tiny", pytest.param("atlas", marks=pytest.mark.slow)])
def read_by_both(request, model):
    """A model with texts of its own, and tokens of each that a lens is fitted on."""
    if request.param == "tiny":
        return model, [t for t in TEXTS if t.language == "en"]
    atlas = xlens.load("atlas", device="cpu")
    return atlas, list(fact_texts(atlas_facts(), seed=0).select(languages=["ru"]))[:2]


def joined(texts):
    """As one text, long enough."""
    return " ".join(t.text for t in texts)


def test_an_artifact_is_read_as_transformerlens_reads_it(read_by_both, tmp_path):
    """Theirs read here, and ours, fitted and written here, read there."""
    published = pytest.importorskip("transformer_lens.tools.analysis")
    if not hasattr(published, "JacobianLens"):
        pytest.skip("this transformer-lens has no Jacobian lens")
    model, texts = read_by_both
    text = Prompt(joined(texts), texts[0].language, "0")
    how = {"skip": SKIP, "max_tokens": 16, "progress": False}
    (mine,) = fit_jacobian_lens(model, [text], **how).values()
    theirs = published.JacobianLens.fit(
        model.bridge, [text.text], corpus="one text", skip_first_positions=SKIP,
        max_seq_len=16, show_progress=False,
    )  # fmt: skip
    for n in theirs.source_layers:
        np.testing.assert_allclose(mine.matrices[n + 1], theirs.jacobians[n], atol=1e-3)
    theirs.save(str(tmp_path / "theirs.pt"), dtype=torch.float32)
    written = write_jacobian_lens(mine, tmp_path / "mine.pt")
    back = published.JacobianLens.from_pretrained(str(written))
    assert back.n_prompts == 1 and back.metadata["xlens_fingerprint"] == model.fingerprint
    for path in (tmp_path / "theirs.pt", written):
        here = read_jacobian_lens(path, model)
        assert here.layers == tuple(range(1, model.n_layers))
        assert bool(here.fingerprint) == (path == written)
        there = published.JacobianLens.from_pretrained(str(path))
        shown = there.readout(model.bridge, texts[0].text, return_full_logits=True)
        states = harvest(model, [texts[0]], slots="all", progress=False)
        layers = here.readable(states.layers, model)
        carried = here.over(layers)(states.slot("all").values[list(layers)])
        assert {n + 1 for n in shown.lens_logits} == {*layers}  # the last as it is
        for n, wanted in shown.lens_logits.items():
            logits = model.readout.logits(carried[layers.index(n + 1)])
            torch.testing.assert_close(logits, wanted.view_as(logits), atol=1e-4, rtol=0)


def test_files_go_there_and_back(model, lenses, tmp_path):
    lens = lenses["de"]
    path = write_jacobian_lens(lens, tmp_path / "new" / "lens.pt")
    back = read_jacobian_lens(path, model)
    assert back.fingerprint == lens.fingerprint and back.languages == ("de",)
    assert back.layers == lens.layers[1:] and back.text == lens.text
    assert np.array_equal(back.matrices, lens.matrices[1:])
    halved = read_jacobian_lens(write_jacobian_lens(lens, tmp_path / "h.pt", half=True), model)
    np.testing.assert_allclose(halved.matrices, back.matrices, atol=2e-3)
    # Its own form has the embedding too.
    again = load(lens.save(tmp_path / "own"))
    assert isinstance(again, JacobianLens) and again.key == lens.key
    only = dataclasses.replace(lens, matrices=lens.matrices[:1], layers=(0,))
    with pytest.raises(ValueError, match="no place for point 0"):
        write_jacobian_lens(only, tmp_path / "none.pt")


def test_files_that_hold_no_lens_are_refused(model, tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (print, ("run!",))

    torch.save({"J": {0: torch.eye(64)}, "d_model": 64, "x": Bomb()}, tmp_path / "bomb.pt")
    torch.save({"0.weight": torch.eye(64), "x": Bomb()}, tmp_path / "params.pt")
    with pytest.raises(ValueError, match="refused: it holds more than tensors"):
        read_jacobian_lens(tmp_path / "bomb.pt", model)
    with pytest.raises(ValueError, match="refused: it holds more than tensors"):
        read_tuned_lens(tmp_path, model)
    # What can only be a file is asked of no hub; what could be a name is refused in words.
    with pytest.raises(ValueError, match=r"No jacobian lens at 'nowhere\.pt': no such file"):
        find_lens("jacobian=nowhere.pt", model)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"No Jacobian lens 'nobody/none': there is no such file"):
        find_lens("jacobian=nobody/none", model)
    torch.save({"weights": torch.eye(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not look like a Jacobian lens"):
        read_jacobian_lens(tmp_path / "other.pt", model)
    with pytest.raises(ValueError, match="no tuned lens"):
        read_tuned_lens(tmp_path / "other.pt", model)


def test_a_killed_fit_ends_with_the_same_bytes(model, tmp_path, monkeypatch):
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False, "token_budget": 200}
    monkeypatch.setattr(store_parts, "PART_SECONDS", 0.0)
    monkeypatch.setattr(store_parts, "_WRITING", 1e9)
    monkeypatch.setattr(core, "MOST_SHARDS", 1)
    monkeypatch.setattr(core, "AT_ONCE", 1)  # what is kept is kept after one call for each block
    wanted = core.jacobians(model, TEXTS, **how).sums
    usual, calls = torch.autograd.grad, []

    def failing(*args, **kwargs):
        if not kwargs.get("allow_unused"):  # the forward pass's own
            return usual(*args, **kwargs)
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return usual(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", failing)
    total = 0
    for after in (2, 3, 1):
        stop = after * model.n_layers + 1
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            core.jacobians(model, TEXTS, store=Store(tmp_path), **how)
        total += len(calls) - 1
    calls.clear()
    stop = 10**9
    found = core.jacobians(model, TEXTS, store=Store(tmp_path), **how)
    assert np.array_equal(found.sums, wanted)
    needed = []

    def counting(*args, **kwargs):
        needed.extend([1] * bool(kwargs.get("allow_unused")))
        return usual(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    core.jacobians(model, TEXTS, **how)
    assert total + len(calls) == len(needed)  # nothing was computed twice
    needed.clear()
    core.jacobians(model, TEXTS, store=Store(tmp_path), **how)
    assert not needed


# --- row rotation ---


def test_rows_are_dealt_evenly_and_not_in_step_with_the_texts():
    dealt = core.dealt(64, 8, 64, seed=0)
    counts = np.zeros(64, int)
    for rows in dealt:
        assert len(rows) == 8
        counts[list(rows)] += 1
    assert set(counts) == {8}
    # Every round has every part once, in another order.
    rounds = [tuple(dealt[i : i + 8]) for i in range(0, 64, 8)]
    assert all(len(set(each)) == 8 for each in rounds) and len(set(rounds)) == 8
    # Texts that come in turns, one language after the other, are given all parts.
    assert len({rows for rows in dealt[::8]}) > 3
    assert dealt != core.dealt(64, 8, 64, seed=1)
    for parts, n in ((8, 63), (0, 8), (65, 65)):
        with pytest.raises(ValueError, match=r"equally often|accepted is 1 to 64"):
            core.dealt(64, parts, n, seed=0)


def test_rotated_rows_are_rows_of_the_whole(model):
    en = [dataclasses.replace(t, language="en") for t in TEXTS]
    how = {"skip": SKIP, "max_tokens": MOST, "progress": False}
    rotated = fit_jacobian_lens(model, en, rotation=4, seed=3, **how)["en"]
    whole = [core.jacobians(model, [text], **how).sums for text in en]
    for text, rows in zip(whole, core.dealt(64, 4, 4, seed=3), strict=True):
        mine = rotated.matrices[:, list(rows)]
        np.testing.assert_allclose(mine, text[:, list(rows)], atol=1e-5 * np.abs(text).max())
    assert rotated.estimator == "jacobian_lens rows/4"
    with pytest.raises(ValueError, match="multiple of 4 texts"):
        fit_jacobian_lens(model, TEXTS, rotation=4, **how)
    with pytest.raises(ValueError, match="estimator"):
        pooled([rotated, fit_jacobian_lens(model, en, **how)["en"]])


def test_pooled_counts_each_text_once(model, lenses):
    every = pooled(list(lenses.values()))
    en = [dataclasses.replace(t, language="en") for t in TEXTS]
    wanted = fit_jacobian_lens(model, en, skip=SKIP, max_tokens=MOST, progress=False)["en"]
    np.testing.assert_allclose(every.matrices, wanted.matrices, atol=1e-5)
    assert every.n_prompts == 4 and every.languages == ("en", "de")
    few = dataclasses.replace(lenses["de"], n_prompts=1)
    uneven = pooled([dataclasses.replace(lenses["en"], n_prompts=3), few])
    mean = 0.75 * lenses["en"].matrices + 0.25 * lenses["de"].matrices
    np.testing.assert_allclose(uneven.matrices, mean, atol=1e-5)
    with pytest.raises(ValueError, match="No lenses"):
        pooled([])
    with pytest.raises(ValueError, match="fingerprint"):
        pooled([every, dataclasses.replace(every, fingerprint="other")])


# --- reading through a lens ---


def test_the_last_point_is_the_output_and_missing_ones_are_left_out(model, lenses):
    lens = lenses["en"]
    lacking = dataclasses.replace(lens, matrices=lens.matrices[1:], layers=lens.layers[1:])
    plain, read = trace(model, "Der Hund ist"), trace(model, "Der Hund ist", lens=lacking)
    assert list(read.cells["layer"].unique()) == [1, 2, 3]
    at_end = [
        frame.cells[frame.cells["layer"] == 3].reset_index(drop=True) for frame in (plain, read)
    ]
    pd.testing.assert_frame_equal(*at_end)
    assert read.provenance["trace"]["through"]["kind"] == "jacobian"
    assert "through" not in plain.provenance["trace"]


def test_scores_are_read_through_a_lens(model, lenses, tmp_path):
    lens = lenses["en"]
    prompt, options = Prompt("Der Hund", "de", "1"), [" ist", " hat"]
    found = score(model, [prompt], options, layers=[1], lens=lens, progress=False).table
    states = harvest(model, [prompt], slots="all", progress=False)
    carried = lens.over([1])(states.slot("all").values[[1]])[0, -1:]
    logprobs = model.readout.logits(carried).log_softmax(-1)[0]
    for text, got in zip(options, found["logprob"], strict=True):
        ids = model.tokenizer(prompt.text + text)["input_ids"][len(states.meta["tokens"][0]) :]
        if len(ids) == 1:
            assert got == pytest.approx(float(logprobs[ids[0]]), abs=1e-4)
    # A store tells lenses apart.
    kept = [
        score(model, [prompt], options, layers=[1], lens=each, store=tmp_path, progress=False)
        for each in (None, lens, lenses["de"], lens)
    ]
    sums = [each.table["logprob"].tolist() for each in kept]
    assert sums[1] == sums[3] and len({tuple(s) for s in sums}) == 3
    assert (
        sums[0]
        == score(model, [prompt], options, layers=[1], progress=False).table["logprob"].tolist()
    )
    lacking = dataclasses.replace(lens, matrices=lens.matrices[2:], layers=(2,))
    with pytest.raises(ValueError, match=r"no matrix for layers \[1\]"):
        score(model, [prompt], options, layers=[1, 2], lens=lacking, progress=False)


def test_another_model_s_lens_is_refused(model, lenses, tmp_path):
    lens = lenses["en"]
    other = xlens.load(tiny.model("llama", seed=1), tiny.tokenizer("llama"))
    with pytest.raises(ValueError, match="fitted on other weights"):
        trace(other, "Der Hund", lens=lens)
    deeper = xlens.load(tiny.model("llama", num_hidden_layers=5), tiny.tokenizer("llama"))
    with pytest.raises(ValueError, match=r"3 layers of 64; .* has 5 of 64"):
        trace(deeper, "Der Hund", lens=lens)
    # A published one, which says nothing of the weights but what shape they have.
    file = write_jacobian_lens(dataclasses.replace(lens, fingerprint=""), tmp_path / "lens.pt")
    with pytest.raises(ValueError, match="ends with block 4"):
        read_jacobian_lens(file, deeper)
    wider = xlens.load(tiny.model("llama", hidden_size=128), tiny.tokenizer("llama"))
    with pytest.raises(ValueError, match=r"3 layers of 64; .* has 3 of 128"):
        read_jacobian_lens(file, wider)
    broken = lens.matrices.copy()
    broken[1, 3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        dataclasses.replace(lens, matrices=broken)
    with pytest.raises(ValueError, match="no matrix for"):
        only = dataclasses.replace(lens, matrices=lens.matrices[2:], layers=(2,))
        only.readable([0, 1], model)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"skip": 300}, "skip is 300"),
        ({"skip": 40, "max_tokens": 60}, "fewer than 42 tokens"),
        ({"layers": [3]}, "the last, 3, follows itself"),
        ({"layers": 9}, "Unknown layer"),
        ({"layers": []}, r"layers is \[\]"),
        ({"max_tokens": 10**6}, "reads at most"),
        ({"rotation": 99}, "multiple of 99"),
    ],
)
def test_what_can_t_be_fitted_is_said_before(model, wrong, said):
    with pytest.raises(ValueError, match=said):
        fit_jacobian_lens(model, TEXTS, progress=False, **wrong)


# --- the tuned lens ---


@pytest.fixture(scope="module")
def turned():
    """A model whose first block turns the stream, as a tuned lens can undo: 0.1 h goes in."""
    hf = tiny.model("llama", num_hidden_layers=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        hf.lm_head.weight.mul_(4.0)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    block = hf.model.layers[1]

    def forward(hidden_states, *args, **kwargs):
        return hidden_states @ turn.T

    block.forward = forward
    return xlens.load(hf, tiny.tokenizer("llama"))


def many_texts(n=40):
    words = ["the", "cat", "old", "river", "moon", "town", "harbour", "walk", "stone", "wall"]
    draw = np.random.default_rng(0)
    return [Prompt(" ".join(draw.choice(words, 30)), "en", str(i)) for i in range(n)]


def test_a_tuned_lens_finds_what_a_block_does(turned):
    lens = fit_tuned_lens(turned, many_texts(), steps=60, batch=128, progress=False)
    first, last = (
        lens.training[lens.training["step"] == n].set_index("layer")["kl"] for n in (-1, 60)
    )
    best = lens.training.groupby("layer")["kl"].min()
    assert (best < 0.2 * first).all() and len(last) <= 2
    # What is read at point 0 is what the model says in the end.
    plain, read = (trace(turned, "the old town", lens=each) for each in (LOGIT, lens))
    end = read.cells[read.cells["layer"] == 2]["token"].tolist()
    assert read.cells[read.cells["layer"] == 0]["token"].tolist()[1:] == end[1:]
    assert plain.cells[plain.cells["layer"] == 0]["token"].tolist()[1:] != end[1:]


def test_a_tuned_lens_never_reads_worse_than_none_on_what_is_held_out(model):
    lens = fit_tuned_lens(model, many_texts(12), steps=20, batch=64, progress=False)
    kls = lens.training.pivot_table(index="layer", columns="step", values="kl")
    assert (kls.min(axis=1) <= kls[-1]).all()
    assert (kls[0] <= kls[-1]).all() and (kls[0] < kls[-1]).any()  # begun from the better map
    # What is given is what read them best.
    held = set(lens.provenance["tuned_lens"]["held_out"])
    texts = [t for t in many_texts(12) if t.id in held]
    states = harvest(model, texts, slots="all", progress=False)
    kept = states.slot("all")
    inside = torch.from_numpy(np.flatnonzero(kept.positions.numpy() > 0))
    carry = lens.over(states.layers)
    read = stream(model.readout, kept.values[:, inside], top_k=0, statistics=("kl",), carry=carry)
    np.testing.assert_allclose(read.kl[:-1].mean(1), kls.min(axis=1), rtol=1e-3)
    assert lens.layers == (0, 1, 2) and lens.fingerprint == model.fingerprint
    assert all(p.grad is None for p in model.hf_model.parameters())
    with pytest.raises(ValueError, match="ten or more"):
        fit_tuned_lens(model, many_texts(9), progress=False)
    bare = xlens.load(tiny.model("gpt2"), tiny.tokenizer("gpt2"))  # which adds no beginning
    with pytest.raises(ValueError, match="more than one token"):
        fit_tuned_lens(bare, [Prompt("a", "en", str(n)) for n in range(12)], progress=False)


def test_the_gradient_through_the_streamed_vocabulary(monkeypatch):
    from xlens.lens import tuned

    monkeypatch.setattr(tuned, "VOCAB_TILE", 100)
    model = xlens.load(tiny.model("gemma2"), tiny.tokenizer("gemma2"))
    readout = model.readout
    assert readout.softcap
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, model.d_model, generator=generator).requires_grad_()
    out = torch.randn(3, model.d_model, generator=generator)

    def logprobs(states):
        raw = states @ readout.W_U
        return (readout.softcap * torch.tanh(raw / readout.softcap)).log_softmax(-1)

    p = logprobs(out)
    (wanted,) = torch.autograd.grad((p.exp() * (p - logprobs(x))).sum(-1).mean(1).sum(), x)
    found = tuned._gradient(readout, x.detach(), out)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_a_lens_of_the_tuned_lens_package(model, tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for n in range(3):
        state[f"{n}.weight"] = 0.1 * torch.randn(64, 64, generator=generator)
        state[f"{n}.bias"] = torch.randn(64, generator=generator)
    torch.save(state, tmp_path / "params.pt")
    lens = read_tuned_lens(tmp_path, model)
    assert isinstance(lens, TunedLens) and lens.layers == (0, 1, 2)
    h = torch.randn(1, 5, 64, generator=generator)
    wanted = h + h @ state["1.weight"].T + state["1.bias"]
    torch.testing.assert_close(lens.over([1])(h), wanted)
    deeper = xlens.load(tiny.model("llama", num_hidden_layers=5), tiny.tokenizer("llama"))
    with pytest.raises(ValueError, match="has 5 of 64"):
        read_tuned_lens(tmp_path, deeper)


def test_lens_results_say_what_they_were_read_through(lenses, model):
    """`logit_lens` and `whole_word_lens` through a lens; the usual one leaves no trace."""
    from xlens.lens import target_sets

    words = pd.DataFrame({"en": ["cat", "moon"], "de": ["Hund", "Stadt"]}, index=["a", "b"])
    meta = {"source": "fr", "target": "de", "task": "translation"}
    prompts = xlens.Prompts(
        [Prompt(f"{w} ->", "de", i, meta=meta) for i, w in (("a", "x"), ("b", "y"))]
    )
    sets = target_sets(model, words, languages=("de", "en"), match="first")
    states = harvest(model, prompts, progress=False)
    kept = [i for i in prompts.ids if i in sets.ids]
    assert kept
    for made in (
        lambda lens: logit_lens(states, model, sets, top_k=3, lens=lens, progress=False),
        lambda lens: whole_word_lens(model, prompts, words, top_k=3, lens=lens, progress=False),
    ):
        plain, usual, read = made(LOGIT), made(LOGIT), made(lenses["en"])
        pd.testing.assert_frame_equal(plain.rows, usual.rows)
        assert (plain.lens, read.lens, read.summary().lens) == ("logit", "jacobian", "jacobian")
        here = [each.rows[each.rows["layer"] == 3].reset_index(drop=True) for each in (plain, read)]
        pd.testing.assert_frame_equal(*here)
        assert not np.allclose(plain.rows["logprob"], read.rows["logprob"])


# --- the yardstick ---


def test_the_yardstick_counts_words_that_are_read_on_the_way(model, tmp_path):
    """A lens that turns every state to an item's own word reads it; the control doesn't."""
    from xlens.lens import lens_yardstick, read_lens_items

    texts = [model.vocab.text(i) for i in range(model.d_vocab)]
    whole = [t[1:] for t in texts if t and t.startswith(" ") and t[1:].isalpha() and len(t) > 3]
    one = [
        w
        for w in dict.fromkeys(whole)
        if len(model.tokenizer(f" {w}", add_special_tokens=False)["input_ids"]) == 1
    ]
    words = one[:2]
    assert len(words) == 2
    items = [
        {"name": "german-a", "prompt": "Das ist ", "target": "x", "intermediates": [words[0]]},
        {"name": "nowhere-b", "prompt": "Es war", "target": "y", "intermediates": [words[1]]},
        {"name": "french-c", "prompt": "Bon", "target": "z", "intermediates": ["qqqq zzzz"]},
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"items": items}))
    read = read_lens_items(path)
    assert [p.language for p in read.prompts] == ["de", "und", "fr"]
    (token,) = model.tokenizer(f" {words[0]}", add_special_tokens=False)["input_ids"]
    row = (model.readout.W_U[:, token] * 50).numpy()
    turned = JacobianLens(
        provenance={},
        matrices=np.zeros((3, 64, 64), dtype=np.float32),
        offsets=np.broadcast_to(row, (3, 64)).astype(np.float32).copy(),
        layers=(0, 1, 2),
        n_layers=3,
    )
    found = lens_yardstick(model, read, {"turned": turned}, ks=(1,), progress=False)
    rows = found.table.set_index("language")
    assert rows.loc["de", "score"] == 1 and rows.loc["de", "control"] == 0
    assert rows.loc["und", "score"] == 0 and rows.loc["und", "control"] == 1
    assert found.survival.set_index("what")["n"].to_dict() == {
        "items": 3,
        "items with a word of one token": 2,
        "words": 3,
        "words of one token": 2,
    }
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no items for lenses"):
        read_lens_items(path)
