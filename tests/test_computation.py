"""What changes a model's computation stands in the store's key, or keeps the store away."""

import contextlib
import copy
import functools
import sys
import threading
import types

import kit
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionMaskInterface

import xlens
from xlens.engine import (
    generate,
    harvest,
    harvest_to_store,
    harvest_variants,
    relevance,
    score,
    score_variants,
)
from xlens.engine.interventions import add, intervene
from xlens.models.computation import computation, precision
from xlens.models.foreign import foreign
from xlens.prompts import Prompt, Prompts
from xlens.store import Store

PROMPTS = Prompts(Prompt(t, "en", t) for t in ("The dog sleeps", "Where is", "The book is on the"))
QUIET = {"progress": False}


def harvested(model, **kw):
    return harvest(model, PROMPTS, layers=[1, model.n_layers], **kw, **QUIET).get("last")


def scored(model, **kw):
    found = score(model, PROMPTS, [" house", " red flower"], **kw, **QUIET)
    return torch.tensor(found.table["logprob"].to_numpy())


def written(model, **kw):
    found = generate(model, PROMPTS, max_new_tokens=6, **kw, **QUIET).table["tokens"]
    return torch.tensor([[*t, *[-1] * (6 - len(t))] for t in found])


def varied(model, **kw):
    found = score_variants(model, PROMPTS, [" house", " red"], {"plain": ()}, **kw, **QUIET)
    return torch.tensor(found["plain"].table["logprob"].to_numpy())


def varied_states(model, **kw):
    found = harvest_variants(model, PROMPTS, {"plain": ()}, layers=[model.n_layers], **kw, **QUIET)
    return found["plain"].get("last")


def relevant(model, **kw):
    found = relevance(model, PROMPTS, targets=[5] * 3, slots="last", **kw, **QUIET)
    return torch.tensor(found.values)


KEPT = [harvested, scored, written, varied]
ALL = [*KEPT, varied_states, relevant]


def push(model, strength=30.0):
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3))
    return add(v, layers=2, strength=strength, slot="all")


# --- in the key ---


@pytest.mark.parametrize("run", KEPT)
def test_interventions_around_are_never_served_as_plain_nor_plain_as_them(run, tmp_path):
    model = kit.fresh("llama")
    plain = run(model)
    with intervene(model, push(model)):
        steered = run(model)
        assert torch.equal(run(model, store=tmp_path / "a"), steered)
    assert not torch.equal(steered, plain)
    assert torch.allclose(run(model, store=tmp_path / "a"), plain, atol=1e-4)
    run(model, store=tmp_path / "b")
    with intervene(model, push(model)), kit.passes(model) as passes:
        assert torch.allclose(run(model, store=tmp_path / "b"), steered, atol=1e-4)
        assert passes
        passes.clear()
        run(model, store=tmp_path / "b")
        assert not passes  # these have entries of their own
        with intervene(model, push(model, 1.0)):
            run(model, store=tmp_path / "b")
        assert passes


def buffer(model):
    model.body.rotary_emb.inv_freq.mul_(1.7)


def plain_tensor(model):
    model.blocks[0].mlp.nothing_but_a_tensor = torch.ones(3)


def epsilon(model):
    model.blocks[1].input_layernorm.variance_epsilon = 0.5


def scaling(model):
    model.blocks[1].self_attn.scaling *= 3


def config(model):
    model.config.rms_norm_eps = 0.5


def config_of_a_block(model):
    model.blocks[1].self_attn.config = copy.deepcopy(model.config)
    model.blocks[1].self_attn.config._attn_implementation = "eager"


def attention(model):
    model.hf_model.set_attn_implementation("eager")


def attention_of_the_same_function(model):
    # Its name also says which masks it gets: here none.
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("sdpa_unmasked", sdpa_attention_forward)
    model.hf_model.set_attn_implementation("sdpa_unmasked")


def activation(model):
    model.blocks[1].mlp.act_fn = nn.Tanh()


def function(model):
    model.blocks[1].mlp.act = torch.tanh


def adapter(model):
    from peft import LoraConfig

    model.hf_model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))


def forward_of_another_known_class(model):
    model.blocks[1].input_layernorm.__class__ = type("LlamaRMSNorm", (nn.Identity,), {})
    model.blocks[1].input_layernorm.__class__.__module__ = type(model.blocks[1]).__module__


def places_of_weights(model):
    weight = model.blocks[1].mlp.down_proj.weight
    weight.data.copy_(weight.data.flip(0))  # torch counts no writes through .data


def tied(model):
    model.blocks[0].mlp.down_proj.weight = model.blocks[1].mlp.down_proj.weight


