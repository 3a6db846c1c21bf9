"""The readout: the model's own final norm, unembedding and what comes after."""

import kit
import pytest
import torch
from torch import nn

import tiny
import xlens
from xlens.models import check_readout
from xlens.models.readout import output_options


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_lens_at_the_last_point_is_the_models_output(family, family_dir):
    model = kit.model(family_dir(family))
    prompts = kit.mixed()[:4]
    acts = xlens.harvest(model, prompts, slots="all", progress=False)
    read = xlens.engine.stream(model.readout, acts.slot("all").values, top_k=5)
    for i in range(len(prompts)):
        wanted = kit.logits(model, acts.meta["tokens"][i]).log_softmax(-1)
        own = model.readout.logits(acts.rows("all", i)[-1]).log_softmax(-1)
        torch.testing.assert_close(own, wanted, atol=1e-4, rtol=0)
        a, b = acts.slot("all").offsets[i : i + 2].tolist()
        best = wanted.gather(-1, read.top_ids[-1, a:b])
        torch.testing.assert_close(read.top_logprobs[-1, a:b], best, atol=1e-4, rtol=0)
        torch.testing.assert_close(best, wanted.topk(5).values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_check_readout_accepts_with_room(family, family_dir):
    assert check_readout(kit.model(family_dir(family))) < 1e-5


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_parts_and_sizes(family, family_dir):
    model = kit.model(family_dir(family))
    config = model.hf_model.config
    assert model.n_layers == config.num_hidden_layers == len(model.blocks)
    assert model.d_model == config.hidden_size
    assert model.d_vocab == config.vocab_size == len(model.vocab)
    assert model.n_ctx == (None if family == "bloom" else 128)
    assert model.readout.W_U.shape == (model.d_model, model.d_vocab)
    assert model.readout.softcap == (3.0 if family == "gemma2" else None)
    assert model.vocab.kind == (
        "sentencepiece" if family in ("llama", "mistral", "gemma2", "gemma3") else "byte-level"
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_norm_gain_is_what_the_norm_multiplies_by(family, family_dir):
    model = kit.model(family_dir(family))
    weight = model.readout.ln_final.weight.detach()
    wanted = weight + 1 if family.startswith("gemma") else weight
    torch.testing.assert_close(model.readout.norm_gain, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [7, 8])
@pytest.mark.parametrize("make", [nn.LayerNorm, nn.RMSNorm])
def test_norm_gain_of_odd_and_even_widths(make, width):
    norm = make(width)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(1))
    readout = readout_of(norm, nn.Linear(width, 5))
    torch.testing.assert_close(readout.norm_gain, norm.weight.detach(), atol=1e-4, rtol=1e-4)


def readout_of(norm, unembed, **options):
    options = {"softcap": None, "logit_scale": 1.0} | options
    return xlens.models.Readout(norm, unembed, fingerprint=lambda: "x", **options)


def test_readout_bias_scale_and_softcap_follow_each_other():
    torch.manual_seed(0)
    norm, unembed = nn.LayerNorm(6), nn.Linear(6, 11)
    readout = readout_of(norm, unembed, softcap=2.0, logit_scale=3.0)
    resid = torch.randn(2, 3, 6)
    wanted = (2 * torch.tanh(3 * unembed(norm(resid)) / 2)).detach()
    torch.testing.assert_close(readout.logits(resid), wanted)
    normed = readout.normed(resid[0])
    torch.testing.assert_close(readout.tile(normed, 3, 7), wanted[0, :, 3:7])
    torch.testing.assert_close(readout.at(normed, torch.tensor([9, 0])), wanted[0][:, [9, 0]])
    assert torch.equal(readout.b_U, unembed.bias) and not readout.W_U.requires_grad


def test_output_options_are_read_from_the_config():
    class Config:
        logit_scale, logits_scaling, final_logit_softcapping = 0.5, 4.0, 30.0

    assert output_options(Config()) == (30.0, 0.125)
    assert output_options(object()) == (None, 1.0)


def test_the_readout_of_a_half_precision_model_is_fp32():
    model = kit.fresh("gemma2")
    resid = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    model.hf_model.to(torch.bfloat16)
    got = model.readout.logits(resid.bfloat16())
    wanted = kit.fresh("gemma2")
    wanted.hf_model.to(torch.bfloat16).float()  # the rounded weights, calculated exactly
    torch.testing.assert_close(got, wanted.readout.logits(resid.bfloat16().float()))
    assert model.readout.ln_final.weight.dtype == torch.bfloat16  # the model's own is untouched


def test_the_readout_follows_weights_that_change():
    model = kit.fresh("llama")
    resid = torch.randn(1, model.d_model)
    before, gain = model.readout.logits(resid), model.readout.norm_gain
    with torch.no_grad():
        model.hf_model.lm_head.weight *= 2
        model.readout.ln_final.weight *= 3
    torch.testing.assert_close(model.readout.logits(resid), before * 6)
    torch.testing.assert_close(model.readout.norm_gain, gain * 3)


def test_packed_weights_are_refused():
    class Packed(nn.Module):  # as torch's quantised layers are
        def weight(self):
            raise AssertionError

    own = tiny.model("llama")
    own.lm_head = Packed()
    with pytest.raises(ValueError, match=r"unembedding is a \S*Packed, .*\(quantised\)"):
        xlens.load(own, tiny.tokenizer("llama"))
