"""Attention from a slot to spans: of what the kernel is given, summed where it is."""

import threading

import kit
import numpy as np
import pytest
import torch

import tiny
from xlens import Prompt, Prompts
from xlens.engine import attention
from xlens.models.computation import computation
from xlens.models.hooks import zeroed
from xlens.models.kernels import LOOKED, showing

# Those outside transformers' interface for attention: their own weights are taken.
OUTSIDE = ("bloom", "mpt", "gptj", "falcon, 7B", "falcon, RW", "gpt_neo", "codegen", "xglm")
FAMILIES = (
    "llama",
    "gpt2",
    "gemma3",
    "bloom",
    "gpt_neox",
    "mpt",
    "gpt_oss",
    "gemma2",
    "falcon, 7B",
)
# Refused: what they have is no one weight per token, or no attention.
WITHOUT = ("diffllama", "minimax", "mamba")
REST = [f for f in tiny.ALL if f not in (*FAMILIES, *WITHOUT)]


def asked():
    """Prompts with a common beginning that holds a span, and one of their own."""
    head, mark = tiny.TEXT["en"][:60], tiny.TEXT["de"][:12]
    return Prompts(
        [
            Prompt.from_parts(
                [head[:10], ("start", head[10:30]), head[30:], ("own", mark), text[:n]],
                language=language,
                id=language,
            )
            for n, (language, text) in enumerate(list(tiny.TEXT.items())[:6], 1)
        ]
    )


@torch.inference_mode()
def brute(model, tokens, spans, query):
    config = model.hf_model.config
    before, config._attn_implementation = config._attn_implementation, "eager"
    # Without what Falcon's eager attention adds twice.
    with zeroed(model.family.attentions(model.blocks).values(), model.family.twice):
        ids = torch.tensor([list(tokens.ids)])
        out = model.hf_model(ids, output_attentions=True, use_cache=False)
    config._attn_implementation = before
    rows = torch.stack([w[0, :, query] for w in out.attentions]).float()
    mass = torch.stack([rows[..., slice(*tokens.spans[s])].sum(-1) for s in spans], -1)
    best = rows.argmax(-1)
    top = torch.stack(
        [(best >= tokens.spans[s][0]) & (best < tokens.spans[s][1]) for s in spans], -1
    )
    return mass, top


def check(family, slots, cases):
    model, prompts, spans = kit.fresh(family), asked(), ("start", "own")
    tokens = model.tokenize(prompts, spans=frozenset(spans))
    before = model.hf_model.config._attn_implementation
    n_layers = model.n_layers
    for slot in slots:
        queries = [len(t) - 1 if slot == "last" else t.spans["own"][0] for t in tokens]
        wanted = [brute(model, t, spans, q) for t, q in zip(tokens, queries, strict=True)]
        if len(wanted[0][0]) < n_layers:
            return  # some blocks have none, and the reference tells no numbers
        for options in cases:
            found = attention(model, prompts, spans, slot=slot, progress=False, **options)
            for i, (mass, top) in enumerate(wanted):
                rows = mass.numpy()[list(found.layers)]
                assert np.abs(found.mass[i] - rows).max() < 1e-5
                assert (found.top[i] != top.numpy()[list(found.layers)]).mean() < 0.05
            whole = found.mass.sum(-1) + found.rest + found.sink
            assert np.abs(whole - 1).max() < 1e-4
            assert (found.sink.max() > 1e-3) == (family == "gpt_oss")
    assert model.hf_model.config._attn_implementation == before


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_pattern_summed(family):
    check(family, ("last", "own:first"), ({}, {"share_prefixes": False}, {"token_budget": 150}))


@pytest.mark.slow
@pytest.mark.parametrize("family", REST)
def test_it_is_the_pattern_summed_in_every_family(family):
    check(family, ("last",), ({},))


