"""Adapters: kept, merged, switched off; what they do to fingerprint and provenance."""

import json
import shutil

import kit
import pytest
import torch

import tiny
import xlens
from xlens.models import adapters

peft = pytest.importorskip("peft")
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}


def trained(base, path, *, family="llama", **options):
    """A LoRA on a base, as if trained."""
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM", "target_modules": TARGETS[family]}
        | options
    )
    config.fan_in_fan_out = family == "gpt2"  # Conv1D
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wrapper = peft.get_peft_model(base, config)
        with torch.no_grad():
            for name, weight in wrapper.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    weight += 0.05 * torch.randn_like(weight)
    wrapper.eval().save_pretrained(path)
    return wrapper


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folders(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    base = tiny.make(request.param, root / "base")
    hf_model = xlens.load(base, device="cpu").hf_model
    trained(hf_model, root / "lora", family=request.param)
    return base, root / "lora"


def states(model):
    return xlens.harvest(model, kit.mixed()[:5], slots="all", progress=False).slot("all").values


def test_kept_off_and_merged(folders):
    base, lora = folders
    plain = xlens.load(base, device="cpu")
    kept = xlens.load(base, adapter=lora, device="cpu")
    merged = xlens.load(base, adapter=lora, merge=True, device="cpu")
    assert type(kept.hf_model) is type(merged.hf_model) is type(plain.hf_model)
    assert kept.family is plain.family
    assert (
        dict(merged.hf_model.named_modules()).keys() == dict(plain.hf_model.named_modules()).keys()
    )
    assert set(dict(plain.hf_model.named_modules())) <= set(dict(kept.hf_model.named_modules()))
    own, on = states(plain), states(kept)
    assert kit.relative_error(on[1:], own[1:]) > 0.01
    assert kit.relative_error(states(merged), on) < 1e-5
    first = kept.fingerprint
    kept.hf_model.disable_adapters()
    assert torch.equal(states(kept), own)
    assert kept.fingerprint != first
    assert kept.provenance()["adapter_state"]["active"] == []
    kept.hf_model.enable_adapters()
    assert kept.fingerprint == first and torch.equal(states(kept), on)
    assert len({plain.fingerprint, kept.fingerprint, merged.fingerprint}) == 3


def test_the_factor_is_in_the_fingerprint(folders):
    base, lora = folders
    kept = xlens.load(base, adapter=lora, device="cpu")
    first = kept.fingerprint
    layers = [m for m in kept.hf_model.modules() if hasattr(m, "lora_A")]
    layers[0].scaling["default"] *= 2
    assert kept.fingerprint != first
    assert kept.provenance()["adapter_state"]["scaling"] == {"default": [3.0, 6.0]}


def test_provenance_names_both_and_the_scaling(folders):
    base, lora = folders
    record = xlens.load(base, adapter=lora, device="cpu").provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["model"] == "base + lora"
    said = record["adapters"]["default"]
    assert said["kind"] == "LORA" and said["base"] == str(base) and len(said["digest"]) == 64
    assert record["adapter_state"]["active"] == ["default"]
    assert record["adapter_state"]["scaling"] == {"default": [3.0]}
    merged = xlens.load(base, adapter=lora, merge=True, device="cpu").provenance()
    assert merged["merged"] is True and merged["adapters"]["default"] == said
    assert "adapter_state" not in merged


def test_a_peft_model_is_unwrapped(folders, tmp_path):
    base, lora = folders
    on = states(xlens.load(base, adapter=lora, device="cpu"))
    start = xlens.load(base, device="cpu")
    wrapper = peft.PeftModel.from_pretrained(start.hf_model, lora).eval()
    kept = xlens.load(wrapper, start.tokenizer)
    assert kept.hf_model is start.hf_model
    assert kit.relative_error(states(kept), on) < 1e-6
    assert kept.provenance()["adapters"]["default"]["lora_alpha"] == 12
    merged = xlens.load(wrapper, start.tokenizer, merge=True)
    assert kit.relative_error(states(merged), on) < 1e-5
    assert any("lora" in name for name, _ in wrapper.named_parameters())  # a copy was merged


def test_the_store_keeps_them_apart(folders, tmp_path):
    base, lora = folders
    kept = xlens.load(base, adapter=lora, device="cpu")
    prompts = kit.mixed()[:4]
    store = tmp_path / "store"
    on = xlens.harvest(kept, prompts, store=store, progress=False).get()
    kept.hf_model.disable_adapters()
    off = xlens.harvest(kept, prompts, store=store, progress=False).get()
    plain = xlens.harvest(xlens.load(base, device="cpu"), prompts, progress=False).get()
    assert torch.equal(off, plain) and not torch.equal(off, on)


def test_an_unembedding_of_its_own_is_read(tmp_path):
    base = tiny.make("llama", tmp_path / "base")
    wrapped = xlens.load(base, device="cpu").hf_model
    trained(wrapped, tmp_path / "lora", modules_to_save=["lm_head"])
    kept = xlens.load(base, adapter=tmp_path / "lora", device="cpu")
    plain = xlens.load(base, device="cpu")
    resid = torch.randn(3, kept.d_model)
    assert not torch.equal(kept.readout.logits(resid), plain.readout.logits(resid))
    kept.hf_model.disable_adapters()
    assert torch.equal(kept.readout.logits(resid), plain.readout.logits(resid))


def test_an_adapter_of_another_base_is_refused(folders, tmp_path):
    base, lora = folders
    family = "llama" if "llama" in str(base) else "gpt2"
    for name, options in {
        "seed": {"seed": 1},
        "width": {"hidden_size" if family == "llama" else "n_embd": 96},
    }.items():
        other = tiny.make(family, tmp_path / name, **options)
        with pytest.raises(ValueError, match=r"'.*lora' is of another base: it was trained on"):
            xlens.load(other, adapter=lora)
    elsewhere = tiny.make(family, tmp_path / "copy")  # the same weights
    assert xlens.load(elsewhere, adapter=lora).fingerprint
    # What was loaded may be called something else than where it lies.
    adapters._require_base(
        "lora", adapters.Base(str(base)), (str(elsewhere), "model.gguf", "model")
    )


@pytest.mark.parametrize("merge", [False, True])
def test_one_without_a_name_is_refused_by_its_shapes(folders, tmp_path, merge):
    _, lora = folders
    said = json.loads((lora / adapters.CONFIG).read_text())
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    (nameless / adapters.CONFIG).write_text(json.dumps(said | {"base_model_name_or_path": None}))
    (nameless / "adapter_model.safetensors").write_bytes(
        (lora / "adapter_model.safetensors").read_bytes()
    )
    family = "llama" if "llama" in str(lora) else "gpt2"
    narrow = tiny.make(
        family, tmp_path / "w", **{"llama": {"hidden_size": 32}}.get(family, {"n_embd": 32})
    )
    short = tiny.make(
        family, tmp_path / "s", **{"llama": {"num_hidden_layers": 2}}.get(family, {"n_layer": 2})
    )
    foreign = tiny.make("gpt_neox", tmp_path / "f")
    for base in (narrow, short, foreign):
        with pytest.raises(ValueError, match=r"nameless' does not fit this \w+; it is of another"):
            xlens.load(base, adapter=nameless, merge=merge)


def test_what_is_no_adapter(folders, tmp_path):
    base, lora = folders
    with pytest.raises(ValueError, match=r"holds no adapter: there is no adapter_config"):
        xlens.load(base, adapter=base)
    with pytest.raises(ValueError, match=r"neither a folder here nor found on the hub"):
        xlens.load(base, adapter="org/none")
    with pytest.raises(ValueError, match=r"would change your model"):
        xlens.load(tiny.model("llama"), tiny.tokenizer("llama"), adapter=lora)
    with pytest.raises(ValueError, match=r"merge=True"):
        xlens.load(base, merge=True)
    with pytest.raises(ValueError, match=r"It is an adapter: xlens\.load\(its base"):
        xlens.load(lora, adapter=lora)


def test_a_folder_with_an_adapter_alone_is_loaded_on_the_base_that_it_names(folders, tmp_path):
    base, lora = folders
    alone, named = xlens.load(lora, device="cpu"), xlens.load(base, adapter=lora, device="cpu")
    assert alone.fingerprint == named.fingerprint and alone.name == named.name
    silent = tmp_path / "silent"
    shutil.copytree(lora, silent)
    said = json.loads((silent / "adapter_config.json").read_text())
    said["base_model_name_or_path"] = None
    (silent / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"doesn't say what its base is"):
        xlens.load(silent)


def test_a_prompt_is_no_module(tmp_path):
    base = tiny.make("llama", tmp_path / "base")
    hf_model = xlens.load(base).hf_model
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    wrapper = peft.get_peft_model(hf_model, config)
    wrapper.save_pretrained(tmp_path / "soft")
    with pytest.raises(ValueError, match=r"puts tokens before every prompt"):
        xlens.load(base, adapter=tmp_path / "soft")
    with pytest.raises(ValueError, match=r"puts tokens before every prompt"):
        xlens.load(wrapper, tiny.tokenizer("llama"))


def test_from_the_command_line(folders, tmp_path, capsys):
    from xlens.cli import main

    base, lora = folders
    with pytest.raises(SystemExit) as done:
        main(["trace", str(base), "The dog", "--adapter", str(lora), "--last", "1"])
    assert not done.value.code
    kept = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["trace", str(base), "The dog", "--adapter", str(lora), "--merge", "--last", "1"])
    merged = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["trace", str(base), "The dog", "--last", "1"])
    assert kept.split()[1:] and kept != capsys.readouterr().out
    assert merged.replace("(merged)", "") == kept
    with pytest.raises(SystemExit) as done:
        main(["trace", str(base), "The dog", "--adapter", str(base)])
    assert done.value.code and "holds no adapter" in capsys.readouterr().err