def parametrised(model):
    class Double(nn.Module):
        def forward(self, x):
            return x * 2

    parametrize.register_parametrization(model.blocks[0].mlp.down_proj, "weight", Double())


def made_in_inference_mode(model):
    with torch.inference_mode():
        model.blocks[0].mlp.down_proj.weight.mul_(3)


def halves(model):
    model.hf_model.half()


CHANGES = [buffer, plain_tensor, epsilon, scaling, config, config_of_a_block, attention]
CHANGES += [attention_of_the_same_function]
CHANGES += [activation, function, forward_of_another_known_class, places_of_weights, tied]
CHANGES += [parametrised, made_in_inference_mode, halves]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_pass_reads_is_in_the_key(change, tmp_path):
    model = kit.fresh("llama")
    harvested(model, store=tmp_path)
    with kit.passes(model) as passes:
        harvested(model, store=tmp_path)
        assert not passes
        change(model)
        assert not foreign(model.hf_model)
        harvested(model, store=tmp_path)
        assert passes
    assert len(Store(tmp_path).entries()) == 2


def test_an_adapter_switched_on_scaled_or_off_is_another_model(tmp_path):
    pytest.importorskip("peft")
    model = kit.fresh("llama")
    plain = harvested(model, store=tmp_path)
    adapter(model)
    on = harvested(model, store=tmp_path)
    model.hf_model.disable_adapters()
    off = harvested(model, store=tmp_path)
    model.hf_model.enable_adapters()
    model.blocks[0].self_attn.q_proj.scaling["default"] *= 5
    scaled = harvested(model, store=tmp_path)
    assert torch.allclose(plain, off, atol=1e-5)
    assert not torch.allclose(on, off, atol=1e-3) and not torch.allclose(on, scaled, atol=1e-3)
    assert not foreign(model.hf_model)


def test_the_key_names_versions_and_the_code_of_modules_outside_packages(monkeypatch, tmp_path):
    model = kit.fresh("llama")
    found = computation(model.hf_model)["code"]
    assert found["torch"] == torch.__version__ and "transformers" in found
    harvested(model, store=tmp_path)
    monkeypatch.setattr("transformers.__version__", "5.0.1")
    with kit.passes(model) as passes:
        harvested(model, store=tmp_path)
    assert passes


class Holder:
    def __init__(self, held):
        self.held, self.me = held, self


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


def scaling_by(factor):
    def scaled(x, *, by=factor):
        return x * by

    return scaled


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "made",
    [
        lambda size: Holder(torch.full((2,), size)),
        lambda size: [Slotted({"of": size})],
        lambda size: types.SimpleNamespace(held=np.full(2, size)),
        lambda size: functools.partial(torch.mul, other=size),
        scaling_by,
        lambda size: lambda x, by=size: x * by,
        lambda size: complex(size, 1),
        lambda size: torch.sparse_coo_tensor([[0]], [size], (2,)),
        lambda size: [nn.Linear(2, 2).requires_grad_(False).apply(lambda m: m.weight.fill_(size))],
    ],
)
def test_numbers_are_found_in_whatever_a_module_holds(made):
    model = kit.fresh("llama")

    def key(size):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.blocks[1].mlp.held = made(size)
        return computation(model.hf_model)["modules"], model.fingerprint

    assert key(2.0) == key(2.0) != key(3.0)


@pytest.mark.parametrize("version", [None, "9.8"])  # beside a checkpoint; a package worked on
def test_code_that_is_no_release_is_named_by_its_files(version, monkeypatch, tmp_path):
    monkeypatch.setattr("xlens.models.computation._distribution", lambda source: version)
    keys = []
    for extra in ("", "# changed\n"):
        folder = tmp_path / f"version{len(keys)}"
        folder.mkdir()
        text = "from torch import nn\nclass Own(nn.Identity):\n    pass\n"
        (folder / "beside.py").write_text(extra)
        model = kit.fresh("llama")
        for block, name in zip(model.blocks, ("own.modeling", "own.norms"), strict=False):
            (folder / f"{name}.py").write_text(text)
            module = types.ModuleType(name)
            module.__file__ = str(folder / f"{name}.py")
            exec(text, vars(module))
            monkeypatch.setitem(sys.modules, name, module)
            block.mlp.own = module.Own()
        found = computation(model.hf_model)["code"]
        assert version is None or found["own.modeling"].startswith("9.8 ")
        keys.append([found["own.modeling"], found["own.norms"]])
    assert keys[0][0] != keys[1][0] and keys[0][1] != keys[1][1]


