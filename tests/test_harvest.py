"""Harvest: every prompt as if it were alone, nothing computed in vain, nothing left behind."""

import copy

import kit
import pytest
import torch

import tiny
from xlens import Prompt, Prompts, harvest
from xlens.models import HookedModel

SLOTS = ["last", "all", "word:first", "word:last", "word:mean", "word:each"]
CLOSE = 1e-5  # relative, fp32


def with_tokenizer(model, **settings):
    tokenizer = copy.deepcopy(model.tokenizer)
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return HookedModel(model.hf_model, tokenizer, name=model.name)


def n_hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.hf_model.modules()
    )


# --- every prompt as if it were alone ---


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batched_is_each_prompt_alone(family, family_dir):
    """In any batch, order and padding side: what Hugging Face gives for the prompt alone."""
    model = kit.model(family_dir(family))
    prompts = kit.mixed()
    tokens = {t.prompt: t for t in model.tokenize(prompts, spans=frozenset({"word"}))}
    lengths = [len(t) for t in tokens.values()]
    assert min(lengths) < 6 and max(lengths) > 40  # mixed, and longer than the sliding windows
    # `predict` needs something before the span: the first span of a text without BOS has nothing.
    later = [p for p in prompts if tokens[p].spans["word"][0] > 0]
    assert len(later) >= 9

    runs = [
        (with_tokenizer(model, padding_side="left"), list(prompts)[::-1], [*SLOTS], 250),
        (with_tokenizer(model, padding_side="right"), list(prompts), [*SLOTS], 80),
        (model, later[::2] + later[1::2], [*SLOTS, "word:predict"], 10_000),
    ]
    alone = {p: kit.hidden_states(model, tokens[p].ids) for p in prompts}
    for used, asked, slots, budget in runs:
        acts = harvest(used, asked, slots=slots, token_budget=budget, progress=False)
        assert list(acts.meta["id"]) == [p.id for p in asked]
        for slot in slots:
            for i, prompt in enumerate(asked):
                got = acts.rows(slot, i)
                if slot.endswith("mean"):  # a mean of normed states is not the norm of the mean
                    got, wanted = got[:-1], alone[prompt][:-1]
                else:
                    got = torch.cat([got[:-1], model.readout.ln_final(got[-1:])])
                    wanted = alone[prompt]
                wanted = kit.picked(wanted, tokens[prompt], slot)
                assert got.shape == wanted.shape
                assert kit.relative_error(got, wanted) < CLOSE, (slot, prompt.id, budget)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_mean_at_the_last_point_is_of_raw_states(family, family_dir):
    model = kit.model(family_dir(family))
    acts = harvest(model, kit.mixed(), slots=["word:mean", "word:each"], progress=False)
    for i in range(len(acts)):
        wanted = acts.rows("word:each", i).mean(1, keepdim=True)
        assert kit.relative_error(acts.rows("word:mean", i), wanted) < CLOSE


def test_the_sliding_windows_are_short_enough_to_matter(family_dir):
    for family in ("mistral", "gemma2", "gemma3"):
        model = kit.model(family_dir(family))
        longest = max(len(t) for t in model.tokenize(kit.mixed()))
        assert model.config.sliding_window < longest / 4


def test_positions_and_tokens_are_recorded(family_dir):
    model = kit.model(family_dir("llama"))
    prompts = kit.mixed()
    tokens = model.tokenize(prompts)
    acts = harvest(model, prompts, slots=["last", "all", "word:each", "word:mean"], progress=False)
    assert [list(x) for x in acts.meta["tokens"]] == [list(t.ids) for t in tokens]
    assert list(acts.meta["n_tokens"]) == [len(t) for t in tokens]
    assert acts.slot("last").positions.tolist() == [len(t) - 1 for t in tokens]
    assert acts.slot("word:mean").positions.unique().tolist() == [-1]
    each = [p for t in tokens for p in range(*t.spans["word"])]
    assert acts.slot("word:each").positions.tolist() == each
    assert acts.slot("all").offsets.diff().tolist() == [len(t) for t in tokens]


def test_layers_are_named_from_either_end(family_dir):
    model = kit.model(family_dir("gpt2"))
    every = harvest(model, kit.mixed(), progress=False)
    assert every.layers == (0, 1, 2, 3)
    for asked, points in ((0, (0,)), (-1, (3,)), ([2, -4, 0], (0, 2)), (range(1, 3), (1, 2))):
        some = harvest(model, kit.mixed(), layers=asked, progress=False)
        assert some.layers == points
        for layer in points:
            assert kit.relative_error(some.get(layer=layer), every.get(layer=layer)) < CLOSE


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bloom"])
def test_bos_is_what_the_tokenizer_does_or_what_was_asked(family, family_dir):
    model = kit.model(family_dir(family))
    prompts = kit.mixed()[:3]
    bos = model.tokenizer.bos_token_id
    own = [list(x) for x in harvest(model, prompts, progress=False).meta["tokens"]]
    assert model.prepends_bos == (family in ("llama", "gemma2")) == (own[0][0] == bos)
    bare = [ids[1:] if model.prepends_bos else ids for ids in own]
    for prepend, wanted in ((True, [[bos, *ids] for ids in bare]), (False, bare)):
        acts = harvest(model, prompts, slots="all", prepend_bos=prepend, progress=False)
        assert [list(x) for x in acts.meta["tokens"]] == wanted
        reference = kit.hidden_states(model, wanted[1])
        assert kit.relative_error(acts.rows("all", 1)[:-1], reference[:-1]) < CLOSE


