"""Attention from a slot to spans: the family's own weights, summed where they are."""

import kit
import numpy as np
import pytest
import torch

import tiny
from xlens import Prompt, Prompts
from xlens.engine import attention

FAMILIES = ("llama", "gpt2", "gemma3", "bloom", "gpt_neox", "gptj", "mpt", "gpt_oss", "gemma2")


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
    before = model.hf_model.config._attn_implementation
    model.hf_model.set_attn_implementation("eager")
    out = model.hf_model(torch.tensor([list(tokens.ids)]), output_attentions=True, use_cache=False)
    model.hf_model.set_attn_implementation(before)
    rows = torch.stack([w[0, :, query] for w in out.attentions]).float()
    mass = torch.stack([rows[..., slice(*tokens.spans[s])].sum(-1) for s in spans], -1)
    best = rows.argmax(-1)
    top = torch.stack(
        [(best >= tokens.spans[s][0]) & (best < tokens.spans[s][1]) for s in spans], -1
    )
    return mass, top


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_pattern_summed(family):
    model, prompts, spans = kit.fresh(family), asked(), ("start", "own")
    tokens = model.tokenize(prompts, spans=frozenset(spans))
    before = model.hf_model.config._attn_implementation
    for slot in ("last", "own:first"):
        for options in ({}, {"share_prefixes": False}, {"token_budget": 150}):
            found = attention(model, prompts, spans, slot=slot, progress=False, **options)
            for i, t in enumerate(tokens):
                query = len(t) - 1 if slot == "last" else t.spans["own"][0]
                mass, top = brute(model, t, spans, query)
                assert np.abs(found.mass[i] - mass.numpy()).max() < 1e-5
                assert (found.top[i] != top.numpy()).mean() < 0.05
            whole = found.mass.sum(-1) + found.rest + found.sink
            assert np.abs(whole - 1).max() < 1e-4
            assert (found.sink.max() > 1e-3) == (family == "gpt_oss")
    assert model.hf_model.config._attn_implementation == before


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
