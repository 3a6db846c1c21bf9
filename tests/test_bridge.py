"""TransformerLens beside the core: the model's own bridge, and a user's bridge as a model."""

import kit
import pytest
import torch

import tiny
import xlens


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_bridges_cache_is_the_harvest(family, family_dir):
    model = kit.model(family_dir(family))
    text = kit.mixed()[3:4]
    acts = xlens.harvest(model, text, slots="all", progress=False)
    ids = torch.tensor([list(acts.meta["tokens"][0])])
    with torch.inference_mode():
        logits, cache = model.bridge.run_with_cache(ids)
    own = acts.to_cache(0)
    assert kit.relative_error(own["blocks.0.hook_resid_pre"], cache["blocks.0.hook_in"]) < 1e-5
    for layer in range(model.n_layers):
        name = f"blocks.{layer}.hook_resid_post"
        assert own[name].shape == cache[name].shape == (1, ids.shape[1], model.d_model)
        assert kit.relative_error(own[name], cache[name]) < 1e-5
    torch.testing.assert_close(logits[0], kit.logits(model, ids[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_nothing_done_to_the_bridge_reaches_the_model(family):
    model = kit.fresh(family)
    kinds = [type(m) for m in model.hf_model.modules()]
    before = xlens.harvest(model, kit.mixed(), progress=False).get()
    fingerprint = model.fingerprint

    model.bridge.add_hook("blocks.1.hook_out", lambda value, hook: value * 0)
    model.bridge.cfg.n_ctx = 5
    model.bridge.tokenizer.add_tokens(["dachshund"])
    ids = torch.tensor([model.tokenizer("The dog")["input_ids"]])
    assert not model.bridge.run_with_cache(ids)[1]["blocks.1.hook_out"].any()

    assert torch.equal(xlens.harvest(model, kit.mixed(), progress=False).get(), before)
    assert model.fingerprint == fingerprint
    assert [type(m) for m in model.hf_model.modules()] == kinds
    assert len(model.tokenizer) == model.d_vocab and model.config.max_position_embeddings == 128
    # One set of weights, not two.
    mine = {p.data_ptr() for p in model.hf_model.parameters()}
    assert any(p.data_ptr() in mine for p in model.bridge.parameters())


def test_the_bridge_keeps_the_tokenizers_edits_and_bos():
    model = kit.fresh("llama")
    model.tokenizer.add_tokens(["the dog"])
    text = "sleeps the dog sleeps"
    wanted = model.tokenizer(text)["input_ids"]
    assert len(model.tokenizer) - 1 in wanted and wanted[0] == model.tokenizer.bos_token_id
    assert model.bridge.to_tokens(text)[0].tolist() == wanted
    assert model.bridge.cfg.default_prepend_bos is True
    assert model.tokenizer.pad_token is None  # the bridge wants one; its copy got it
    assert kit.fresh("gpt2").bridge.cfg.default_prepend_bos is False


def test_the_bridge_needs_no_network(monkeypatch):
    import socket

    def refuse(*_args, **_kwargs):
        raise AssertionError("the bridge went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    bridge = kit.fresh("gpt2").bridge
    assert bridge.to_string(bridge.to_tokens("The dog")[0]) == "The dog"


def bridge_of(family):
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf = tiny.model(family)
    return build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config, model_name="mine")


QUICK = ("gpt2", "llama", "gemma3")


@pytest.mark.parametrize(
    "family",
    [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in tiny.FAMILIES],
)
def test_a_users_bridge_can_be_loaded(family, family_dir):
    plain = kit.model(family_dir(family))
    wrapped = xlens.load(bridge_of(family), plain.tokenizer)
    slots = ["last", "word:mean"]
    wanted = xlens.harvest(plain, kit.mixed(), slots=slots, token_budget=300, progress=False)
    got = xlens.harvest(wrapped, kit.mixed(), slots=slots, token_budget=300, progress=False)
    for slot in slots:
        assert kit.relative_error(got.get(slot), wanted.get(slot)) < 2e-5
    torch.testing.assert_close(
        wrapped.readout.logits(got.get("last")), plain.readout.logits(wanted.get("last")),
        atol=1e-3, rtol=1e-4,
    )  # fmt: skip


def test_a_bridge_with_processed_weights_is_refused():
    bridge = bridge_of("gpt2")
    bridge.enable_compatibility_mode(no_processing=True)
    xlens.load(bridge, tiny.tokenizer("gpt2"))
    bridge = bridge_of("gpt2")
    bridge.enable_compatibility_mode()
    with pytest.raises(ValueError, match=r"weights were processed.*enable_compatibility_mode\("):
        xlens.load(bridge, tiny.tokenizer("gpt2"))
