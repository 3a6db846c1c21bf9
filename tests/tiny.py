"""Tiny random checkpoints of many families, with tokenizers trained on the spot.

Small enough to make in a test, odd enough to show mistakes: norm weights and biases are random (a
forgotten final norm moves the logits), soft-caps bite, sliding windows are shorter than a prompt,
rare characters fall apart into bytes, and some tokenizers add a first token while others do not.
"""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

# Written for these tests. Parallel: every language says the same five things.
TEXT = {
    "en": "The dog sleeps in the house. January is the first month of the year. We drink cold "
    "water in summer. The book is on the table; the flower is red. Where is the king's city? 🐶",
    "fr": "Le chien dort dans la maison. Janvier est le premier mois de l'année. Nous buvons de "
    "l'eau froide en été. Le livre est sur la table ; la fleur est rouge. Où est la ville du roi ?",
    "de": "Der Hund schläft im Haus. Januar ist der erste Monat des Jahres. Wir trinken im Sommer "
    "kaltes Wasser. Das Buch liegt auf dem Tisch; die Blume ist rot. Wo ist die Stadt des Königs?",
    "es": "El perro duerme en la casa. Enero es el primer mes del año. Bebemos agua fría en "
    "verano. El libro está en la mesa; la flor es roja. ¿Dónde está la ciudad del rey? ¡Allí! 🌹",
    "ru": "Собака спит в доме. Январь — первый месяц года. Летом мы пьём холодную воду. "
    "Книга лежит на столе; цветок красный. Где город короля?",
    "zh-Hans": "狗在房子里睡觉。一月是一年的第一个月。夏天我们喝冷水。书在桌子上；花是红色的。"
    "国王的城市在哪里？你好，世界！",
    "ja": "犬は家で寝ています。一月は一年の最初の月です。夏には冷たい水を飲みます。"
    "本は机の上にあります。花は赤いです。王様の町はどこですか。カタカナとひらがな。",
    "ko": "개가 집에서 자고 있습니다. 일월은 한 해의 첫 번째 달입니다. 여름에는 찬물을 마십니다. "
    "책은 탁자 위에 있고 꽃은 빨갛습니다. 왕의 도시는 어디에 있습니까?",
    "ar": "الكلب ينام في البيت. يناير هو أول شهر في السنة. نشرب الماء البارد في الصيف. "
    "الكتاب على الطاولة والزهرة حمراء. أين مدينة الملك؟ مَرْحَبًا بِالعَالَم.",
    "hi": "कुत्ता घर में सोता है। जनवरी साल का पहला महीना है। हम गर्मी में ठंडा पानी पीते हैं। "
    "किताब मेज़ पर है और फूल लाल है। राजा का शहर कहाँ है?",
    "tr": "Köpek evde uyuyor. Ocak yılın ilk ayıdır. Yazın soğuk su içeriz. Kitap masanın üstünde; "
    "çiçek kırmızı. Kralın şehri nerede? İstanbul, ığdır, IĞDIR.",
    "sw": "Mbwa analala nyumbani. Januari ni mwezi wa kwanza wa mwaka. Tunakunywa maji baridi "
    "wakati wa joto. Kitabu kiko mezani; ua ni jekundu. Mji wa mfalme uko wapi?",
}
# The layout of the prompts, and what tokenizers trip over: joined emoji, flags, combining marks.
ODDITIES = [
    'Français: "chien" - English: "dog"\nDeutsch: "Hund" - 中文: "狗"\n',
    "A: 1, 2, 3, 10, 1999\nB: 2026.\n\tC) _ ?",
    "👩🏽‍🔬 🇫🇷 👍🏽 e\u0301 n\u0303 o\u0308 \u1e69 s\u0323\u0307 ﬁ ½ ﷺ",
]
CORPUS = [*TEXT.values(), *ODDITIES]

# The ten that the tests go through; `make families` goes through `ALL`.
FAMILIES = (
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "olmo2",
    "bloom",
    "gpt_neox",
)


# --- tokenizers ---


def byte_level(*, pad: bool = False, vocab_size: int = 800) -> PreTrainedTokenizerFast:
    """GPT-2's kind: pieces of bytes, no first token added, `<|endoftext|>` for both ends."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_byte_level(vocab_size)),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        **({"pad_token": "<|pad|>"} if pad else {}),
    )


def sentencepiece(*, prefix: bool = False, vocab_size: int = 900) -> PreTrainedTokenizerFast:
    """Gemma's kind: '▁' for a space, rare characters as bytes, `<bos>` put first.

    With `prefix`, Llama's kind: a text's first word is given a space as well.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_sentencepiece(prefix, vocab_size)),
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        **({} if prefix else {"pad_token": "<pad>"}),  # Llama has none
    )


