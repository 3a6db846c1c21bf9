"""Loading and refusing models; fingerprints and random twins."""

import copy
import json
import re

import kit
import pytest
import torch
from torch import nn
from transformers import AutoModel, GPT2LMHeadModel, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

import tiny
import xlens
from xlens.models import HookedModel, check_readout, hf
from xlens.studies import Loading

# --- refusals ---


class Doubled(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        return CausalLMOutputWithPast(logits=out.logits * 2)


class NormedTwice(GPT2LMHeadModel):
    def forward(self, input_ids, **kwargs):
        out = self.transformer(input_ids, **kwargs)[0]
        return CausalLMOutputWithPast(logits=self.lm_head(out - out.mean(-1, keepdim=True)))


class NotANumber(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        return CausalLMOutputWithPast(logits=out.logits * float("nan"))


@pytest.mark.parametrize(
    ("family", "kind", "norm"),
    [
        ("llama", Doubled, "LlamaRMSNorm"),
        ("gpt2", NormedTwice, "LayerNorm"),
        ("llama", NotANumber, "LlamaRMSNorm"),
    ],
)
def test_a_readout_with_an_unknown_step_is_refused(family, kind, norm):
    model = tiny.model(family)
    model.__class__ = kind
    message = rf"{kind.__name__} is refused: .* through {norm} .* differs from the model's own"
    with pytest.raises(ValueError, match=message + r" logits by \S+ standard deviations"):
        xlens.load(model, tiny.tokenizer(family))
    hooks = sum(len(m._forward_hooks) for m in model.model.layers) if family == "llama" else 0
    assert hooks == 0


def test_a_readout_step_that_the_config_states_is_understood():
    model = tiny.model("llama")
    model.__class__ = Doubled
    model.config.logit_scale = 2.0
    assert xlens.load(model, tiny.tokenizer("llama")).readout.logit_scale == 2.0


def test_an_ignored_softcap_is_noticed():
    model = kit.fresh("gemma2")
    model.readout.softcap = None
    with pytest.raises(ValueError, match=r"soft-cap None, scale 1"):
        check_readout(model)


def test_another_norm_than_the_final_one_is_noticed():
    model = kit.fresh("llama")
    model.readout.ln_final = model.blocks[0].input_layernorm
    with pytest.raises(ValueError, match="is refused"):
        check_readout(model)


def test_an_unknown_layout_is_refused():
    model = tiny.model("gpt2")
    model.transformer.stack = model.transformer.h
    del model.transformer.h
    message = (
        r"GPT2LMHeadModel keeps its blocks .* model\.layers \+ model\.norm, .*transformer\.h"
        r".*xlens\.models\.families"
    )
    with pytest.raises(ValueError, match=message):
        xlens.load(model, tiny.tokenizer("gpt2"))


def test_a_model_without_a_head_is_refused(family_dir):
    body = AutoModel.from_pretrained(family_dir("gpt2"))
    with pytest.raises(ValueError, match=r"GPT2Model .*(no unembedding|layout)"):
        xlens.load(body, tiny.tokenizer("gpt2"))


def test_a_model_object_needs_its_tokenizer_and_a_folder_has_its_own(family_dir):
    with pytest.raises(ValueError, match=r"load\(GPT2LMHeadModel\) needs its tokenizer"):
        xlens.load(tiny.model("gpt2"))
    with pytest.raises(ValueError, match=r"takes the tokenizer from the same place"):
        xlens.load(family_dir("gpt2"), tiny.tokenizer("gpt2"))


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False
        bos_token_id = None

    with pytest.raises(ValueError, match=r"Slow gives no character offsets.*use_fast=True"):
        xlens.prompts.tokenize(Slow(), [xlens.Prompt("x", "en", "1")])


def test_loading_leaves_a_model_as_it_was():
    hf = tiny.model("gpt2", resid_pdrop=0.3).train()
    before = {k: v.clone() for k, v in hf.state_dict().items()}
    state = torch.random.get_rng_state()
    model = xlens.load(hf, tiny.tokenizer("gpt2"))
    assert model.hf_model is hf and hf.training and hf.transformer.h[0].training
    assert all(torch.equal(v, before[k]) for k, v in hf.state_dict().items())
    assert not any(len(m._forward_hooks) for m in hf.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_provenance_is_complete_and_plain(family_dir):
    model = kit.model(family_dir("llama"))
    record = model.provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["model"] == "llama" and record["architecture"] == "LlamaForCausalLM"
    assert record["weights"] == "float32 safetensors" and record["dtype"] == "float32"
    assert record["fingerprint"] == model.fingerprint and record["prepends_bos"] is True
    assert record["attention"] == "sdpa"
    edited = copy.deepcopy(model.tokenizer)
    edited.add_tokens(["dachshund"])
    other = HookedModel(model.hf_model, edited, name="llama").provenance()
    assert other["tokenizer"] != record["tokenizer"]
    assert other["fingerprint"] == record["fingerprint"]


def test_repr_says_what_it_is(family_dir):
    shown = repr(kit.model(family_dir("gpt2")))
    assert re.fullmatch(
        r"HookedModel\('gpt2', GPT2LMHeadModel, n_layers=3, d_model=48, d_vocab=800, "
        r"torch.float32, cpu\)",
        shown,
    )


# --- fingerprints ---


def written(tensor):
    with torch.no_grad():
        tensor[0, 0] += 1


def written_through_data(tensor):
    tensor.data[0, 0] += 1


def written_in_inference_mode(tensor):
    with torch.inference_mode():
        tensor.data[-1, -1] *= 1.5


@pytest.mark.parametrize(
    "change", [written, written_through_data, written_in_inference_mode], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("where", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_one_changed_weight_changes_the_fingerprint(change, where):
    model = kit.fresh("llama")
    before = model.fingerprint
    assert model.fingerprint == before
    weight = model.hf_model.get_parameter(where)
    old = weight.detach().clone()
    change(weight)
    changed = model.fingerprint
    assert changed != before and model.readout.fingerprint == changed
    weight.data.copy_(old)
    assert model.fingerprint == before


def test_a_replaced_weight_changes_the_fingerprint():
    model = kit.fresh("gpt2")
    before = model.fingerprint
    norm = model.hf_model.transformer.ln_f
    norm.weight = nn.Parameter(norm.weight.detach() + 1e-3)
    assert model.fingerprint != before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_fingerprint_is_the_same_wherever_the_model_comes_from(family, family_dir, tmp_path):
    loaded = kit.model(family_dir(family))
    assert kit.fresh(family).fingerprint == loaded.fingerprint
    assert loaded.hf_model.config.architectures  # which the model just made does not have yet


def test_the_fingerprint_differs_for_other_weights_config_dtype_and_class(family_dir):
    def of(hf):
        return xlens.load(hf, tiny.tokenizer("llama")).fingerprint

    twice = tiny.model("llama")
    twice.__class__ = type("Other", (LlamaForCausalLM,), {})
    different = [
        tiny.model("llama"),
        tiny.model("llama", seed=1),
        tiny.model("llama", rms_norm_eps=1e-3),
        tiny.model("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        tiny.model("llama").to(torch.bfloat16),
        twice,
    ]
    assert len({of(hf) for hf in different}) == len(different)


# --- the random twin ---


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "bloom"])
def test_random_twin(family, family_dir):
    model = kit.model(family_dir(family))
    before, state = model.fingerprint, torch.random.get_rng_state()
    one, same, other = (model.random_twin(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({model.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert one.fingerprint == same.fingerprint and model.fingerprint == before
    mine, theirs = model.hf_model.config.to_dict(), one.hf_model.config.to_dict()
    for volatile in ("_name_or_path", "dtype"):
        mine.pop(volatile, None), theirs.pop(volatile, None)
    assert mine == theirs and one.hf_model.config is not model.hf_model.config
    assert one.tokenizer is model.tokenizer and "random" in one.name
    assert one.weights_note == "randomly initialised, seed 1"
    assert not one.hf_model.training
    assert check_readout(one) < 1e-5
    sizes = {k: v.shape for k, v in model.hf_model.state_dict().items()}
    assert {k: v.shape for k, v in one.hf_model.state_dict().items()} == sizes
    # Initialised, not what happened to lie in memory.
    spread = one.hf_model.get_input_embeddings().weight.std().item()
    assert spread == pytest.approx(model.config.initializer_range, rel=0.1)


def test_a_twin_knows_what_its_model_knows_of_the_tokenizer():
    model = kit.fresh("gemma3")
    pieces = model.vocab.pieces
    twin = model.random_twin()
    assert twin.vocab is model.vocab and twin.vocab.pieces is pieces
    assert twin.provenance()["tokenizer"] == model.provenance()["tokenizer"]
    before, spare = model.provenance()["tokenizer"], model.vocab
    model.tokenizer.add_tokens(["⟦new⟧"])
    assert twin.vocab is not spare and twin.provenance()["tokenizer"] != before
    assert twin.provenance()["tokenizer"] == model.provenance()["tokenizer"]


def test_a_twin_has_its_models_dtype_and_tied_weights():
    model = kit.fresh("qwen2")
    model.hf_model.to(torch.bfloat16)
    twin = model.random_twin()
    assert twin.dtype == torch.bfloat16
    body = twin.hf_model
    assert body.get_input_embeddings().weight is body.get_output_embeddings().weight


def test_a_device_map_is_passed_on(family_dir):
    folder = family_dir("llama")
    plain, mapped = xlens.load(folder, device="cpu"), xlens.load(folder, device_map={"": "cpu"})
    assert mapped.devices == (torch.device("cpu"),)
    assert mapped.fingerprint == plain.fingerprint
    asked = kit.mixed()
    one, other = (xlens.harvest(m, asked, progress=False) for m in (plain, mapped))
    assert torch.equal(one.get("last"), other.get("last"))
    with pytest.raises(ValueError, match="leave out device"):
        xlens.load(folder, device_map="auto", device="cpu")
    with pytest.raises(ValueError, match="leave out device"):
        xlens.load(tiny.model("gpt2"), tiny.tokenizer("gpt2"), device_map="auto")


@pytest.mark.parametrize(
    ("device_map", "said"),
    [
        ({"xx": "cpu"}, r"names 'xx', which GPT2LMHeadModel has not.*'transformer', 'lm_head'"),
        ({"transformer.h.9": "cpu", "": "cpu"}, r"names 'transformer\.h\.9'"),
        ({"transformer.h.0": "cpu"}, r"of 28 weights not where they go, .*'transformer\.wte"),
        ({}, "of 40 weights not where they go"),
        ({"": 1.5}, r"device_map\[''\] is 1\.5"),
        ({"": "xx"}, "device='xx' cannot be used on this machine"),
    ],
)
def test_a_device_map_names_what_there_is(family_dir, device_map, said):
    with pytest.raises(ValueError, match=said):
        xlens.load(family_dir("gpt2"), device_map=device_map)


def test_weights_that_lie_elsewhere_are_refused():
    made = tiny.model("gpt2").to("meta")
    with pytest.raises(ValueError, match="off the devices that compute"):
        hf._require_loaded(made, "auto")


def test_a_checkpoints_own_dtype(tmp_path):
    folder = tiny.make("gpt2", tmp_path / "half")
    half = tiny.model("gpt2").to(torch.bfloat16)
    half.save_pretrained(folder)
    own, whole = (xlens.load(folder, dtype=dtype, device="cpu") for dtype in ("auto", "float32"))
    assert (own.dtype, whole.dtype) == (torch.bfloat16, torch.float32)
    assert own.loading["dtype"] == "bfloat16"  # another process need not look
    assert xlens.load(half, tiny.tokenizer("gpt2"), dtype="auto").dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"dtype='automatic' is not one of"):
        xlens.load(folder, dtype="automatic")


def test_where_a_command_runs_its_model(family_dir):
    loading = Loading(dtype="auto", device="cpu")
    model = loading.load(str(family_dir("gpt2")))
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert set(loading.options()) == {"dtype", "revision", "trust_remote_code"}  # not where
    assert loading.main_device == "cpu"
    spread = Loading(device_map="auto").load(str(family_dir("gpt2")))
    assert spread.fingerprint == model.fingerprint
    with pytest.raises(ValueError, match=r"device='cuda:9' cannot be used on this machine"):
        Loading(device="cuda:9")
    with pytest.raises(ValueError, match=r"beside device_map='auto'.*Leave one of the two out"):
        Loading(device="cpu", device_map="auto")
