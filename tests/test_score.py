"""Candidates: exact log-probabilities, shared with the prompt, also by layer."""

import kit
import numpy as np
import pytest
import torch

import tiny
from xlens.engine import interventions, score
from xlens.prompts import Prompt

PROMPTS = [
    Prompt("Die Hauptstadt von Frankreich ist", "de", "1"),
    Prompt("法国的首都是", "zh-Hans", "2"),
    Prompt("The capital is", "en", "3"),
]
CANDIDATES = [" Paris", " Rom und mehr", "巴黎"]


def plain(model, text, more, prepend=None):
    """Sum of log-probabilities of the tokens of `more`, by one forward pass of its own."""
    encoded = model.tokenizer(text + more, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    logprobs = kit.logits(model, ids).log_softmax(-1)
    mine = [i for i, (a, b) in enumerate(offsets) if b > len(text) and a < b]
    return sum(float(logprobs[i - 1, ids[i]]) for i in mine), len(mine)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_a_pass_of_its_own(family, family_dir):
    model = kit.model(family_dir(family))
    table = score(model, PROMPTS, CANDIDATES, progress=False).table
    assert len(table) == 9
    for row in table.itertuples():
        prompt = next(p for p in PROMPTS if p.id == row.id)
        wanted, n = plain(model, prompt.text, row.text)
        assert row.logprob == pytest.approx(wanted, abs=2e-4, rel=1e-5)
        assert row.n_tokens == n
        assert row.mean_logprob == pytest.approx(row.logprob / n)


def test_by_layer_through_the_lens(family_dir):
    model = kit.model(family_dir("gemma2"))
    scores = score(model, PROMPTS[:1], CANDIDATES[:2], layers="all", progress=False).table
    ids = model.tokenizer(PROMPTS[0].text + CANDIDATES[0])["input_ids"]
    n = int(scores["n_tokens"].iloc[0])
    states = kit.hidden_states(model, ids)
    for layer in range(model.n_layers):
        logprobs = model.readout.logits(states[layer]).log_softmax(-1)
        wanted = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(ids) - n, len(ids)))
        row = scores[(scores["layer"] == layer) & (scores["candidate"] == 0)]
        assert row["logprob"].item() == pytest.approx(wanted, abs=2e-4, rel=1e-5)


def test_best_and_forms_of_candidates(family_dir):
    model = kit.model(family_dir("gpt2"))
    same = score(model, PROMPTS, CANDIDATES, progress=False)
    each = score(model, PROMPTS, [CANDIDATES] * 3, progress=False)
    by_id = score(model, PROMPTS, {p.id: CANDIDATES for p in PROMPTS}, progress=False)
    for other in (each, by_id):
        np.testing.assert_array_equal(same.table["logprob"], other.table["logprob"])
    best = same.best()
    assert list(best["id"]) == ["1", "2", "3"] and list(best) == list(same.table)
    for row in best.itertuples():
        assert row.logprob == same.table[same.table["id"] == row.id]["logprob"].max()
    with pytest.raises(ValueError, match="accepted are 'logprob', 'mean_logprob', 'byte_"):
        same.best(by="prob")


def test_interventions_reach_the_score(family_dir):
    model = kit.model(family_dir("llama"))
    token = model.tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    vector = model.readout.W_U[:, token]
    push = interventions.add(50 * vector, layers=model.n_layers)
    plain_score = score(model, PROMPTS, [" Paris"], progress=False).table
    zero = score(
        model,
        PROMPTS,
        [" Paris"],
        interventions=[interventions.add(vector, layers=model.n_layers, strength=0.0)],
        progress=False,
    ).table
    pushed = score(model, PROMPTS, [" Paris"], interventions=[push], progress=False).table
    np.testing.assert_array_equal(plain_score["logprob"], zero["logprob"])
    assert (pushed["logprob"] != plain_score["logprob"]).all()


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (" Paris", r"candidates of score: ' Paris' .* Write \[' Paris'\]"),
        ([], "at least one is needed"),
        (["a", "a"], "occurs once"),
        (["a", ""], "non-empty"),
        ([["a"], ["b"]], "2 sequences of candidates for 3 prompts"),
        ({"1": ["a"]}, "2 prompts have no candidates, first '2'"),
    ],
)
def test_bad_candidates(candidates, message, family_dir):
    with pytest.raises(ValueError, match=message):
        score(kit.model(family_dir("gpt2")), PROMPTS, candidates, progress=False)


def test_the_prompt_runs_once_for_its_candidates(family_dir):
    model = kit.model(family_dir("qwen2"))
    tokens = []
    handle = model.blocks[0].register_forward_pre_hook(
        lambda _m, a, k: tokens.append(
            torch.tensor((a[0] if a else k["hidden_states"]).shape[:2]).prod().item()
        ),
        with_kwargs=True,
    )
    long = Prompt("Wo ist die Stadt, von der alle reden und reden und reden? " * 2, "de", "long")
    try:
        score(model, [long], [" A", " B", " C", " D"], progress=False)
        tokens.clear()
        score(model, [long], [" A", " B", " C", " D"], progress=False)
    finally:
        handle.remove()
    length = len(model.tokenizer(long.text)["input_ids"])
    assert sum(tokens) < 1.5 * length
