"""What is true on the CPU is true on a GPU, in fp32 and in bf16.

Skipped where there is no CUDA device. `XLENS_TEST_DEVICE=cpu pytest -m gpu` runs the same bodies on
the CPU, to see that they are sound; what only a card can show stays skipped there.

Tolerances are relative to a state's own size. fp32: sums in another order. bf16: eight bits of
mantissa, rounded anew at each of a few blocks, and kernels of other shapes sum in another order.
"""

import os
from functools import cache

import kit
import pytest
import torch
from accelerate import dispatch_model
from test_shared import SLOTS, parallel

import tiny
import xlens
from xlens import engine
from xlens.engine.interventions import add, patch, project_out, scale
from xlens.prompts import Prompt, Prompts

DEVICE = torch.device(os.environ.get("XLENS_TEST_DEVICE", "cuda"))
FP32, BF16 = torch.float32, torch.bfloat16
CLOSE = {FP32: 2e-5, BF16: 5e-2}
NATS = {FP32: 1e-4, BF16: 0.15}  # of a summed log-probability of a few tokens
# Norms, soft-caps, windows, ALiBi-free and rotary: what kernels do differently.
FAMILIES = ("gpt2", "llama", "gemma2", "gemma3")

pytestmark = pytest.mark.gpu
card_alone = pytest.mark.skipif(DEVICE.type != "cuda", reason="only a card can show it")


@pytest.fixture(scope="module")
def on_device(family_dir):
    """A family's model on the device, loaded once a dtype."""

    @cache
    def loaded(family, dtype=FP32):
        return xlens.load(family_dir(family), dtype=dtype, device=DEVICE)

    return loaded