def test_what_is_kept_has_the_asked_dtype_and_no_gradient(family_dir):
    model = kit.model(family_dir("gpt2"))
    exact = harvest(model, kit.mixed(), slots="word:mean", progress=False)
    half = harvest(model, kit.mixed(), slots="word:mean", dtype=torch.float16, progress=False)
    assert half.get().dtype == torch.float16 and half.provenance["kept_dtype"] == "torch.float16"
    assert not exact.get().requires_grad and not exact.get().is_inference()
    torch.testing.assert_close(half.get(), exact.get().half())


def test_a_half_precision_model_sums_means_in_fp32():
    model = kit.fresh("llama")
    model.hf_model.to(torch.bfloat16)
    prompts = [Prompt(tiny.TEXT["zh-Hans"], "zh-Hans", "1", {"text": (0, 47)})]
    acts = harvest(model, prompts, slots=["text:each", "text:mean"], progress=False)
    wanted = acts.rows("text:each", 0).mean(1)
    torch.testing.assert_close(acts.rows("text:mean", 0)[:, 0], wanted, rtol=1e-5, atol=1e-6)


# --- nothing in vain ---


def test_nothing_above_the_deepest_layer_and_no_vocabulary():
    model = kit.fresh("llama")
    harvest(model, kit.mixed(), progress=False)  # once per model, prefix sharing is tried out
    calls: list[str] = []
    for n, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, n=n: calls.append(f"block {n}"))
    model.hf_model.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    model.readout.ln_final.register_forward_hook(lambda *_: calls.append("norm"))
    model.hf_model.model.embed_tokens.register_forward_hook(lambda *_: calls.append("embedding"))

    def called(layers):
        calls.clear()
        harvest(model, kit.mixed(), layers=layers, token_budget=100_000, progress=False)
        return calls.copy()

    assert called(0) == ["embedding"]
    assert called([0, 2]) == ["embedding", "block 0", "block 1"]
    assert called("all") == ["embedding", "block 0", "block 1", "block 2"]


def test_duplicated_slots_and_layers_are_kept_once(family_dir):
    acts = harvest(
        kit.model(family_dir("gpt2")),
        kit.mixed(),
        layers=[1, 1, -3],
        slots=["last", "last"],
        progress=False,
    )
    assert acts.layers == (1,) and list(acts.slots) == ["last"]


# --- nothing left behind ---