def test_matrix_precision_is_in_the_key_and_in_the_provenance(tmp_path):
    model = kit.fresh("llama")
    harvested(model, store=tmp_path)
    try:
        torch.set_float32_matmul_precision("medium")
        with kit.passes(model) as passes:
            found = harvest(model, PROMPTS, layers=[1, model.n_layers], store=tmp_path, **QUIET)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert passes and found.provenance["precision"] == {"float32_matmul": "medium"}


@pytest.mark.parametrize("backend", ["cuda", "mkldnn"])
def test_the_newer_way_to_set_matrix_precision_counts_too(backend, tmp_path):
    matrices = getattr(torch.backends, backend).matmul
    model, before = kit.fresh("llama"), matrices.fp32_precision
    harvested(model, store=tmp_path)
    try:
        matrices.fp32_precision = "tf32" if backend == "cuda" else "bf16"
        harvested(model, store=tmp_path)
    finally:
        matrices.fp32_precision = before
    assert len(Store(tmp_path).entries()) == 2


def test_kernels_of_attention_that_are_switched_off_are_in_the_key():
    before = precision()
    with sdpa_kernel(SDPBackend.MATH):
        assert precision() == before | {"sdpa_without": ["flash", "mem_efficient", "cudnn"]}


@pytest.mark.parametrize("set_default", [torch.set_default_device, torch.device])
def test_a_default_device_is_refused_with_what_to_do(set_default):
    model = kit.fresh("llama")
    context = set_default("meta")
    try:
        with context or contextlib.nullcontext():
            with pytest.raises(ValueError, match=r"with torch.device\('cpu'\)"):
                harvested(model)
            with torch.device("cpu"):
                harvested(model)
    finally:
        torch.set_default_device(None)
        # torch 2.9 keeps the None, and can't say its default device any more.
        vars(torch._GLOBAL_DEVICE_CONTEXT).pop("device_context", None)