def test_weights_come_from_the_kernel_where_there_is_one(monkeypatch):
    """Not from a pattern, which sdpa doesn't make."""
    import sys

    looked = sys.modules["xlens.engine.attention"]
    kernels = dict[str, int]()
    usual = looked._Watched.given

    def counted(self, given):
        kernels[self.name] = kernels.get(self.name, 0) + 1
        usual(self, given)

    monkeypatch.setattr(looked._Watched, "given", counted)
    for family in ("llama", "gemma2", "bloom", "falcon, 7B"):
        kernels.clear()
        attention(kit.fresh(family), asked(), "own", layers=0, progress=False)
        assert bool(kernels) == (family in ("llama", "gemma2")), family


def test_it_is_the_bridges_pattern(family_dir):
    model = kit.model(family_dir("llama"))
    prompt = asked()[2]
    tokens = model.tokenize([prompt], spans=frozenset({"own"}))[0]
    found = attention(model, [prompt], "own", layers=1, progress=False)
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(torch.tensor([list(tokens.ids)]), prepend_bos=False)
    pattern = cache["blocks.1.attn.hook_pattern"][0, :, -1]
    wanted = pattern[:, slice(*tokens.spans["own"])].sum(-1)
    assert np.abs(found.mass[0, 0, :, 0] - wanted.numpy()).max() < 1e-5


def test_a_name_of_our_own_is_nobody_elses():
    """The kernel's name is another meanwhile: keys, provenance and other threads see the usual."""
    model = kit.fresh("llama")
    told, key = model.provenance(), computation(model.hf_model)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        plain = model.hf_model(ids).logits
    seen, elsewhere = [], []

    def run():
        with torch.inference_mode():
            elsewhere.append(model.hf_model(ids).logits)

    with showing(model.hf_model, {model.blocks[0].self_attn: seen.append}):
        assert model.hf_model.config._attn_implementation == LOOKED + "sdpa"
        assert model.provenance() == told and computation(model.hf_model) == key
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert not seen
        run()
        assert len(seen) == 1
    assert torch.equal(elsewhere[0], plain) and torch.equal(elsewhere[1], plain)
    assert model.hf_model.config._attn_implementation == "sdpa"
    with pytest.raises(KeyboardInterrupt), showing(model.hf_model, {}):
        raise KeyboardInterrupt
    assert model.hf_model.config._attn_implementation == "sdpa"


def test_a_kernel_that_does_something_else_is_refused(monkeypatch):
    """What weights are worked out must be those that mixed the values."""
    from transformers.models.llama import modeling_llama

    usual = modeling_llama.eager_attention_forward

    def biased(module, query, key, value, attention_mask, **options):
        bias = 2 * torch.arange(key.shape[2]).sin()
        return usual(module, query, key, value, attention_mask + bias, **options)

    model = kit.fresh("llama")
    model.hf_model.set_attn_implementation("eager")
    attention(model, asked(), "own", progress=False)
    monkeypatch.setattr(modeling_llama, "eager_attention_forward", biased)
    with pytest.raises(ValueError, match=r"block 0 of Llama.* can't be told: the values mixed by"):
        attention(model, asked(), "own", progress=False)


def test_families_without_one_weight_per_token():
    with pytest.raises(
        ValueError, match=r"block 0 of DiffLlama\S* \(DiffLlama\) is made of several"
    ):
        attention(kit.fresh("diffllama"), asked(), "own", progress=False)
    minimax = kit.fresh("minimax")
    with pytest.raises(ValueError, match=r"block 1 of MiniMax\S* \(MiniMax\) gives no weights"):
        attention(minimax, asked(), "own", progress=False)
    found = attention(minimax, asked(), "own", layers=[0, 2], progress=False)
    assert np.abs(found.mass.sum(-1) + found.rest - 1).max() < 1e-4


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"Mamba\) has no attention"):
        attention(kit.fresh("mamba"), asked(), "own", progress=False)
    model = kit.fresh("gpt2")
    with pytest.raises(ValueError, match=r"Unknown block in 3: .* attention in \[0, 1, 2\]"):
        attention(model, asked(), "own", layers=3, progress=False)
    with pytest.raises(ValueError, match=r"is not one position"):
        attention(model, asked(), "own", slot="own:mean", progress=False)
    with pytest.raises(ValueError, match="nowhere"):
        attention(model, asked(), "nowhere", progress=False)