def test_the_users_model_is_as_before():
    model = kit.fresh("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    hf = model.hf_model.train()
    hf.transformer.h[1].eval()  # a mixture of modes
    modes = [m.training for m in hf.modules()]
    weights = {name: tensor.clone() for name, tensor in hf.state_dict().items()}
    needed = [p.requires_grad for p in hf.parameters()]

    first, second = (harvest(model, kit.mixed(), progress=False).get() for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert [m.training for m in hf.modules()] == modes
    assert [p.requires_grad for p in hf.parameters()] == needed
    assert all(torch.equal(tensor, weights[name]) for name, tensor in hf.state_dict().items())
    assert n_hooks(model) == 0
    # It still trains.
    ids = torch.tensor([model.tokenizer("The dog")["input_ids"]])
    hf(ids, labels=ids).loss.backward()
    assert hf.transformer.wte.weight.grad is not None


@pytest.mark.parametrize("layers", ["all", 1])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_hooks_are_gone_after_an_interruption(error, layers):
    model = kit.fresh("llama")
    model.hf_model.train()

    def interrupt(*_):
        raise error("stop")

    handle = model.blocks[0].mlp.register_forward_hook(interrupt)
    with pytest.raises(error, match="stop"):
        harvest(model, kit.mixed(), layers=layers, progress=False)
    handle.remove()
    assert n_hooks(model) == 0
    assert all(m.training for m in model.hf_model.modules())
    model.hf_model.eval()
    harvest(model, kit.mixed(), layers=layers, progress=False)


def test_hooks_are_gone_when_the_hook_itself_is_interrupted(monkeypatch, family_dir):
    model = kit.model(family_dir("gpt2"))
    before = n_hooks(model)  # transformers may have left its own

    def interrupt(self, resid):
        raise KeyboardInterrupt

    monkeypatch.setattr("xlens.engine.gather.Picks.__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        harvest(model, kit.mixed(), progress=False)
    assert n_hooks(model) == before


def test_a_users_own_hooks_stay_and_count():
    model = kit.fresh("gpt2")
    plain = harvest(model, kit.mixed(), progress=False).get()
    handle = model.blocks[1].register_forward_hook(lambda _m, _a, out: out * 0)
    changed = harvest(model, kit.mixed(), progress=False).get()
    assert n_hooks(model) == 1
    assert not changed[:, 2].any() and torch.equal(changed[:, 1], plain[:, 1])
    handle.remove()


# --- bad input, before anything runs ---


def one(text="The dog sleeps", language="en", **spans):
    return Prompts([Prompt(text, language, "item 7", spans)])


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (one(), {"layers": 4}, r"Unknown layer in 4: .* 0 \(embedding\) to 3"),
        (one(), {"layers": [1, -5]}, r"Unknown layer in \[1, -5\]"),
        (one(), {"layers": "last"}, r"Unknown layer in 'last'.*'all'"),
        (one(), {"layers": []}, "At least one layer and one slot"),
        (one(), {"slots": []}, "At least one layer and one slot"),
        (one(), {"slots": "first"}, r"Unknown slot 'first'.*'last', 'all'"),
        (one(), {"slots": "word:middle"}, r"Unknown slot 'word:middle'.*first\|last\|mean"),
        (one(noun=(4, 7)), {"slots": "word:last"}, r"'item 7' \(en\) has no span 'word'.*'noun'"),
        (one(), {"slots": "word:last"}, r"no span 'word'; its spans are none"),
        (one(noun=(0, 3)), {"slots": "noun:predict"}, r"first token of prompt 'item 7'"),
        (one("dog " * 200), {}, r"'item 7' \(en\) has \d+ tokens, but .* at most 128"),
        (one(), {"token_budget": 0}, r"token_budget is 0"),
        ([], {}, "at least one prompt"),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(prompts, options, message, family_dir):
    model = kit.model(family_dir("gpt2"))
    runs: list[int] = []
    handle = model.hf_model.transformer.wte.register_forward_hook(lambda *_: runs.append(1))
    with pytest.raises(ValueError, match=message):
        harvest(model, prompts, progress=False, **options)
    handle.remove()
    assert not runs


def test_bos_is_refused_where_there_is_none(family_dir):
    model = with_tokenizer(kit.model(family_dir("qwen2")), bos_token=None)
    with pytest.raises(ValueError, match=r"prepend_bos=True.*no BOS token.*prepend_bos=None"):
        harvest(model, one(), prepend_bos=True, progress=False)
    assert harvest(model, one(), prepend_bos=False, progress=False)


def test_token_ids_that_the_model_lacks_are_refused():
    model = kit.fresh("gpt2")
    model.tokenizer.add_tokens(["dachshund"])
    with pytest.raises(ValueError, match=r"'item 7' \(en\) has the token id 800, but .* has 800"):
        harvest(model, one("a dachshund"), progress=False)


def test_a_pad_token_without_embedding_does_no_harm():
    model = kit.fresh("gpt2")
    plain = harvest(model, kit.mixed(), progress=False).get()
    model.tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    assert model.tokenizer.pad_token_id == model.d_vocab
    assert kit.relative_error(harvest(model, kit.mixed(), progress=False).get(), plain) < CLOSE


@pytest.mark.parametrize("slot", ["last", "word:mean", "all"])
def test_a_state_that_is_not_finite_names_layer_and_prompt(slot):
    model = kit.fresh("llama")
    prompts = kit.mixed()
    ids = model.tokenizer(prompts[5].text)["input_ids"]
    rest = [p.text for p in prompts if p is not prompts[5]]
    others = {i for text in rest for i in model.tokenizer(text)["input_ids"]}
    rare = [i for i in range(*model.tokenize(prompts)[5].spans["word"]) if ids[i] not in others]
    # From a token on that only prompt 5 has, the second block's output is not a number.
    target = ids[rare[0]]
    seen = {}

    def overflow(_module, _args, out):
        after = (seen["ids"] == target).cummax(1)[0].unsqueeze(-1)
        return out.masked_fill(after, float("nan"))

    model.hf_model.model.embed_tokens.register_forward_hook(
        lambda _m, args, _o: seen.update(ids=args[0])
    )
    model.blocks[1].mlp.register_forward_hook(overflow)
    with pytest.raises(ValueError, match=rf"layer 2, slot '{slot}', prompt 'item 5' \(zh-Hans\)"):
        harvest(model, prompts, slots=slot, progress=False)


def test_a_weight_that_is_not_finite_is_noticed():
    model = kit.fresh("gpt2")
    with torch.no_grad():
        model.blocks[2].mlp.c_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"layer 3, slot 'last', prompt 'item 0' \(en\)"):
        harvest(model, kit.mixed(), progress=False)


def test_overflow_of_the_kept_dtype_is_noticed():
    model = kit.fresh("gpt2")
    with torch.no_grad():
        model.hf_model.transformer.wte.weight *= 1e6
    with pytest.raises(ValueError, match=r"layer 0.*torch\.float16.*65,504"):
        harvest(model, kit.mixed(), dtype=torch.float16, progress=False)
