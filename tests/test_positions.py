"""Models whose positions depend on the longest one in a pass: a prompt's values stay its own."""

import logging

import kit
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
import xlens
from xlens.engine import generate, harvest, plan, positions, relevance, score
from xlens.engine.interventions import add
from xlens.prompts import Prompt, Prompts

BOUNDARY = 32
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": BOUNDARY,
    "factor": 4.0,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
_BASE = "The dog sleeps in the house. January is the first month of the year. "
# 31 tokens, a shared beginning of 62 with several ends, short ones, 32 and 33.
TEXTS = (_BASE, 2 * _BASE + "A", 2 * _BASE + "B", 2 * _BASE + "A flower is", "The dog")
PROMPTS = Prompts(Prompt(t, "en", t) for t in (*TEXTS, _BASE[:40], _BASE + "Q", _BASE + "Qz"))
KINDS = ["longrope llama", "longrope phi3", "dynamic llama"]


def made(kind):
    scheme, family = kind.split()
    rope = {"longrope": _LONGROPE, "dynamic": _DYNAMIC}[scheme]
    words = tiny.byte_level(pad=True)
    own = {"original_max_position_embeddings": BOUNDARY} if family == "phi3" else {}
    config = AutoConfig.for_model(
        family,
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128 if scheme == "longrope" else BOUNDARY,
        rope_parameters=rope,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def loaded(kind):
    return xlens.load(made(kind), tiny.byte_level(pad=True))


def references(kind):
    """The states that a model which has run nothing else gives each prompt."""
    tokens = loaded(kind).tokenize(list(PROMPTS))
    return [kit.hidden_states(loaded(kind), t.ids)[:-1] for t in tokens]


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_those_of_the_prompt_alone(kind, caplog):
    model, wanted = loaded(kind), references(kind)
    lengths = [states.shape[1] for states in wanted]
    assert min(lengths) < 10 and {31, 32, 33} <= set(lengths) and max(lengths) > 60
    with caplog.at_level(logging.WARNING):
        for budget in (64, 2048):
            got = harvest(
                model, PROMPTS, layers=[0, 1, 2], slots="all", token_budget=budget, progress=False
            )
            for i, states in enumerate(wanted):
                assert kit.relative_error(got.rows("all", i), states) < 2e-5, (i, budget)
    said = [r.getMessage() for r in caplog.records if "longest one in a pass" in r.getMessage()]
    assert len(said) == 1 and "from 33 tokens on" in said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_and_scores_are_those_of_the_prompt_alone(kind):
    model = loaded(kind)
    kw = {"slots": "last", "progress": False}
    together = relevance(model, PROMPTS, targets=[5] * len(PROMPTS), **kw).totals
    alone = [relevance(model, [p], targets=[5], **kw).totals for p in PROMPTS]
    assert np.abs(together - np.concatenate(alone, 1)).max() < 1e-4 * np.abs(together).max()
    ends = [" king", " red flower is", " on the table in the house of the king"]
    together = score(model, PROMPTS, ends, progress=False).table["logprob"].to_numpy()
    alone = [
        score(model, [p], [end], progress=False).table["logprob"][0]
        for p in PROMPTS
        for end in ends
    ]
    assert np.allclose(together, alone, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_follows_transformers_across_the_boundary(kind):
    model = loaded(kind)
    got = generate(model, PROMPTS, max_new_tokens=20, progress=False).table["tokens"]
    crossed = 0
    for tokens, ids in zip(model.tokenize(list(PROMPTS)), got, strict=True):
        whole = made(kind).generate(
            torch.tensor([tokens.ids]), max_new_tokens=20, do_sample=False, pad_token_id=1
        )
        assert ids == whole[0, len(tokens) :].tolist()
        crossed += len(tokens) <= BOUNDARY < len(tokens) + len(ids) - 1
    assert crossed
    push = add(torch.ones(model.d_model), layers=1, strength=0.0)
    same = generate(model, PROMPTS, max_new_tokens=20, interventions=push, progress=False)
    assert list(same.table["tokens"]) == list(got)


def test_only_what_may_cross_the_boundary_is_continued_alone():
    model = loaded("longrope llama")
    near = [Prompt(_BASE[:n], "en", str(n)) for n in range(20, 24)]
    with kit.passes(model) as passes:
        generate(model, near, max_new_tokens=8, progress=False)
    assert len(passes) < 16 and max(passes) == 4
    crossing = [PROMPTS[0]]
    wanted = generate(model, crossing, max_new_tokens=9, progress=False).table["tokens"][0]
    model.hf_model.set_attn_implementation("eager")  # which reads the mask as it is
    again = generate(model, crossing, max_new_tokens=9, progress=False).table["tokens"][0]
    assert again == wanted


def test_what_ran_before_does_not_count():
    model = loaded("dynamic llama")
    wanted = harvest(loaded("dynamic llama"), PROMPTS, progress=False).get("last")
    rope = model.body.rotary_emb
    model.hf_model(torch.ones(1, 100, dtype=torch.long))  # it remembers this length
    before = rope.inv_freq.clone(), rope.max_seq_len_cached
    assert kit.relative_error(harvest(model, PROMPTS, progress=False).get("last"), wanted) < 2e-5
    # A text of exactly the length trained on: transformers forgets the longer one below it only.
    assert torch.equal(rope.inv_freq, before[0]) and rope.max_seq_len_cached == before[1]


@pytest.mark.parametrize(
    ("rope", "boundary", "two_sided"),
    [
        (_LONGROPE, 32, True),
        (_DYNAMIC, 128, False),
        ({"rope_type": "of_my_own"}, 0, False),
        ({"full_attention": _LONGROPE, "sliding_attention": {"rope_type": "default"}}, 32, True),
        ({"full_attention": _LONGROPE, "sliding_attention": _DYNAMIC}, 32, False),
    ],
)
def test_the_scheme_is_told_by_the_config(rope, boundary, two_sided, family_dir):
    model = kit.fresh("llama")
    model.config.rope_parameters = rope
    found = positions.scheme(model)
    assert found and (found.boundary, found.two_sided) == (boundary, two_sided)
    for steady in ("default", "linear", "yarn", "llama3"):
        model.config.rope_parameters = {"rope_type": steady}
        assert positions.scheme(model) is None


def test_the_plan_keeps_labels_apart():
    sequences = [(1,) * 60 + (i,) for i in range(4)] + [(1,) * 50 + (i,) for i in range(4)]
    labels = [7, 7, 7, 8, 0, 0, 0, 0]
    batches = plan(sequences, 10_000, apart=labels)
    assert sorted(m for b in batches for m in b.members) == list(range(8))
    for batch in batches:
        assert len({labels[m] for m in batch.members}) == 1
        assert bool(batch.prefix_tokens) == (labels[batch.members[0]] == 0)
