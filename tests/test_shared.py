"""Shared prefixes: the same states as every prompt by itself, for every family."""

import logging

import kit
import pytest
import torch

import tiny
import xlens
from xlens.engine import forward as run
from xlens.engine import plan, trust
from xlens.engine.harvest import harvest
from xlens.prompts import Prompt, Prompts

SLOTS = ("last", "all", "context:mean", "context:last", "question:each", "question:predict")


def parallel() -> Prompts:
    """Two contexts with several questions each, one prompt alone; spans cross the prefix's end."""
    contexts = [
        "Die Hauptstadt von Frankreich ist Paris, sagt man. ",
        "東京は日本の首都です。 " * 2,
    ]
    asked = ["Wo?", "Where is it then?", "何処ですか", "Wo ist", "x"]
    found = [
        Prompt.from_parts(
            [("context", context), ("question", question)], language="de", id=f"{c} {q}"
        )
        for c, context in enumerate(contexts)
        for q, question in enumerate(asked)
    ]
    lonely = Prompt.from_parts(
        [("context", "Ganz "), ("question", "anders")], language="de", id="x"
    )
    return Prompts([*found, lonely])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shared_is_unshared(family, side, family_dir):
    model = kit.model(family_dir(family))
    model.tokenizer.padding_side = side
    prompts = parallel()
    assert trust.shares_prefixes(model)
    wanted = harvest(
        model, prompts, slots=SLOTS, share_prefixes=False, token_budget=1, progress=False
    )
    for budget in (40, 2048):
        got = harvest(model, prompts, slots=SLOTS, token_budget=budget, progress=False)
        for slot in SLOTS:
            a, b = got.slot(slot), wanted.slot(slot)
            assert torch.equal(a.offsets, b.offsets) and torch.equal(a.positions, b.positions)
            assert kit.relative_error(a.values, b.values) < 2e-5, (slot, budget)


def test_a_prefix_runs_once(family_dir, monkeypatch):
    model = kit.model(family_dir("llama"))
    computed = []
    forward = run.forward

    def counted(model, ids, mask, *rest):
        computed.append(int(mask[:, -ids.shape[1] :].sum()))
        return forward(model, ids, mask, *rest)

    monkeypatch.setattr(run, "forward", counted)
    head = "Die Hauptstadt von Frankreich ist Paris. " * 2
    prompts = Prompts(Prompt(head + "?" * n, "de", str(n)) for n in range(1, 9))
    trust.shares_prefixes(model)
    lengths = [len(t) for t in model.tokenize(list(prompts))]
    computed.clear()
    harvest(model, prompts, progress=False)
    with_sharing = sum(computed)
    computed.clear()
    harvest(model, prompts, share_prefixes=False, progress=False)
    assert sum(computed) == sum(lengths)
    assert with_sharing < 0.4 * sum(lengths)


def test_identical_prompts_run_once(family_dir):
    model = kit.model(family_dir("gpt2"))
    rows = []
    handle = model.blocks[0].register_forward_pre_hook(lambda _m, a: rows.append(len(a[0])))
    try:
        prompts = [Prompt("the same text", "en", str(i)) for i in range(20)]
        acts = harvest(model, prompts, progress=False, share_prefixes=False)
    finally:
        handle.remove()
    assert rows == [1]
    assert torch.equal(acts.get("last")[0], acts.get("last")[19])


@pytest.mark.parametrize("window", [None, 90])  # the texts that are tried are as long as windows
def test_a_cache_that_cannot_be_trusted_is_not_used(window, caplog):
    model = kit.fresh("llama") if window is None else kit.fresh("mistral", sliding_window=window)

    def wrong(module, args, kwargs):
        # As if the family forgot where it was: with a cache, positions start again at zero.
        if kwargs.get("past_key_values") is not None:
            kwargs["position_ids"] = torch.zeros_like(kwargs["position_ids"])
        return args, kwargs

    handle = model.body.register_forward_pre_hook(wrong, with_kwargs=True)
    try:
        with caplog.at_level(logging.WARNING):
            assert not trust.shares_prefixes(model)
        assert "can't be trusted with shared prefixes" in caplog.text
        got = harvest(model, parallel(), progress=False)
    finally:
        handle.remove()
    wanted = harvest(model, parallel(), share_prefixes=False, progress=False)
    assert kit.relative_error(got.get("last"), wanted.get("last")) < 2e-5


def test_a_prefix_longer_than_the_sliding_window(family_dir):
    model = kit.model(family_dir("mistral"))
    window = model.config.sliding_window
    assert window
    head = "ab cd ef gh " * (window // 4 + 2)
    prompts = Prompts(Prompt(head[: 100 + n] + "!?"[n % 2], "en", str(n)) for n in range(6))
    got = xlens.harvest(model, prompts, slots="all", progress=False)
    wanted = xlens.harvest(model, prompts, slots="all", share_prefixes=False, progress=False)
    assert kit.relative_error(got.slot("all").values, wanted.slot("all").values) < 2e-5


def test_padding_after_a_prefix_that_nearly_fills_the_context(family_dir):
    model = kit.model(family_dir("gpt2"))  # each position is a row of a table
    long, short = tiny.TEXT["ru"] * 2, tiny.TEXT["en"][:160]
    count = lambda text: len(model.tokenize([Prompt(text, "ru", "x")])[0])  # noqa: E731
    long = next(t for n in range(1, len(long)) if count(t := long[:n]) == model.n_ctx - 1)
    texts = [long + "!", long + "?", short + tiny.TEXT["de"][:40], short + tiny.TEXT["fr"][:60]]
    prompts = [Prompt(text, "ru", text) for text in texts]
    (batch,) = plan([t.ids for t in model.tokenize(prompts)], 2048)
    assert batch.groups[0].prefix == model.n_ctx - 1 and len(batch.passes) == 1
    got = harvest(model, prompts, slots="all", progress=False).slot("all").values
    wanted = harvest(model, prompts, slots="all", share_prefixes=False, progress=False)
    assert kit.relative_error(got, wanted.slot("all").values) < 2e-5


def test_a_mean_over_a_span_that_a_shared_prefix_cuts(family_dir):
    model = kit.model(family_dir("llama"))
    head, same = "The dog sleeps in the house. We drink cold water. ", "January is the first month "
    prompts = Prompts(
        Prompt.from_parts([head, ("cut", same + end), " Where?"], language="en", id=end)
        for end in ("of the year", "in summer", "on the table it is red", "of the king")
    )
    tokens = model.tokenize(list(prompts))
    (batch,) = plan([t.ids for t in tokens], 2048)
    prefix = batch.groups[0].prefix
    assert all(t.spans["cut"][0] < prefix < t.spans["cut"][1] - 1 for t in tokens)
    got = harvest(model, prompts, slots="cut:mean", progress=False).get("cut:mean")
    for i, t in enumerate(tokens):
        wanted = kit.picked(kit.hidden_states(model, t.ids), t, "cut:mean")[:-1, 0]
        assert kit.relative_error(got[i][:-1], wanted) < 2e-5