@cache
def _trained_byte_level(vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer.to_str()


@cache
def _trained_sentencepiece(prefix: bool, vocab_size: int) -> str:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]

    # Words end merges while training only; later nothing splits the text, as in Gemma.
    trainee = Tokenizer(models.BPE())
    trainee.normalizer = normalizers.Replace(" ", "▁")
    trainee.pre_tokenizer = pre_tokenizers.Split(Regex("▁|\n"), "merged_with_next")
    trainee.train_from_iterator(
        _without_rare(CORPUS, 300),  # what is rarer falls back to bytes
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(specials) - len(pieces),
            show_progress=False,
        ),
    )
    learned = json.loads(trainee.to_str())["model"]
    vocab = {token: i for i, token in enumerate([*specials, *pieces, *learned["vocab"]])}
    merges = [tuple(merge) for merge in learned["merges"]]

    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(specials)
    text = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        text.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(text)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A",
        pair="<bos> $A <bos>:1 $B:1",
        special_tokens=[("<bos>", vocab["<bos>"])],
    )
    return tokenizer.to_str()


def _without_rare(texts: list[str], keep: int) -> list[str]:
    """The texts in their commonest characters; the trainer's own limit breaks ties by chance."""
    count = Counter("".join(texts).replace(" ", "▁"))
    kept = set(sorted(count, key=lambda c: (-count[c], c))[:keep]) | {" "}
    return ["".join(c for c in text if c in kept) for text in texts]


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family's kind, as it is before it is saved.

    Loaded again, Qwen 2's becomes a `Qwen2Tokenizer`: it composes accents (NFC) and splits digits.
    """
    if family in ("gemma2", "gemma3"):
        return sentencepiece()
    if family in ("llama", "mistral"):
        return sentencepiece(prefix=True)
    return byte_level(pad=family not in ("gpt2", "gpt_neox"))


# --- models ---

_ROTARY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_MHA = {k: v for k, v in _ROTARY.items() if k != "num_key_value_heads"}
_HEADS = _ROTARY | {"head_dim": 24}
_WINDOW = {"sliding_window": 8}
_GEMMA = _HEADS | {"num_hidden_layers": 4, "query_pre_attn_scalar": 24} | _WINDOW
_CAPS = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SHARED_EXPERT = {"shared_expert_intermediate_size": 80}
_GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 128}
_GPTJ = _GPT2 | {"n_embd": 64, "rotary_dim": 8}
_FALCON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GRANITE = _ROTARY | {
    "embedding_multiplier": 2.0,
    "logits_scaling": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
}
_LATENT = _MHA | {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
_DEEPSEEK = _LATENT | {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
}
_FFN = {"ffn_dim": 96, "max_position_embeddings": 128}
# One line each. `model_type` is the name, unless it says otherwise.
_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "llama": _ROTARY,
    "mistral": _ROTARY | _WINDOW,
    "qwen2": _ROTARY | {"tie_word_embeddings": True},
    "qwen3": _HEADS,
    "gemma2": _GEMMA | _CAPS,
    "gemma3": _GEMMA
    | {"model_type": "gemma3_text", "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "olmo2": _ROTARY,
    "bloom": {"hidden_size": 48, "n_layer": 3, "n_head": 4},
    "gpt_neox": _MHA,
    # What follows is for `make families`.
    "llama, rope of 3": _ROTARY | {"model_type": "llama", "rope_parameters": _LLAMA3_ROPE},
    "ministral": _HEADS
    | _WINDOW
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "ministral3": _ROTARY,
    "mixtral": _ROTARY | _WINDOW | _LOCAL_EXPERTS,
    "qwen2, sliding": _ROTARY
    | _WINDOW
    | {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1},
    "qwen2_moe": _ROTARY | _EXPERTS | _SHARED_EXPERT,
    "qwen3_moe": _HEADS | _EXPERTS,
    "qwen3_next": _HEADS
    | _EXPERTS
    | _SHARED_EXPERT
    | {"num_hidden_layers": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2}
    | {"linear_key_head_dim": 16, "linear_value_head_dim": 16},
    "gemma": _HEADS,
    "vaultgemma": _GEMMA | _CAPS,
    "olmo": _ROTARY | {"clip_qkv": 1.0},
    "olmo3": _ROTARY | _WINDOW | {"num_hidden_layers": 4},
    "olmoe": _ROTARY | _EXPERTS,
    "phi": _ROTARY | {"num_key_value_heads": 4},
    "phi3": _ROTARY | _WINDOW,
    "phimoe": _ROTARY | _LOCAL_EXPERTS,
    "falcon, 7B": _FALCON | {"model_type": "falcon", "multi_query": True, "parallel_attn": True},
    "falcon, 40B": _FALCON
    | {"model_type": "falcon", "num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon, RW": _FALCON
    | {"model_type": "falcon", "alibi": True, "multi_query": False, "bias": True}
    | {"parallel_attn": False},
    "falcon_h1": _ROTARY
    | {"head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16}
    | {"mamba_d_state": 16, "mamba_chunk_size": 16, "lm_head_multiplier": 0.5}
    | {"embedding_multiplier": 2.0, "attention_out_multiplier": 0.7},
    "cohere": _ROTARY | {"logit_scale": 0.25},
    "cohere2": _ROTARY | _WINDOW | {"logit_scale": 0.25, "num_hidden_layers": 4},
    "gpt_bigcode": _GPT2,
    "gpt_neo": {"hidden_size": 64, "num_layers": 4, "num_heads": 4, "window_size": 8}
    | {"attention_types": [[["global", "local"], 2]], "max_position_embeddings": 128},
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "granite": _GRANITE,
    "granitemoe": _GRANITE | _LOCAL_EXPERTS,
    "stablelm": _ROTARY,
    "stablelm, parallel": _ROTARY | {"model_type": "stablelm", "use_parallel_residual": True},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "smollm3": _ROTARY | {"num_hidden_layers": 4},
    "starcoder2": _ROTARY | _WINDOW,
    "nemotron": _ROTARY,
    "glm": _ROTARY | {"head_dim": 16},
    "glm4": _ROTARY | {"head_dim": 16},
    "helium": _ROTARY | {"head_dim": 16},
    "exaone4": _ROTARY | _WINDOW | {"num_hidden_layers": 4, "sliding_window_pattern": 4},
    "apertus": _ROTARY | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "hunyuan_v1_dense": _ROTARY | {"head_dim": 16},
    "ernie4_5": _ROTARY,
    "seed_oss": _ROTARY,
    "arcee": _ROTARY,
    "gpt_oss": _ROTARY
    | _WINDOW
    | _LOCAL_EXPERTS
    | {"head_dim": 16}
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "minimax": _ROTARY | _LOCAL_EXPERTS | {"head_dim": 16, "num_hidden_layers": 4},
    "minicpm3": _LATENT,
    "bitnet": _ROTARY,
    "llama4": _ROTARY
    | _LOCAL_EXPERTS
    | {"model_type": "llama4_text", "num_hidden_layers": 4, "head_dim": 16}
    | {"intermediate_size_mlp": 96, "attention_chunk_size": 8, "interleave_moe_layer_step": 2},
    "diffllama": _ROTARY,
    "nanochat": _ROTARY,
    "xglm": _FFN | {"d_model": 64, "num_layers": 3, "attention_heads": 4},
    "opt": _FALCON | _FFN | {"word_embed_proj_dim": 64},
    "biogpt": _MHA,
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 128},
    "persimmon": _MHA,
    "ctrl": _GPT2 | {"dff": 96},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 3, "state_size": 8},
    "lfm2": _ROTARY | {"layer_types": ["conv", "full_attention", "conv"]},
    "jamba": _ROTARY
    | {"num_experts": 4, "expert_layer_period": 2, "expert_layer_offset": 1}
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "num_hidden_layers": 4},
}
ALL = tuple(_CONFIGS)
_ENDS = ("bos", "eos", "pad")


def settings(family: str) -> dict[str, Any]:
    """What its config is made of, `model_type` included."""
    if family not in ALL:
        raise ValueError(f"no tiny {family!r}: there are {', '.join(ALL)}")
    words = tokenizer(family)
    ends = {f"{end}_token_id": getattr(words, f"{end}_token_id") for end in _ENDS}
    made = {"model_type": family, "vocab_size": len(words), "initializer_range": 0.2}
    return made | _CONFIGS[family] | ends


def model(family: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model in float32 and evaluation mode; `changes` go to its config."""
    config = AutoConfig.for_model(**settings(family) | changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _unsettle(made)
    return made.eval()


@torch.no_grad()
def _unsettle(made: PreTrainedModel) -> None:
    """Moves norm weights and biases away from 1 and 0, where forgetting one would not show."""
    for module in made.modules():
        if "norm" in type(module).__name__.lower():
            for weight in module.parameters(recurse=False):
                weight += 0.3 * torch.randn_like(weight)
        elif getattr(module, "bias", None) is not None and isinstance(module.bias, nn.Parameter):
            module.bias += 0.1 * torch.randn_like(module.bias)


def make(family: str, path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Saves a tiny checkpoint of a family with its tokenizer as a folder that `transformers` loads.

    Args:
        family: one of `ALL`.
        path: the folder to write.
        seed: of the weights; the same seed gives the same weights.
        changes: to the config, such as `num_hidden_layers=2` or `final_logit_softcapping=None`.
    """
    model(family, seed=seed, **changes).save_pretrained(path)
    tokenizer(family).save_pretrained(path)
    return Path(path)
