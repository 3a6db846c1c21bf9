"""Folders of models with a vision part load as their objects do, and read text alone."""

import kit
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, BertConfig, BertLMHeadModel

import tiny
import xlens
from xlens.models import HookedModel, hf
from xlens.models.loading import check_causal

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 900,
    "initializer_range": 0.2,
}
_EYE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_EYE = {"depth": 2, "hidden_size": 32, "num_heads": 2}
_MROPE = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
}
_SIGLIP = _EYE | {"model_type": "siglip_vision_model"}
_PALIGEMMA = {
    "text_config": _TEXT | {"model_type": "gemma", "head_dim": 16},
    "vision_config": _SIGLIP | {"projection_dim": 64},
    "projection_dim": 64,
    "image_token_index": 5,
}
CONFIGS = {
    "gemma3": {
        "text_config": _TEXT | {"head_dim": 16, "sliding_window": 8},
        "vision_config": _SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": 5,
    },
    "qwen2_vl": {
        "text_config": _TEXT | _MROPE,
        "vision_config": _QWEN_EYE | {"embed_dim": 32, "hidden_size": 64},
    },
    "qwen2_5_vl": {
        "text_config": _TEXT | _MROPE,
        "vision_config": _QWEN_EYE | {"out_hidden_size": 64, "intermediate_size": 48},
    },
    "qwen3_vl": {
        "text_config": _TEXT | _MROPE | {"head_dim": 16},
        "vision_config": _QWEN_EYE
        | {"out_hidden_size": 64, "intermediate_size": 48, "deepstack_visual_indexes": [0]},
    },
    "llava": {
        "text_config": _TEXT | {"model_type": "llama"},
        "vision_config": _EYE | {"model_type": "clip_vision_model", "projection_dim": 32},
        "image_token_index": 5,
    },
    "mistral3": {
        "text_config": _TEXT | {"model_type": "mistral", "head_dim": 16},
        "vision_config": _EYE | {"model_type": "pixtral"},
        "image_token_index": 5,
    },
    "idefics3": {
        "text_config": _TEXT | {"model_type": "llama", "pad_token_id": 0},
        "vision_config": _EYE,
    },
    # Listed in transformers as a causal model too, without its vision part.
    "llama4": {
        "text_config": _TEXT
        | {"head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 96, "pad_token_id": 0},
        "vision_config": _EYE
        | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        "image_token_index": 5,
        "boi_token_index": 6,
        "eoi_token_index": 7,
    },
}


def made(kind, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(kind, **config), dtype=torch.float32
        )
    return built.eval()


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_loads_as_its_object_does(kind, tmp_path):
    own, words = made(kind, CONFIGS[kind]), tiny.sentencepiece()
    one = xlens.load(own, words, device="cpu")
    own.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    other = xlens.load(tmp_path, device="cpu")
    assert type(other.hf_model) is type(own)
    assert other.fingerprint == one.fingerprint and other.family == one.family
    assert one.n_layers == 3 and one.family.attention == "self_attn"
    prompts = kit.mixed()
    acts = xlens.harvest(other, prompts, token_budget=150, progress=False)
    for i, prompt in enumerate(prompts):
        ids = other.tokenize([prompt])[0].ids
        assert kit.relative_error(acts.rows("last", i)[:-1, 0], plain(own, ids)) < 1e-5


@torch.inference_mode()
def plain(own, ids):
    out = own(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    return torch.cat(out.hidden_states)[:-1, -1]


def test_a_model_that_looks_ahead_is_refused():
    own = made("paligemma", _PALIGEMMA)
    with pytest.raises(ValueError, match=r"PaliGemma.* is refused"):
        xlens.load(own, tiny.sentencepiece())
    with pytest.raises(ValueError, match=r"PaliGemma.* is refused.*when more text follows"):
        check_causal(HookedModel(own, tiny.sentencepiece(), name="paligemma"))


@pytest.mark.parametrize(("size", "told"), [(1.0, r"by [2-6]\S* standard"), (1e-6, None)])
def test_how_far_a_model_looks_ahead_is_told_in_the_logits_own_size(size, told):
    model = kit.fresh("llama", initializer_range=0.05)
    spread = float(kit.logits(model, [1, 2, 3]).std())

    def longer(_module, _args, out):  # by 4 for the 4 tokens that follow
        out.logits = out.logits + size * spread * out.logits.shape[1]
        return out

    model.hf_model.register_forward_hook(longer)
    if told:
        with pytest.raises(ValueError, match=told):
            check_causal(model)
    else:
        assert 1e-6 < check_causal(model) < 2e-5


def test_a_class_that_writes_no_text_is_refused_with_the_reason(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("t5", d_model=32, d_kv=8, num_layers=1, num_heads=2)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'t5'.*writes no text on.*vision part"):
        hf.load_model(tmp_path)
    encoder = BertLMHeadModel(BertConfig(**sizes, intermediate_size=48, vocab_size=900))
    with pytest.raises(ValueError, match=r"BertLMHeadModel .*layout"):
        xlens.load(encoder, tiny.sentencepiece())
