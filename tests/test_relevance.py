"""Relevance: what autograd and the paper's rules say, for every prompt as if it were alone."""

import copy
from importlib import import_module

import kit
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import tiny
from xlens import Prompt, Prompts
from xlens.engine import rules
from xlens.engine.relevance import RelevanceScores, relevance
from xlens.engine.rules import ATTNLRP, CP_LRP, Rule
from xlens.engine.rules.backward import with_constant_denominators

MODULE = import_module("xlens.engine.relevance")  # the package may name the function alike
CLOSE = 1e-4  # relative to the largest score of a prompt, fp32; measured: 5e-6
NO_BIAS = ("llama", "mistral", "qwen3", "gemma2", "gemma3", "olmo2")


def n_hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.hf_model.modules()
    )


def some(n=4):
    return kit.mixed()[:n]


def targets(n):
    return [17 + 31 * i for i in range(n)]


def autograd(model, ids, target, *, at=-1, scalar="logit"):
    """Gradient x input by Hugging Face's own forward: one prompt, `[layer, pos]`, the scalar."""
    seen = []
    handle = model.blocks[-1].register_forward_hook(
        lambda _m, _a, out: seen.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    with torch.enable_grad():
        out = model.hf_model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
        handle.remove()
        logits = out.logits[0, at]
        value = (logits if scalar == "logit" else logits.log_softmax(-1))[target]
        states = [*out.hidden_states[:-1], *seen]
        gradients = torch.autograd.grad(value, states)
    scores = [(h * dh).sum(-1)[0].detach() for h, dh in zip(states, gradients, strict=True)]
    return torch.stack(scores).numpy(), float(value.detach())


def error(got, wanted):
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


# --- the gradient is autograd's ---


@pytest.mark.parametrize("scalar", ["logit", "logprob"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradient_times_input_is_autograds(family, scalar, family_dir, monkeypatch):
    monkeypatch.setattr("xlens.engine.rules.scalars._TILE", 300)  # three tiles
    model, prompts = kit.model(family_dir(family)), some()
    scores = relevance(model, prompts, targets=targets(4), scalar=scalar, progress=False)
    assert scores.layers == tuple(range(model.n_layers + 1))
    for i, t in enumerate(model.tokenize(prompts)):
        wanted, value = autograd(model, t.ids, targets(4)[i], scalar=scalar)
        assert error(scores.slot("all", i), wanted) < CLOSE
        assert scores.targets["value"][i] == pytest.approx(value, rel=1e-4, abs=1e-4)
        assert scores.totals[:, i] == pytest.approx(scores.slot("all", i).sum(1), rel=1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batched_is_each_prompt_alone(family, family_dir):
    """By AttnLRP; the gradient above was batched too, and autograd's was not."""
    model, prompts, ids = kit.model(family_dir(family)), kit.mixed()[3:8], targets(5)
    lengths = [len(t) for t in model.tokenize(prompts)]
    assert min(lengths) < 5 and max(lengths) > 40  # longer than the sliding windows

    def scores(prompts, ids, budget):
        options = {"rule": "attnlrp", "token_budget": budget, "progress": False}
        return relevance(model, prompts, targets=ids, **options)

    together = scores(prompts, ids, 10_000)
    crowded = scores(list(prompts)[::-1], ids[::-1], 100)
    for i, prompt in enumerate(prompts):
        alone = scores([prompt], ids[i : i + 1], 1)
        assert error(together.slot("all", i), alone.slot("all")) < CLOSE
        assert error(crowded.slot("all", 4 - i), alone.slot("all")) < CLOSE


def test_every_layer_alone_is_as_among_all(family_dir):
    model = kit.model(family_dir("llama"))
    every = relevance(model, some(), targets=targets(4), rule="attnlrp", progress=False)
    for asked, points in ((0, (0,)), (-1, (3,)), ([2, 1, 2], (1, 2))):
        few = relevance(
            model, some(), targets=targets(4), rule="attnlrp", layers=asked, progress=False
        )
        assert few.layers == points
        assert error(few.slot("all"), every.slot("all")[list(points)]) < CLOSE


def test_a_position_in_the_middle(family_dir):
    model, prompts = kit.model(family_dir("gemma3")), some()
    scores = relevance(model, prompts, targets=targets(4), at="word:last", progress=False)
    for i, t in enumerate(model.tokenize(prompts)):
        at = t.spans["word"][1] - 1
        wanted, value = autograd(model, t.ids, targets(4)[i], at=at)
        assert error(scores.slot("all", i), wanted) < CLOSE
        assert not scores.slot("all", i)[:, at + 1 :].any()
        assert list(scores.targets.loc[i, ["position", "token"]]) == [at, targets(4)[i]]
        assert scores.targets["value"][i] == pytest.approx(value, rel=1e-4)


# --- slots, targets, the result ---


def test_slots_are_parts_of_all(family_dir):
    model = kit.model(family_dir("llama"))
    hows = ("first", "last", "mean", "sum", "each", "predict")
    slots = ["all", "last", *(f"word:{how}" for how in hows)]
    scores = relevance(model, some(), targets=targets(4), slots=slots, progress=False)
    assert list(scores.rows["slot"].unique()) == slots
    for i, t in enumerate(model.tokenize(some())):
        every = scores.slot("all", i)
        start, stop = t.spans["word"]
        word = every[:, start:stop]
        wanted = {
            "last": every[:, -1:],
            "word:first": word[:, :1],
            "word:last": word[:, -1:],
            "word:mean": word.mean(1, keepdims=True),
            "word:sum": word.sum(1, keepdims=True),
            "word:each": word,
            "word:predict": every[:, start - 1 : stop - 1],
        }
        for slot, values in wanted.items():
            assert scores.slot(slot, i) == pytest.approx(values, rel=1e-5, abs=1e-6), slot
        each = scores.rows.query("slot == 'word:each' and prompt == @i")
        assert list(each["position"]) == list(range(start, stop))
        assert list(each["token"]) == list(t.ids[start:stop])
    assert set(scores.rows.query("slot == 'word:sum'")["position"]) == {-1}
    assert np.array_equal(scores.get("word:sum"), scores.slot("word:sum").T)
    with pytest.raises(ValueError, match=r"'word:each' has several rows.*a mean or a sum"):
        scores.get("word:each")
    with pytest.raises(ValueError, match=r"No slot 'word'.*'all', 'last'"):
        scores.slot("word")


def test_a_text_as_target_is_its_first_token(family_dir):
    for family in ("gpt2", "llama", "gemma2"):
        model = kit.model(family_dir(family))
        texts = [" house", "house", "花がきれい", " "]
        scores = relevance(model, some(), targets=texts, slots="last", progress=False)
        cuts = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        if family == "llama":  # puts a space before a text, here as a token of its own
            pieces = [model.tokenizer.convert_ids_to_tokens(cut) for cut in cuts]
            assert [p[0] for p in pieces] == ["▁"] * 4
            cuts[1:3] = [cut[1:] for cut in cuts[1:3]]
        assert list(scores.targets["token"]) == [cut[0] for cut in cuts]
        assert list(scores.targets["label"]) == [model.vocab.label(cut[0]) for cut in cuts]


def test_result_as_table_and_on_disk(tmp_path, family_dir):
    model = kit.model(family_dir("gpt2"))
    slots = ["all", "word:sum"]
    scores = relevance(
        model, some(), targets=targets(4), scalar="logprob", rule="cp-lrp", slots=slots,
        layers=[1, 3], progress=False,
    )  # fmt: skip
    frame = scores.to_frame()
    assert len(frame) == 2 * len(scores.rows)
    row = frame.iloc[5]  # the third row's second layer
    assert row["layer"] == 3 and row["relevance"] == scores.values[1, 2]
    assert (row["id"], row["language"], row["position"]) == ("item 0", "en", 2)
    assert set(frame.query("slot == 'word:sum'")["prompt"]) == {0, 1, 2, 3}

    again = RelevanceScores.load(scores.save(tmp_path / "scores"))
    assert np.array_equal(again.values, scores.values) and again.layers == (1, 3)
    assert again.rows.equals(scores.rows) and again.targets.equals(scores.targets)
    assert (again.rule, again.scalar) == ("cp-lrp", "logprob")
    assert again.fingerprint == model.fingerprint
    assert again.provenance["relevance"]["rule"]["constant_norms"] is True
    assert repr(again).startswith("RelevanceScores(4 prompts, 2 layers, all[")


# --- AttnLRP ---


def explicit_attnlrp(model, ids, target):
    """AttnLRP as the paper writes it, from relevance to relevance, on a Llama in fp64.

    `[layer, pos]`, and what each block's softmax keeps to itself.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

    def over(relevance, z):
        return relevance / (z + 1e-14 * z.sign())

    def linear(function, x, relevance):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            z = function(x)
        return x.detach() * torch.autograd.grad(z, x, over(relevance, z.detach()))[0]

    hf = model.hf_model.model
    n, heads = len(ids), model.config.num_attention_heads
    groups = heads // model.config.num_key_value_heads
    h = hf.embed_tokens(torch.tensor(list(ids)))
    cos, sin = hf.rotary_emb(h[None], torch.arange(n)[None])
    causal = torch.ones(n, n).tril().bool()
    trace = []
    for block in hf.layers:
        attn, mlp = block.self_attn, block.mlp

        def split(y, attn=attn):
            return y.view(n, -1, attn.head_dim).transpose(0, 1)[None]

        def turned(y, cos=cos, sin=sin):
            return apply_rotary_pos_emb(y, y, cos, sin)[0]

        maps = [
            lambda x, a=attn, s=split: turned(s(a.q_proj(x)))[0] * a.scaling,
            lambda x, a=attn, s=split: repeat_kv(turned(s(a.k_proj(x))), groups)[0],
            lambda x, a=attn, s=split: repeat_kv(s(a.v_proj(x)), groups)[0],
        ]
        x1 = block.input_layernorm(h)
        q, k, v = (f(x1) for f in maps)
        s = (q @ k.mT).masked_fill(~causal, 0)
        weights = s.masked_fill(~causal, -torch.inf).softmax(-1)
        o = weights @ v
        flat = o.transpose(0, 1).reshape(n, -1)
        mid = h + attn.o_proj(flat)
        x2 = block.post_attention_layernorm(mid)
        gated = F.silu(mlp.gate_proj(x2)) * mlp.up_proj(x2)
        out = mid + mlp.down_proj(gated)
        trace.append((h, attn, mlp, maps, x1, q, k, v, s, weights, o, flat, mid, x2, gated, out))
        h = out

    normed = hf.norm(h)
    relevance = torch.zeros_like(h)
    relevance[-1] = normed[-1] * model.hf_model.lm_head.weight[target]
    scores, kept = [relevance.sum(-1)], []
    for h, attn, mlp, maps, x1, q, k, v, s, weights, o, flat, mid, x2, gated, out in trace[::-1]:
        part = over(relevance, out)
        r_gated = linear(mlp.down_proj, gated, (out - mid) * part) / 2
        relevance = mid * part + sum(linear(f, x2, r_gated) for f in (mlp.gate_proj, mlp.up_proj))
        part = over(relevance, mid)
        r_o = linear(attn.o_proj, flat, (mid - h) * part).view(n, heads, -1).transpose(0, 1)
        half = over(r_o, 2 * o)
        r_weights, r_v = weights * (half @ v.mT), v * (weights.mT @ half)
        r_s = s * (r_weights - weights * r_weights.sum(-1, keepdim=True))
        half = over(r_s, 2 * s).nan_to_num()
        r_q, r_k = q * (half @ k), k * (half.mT @ q)
        kept.append(float(r_weights.sum() - r_s.sum()))
        entering = zip(maps, (r_q, r_k, r_v), strict=True)
        relevance = h * part + sum(linear(f, x1, r) for f, r in entering)
        scores.append(relevance.sum(-1))
    return torch.stack(scores[::-1]).numpy(), np.array(kept[::-1])


def test_attnlrp_is_the_papers_rules():
    model = kit.fresh("llama")
    model.hf_model.double()
    prompts, ids = some(), targets(4)
    scores = relevance(model, prompts, targets=ids, rule="attnlrp", progress=False)
    assert scores.values.dtype == np.float64
    for i, t in enumerate(model.tokenize(prompts)):
        with torch.no_grad():
            wanted, kept = explicit_attnlrp(model, t.ids, ids[i])
        # transformers computes its softmax and norms in fp32, also here
        assert error(scores.slot("all", i), wanted) < 1e-4
        # Nothing is lost but what the softmax keeps.
        lost = np.append(kept[::-1].cumsum()[::-1], 0)
        value = scores.targets["value"][i]
        assert wanted.sum(1) + lost == pytest.approx(value, rel=1e-4)
        assert scores.totals[:, i] + lost == pytest.approx(value, rel=1e-4, abs=1e-3)


class Softmaxes(TorchFunctionMode):
    """Sums up what relevance loses in each softmax, in the order of the forward pass."""

    def __init__(self):
        super().__init__()
        self.lost = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.softmax and out.requires_grad:
            x, n = args[0], len(self.lost)
            self.lost.append(0.0)
            # The gradient form halves what enters the weights further down, at Q and K.
            out.register_hook(lambda g: self.add(n, g * out.detach() / 2))
            x.register_hook(lambda g: self.add(n, g * -x.detach().clamp_min(-1e30) / 2))
        return out

    def add(self, n, relevance):
        self.lost[n] += float(relevance.sum())


def without_biases(model):
    with torch.no_grad():
        for name, p in model.hf_model.named_parameters():
            if name.endswith("bias"):
                p.zero_()
    return model


@pytest.mark.parametrize("family", [f for f in tiny.FAMILIES if f != "bloom"])
def test_attnlrp_loses_nothing_but_in_the_softmax(family):
    """Through norms, gates, soft-caps, rotations and projections of every family."""
    # (BLOOM adds ALiBi, a bias, to the scores; CP-LRP below does not pass there.)
    model = without_biases(kit.fresh(family, attn_implementation="eager"))
    for prompt, target in zip(some(), targets(4), strict=True):
        with Softmaxes() as softmaxes:
            scores = relevance(model, [prompt], targets=[target], rule=ATTNLRP, progress=False)
        assert len(softmaxes.lost) == model.n_layers
        lost = np.append(np.array(softmaxes.lost)[::-1].cumsum()[::-1], 0)
        size = float(np.abs(scores.values).sum(1).max())
        assert scores.totals[:, 0] + lost == pytest.approx(
            scores.targets["value"][0], rel=1e-4, abs=1e-4 * size
        )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_cp_lrp_conserves_relevance(family, family_dir):
    model = kit.model(family_dir(family))
    if family not in NO_BIAS:
        model = without_biases(kit.fresh(family))
    scores = relevance(model, kit.mixed(), targets=targets(12), rule="cp-lrp", progress=False)
    size = np.abs(scores.values).sum(1).max()
    table = scores.conservation()
    assert (table["total"] - table["value"]).abs().max() < 1e-6 * size
    assert list(table.columns) == ["prompt", "layer", "total", "value", "error"]
    top = relevance(model, some(), targets=targets(4), rule="attnlrp", layers=-1, progress=False)
    assert top.conservation()["error"].max() < 1e-4


def test_biases_take_their_share(family_dir):
    """Qwen 2 has them in Q, K and V only."""
    model = kit.model(family_dir("qwen2"))
    scores = relevance(model, kit.mixed(), targets=targets(12), rule="cp-lrp", progress=False)
    by_layer = scores.conservation().groupby("layer")["error"].median()
    assert 1e-4 < by_layer[0] < 0.2 and by_layer[model.n_layers] < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bloom"])
def test_the_forward_pass_is_as_ever(family, family_dir):
    model = kit.model(family_dir(family))
    values = [
        relevance(model, some(), targets=targets(4), rule=rule, progress=False)
        .targets["value"]
        .to_numpy()
        for rule in rules.RULES
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[2] == pytest.approx(values[0], rel=1e-5)


def test_planted_attention():
    """Uniform attention that copies: every score is known beforehand."""
    model = kit.fresh("llama")
    first, *rest = model.blocks
    hf = model.hf_model
    with torch.no_grad():
        first.self_attn.q_proj.weight.zero_()  # every earlier token gets the same weight
        for block in model.blocks:
            block.mlp.down_proj.weight.zero_()
        for block in rest:
            block.self_attn.o_proj.weight.zero_()
    prompt, target = some()[1], 99
    (t,) = model.tokenize([prompt])
    with torch.no_grad():
        h0 = hf.model.embed_tokens(torch.tensor(t.ids))
        attn, n = first.self_attn, len(t)
        values = attn.v_proj(first.input_layernorm(h0)).view(n, 2, 16)  # two of them, four heads
        copied = attn.o_proj(values.repeat_interleave(2, dim=1).reshape(n, -1)) / n
        h1 = h0[-1] + copied.sum(0)
        rms = (h1.square().mean() + model.config.rms_norm_eps).sqrt()
        reading = hf.model.norm.weight * hf.lm_head.weight[target] / rms
        own, sent, logit = h0[-1] @ reading, copied @ reading, h1 @ reading

    def scores(rule):
        found = relevance(model, [prompt], targets=[target], rule=rule, progress=False)
        assert found.targets["value"][0] == pytest.approx(float(logit), rel=1e-5)
        return found.slot("all")

    above = np.zeros(n, dtype=np.float32)
    above[-1] = logit
    for rule, share in ((CP_LRP, 1.0), (ATTNLRP, 0.5), (Rule(name="own", constant_norms=True), 1)):
        wanted = share * sent.numpy()  # the other half stays in the softmax
        wanted[-1] += own
        assert scores(rule)[0] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert scores(rule)[1:] == pytest.approx(np.stack([above] * 3), rel=1e-4, abs=1e-5)
    # An RMSNorm does not change when its input grows: to the plain gradient, all that matters
    # above is the direction, and what passes through the first norm adds up to nothing.
    assert np.abs(scores("gradient")[:, :-1]).max() < 1e-3
    assert np.abs(scores("gradient")[1:]).max() < 1e-3 * float(logit.abs() + 1)


def test_a_rule_of_ones_own(family_dir):
    model = kit.model(family_dir("gpt2"))
    same = Rule(name="mine")
    assert same.plain and not ATTNLRP.plain
    options = {"targets": targets(4), "progress": False}
    mine = relevance(model, some(), rule=same, **options)
    assert mine.rule == "mine"
    assert np.array_equal(mine.values, relevance(model, some(), **options).values)
    # Without values, nothing comes from other tokens but through the weights.
    blind = relevance(
        model,
        some(),
        rule=Rule(name="blind", query=0.0, key=0.0, value=0.0),
        slots="all",
        **options,
    )
    for i in range(4):
        own = blind.slot("all", i)
        # Not the last point: a LayerNorm does not change when its input grows, so that what is
        # there is nothing but rounding.
        assert not own[:, :-1].any() and own[:-1, -1].all()


# --- precision, memory, nothing in vain ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", ["gradient", "attnlrp"])
def test_half_precision(dtype, rule):
    model = kit.fresh("gemma3", initializer_range=0.05)
    exact = relevance(model, some(), targets=targets(4), rule=rule, progress=False)
    model.hf_model.to(dtype)
    half = relevance(model, some(), targets=targets(4), rule=rule, progress=False)
    assert half.values.dtype == np.float32
    assert error(half.slot("all"), exact.slot("all")) < (0.2 if dtype == torch.bfloat16 else 0.05)


def test_no_head_over_all_positions_and_no_gradients_of_weights():
    model = kit.fresh("llama")
    calls = []
    model.hf_model.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    model.readout.ln_final.register_forward_hook(lambda _m, _a, out: calls.append(out.shape))
    # So large that padding is not worth another pass.
    relevance(model, kit.mixed(), targets=targets(12), token_budget=100_000, progress=False)
    assert calls == [(12, 64)]
    assert all(p.grad is None for p in model.hf_model.parameters())


def test_no_graph_below_the_shallowest_layer():
    model = kit.fresh("llama")
    graphs = []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda _m, _a, out: graphs.append(out.requires_grad))
    relevance(model, some(1), targets=[5], layers=[2, 3], progress=False)
    assert graphs == [False, False, True]


def test_inside_no_grad_and_inference_mode(family_dir):
    model = kit.model(family_dir("gpt2"))
    plain = relevance(model, some(), targets=targets(4), rule="attnlrp", progress=False)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            inside = relevance(model, some(), targets=targets(4), rule="attnlrp", progress=False)
        assert np.array_equal(inside.values, plain.values)


def test_out_of_memory_halves_the_budget(family_dir, monkeypatch):
    model = kit.model(family_dir("gpt2"))
    wanted = relevance(model, kit.mixed(), targets=targets(12), progress=False)
    runs = []

    def crowded(model, prompts, *args, **kwargs):
        tokens = len(prompts) * max(map(len, prompts))
        if tokens > 100:
            runs.append(tokens)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rules.relevance_pass(model, prompts, *args, **kwargs)

    monkeypatch.setattr(MODULE, "relevance_pass", crowded)
    # Passes that are cut to save padding would fit sooner.
    monkeypatch.setattr(import_module("xlens.engine.plan"), "MIN_SAVED", 10_000)
    options = {"token_budget": 10_000, "progress": False}
    scores = relevance(model, kit.mixed(), targets=targets(12), **options)
    assert len(runs) == 3 and runs[0] // 2 >= runs[1] and runs[1] // 2 >= runs[2]
    assert error(scores.values, wanted.values) < CLOSE
    with pytest.raises(MemoryError, match="one prompt does not fit"):
        relevance(model, [Prompt("a b " * 60, "en", "1")], targets=[3], progress=False)
    with pytest.raises(ValueError, match="no memory"):  # another error is not taken for it
        monkeypatch.setattr(MODULE, "relevance_pass", fail)
        relevance(model, some(), targets=targets(4), progress=False)


def fail(*_args, **_kwargs):
    raise ValueError("no memory of that")


# --- nothing left behind ---


def attributes(model):
    """Everything that hangs on the model's modules and its config."""
    kept = {name: dict(vars(m)) for name, m in model.hf_model.named_modules()}
    inside = ("_forward_hooks", "_forward_pre_hooks", "_parameters", "_modules", "_buffers")
    copies = {(n, k): dict(kept[n][k]) for n in kept for k in inside}
    return kept, copies, copy.deepcopy(model.config.to_dict())


@pytest.mark.parametrize("fails", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("rule", ["gradient", "attnlrp", "cp-lrp"])
@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_the_users_model_is_as_before(family, rule, fails):
    model = kit.fresh(family)
    hf = model.hf_model.train()
    own = hf.get_submodule("model.norm" if family == "gemma2" else "transformer.ln_f")
    own.forward = own.forward  # as accelerate does it
    model.blocks[0].requires_grad_(False)  # a mixture
    model.blocks[1].eval()
    modes = [m.training for m in hf.modules()]
    needed = [p.requires_grad for p in hf.parameters()]
    handle = None
    if fails:

        def interrupt(*_):
            assert any("forward" in vars(m) for m in model.blocks[0].modules()) == (
                rule != "gradient"
            )
            raise fails("stop")

        handle = model.blocks[2].register_forward_pre_hook(interrupt)
    before = attributes(model)

    def run():
        relevance(model, some(), targets=targets(4), rule=rule, progress=False)

    if fails:
        with pytest.raises(fails, match="stop"):
            run()
    else:
        run()
    assert attributes(model) == before
    assert [m.training for m in hf.modules()] == modes
    assert [p.requires_grad for p in hf.parameters()] == needed
    if handle:
        handle.remove()
    assert n_hooks(model) == 0
    assert not torch.overrides._get_current_function_mode_stack()


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "lrp"}, r"Unknown rule 'lrp'; accepted are 'gradient', 'attnlrp', 'cp-lrp'"),
        ({"targets": [1, 2]}, r"one target per prompt.*got 2 targets for 1 prompts"),
        ({"targets": "cat"}, r"targets of relevance: 'cat' .* Write \['cat'\]"),
        ({"targets": [800]}, r"Target 800 is no token id of .*ids are 0 to 799"),
        ({"targets": [-1]}, r"Target -1 is no token id"),
        ({"targets": [""]}, r"Target '' has no token"),
        ({"layers": 9}, "Unknown layer in 9"),
        ({"layers": []}, "at least one layer and one slot"),
        ({"slots": "word:middle"}, r"Unknown slot 'word:middle'.*mean\|sum\|each"),
        ({"slots": "word:sum"}, "no span 'word'; its spans are none"),
        ({"slots": "sum"}, "Unknown slot 'sum'"),
        ({"at": "all"}, r"at='all' is not one position.*'last', 'NAME:first' and 'NAME:last'"),
        ({"at": "word:mean"}, "at='word:mean' is not one position"),
        ({"at": "word:last"}, "no span 'word'"),
        ({"token_budget": 0}, "token_budget is 0"),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(options, message, family_dir):
    model = kit.model(family_dir("gpt2"))
    runs = []
    handle = model.hf_model.transformer.wte.register_forward_hook(lambda *_: runs.append(1))
    prompts = Prompts([Prompt("The dog sleeps", "en", "item 7")])
    with pytest.raises(ValueError, match=message):
        relevance(model, prompts, progress=False, **{"targets": [3], **options})
    handle.remove()
    assert not runs


def refused(model, message, rule="attnlrp"):
    before = attributes(model)
    with pytest.raises(ValueError, match=message):
        relevance(model, some(1), targets=[3], rule=rule, progress=False)
    assert attributes(model) == before
    relevance(model, some(1), targets=[3], progress=False)  # the gradient does


def test_a_family_whose_products_are_not_known():
    model = kit.fresh("llama")
    model.config.model_type = "granite"
    refused(model, r"'attnlrp' is not defined for .*'granite'.*bloom, gemma2.*rule='gradient'")


def test_a_block_that_is_built_differently():
    model = kit.fresh("llama")
    model.blocks[1].self_attn.qkv = model.blocks[1].self_attn._modules.pop("k_proj")
    with pytest.raises(ValueError, match=r"not built like other models.*k_proj"):
        relevance(model, some(1), targets=[3], rule="attnlrp", progress=False)


def test_an_activation_without_zero_at_zero():
    refused(kit.fresh("llama", hidden_act="sigmoid"), r"f\(0\) = 0.*Sigmoid")


def test_a_soft_cap_out_of_sight():
    model = kit.fresh("gemma2")
    assert model.config._attn_implementation == "eager"
    model.config._attn_implementation = "sdpa"
    with pytest.raises(ValueError, match=r"soft-cap inside attention.*'sdpa'.*'eager'"):
        relevance(model, some(1), targets=[3], rule="attnlrp", progress=False)


def test_a_norm_whose_denominator_cannot_be_held():
    class Norm(nn.Module):
        def forward(self, x):
            return x * x.square().mean(-1, keepdim=True) ** -0.5

    model = kit.fresh("llama")
    model.blocks[0].input_layernorm = Norm()
    refused(model, r"denominator of Norm constant.*constant_norms=False")


def test_a_forward_that_goes_round_the_patches():
    model = kit.fresh("llama")
    mlp = model.blocks[1].mlp
    mlp.forward = lambda x: mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    refused(model, r"did not reach 1 modules of .*SiLU.*fused kernels")


def test_scores_that_are_not_finite_are_noticed():
    model = kit.fresh("gpt2")
    with torch.no_grad():
        model.blocks[2].mlp.c_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"first at layer 0, token 0 of prompt 'item 0' \(en\)"):
        relevance(model, some(), targets=targets(4), progress=False)


# --- layers that pass no gradient ---


class WithoutGrad(nn.Module):
    """A kernel without a backward pass, which does not even say how wide it is."""

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        self.scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("packed", (weight / self.scale).round().to(torch.int8))

    @torch.no_grad()
    def forward(self, x):
        return F.linear(x, self.packed * self.scale)


class OfIntegers(WithoutGrad):
    """The input goes through integers, too: an output that has no gradient function."""

    def forward(self, x):
        step = x.detach().abs().amax() / 127
        whole = (x / step).to(torch.int8).float()
        return F.linear(whole, self.packed * self.scale) * step


class Rounding(WithoutGrad):
    """The same in floating point: it has a gradient, which is 0."""

    def forward(self, x):
        step = x.detach().abs().amax() / 127
        return F.linear((x / step).round() * step, self.packed * self.scale)


class OneWay(torch.autograd.Function):
    """Claims a gradient, and has none."""

    @staticmethod
    def forward(ctx, x, weight):
        return F.linear(x, weight)


class Refusing(WithoutGrad):
    def forward(self, x):
        return OneWay.apply(x, self.packed * self.scale)


class Weights(WithoutGrad):
    """Only the weights are integers: gradients pass."""

    def forward(self, x):
        return F.linear(x, self.packed * self.scale)


def count_runs(model):
    runs = []
    model.hf_model.get_input_embeddings().register_forward_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize("rule", ["gradient", "attnlrp", Rule(name="own", constant_norms=True)])
@pytest.mark.parametrize("kind", [WithoutGrad, OfIntegers, Rounding, Refusing])
def test_a_kernel_without_a_backward_pass(kind, rule):
    """One among many is enough: its input's relevance would lack what passes through it."""
    model = kit.fresh("llama")
    mlp = model.blocks[1].mlp
    mlp.down_proj = kind(mlp.down_proj)
    runs, before = count_runs(model), attributes(model)
    name = f"No gradient passes through {__name__}.{kind.__name__}, a linear layer of Llama"
    with pytest.raises(ValueError, match=f"{name}.*looks quantised.*with unquantised weights"):
        relevance(model, some(1), targets=[3], rule=rule, progress=False)
    assert not runs and attributes(model) == before


def test_relevance_would_be_silently_wrong(monkeypatch):
    """Why such models are refused: what only passes through such layers is exactly 0."""
    model = kit.fresh("llama")
    for block in model.blocks:
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(block.self_attn, name, WithoutGrad(block.self_attn.get_submodule(name)))
    monkeypatch.setattr("xlens.engine.rules.patches.require_gradients", lambda _model: None)
    scores = relevance(model, some(1), targets=[3], progress=False).slot("all")
    assert not scores[:, :-1].any() and scores[:, -1].any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_torchs_own_quantised_layers(family):
    """Their outputs claim a gradient, and going back only warns."""
    if not {"x86", "fbgemm", "qnnpack"} & set(torch.backends.quantized.supported_engines):
        pytest.skip("this torch has no quantised kernels")
    model = kit.fresh(family)
    for block in model.blocks:
        torch.ao.quantization.quantize_dynamic(block, {nn.Linear}, torch.qint8, inplace=True)
    runs = count_runs(model)
    with pytest.raises(ValueError, match=r"through torch\.ao.*quantized.*Linear, a linear layer"):
        relevance(model, some(1), targets=[3], progress=False)
    assert not runs


def test_layers_that_pass_gradients_are_not_refused():
    """Integer weights alone, weights that are 0, forwards of the user's, layers for other input."""

    class Pair(nn.Linear):
        def forward(self, x, other):
            return super().forward(x) + other

    model = kit.fresh("llama")
    first, second, third = model.blocks
    first.mlp.down_proj = Weights(first.mlp.down_proj)
    second.mlp.down_proj.weight.data.zero_()
    third.mlp.gate_proj.forward = third.mlp.gate_proj.forward  # as accelerate does it
    first.unused = Pair(3, 2)
    calls = []
    for module in model.hf_model.modules():
        module.register_forward_hook(lambda *_: calls.append(1))
    rules.check(model, rules.GRADIENT)
    assert not calls
    relevance(model, some(1), targets=[3], rule="attnlrp", progress=False)


def test_an_architecture_that_needs_more_than_its_config():
    """Its layers are then asked as they call themselves."""
    model = kit.fresh("llama")

    class Odd(type(model.hf_model)):
        def __init__(self, config, more):
            raise AssertionError

    model.hf_model.__class__ = Odd
    rules.check(model, rules.GRADIENT)
    linear = model.blocks[0].mlp.up_proj
    linear.forward = torch.no_grad()(linear.forward)
    with pytest.raises(ValueError, match=r"through torch.nn.modules.linear.Linear"):
        rules.check(model, rules.GRADIENT)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_a_norm_of_torch_is_itself_and_its_denominator_a_constant(kind, weight):
    norm = kind(6, elementwise_affine=weight)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = with_constant_denominators(norm.forward)(x)
    torch.testing.assert_close(out, norm(x))
    upper = torch.arange(18.0).reshape(3, 6)
    (got,) = torch.autograd.grad(out, x, upper)
    centred = x - x.mean(-1, keepdim=True) if kind is nn.LayerNorm else x
    size = (centred.square().mean(-1, keepdim=True) + (norm.eps or 1e-7)).sqrt().detach()
    plain = centred / size * (norm.weight if weight else 1.0)
    torch.testing.assert_close(got, torch.autograd.grad(plain, x, upper)[0])