@pytest.mark.parametrize("run", ALL)
def test_autocast_is_off_inside(run):
    model = kit.fresh("llama")
    plain = run(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(run(model), plain)


@pytest.mark.parametrize("run", ALL)
def test_passes_run_in_evaluation_mode_whatever_the_model_is_in(run):
    model = kit.fresh("gpt2")
    plain = run(model)
    model.hf_model.train()
    assert torch.equal(run(model), plain)
    assert model.hf_model.training


def test_a_candidates_start_is_in_the_key(tmp_path):
    model = kit.fresh("gpt2")
    one = score(model, [Prompt("ab", "en", "x")], [" cd ef"], store=tmp_path, **QUIET)
    other = score(model, [Prompt("ab cd", "en", "x")], [" ef"], store=tmp_path, **QUIET)
    assert one.table["n_tokens"][0] > other.table["n_tokens"][0]
    plain = score(model, [Prompt("ab cd", "en", "x")], [" ef"], **QUIET)
    assert other.table["logprob"][0] == pytest.approx(plain.table["logprob"][0], abs=1e-5)


# --- what has no name ---


def user_hook(model):
    return model.blocks[0].mlp.register_forward_hook(lambda _m, _a, out: out * 2).remove


def user_pre_hook(model):
    hook = model.blocks[1].self_attn.q_proj.register_forward_pre_hook(lambda _m, a: (a[0] * 2,))
    return hook.remove


def everywhere(model):
    def hook(module, _args, out):
        return out * 2 if isinstance(module, nn.Linear) else None

    return nn.modules.module.register_module_forward_hook(hook).remove


def forward_of_one(model):
    mlp = model.blocks[0].mlp
    before = mlp.forward
    mlp.forward = lambda x: before(x) * 2
    return lambda: delattr(mlp, "forward")


def forward_of_a_class(model):
    kind = type(model.blocks[0].mlp)
    before = kind.forward

    @functools.wraps(before)
    def forward(self, x):
        return before(self, x) * 2

    kind.forward = forward
    return lambda: setattr(kind, "forward", before)


def function_of_the_file(model):
    source = sys.modules[type(model.blocks[0]).__module__]
    before = source.apply_rotary_pos_emb

    def rotated(q, k, *args, **kwargs):
        return before(q * 2, k, *args, **kwargs)

    source.apply_rotary_pos_emb = rotated
    return lambda: setattr(source, "apply_rotary_pos_emb", before)


def own_attention(model):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    # No further from `eager` than kernels are from each other: beyond that it would be refused.
    def nudged(*args, **kwargs):
        out, weights = sdpa_attention_forward(*args, **kwargs)
        return out * (1 + 2e-4), weights

    AttentionInterface.register("nudged", nudged)
    model.config._attn_implementation = "nudged"
    return lambda: setattr(model.config, "_attn_implementation", "sdpa")


def forward_of_one_named_as_before(model):
    mlp = model.blocks[0].mlp
    before = mlp.forward

    @functools.wraps(before)
    def forward(x):
        return before(x) * 2

    mlp.forward = forward
    return lambda: delattr(mlp, "forward")


def forward_of_torch(model):
    mlp = model.blocks[0].mlp
    mlp.forward = nn.Identity.forward.__get__(mlp)
    return lambda: delattr(mlp, "forward")


def call_of_a_class(model):
    kind = type(model.blocks[0].mlp)
    kind.__call__ = lambda self, x: nn.Module.__call__(self, x) * 2
    return lambda: delattr(kind, "__call__")


def function_of_torch(model):
    before = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = lambda *a, **k: before(*a, **k) * 2
    return lambda: setattr(nn.functional, "scaled_dot_product_attention", before)


def one_function_of_torch_for_another(model):
    before = nn.functional.silu
    nn.functional.silu = nn.functional.softsign
    return lambda: setattr(nn.functional, "silu", before)


def partial_in_the_file(model):
    source = sys.modules[type(model.blocks[0]).__module__]
    before = source.apply_rotary_pos_emb

    def rotated(times, q, k, *args, **kwargs):
        return before(q * times, k, *args, **kwargs)

    source.apply_rotary_pos_emb = functools.partial(rotated, 2)
    return lambda: setattr(source, "apply_rotary_pos_emb", before)


def function_mode(model):
    class Doubling(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            return out * 2 if func is nn.functional.linear else out

    return entered(Doubling())


def dispatch_mode(model):
    class Doubling(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            return out * 2 if func is torch.ops.aten.silu.default else out

    return entered(Doubling())


def entered(mode):
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


def own_mask(model):
    masks = AttentionMaskInterface._global_mapping
    before = masks["sdpa"]
    masks["sdpa"] = lambda *args, **kwargs: None  # nothing is hidden by padding
    return lambda: masks.__setitem__("sdpa", before)


def compiled(model):
    mlp = model.blocks[0].mlp

    def backend(graph, _examples):
        return lambda *args: tuple(2 * out for out in graph(*args))

    mlp.compile(backend=backend)
    return lambda: setattr(mlp, "_compiled_call_impl", None)


def written_in_a_session(model):
    space = {"__name__": "session", "nn": nn}
    exec("class Double(nn.Module):\n    def forward(self, x):\n        return x * 2", space)
    mlp = model.blocks[0].mlp
    before, mlp.act_fn = mlp.act_fn, space["Double"]()
    return lambda: setattr(mlp, "act_fn", before)


FOREIGN = [user_hook, user_pre_hook, everywhere, forward_of_one, forward_of_a_class]
FOREIGN += [function_of_the_file, own_attention]
MORE = [forward_of_one_named_as_before, forward_of_torch, call_of_a_class, function_of_torch]
MORE += [one_function_of_torch_for_another, partial_in_the_file, function_mode, dispatch_mode]
MORE += [own_mask, compiled, written_in_a_session]


@pytest.mark.parametrize("place", FOREIGN)
@pytest.mark.parametrize("run", KEPT)
def test_what_others_placed_keeps_the_store_away_with_one_warning(run, place, tmp_path, caplog):
    model = kit.fresh("llama")
    plain = run(model, store=tmp_path)
    remove = place(model)
    try:
        changed = run(model)
        least = 0.0 if place is own_attention else 1e-3
        assert not torch.allclose(changed, plain, atol=least, rtol=0) or run is written
        caplog.clear()
        assert torch.equal(run(model, store=tmp_path), changed)
        said = [r for r in caplog.records if "without the store" in r.getMessage()]
        assert len(said) == 1 and len(Store(tmp_path).entries()) == 1
        with pytest.raises(ValueError, match="can't be harvested into a store"):
            harvest_to_store(model, PROMPTS, tmp_path, **QUIET)
        assert harvest(model, PROMPTS, layers=1, **QUIET).provenance["changed_by"]
    finally:
        remove()
    assert torch.equal(run(model, store=tmp_path), plain)


@pytest.mark.parametrize("place", MORE)
def test_all_that_computes_for_a_model_is_looked_at(place, tmp_path, caplog):
    model = kit.fresh("llama")
    plain = harvested(model, store=tmp_path)
    remove = place(model)
    try:
        changed = harvested(model)
        assert not torch.allclose(changed, plain, atol=1e-3) or place is own_mask
        caplog.clear()
        assert torch.equal(harvested(model, store=tmp_path), changed)
        said = [r for r in caplog.records if "without the store" in r.getMessage()]
        assert len(said) == 1 and len(Store(tmp_path).entries()) == 1
    finally:
        remove()
    assert not foreign(model.hf_model)


def test_what_torch_compile_leaves_in_a_file_concerns_no_other_model():
    model = kit.fresh("llama")
    model.body.layers[0].mlp = torch.compile(model.blocks[0].mlp, backend="eager")
    harvested(model)
    assert foreign(model.hf_model)
    assert not foreign(kit.fresh("llama").hf_model)


def test_torch_may_wrap_a_function_of_its_own_when_more_of_it_is_imported(monkeypatch):
    model = kit.fresh("llama")
    code = (lambda seed: None).__code__
    again = types.FunctionType(code, {"__name__": "torch.random"}, "manual_seed")
    monkeypatch.setattr(torch, "manual_seed", again)
    assert not foreign(model.hf_model)
    monkeypatch.setattr(torch, "manual_seed", torch.seed)
    assert foreign(model.hf_model) == ["torch.manual_seed replaced by seed, torch"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_hooks_of_accelerate_and_transformers_are_known(family):
    from accelerate import dispatch_model

    model = kit.fresh(family)
    model.hf_model(torch.tensor([[1, 2]]), output_hidden_states=True)  # installs its recorders
    assert not foreign(model.hf_model)
    dispatch_model(model.hf_model, {"": "cpu"}, force_hooks=True)
    assert "forward" in vars(model.hf_model)
    assert not foreign(model.hf_model)


# --- parts that xlens keeps hold of ---


def swapped(model):
    layers = model.body.layers
    layers[0], layers[1] = layers[1], layers[0]


def cut(model):
    del model.body.layers[1]


def another_norm(model):
    model.body.norm = copy.deepcopy(model.body.norm)


def another_unembedding(model):
    model.hf_model.set_output_embeddings(nn.Linear(model.d_model, model.d_vocab, bias=False))


def softcap(model):
    model.config.final_logit_softcapping = 2.0


def scale(model):
    model.config.logits_scaling = 2.0


def another_config(model):
    model.hf_model.config = copy.deepcopy(model.config)


SURGERY = {swapped: "blocks", cut: "blocks changed .3 then, 2 now", another_norm: "final norm"}
SURGERY |= {another_unembedding: "unembedding", softcap: "soft-cap", scale: "scale"}
SURGERY |= {another_config: "config object"}


@pytest.mark.parametrize("change", SURGERY)
def test_a_model_whose_parts_were_replaced_is_to_be_loaded_again(change):
    model = kit.fresh({softcap: "gemma2", scale: "granite"}.get(change, "llama"))
    change(model)
    for run in (harvested, scored):
        with pytest.raises(ValueError, match=f"its {SURGERY[change]}.*xlens.load"):
            run(model)
    again = xlens.load(model.hf_model, model.tokenizer)
    assert torch.isfinite(harvested(again)).all()


def test_the_vocabulary_knows_tokens_that_were_added_since():
    model = kit.fresh("llama")
    before = model.vocab
    assert model.vocab is before
    model.tokenizer.add_special_tokens({"eos_token": model.tokenizer.convert_ids_to_tokens(5)})
    assert 5 in model.vocab.special


# --- threads ---


def test_threads_wait_for_each_other():
    model = kit.fresh("llama")
    wanted = {run: run(model) for run in ALL}
    with intervene(model, push(model)):
        steered = {run: run(model) for run in ALL}
    wrong: list[object] = []

    def work(run, around):
        try:
            for _ in range(4):
                if around:
                    with intervene(model, push(model)):
                        found = run(model)
                else:
                    found = run(model)
                expected = (steered if around else wanted)[run]
                if not torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-4):
                    wrong.append((run, around, float((found - expected).abs().max())))
        except BaseException as problem:
            wrong.append(problem)

    jobs = [(run, around) for run in ALL for around in (False, True)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_thread_that_waits_for_long_says_so(monkeypatch, caplog):
    monkeypatch.setattr("xlens.models.passes.PATIENCE", 0.05)
    model = kit.fresh("llama")
    thread = threading.Thread(target=harvested, args=(model,))
    with intervene(model, push(model)):
        thread.start()
        # Until it says so: on a busy machine it is a while before it has to wait.
        while "Waiting for another thread" not in caplog.text and thread.is_alive():
            thread.join(0.05)
        assert thread.is_alive()
    thread.join()
    assert "Waiting for another thread" in caplog.text