@pytest.fixture(params=[FP32, BF16], ids=["fp32", "bf16"])
def dtype(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def model(request, dtype, on_device):
    return on_device(request.param, dtype)


def harvest(model, prompts, **options):
    return engine.harvest(model, prompts, progress=False, **options)


def close(got, wanted, dtype):
    error = kit.relative_error(got.float(), wanted.float())
    assert error < CLOSE[dtype], error


def rows(acts, slot="last"):
    return acts.slot(slot).values


# --- states ---


def test_batched_is_each_prompt_alone(model, dtype):
    prompts = list(kit.mixed())
    together = harvest(model, prompts, slots=["last", "all", "word:mean"], token_budget=300)
    for i, prompt in enumerate(prompts):
        alone = harvest(model, [prompt], slots=["last", "all", "word:mean"])
        for slot in ("last", "all", "word:mean"):
            close(together.rows(slot, i), alone.rows(slot, 0), dtype)


def test_the_bare_model_gives_the_same(model, dtype):
    """By Hugging Face's own doing, on this device."""
    prompts = list(kit.mixed())
    found = harvest(model, prompts, slots="all")
    for i, tokens in enumerate(model.tokenize(prompts)):
        with torch.inference_mode():
            out = model.hf_model(
                torch.tensor([tokens.ids], device=model.device), output_hidden_states=True
            )
        wanted = torch.cat(out.hidden_states).cpu()
        close(found.rows("all", i)[:-1], wanted[:-1], dtype)  # theirs ends after the norm


def test_shared_is_unshared(model, dtype):
    shared, plain = (
        harvest(model, parallel(), slots=SLOTS, share_prefixes=share) for share in (True, False)
    )
    for slot in SLOTS:
        close(rows(shared, slot), rows(plain, slot), dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_device_gives_what_the_cpu_gives(family, on_device, family_dir):
    here, there = kit.model(family_dir(family)), on_device(family)
    for slot in ("all", "word:mean"):
        wanted, got = (rows(harvest(m, kit.mixed(), slots=slot), slot) for m in (here, there))
        assert kit.relative_error(got, wanted) < 1e-4
    assert here.fingerprint == there.fingerprint


def test_the_store_holds_the_same_bytes(model, tmp_path):
    prompts = parallel()
    plain = harvest(model, prompts, slots=SLOTS)
    stored = engine.harvest_to_store(model, prompts, tmp_path, slots=SLOTS, progress=False)
    with kit.passes(model) as seen:
        again = harvest(model, prompts, slots=SLOTS, store=tmp_path)
    assert not seen  # nothing was computed
    for slot in SLOTS:
        assert torch.equal(rows(stored.load(), slot), rows(plain, slot))
        assert torch.equal(rows(again, slot), rows(plain, slot))


def test_copies_are_whole_while_the_device_is_busy(on_device):
    """Many passes of all states, beside work on another stream: the same bytes each time."""
    model = on_device("llama")
    prompts = [p for _ in range(6) for p in kit.mixed()]
    prompts = [Prompt(p.text + " x" * n, p.language, str(n)) for n, p in enumerate(prompts[:40])]
    quiet = harvest(model, prompts, slots=["all", "last"], token_budget=200)
    large = torch.randn(4096, 4096, device=DEVICE) if DEVICE.type == "cuda" else None
    beside = None if large is None else torch.cuda.Stream(DEVICE)
    for _ in range(3):
        if beside is not None:
            with torch.cuda.stream(beside):
                for _ in range(20):
                    large @ large
        busy = harvest(model, prompts, slots=["all", "last"], token_budget=200)
        for slot in ("all", "last"):
            assert torch.equal(rows(busy, slot), rows(quiet, slot))


# --- what is read ---


def test_the_lens_is_the_whole_softmax(model):
    kept = harvest(model, kit.mixed())
    states = rows(kept)
    n = states.shape[1]
    targets = torch.tensor([[[5, 7], [9, -1]]]).expand(n, -1, -1)
    found = engine.stream(model.readout, kept, targets=targets, top_k=5)
    logprobs = model.readout.logits(states).double().log_softmax(-1).cpu()
    best, ids = logprobs.topk(5)
    assert (found.top_logprobs - best).abs().max() < 1e-4
    assert (found.top_ids == ids).float().mean() > 0.99  # ties to rounding
    entropy = -(logprobs.exp() * logprobs).sum(-1) / torch.log(torch.tensor(2.0))
    assert (found.entropy - entropy).abs().max() < 1e-3
    sets = torch.stack([logprobs[..., [5, 7]].logsumexp(-1), logprobs[..., 9]], dim=-1)
    assert (found.set_logprobs - sets).abs().max() < 1e-4
    ranks = 1 + (logprobs > logprobs[..., 9:10] + 1e-5).sum(-1)
    assert (found.set_ranks[..., 1] - ranks).abs().float().mean() < 0.05


def test_scores_are_those_of_each_candidate_alone(model, dtype):
    prompts = [p for p in parallel()][:4]
    candidates = [" Paris", "東京", " the king"]
    batched = engine.score(model, prompts, candidates, progress=False).table
    for row in batched.itertuples():
        prompt = next(p for p in prompts if p.id == row.id)
        alone = engine.score(model, [prompt], [row.text], share_prefixes=False, progress=False)
        assert abs(float(alone.table["logprob"].iloc[0]) - row.logprob) < NATS[dtype] * row.n_tokens


def test_continuations_are_the_models_own(model, dtype):
    """Each token the best by a plain pass over what stands before it, up to rounding."""
    prompts = list(kit.mixed())[:6]
    found = engine.generate(model, prompts, max_new_tokens=6, progress=False).table
    for tokens, made in zip(model.tokenize(prompts), found["tokens"], strict=True):
        ids = [*tokens.ids, *made]
        with torch.inference_mode():
            out = model.hf_model(torch.tensor([ids], device=model.device), use_cache=False)
        logits = out.logits[0, len(tokens) - 1 : -1].float().cpu()
        chosen = logits.gather(1, torch.tensor(made)[:, None])[:, 0]
        short = (logits.amax(-1) - chosen) / logits.std(-1)
        assert short.max() < (1e-4 if dtype == FP32 else 0.2)


def test_relevance_is_that_of_each_prompt_alone(model, dtype):
    prompts = list(kit.mixed())[:6]
    options = {"rule": "gradient", "progress": False}
    together = engine.relevance(model, prompts, targets=[7] * 6, **options)
    for i, prompt in enumerate(prompts):
        alone = engine.relevance(model, [prompt], targets=[7], **options)
        wanted = torch.from_numpy(alone.totals)[:, 0]
        got = torch.from_numpy(together.totals)[:, i]
        size = wanted.abs().max()
        # Relevances cancel: their sum is small beside them.
        assert ((got - wanted).abs() / size).max() < (1e-3 if dtype == FP32 else 0.3)


@pytest.mark.parametrize("rule", ["gradient", "attnlrp"])
def test_relevance_on_the_device_is_that_of_the_cpu(rule, on_device, family_dir):
    prompts = list(kit.mixed())[:6]
    wanted, got = (
        engine.relevance(m, prompts, targets=[7] * 6, rule=rule, progress=False).values
        for m in (kit.model(family_dir("llama")), on_device("llama"))
    )
    assert abs(got - wanted).max() / abs(wanted).max() < 1e-3


def test_tallies_and_attention_are_those_of_the_cpu(on_device, family_dir):
    here, there = kit.model(family_dir("llama")), on_device("llama")
    wanted, got = (engine.tally(m, kit.mixed(), progress=False) for m in (here, there))
    assert abs(got.counts - wanted.counts).max() <= 1  # a state may lie at the threshold
    assert abs(got.sums - wanted.sums).max() < 1e-4 * abs(wanted.sums).max()
    wanted, got = (engine.attention(m, kit.mixed(), "word", progress=False) for m in (here, there))
    assert abs(got.mass - wanted.mass).max() < 1e-4 and abs(got.rest - wanted.rest).max() < 1e-4


# --- what is changed ---


def changes(model):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(11, model.d_model, generator=generator)
    return {
        "one for all": add(vectors[0], layers=1),
        "one per prompt": add(vectors, layers=[1, 2], slot="question:last"),
        "projected out": project_out(vectors[:2], layers=2, slot="context:last"),
        "units": scale([0, 3], 0.0, site="mlp_post", layers=1),
        "patched": patch(vectors, layers=1, slot="last"),
    }


@pytest.mark.parametrize("what", ["one for all", "one per prompt", "projected out", "units"])
def test_changed_states_are_those_of_each_prompt_alone(what, model, dtype):
    if what == "units" and model.family.gated:
        return  # tried with GPT-2
    prompts = list(parallel())
    change = changes(model)[what]
    together = harvest(model, prompts, interventions=change)
    assert not torch.equal(rows(together), rows(harvest(model, prompts)))
    unshared = harvest(model, prompts, interventions=change, share_prefixes=False, token_budget=90)
    close(rows(together), rows(unshared), dtype)


def test_a_patch_is_there_and_a_sum_is_exact(model, dtype):
    prompts, vectors = list(parallel()), changes(model)["patched"].values
    found = harvest(model, prompts, interventions=changes(model)["patched"])
    assert torch.equal(rows(found)[1], vectors.to(dtype).float())
    plain = harvest(model, prompts)
    added = harvest(model, prompts, interventions=changes(model)["one for all"])
    wanted = rows(plain)[1] + add(vectors[0], layers=1).values
    close(rows(added)[1], wanted, dtype)


def test_variants_are_single_runs(model, dtype):
    prompts, offered = list(parallel())[:5], [" Paris", " x"]
    vector = torch.ones(model.d_model)
    variants = {
        "plain": (),
        "added": add(vector, layers=2),
        "above": add(vector, layers=1, slot="last"),
    }
    found = engine.score_variants(model, prompts, offered, variants, progress=False)
    for name, change in variants.items():
        alone = engine.score(model, prompts, offered, interventions=change, progress=False).table
        assert abs(found[name].table["logprob"] - alone["logprob"]).max() < 3 * NATS[dtype]


# --- memory ---


def test_memory_that_runs_out_is_gone_round(on_device, caplog):
    model = on_device("llama")
    prompts = parallel()
    wanted = harvest(model, prompts, slots=SLOTS, share_prefixes=False)

    def full(_module, args):
        if args[0].shape[0] * args[0].shape[1] > 80:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate more.")

    handle = model.blocks[1].register_forward_pre_hook(full)
    try:
        got = harvest(model, prompts, slots=SLOTS, share_prefixes=False, token_budget=10_000)
    finally:
        handle.remove()
    assert "Out of memory: going on with a token budget" in caplog.text
    for slot in SLOTS:
        close(rows(got, slot), rows(wanted, slot), FP32)


@card_alone
def test_a_card_that_is_full_is_gone_round(caplog):
    """Not simulated: so little of the card may be used that the pass asked for does not fit."""
    model = xlens.load(
        tiny.model("llama", hidden_size=1024, intermediate_size=8192).to(DEVICE),
        tiny.tokenizer("llama"),
    )
    prompts = Prompts(Prompt(f"{n} " + "the king " * 8, "en", str(n)) for n in range(400))
    wanted = harvest(model, prompts, share_prefixes=False, token_budget=1_000)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    allowed = torch.cuda.memory_allocated(DEVICE) + 200 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total, DEVICE)
    try:
        got = harvest(model, prompts, share_prefixes=False, token_budget=10**6)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    assert "Out of memory: going on with a token budget" in caplog.text
    close(rows(got), rows(wanted), FP32)


# --- several devices ---


def test_a_model_on_two_devices(on_device):
    """Embedding and first block here, the rest on the host: as `device_map` spreads over two."""
    spread = tiny.model("llama")
    places = {"model.embed_tokens": DEVICE, "model.layers.0": DEVICE, "model.rotary_emb": DEVICE}
    places |= {f"model.layers.{n}": "cpu" for n in (1, 2)} | {"model.norm": "cpu", "lm_head": "cpu"}
    # With the host as the main device accelerate computes there, where it would else only keep.
    dispatch_model(spread, places, main_device="cpu", force_hooks=True)
    model, whole = xlens.load(spread, tiny.tokenizer("llama")), on_device("llama")
    assert set(model.devices) == {torch.device("cpu"), whole.device}
    prompts = list(parallel())
    for slot in SLOTS:
        got, wanted = (rows(harvest(m, prompts, slots=slot), slot) for m in (model, whole))
        assert kit.relative_error(got, wanted) < 1e-4
    some = prompts[:3]
    change = add(torch.randn(11, model.d_model), layers=[1, 2, 3], slot="last")
    got, wanted = (rows(harvest(m, prompts, interventions=change)) for m in (model, whole))
    assert kit.relative_error(got, wanted) < 1e-4
    for verb in (
        lambda m: engine.score(m, some, [" x", " Paris"], progress=False).table["logprob"],
        lambda m: engine.relevance(m, some, targets=[7] * 3, progress=False).values,
        lambda m: engine.tally(m, some, progress=False).sums,
    ):
        assert abs(verb(model) - verb(whole)).max() < 1e-3 * abs(verb(whole)).max()
    got, wanted = (
        engine.generate(m, some, max_new_tokens=4, progress=False).table for m in (model, whole)
    )
    assert list(got["tokens"]) == list(wanted["tokens"])


def test_a_device_map_puts_it_where_it_says(family_dir, on_device):
    whole = on_device("gpt2")
    mapped = xlens.load(family_dir("gpt2"), device_map={"": str(whole.device)})
    assert mapped.device == whole.device and mapped.fingerprint == whole.fingerprint
    assert torch.equal(rows(harvest(mapped, kit.mixed())), rows(harvest(whole, kit.mixed())))


def test_results_say_where_and_how_exactly(on_device):
    told = harvest(on_device("gpt2"), parallel()).provenance
    assert told["device"] == DEVICE.type and told["precision"]["float32_matmul"] == "highest"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_compiled_blocks_are_the_blocks(family, dtype, on_device, family_dir):
    plain = on_device(family, dtype)
    backend = True if DEVICE.type == "cuda" else "eager"  # the default one needs a C++ compiler
    net = xlens.load(family_dir(family), dtype=dtype, device=DEVICE, compile=backend)
    close(rows(harvest(net, kit.mixed())), rows(harvest(plain, kit.mixed())), dtype)
