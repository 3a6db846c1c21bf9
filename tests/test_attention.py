"""Attention is computed whole, or the model is refused; weights that are nowhere are named."""

import logging

import kit
import pytest
import torch

import tiny
import xlens
from xlens.cli import main
from xlens.models import attention


@pytest.fixture
def broken():
    """A kernel that leaves the mask's windows out, under a name of its own."""
    from transformers import AttentionInterface

    def windowless(module, query, key, value, attention_mask, **options):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, None, is_causal=True, **options)

    AttentionInterface.register("windowless", windowless)
    return "windowless"


def test_attention_can_be_chosen(family_dir):
    for name in ("eager", "sdpa"):
        model = xlens.load(family_dir("llama"), attention=name)
        assert model.provenance()["attention"] == name
    with pytest.raises(ValueError, match="of a model object set it yourself"):
        xlens.load(model.hf_model, model.tokenizer, attention="eager")


@pytest.mark.parametrize(
    "command", ["demo", "lens", "choices", "process", "xmrc", "trace", "harvest"]
)
def test_every_command_that_loads_a_model_takes_it(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--attention" in capsys.readouterr().out


def test_sdpa_without_a_softcap_is_refused_or_replaced(family_dir, caplog):
    """Gemma 2's scores are capped, which sdpa leaves out."""
    with pytest.raises(
        ValueError, match=r"'sdpa' leaves out the soft-cap|does not support an attent"
    ):
        xlens.load(family_dir("gemma2"), attention="sdpa")
    model = xlens.load(family_dir("gemma2"))
    assert model.provenance()["attention"] == "eager"
    model.config._attn_implementation = "sdpa"  # as older versions load it
    with pytest.raises(ValueError, match=r"model.set_attn_implementation\('eager'\)"):
        xlens.load(model.hf_model, model.tokenizer)
    # What was not asked for is mended, and said: older transformers load sdpa by default.
    with caplog.at_level(logging.WARNING):
        attention.ensure_complete(model.hf_model, model.blocks, model.family, high=100, asked=False)
    assert "runs with 'eager' attention" in caplog.text
    assert model.provenance()["attention"] == "eager"


def test_a_kernel_that_leaves_out_a_window_shows_on_a_long_text(family_dir, broken):
    model = xlens.load(family_dir("mistral"))
    config = model.hf_model.config
    before = config.sliding_window
    config.sliding_window = 4096  # no text of the check would fill it
    model.hf_model.set_attn_implementation(broken)
    with pytest.raises(ValueError, match=r"on a text of \d+ tokens its states under 'windowless'"):
        attention.ensure_complete(model.hf_model, model.blocks, model.family, high=100, asked=True)
    # Nothing is left changed behind.
    assert config.sliding_window == 4096 and config._attn_implementation == broken
    config.sliding_window = before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_familys_default_is_whole(family_dir, family, caplog):
    with caplog.at_level(logging.WARNING):
        model = xlens.load(family_dir(family))
    assert "attention" not in caplog.text
    assert not any(block._forward_hooks for block in model.blocks)


QUICK = ("gpt2", "gemma3", "bloom", "falcon, 7B", "gptj", "llama4", "lfm2")


@pytest.mark.parametrize(
    "family",
    [*QUICK, *(pytest.param(f, marks=pytest.mark.slow) for f in tiny.ALL if f not in QUICK)],
)
def test_no_kernel_is_compared_with_itself(family, monkeypatch):
    """sdpa runs in one of the two passes that are compared, and not in the other."""
    model = kit.fresh(family)
    name, config = model.provenance()["attention"], str(model.config)
    calls, passes = [0], []
    kernel, states = torch.nn.functional.scaled_dot_product_attention, attention._states

    def counted(*args, **kwargs):
        calls[0] += 1
        return kernel(*args, **kwargs)

    def watched(*args):
        calls[0] = 0
        found = states(*args)
        passes.append(calls[0])
        return found

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(attention, "_states", watched)
    attention.ensure_complete(model.hf_model, model.blocks, model.family, high=100, asked=True)
    if name == "eager":
        assert not passes
    else:
        assert name == "sdpa" and all(passes[0::2]) and not any(passes[1::2]) and len(passes) == 4
    assert model.provenance()["attention"] == name and str(model.config) == config


def test_falcon_is_compared_and_replaced_though_transformers_cannot_set_it(monkeypatch, caplog):
    kernel = torch.nn.functional.scaled_dot_product_attention
    model = kit.fresh("falcon, 7B")
    assert model.provenance()["attention"] == "sdpa"

    def without_mask(query, key, value, *, attn_mask=None, is_causal=False, **options):
        return kernel(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", without_mask)
    again = {"high": 100, "blocks": model.blocks, "family": model.family}
    with pytest.raises(ValueError, match=r"first: from_pretrained\(\.\.\., attn_impl.*'eager'"):
        attention.ensure_complete(model.hf_model, asked=True, **again)
    with pytest.raises(ValueError, match=r"set it yourself: from_pretrained"):
        xlens.load(model.hf_model, model.tokenizer, attention="eager")
    with caplog.at_level(logging.WARNING):
        attention.ensure_complete(model.hf_model, asked=False, **again)
    assert "it runs with 'eager' attention" in caplog.text
    assert model.provenance()["attention"] == "eager"
    attention.ensure_complete(model.hf_model, asked=True, **again)


def test_eager_that_adds_alibi_twice_is_no_reference():
    """Falcon's mask holds ALiBi, and its eager attention adds it once more."""
    model = kit.fresh("falcon, RW")
    assert model.provenance()["attention"] == "sdpa"  # which is right
    model.config._attn_implementation = "eager"
    prompts = [xlens.Prompt("a dog in the house", "en", "1")]
    with pytest.raises(ValueError, match=r"under 'eager' differ.*Load it with attention='sdpa'"):
        xlens.harvest(model, prompts, progress=False)
    plain = kit.fresh("falcon, 7B")
    plain.config._attn_implementation = "eager"
    xlens.harvest(plain, prompts, progress=False)


def test_a_class_that_was_chosen_when_the_model_was_built_is_compared_too(monkeypatch):
    """As Falcon, GPT-J and GPT-Neo choose that of flash attention."""
    from transformers.models.gptj import modeling_gptj as gptj

    class Masked(gptj.GPTJAttention):
        def _attn(self, query, key, value, attention_mask=None, **_):
            return super()._attn(query, key, value, None)

    Masked.__module__ = gptj.__name__
    monkeypatch.setitem(gptj.GPTJ_ATTENTION_CLASSES, "mine", Masked)
    model = kit.fresh("gptj")
    for block in model.blocks:
        block.attn.__class__ = Masked
    model.config._attn_implementation = "mine"
    with pytest.raises(ValueError, match="its states under 'mine' differ"):
        attention.ensure_complete(model.hf_model, model.blocks, model.family, high=100, asked=True)
    assert {type(block.attn) for block in model.blocks} == {Masked}
    attention.ensure_complete(model.hf_model, model.blocks, model.family, high=100, asked=False)
    assert {type(block.attn) for block in model.blocks} == {gptj.GPTJAttention}


def test_versions_that_compute_a_family_wrongly(monkeypatch, family_dir, caplog):
    import transformers

    model = kit.fresh("llama")
    config = model.hf_model.config
    config.model_type = "olmo3"
    attention.warn_of_known_faults(model.hf_model)
    monkeypatch.setattr(transformers, "__version__", "5.12.1")
    attention.warn_of_known_faults(model.hf_model)
    assert not caplog.text  # positions are not scaled
    config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0}
    for version, warned in (("4.57.0", False), ("5.12.1", True), ("5.13.0", False)):
        monkeypatch.setattr(transformers, "__version__", version)
        caplog.clear()
        attention.warn_of_known_faults(model.hf_model)
        assert ("known to compute olmo3 wrongly" in caplog.text) == warned


def test_weights_on_the_meta_device(family_dir):
    model = xlens.load(family_dir("gpt2"))
    with torch.device("meta"):
        empty = type(model.hf_model)(model.hf_model.config)
    with pytest.raises(ValueError, match="lies on meta, without numbers"):
        xlens.load(empty, model.tokenizer)


def verbs(model):
    prompts = [xlens.Prompt("a dog", "en", "1")]
    quiet = {"progress": False}
    return {
        "harvest": lambda: xlens.harvest(model, prompts, **quiet),
        "generate": lambda: xlens.generate(model, prompts, max_new_tokens=2, **quiet),
        "score": lambda: xlens.score(model, prompts, [" in"], **quiet),
        "variants": lambda: xlens.engine.score_variants(
            model, prompts, [" in"], {"none": ()}, **quiet
        ),
        "relevance": lambda: xlens.relevance(model, prompts, targets=[3], **quiet),
        "trace": lambda: xlens.trace(model, "a dog"),
    }


def test_offloaded_weights():
    from accelerate import cpu_offload

    model = kit.fresh("gpt2")
    acts = xlens.harvest(model, [xlens.Prompt("a dog", "en", "1")], progress=False)
    cpu_offload(model.hf_model)
    with pytest.raises(ValueError, match=r"is offloaded \(accelerate\).*device_map="):
        xlens.load(model.hf_model, model.tokenizer)
    for verb in verbs(model).values():
        with pytest.raises(ValueError, match="is offloaded"):
            verb()
    with pytest.raises(ValueError, match=r"unembedding.*not there"):
        model.readout.logits(acts.get("last", layer=1))


def test_a_model_that_is_sent_to_meta(family_dir):
    with pytest.raises(ValueError, match=r"'meta' cannot be used.*no numbers"):
        xlens.load(family_dir("gpt2"), device="meta")
    model = kit.fresh("llama")
    model.hf_model.to("meta")
    for verb in verbs(model).values():
        with pytest.raises(ValueError, match="lies on meta"):
            verb()


def test_attention_that_is_changed_later_is_refused_by_every_verb(broken):
    model = kit.fresh("mistral", sliding_window=2)
    model.hf_model.set_attn_implementation(broken)
    for verb in verbs(model).values():
        with pytest.raises(ValueError, match="its states under 'windowless' differ"):
            verb()
    model.hf_model.set_attn_implementation("eager")
    for verb in verbs(model).values():
        verb()
    gemma = kit.fresh("gemma2")
    gemma.config._attn_implementation = "sdpa"
    for verb in verbs(gemma).values():
        with pytest.raises(ValueError, match="soft-cap"):
            verb()


def test_options_that_a_model_object_contradicts():
    model, words = tiny.model("gpt2"), tiny.tokenizer("gpt2")
    for option in ({"dtype": torch.bfloat16}, {"revision": "main"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}: a model object is used as it"):
            xlens.load(model, words, **option)
    xlens.load(model, words, dtype=torch.float32, device="cpu")
    xlens.load(model.bfloat16(), words, dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_are_floating_point(family_dir, dtype):
    for source in (family_dir("gpt2"), "no/such-model"):  # before anything is looked for
        with pytest.raises(ValueError, match="is not one of"):
            xlens.load(source, dtype=dtype)


def test_the_build_of_torch_is_named():
    from xlens.results import versions

    assert versions()["torch"] == torch.__version__
