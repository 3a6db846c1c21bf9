"""What xlens knows of each family of models: where its parts are and what they return.

A new family is one record here and one line in `tests/tiny.py`; `make families` checks it and
writes it into docs/models.md. A model of no family here is tried with the layouts of all of them:
one that fits by name and not in meaning is caught at load, where the readout must equal the
logits. It then has the residual stream, and no site inside its blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from xlens.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family builds its model. Paths inside a block are relative to the block.

    Where blocks of one model differ (Mamba beside attention, experts beside one MLP), a path holds
    for the blocks that have it.

    Attributes:
        name: What the docs call it.
        types: The `model_type`s of its configurations.
        blocks: Its blocks, from the causal model.
        norm: The norm before the unembedding, from the causal model.
        attention: The attention module; None where there is none.
        projections: Of it, those to queries, keys and values, or one for all three.
        by_head: Of one projection for all: whether its output goes head by head (queries, keys and
            values of the first head, then of the next), not in three blocks.
        z: The module that the heads' outputs go into, side by side.
        attn_out: The module whose output attention adds to the stream: after a norm that follows
            attention, and without the residual where the attention module returns both.
        attn_scale: The block's attribute that is multiplied to it, if any.
        activation: The MLP's activation module.
        gated: Whether the activation's output is multiplied by another projection.
        down: The projection that writes into the stream what the MLP has made.
        experts: What stands in for the MLP where a router chooses.
        mlp_out: The module whose output the MLP adds to the stream, as `attn_out`.
        mlp_scale: As `attn_scale`.
        twice: An argument of attention, and what the config calls it, that is in the mask already
            and is added to the scores once more where `eager` runs, which is right with zeros for
            it. Empty if none.
        relevance: Whether every product in a block is accounted for, so that the rules of
            `xlens.engine.rules` are right: one that was overlooked (a gate on attention, a router)
            would give wrong numbers, silently.
    """

    name: str
    types: tuple[str, ...]
    blocks: str = "model.layers"
    norm: str = "model.norm"
    attention: str | None = "self_attn"
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    by_head: bool = False
    z: str | None = "self_attn.o_proj"
    attn_out: str | None = "self_attn.o_proj"
    attn_scale: str | None = None
    activation: str | None = "mlp.act_fn"
    gated: bool = True
    down: str | None = "mlp.down_proj"
    experts: str | None = None
    mlp_out: str | None = "mlp"
    mlp_scale: str | None = None
    twice: str = ""
    relevance: bool = False

    @property
    def gate(self) -> str | None:
        """The gate's activation module; None where there is no gate."""
        return self.activation if self.gated else None

    @property
    def product(self) -> str | None:
        """The projection that reads a gated MLP's product; None where there is no gate."""
        return self.down if self.gated else None

    def attentions(self, blocks: Iterable[nn.Module]) -> dict[int, nn.Module]:
        """The attention module of each block that has one, by the block's number."""
        path = self.attention
        inside = ((n, dict(b.named_modules()).get(path)) for n, b in enumerate(blocks) if path)
        return {n: module for n, module in inside if module is not None}


def _like(family: Family, name: str, *types: str, **changes: Any) -> Family:
    return replace(family, **{"name": name, "types": types, "relevance": False} | changes)


_LLAMA = Family(name="Llama", types=("llama",), relevance=True)
_MOE = _like(_LLAMA, "Mixtral", "mixtral", experts="mlp.experts", activation=None, down=None)
_BOTH = _like(_LLAMA, "", experts="mlp.experts")  # experts in some blocks, one MLP in others
_NORMED_AFTER = _like(
    _LLAMA,
    "",
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
)
_FUSED = _like(_LLAMA, "", projections=("qkv_proj",), activation="mlp.activation_fn")
_FC: dict[str, Any] = {"activation": "mlp.act", "gated": False}
_GPT2 = Family(
    name="GPT-2",
    types=("gpt2",),
    blocks="transformer.h",
    norm="transformer.ln_f",
    attention="attn",
    projections=("c_attn",),
    z="attn.c_proj",
    attn_out="attn.c_proj",
    down="mlp.c_proj",
    relevance=True,
    **_FC,
)
_GPTJ = _like(
    _GPT2,
    "GPT-J",
    "gptj",
    projections=("q_proj", "k_proj", "v_proj"),
    z="attn.out_proj",
    attn_out="attn.out_proj",
    down="mlp.fc_out",
)
_NEOX = Family(
    name="GPT-NeoX",
    types=("gpt_neox",),
    blocks="gpt_neox.layers",
    norm="gpt_neox.final_layer_norm",
    attention="attention",
    projections=("query_key_value",),
    by_head=True,
    z="attention.dense",
    attn_out="attention.dense",
    down="mlp.dense_4h_to_h",
    relevance=True,
    **_FC,
)
_FALCON = _like(
    _NEOX,
    "Falcon",
    "falcon",
    blocks="transformer.h",
    norm="transformer.ln_f",
    attention="self_attention",
    by_head=False,
    z="self_attention.dense",
    attn_out="self_attention.dense",
    twice="alibi",
)
_XGLM = Family(
    name="XGLM",
    types=("xglm",),
    norm="model.layer_norm",
    z="self_attn.out_proj",
    attn_out="self_attn.out_proj",
    activation="activation_fn",
    gated=False,
    down="fc2",
    mlp_out="fc2",
)

FAMILIES = (
    _LLAMA,
    _like(_LLAMA, "Mistral", "mistral", relevance=True),
    _like(_LLAMA, "Ministral", "ministral", "ministral3"),
    _MOE,
    _like(_LLAMA, "Qwen2", "qwen2", relevance=True),
    _like(_LLAMA, "Qwen2-VL", "qwen2_vl_text", "qwen2_5_vl_text"),
    _like(_BOTH, "Qwen2-MoE", "qwen2_moe"),
    _like(_LLAMA, "Qwen3", "qwen3", relevance=True),
    _like(_LLAMA, "Qwen3-VL", "qwen3_vl_text"),
    _like(_BOTH, "Qwen3-MoE", "qwen3_moe"),
    _like(_BOTH, "Qwen3-Next", "qwen3_next"),
    _like(_LLAMA, "Gemma", "gemma"),
    _like(_NORMED_AFTER, "Gemma 2", "gemma2", relevance=True),
    _like(_NORMED_AFTER, "Gemma 3", "gemma3_text", relevance=True),
    _like(_LLAMA, "VaultGemma", "vaultgemma"),
    _like(_LLAMA, "OLMo", "olmo"),
    _like(_NORMED_AFTER, "OLMo 2", "olmo2", relevance=True),
    _like(_NORMED_AFTER, "OLMo 3", "olmo3"),
    _like(_MOE, "OLMoE", "olmoe"),
    _like(
        _LLAMA,
        "Phi-1, Phi-2",
        "phi",
        norm="model.final_layernorm",
        z="self_attn.dense",
        attn_out="self_attn.dense",
        activation="mlp.activation_fn",
        gated=False,
        down="mlp.fc2",
    ),
    _like(_FUSED, "Phi-3", "phi3"),
    _like(_MOE, "PhiMoE", "phimoe"),
    _FALCON,
    _like(
        _LLAMA,
        "Falcon-H1",
        "falcon_h1",
        norm="model.final_layernorm",
        attn_out=None,  # a Mamba adds to the stream beside it
        activation="feed_forward.act_fn",
        down="feed_forward.down_proj",
        mlp_out="feed_forward",
    ),
    _like(_LLAMA, "Cohere", "cohere"),
    _like(_LLAMA, "Cohere 2", "cohere2"),
    # Its modules return output and residual together.
    _like(
        _FALCON,
        "BLOOM",
        "bloom",
        by_head=True,
        activation="mlp.gelu_impl",
        mlp_out="mlp.dense_4h_to_h",
        twice="",
        relevance=True,
    ),
    _GPT2,
    _like(_GPT2, "GPT-BigCode", "gpt_bigcode"),
    _like(
        _GPTJ,
        "GPT-Neo",
        "gpt_neo",
        attention="attn.attention",
        z="attn.attention.out_proj",
        attn_out="attn.attention.out_proj",
        down="mlp.c_proj",
    ),
    _GPTJ,
    _NEOX,
    _like(_GPTJ, "CodeGen", "codegen", projections=("qkv_proj",)),
    _like(
        _LLAMA,
        "Granite",
        "granite",
        attn_scale="residual_multiplier",
        mlp_scale="residual_multiplier",
    ),
    _like(
        _MOE,
        "Granite MoE",
        "granitemoe",
        attn_scale="residual_multiplier",
        experts="block_sparse_moe.experts",
        mlp_out="block_sparse_moe",
        mlp_scale="residual_multiplier",
    ),
    _like(_LLAMA, "StableLM", "stablelm"),
    _like(_BOTH, "DeepSeek V2", "deepseek_v2", projections=()),
    _like(_BOTH, "DeepSeek V3", "deepseek_v3", projections=()),
    _like(_LLAMA, "SmolLM3", "smollm3"),
    _like(_LLAMA, "StarCoder 2", "starcoder2", down="mlp.c_proj", **_FC),
    _like(_LLAMA, "Nemotron", "nemotron", gated=False),
    _like(_FUSED, "GLM", "glm", projections=_LLAMA.projections),
    _like(
        _FUSED,
        "GLM 4",
        "glm4",
        projections=_LLAMA.projections,
        attn_out="post_self_attn_layernorm",
        mlp_out="post_mlp_layernorm",
    ),
    _like(_LLAMA, "Helium", "helium"),
    _like(_NORMED_AFTER, "EXAONE 4", "exaone4"),
    _like(_LLAMA, "Apertus", "apertus", gated=False),
    _like(_LLAMA, "Hunyuan", "hunyuan_v1_dense"),
    _like(_LLAMA, "ERNIE 4.5", "ernie4_5"),
    _like(_LLAMA, "Seed-OSS", "seed_oss"),
    _like(_LLAMA, "Arcee", "arcee", gated=False),
    _like(_MOE, "gpt-oss", "gpt_oss"),
    # It multiplies the residual as well, and normalises it: nothing is simply added to the stream.
    _like(_MOE, "MiniMax", "minimax", attn_out=None, mlp_out=None),
    _like(
        _LLAMA,
        "MiniCPM 3",
        "minicpm3",
        projections=(),
        attn_scale="residual_scale",
        mlp_scale="residual_scale",
    ),
    _like(_LLAMA, "BitNet", "bitnet", z="self_attn.attn_sub_norm"),
    _like(
        _LLAMA,
        "Llama 4",
        "llama4_text",
        activation="feed_forward.activation_fn",
        down="feed_forward.down_proj",
        experts="feed_forward.experts",
        mlp_out="feed_forward",
    ),
    _like(_LLAMA, "DiffLlama", "diffllama"),
    _like(
        _LLAMA,
        "NanoChat",
        "nanochat",
        activation="mlp.activation_fn",
        gated=False,
        down="mlp.fc2",
    ),
    _XGLM,
    _like(
        _XGLM, "OPT", "opt", blocks="model.decoder.layers", norm="model.decoder.final_layer_norm"
    ),
    _like(_XGLM, "BioGPT", "biogpt", blocks="biogpt.layers", norm="biogpt.layer_norm"),
    # Its MLP returns output and residual together.
    Family(
        name="MPT",
        types=("mpt",),
        blocks="transformer.blocks",
        norm="transformer.norm_f",
        attention="attn",
        projections=("Wqkv",),
        z="attn.out_proj",
        attn_out="attn.out_proj",
        activation="ffn.act",
        gated=False,
        down="ffn.down_proj",
        mlp_out="ffn.down_proj",
    ),
    _like(
        _NEOX,
        "Persimmon",
        "persimmon",
        blocks="model.layers",
        norm="model.final_layernorm",
        attention="self_attn",
        z="self_attn.dense",
        attn_out="self_attn.dense",
    ),
    Family(
        name="CTRL",
        types=("ctrl",),
        blocks="transformer.h",
        norm="transformer.layernorm",
        attention="multi_head_attention",
        projections=("Wq", "Wk", "Wv"),
        z="multi_head_attention.dense",
        attn_out="multi_head_attention.dense",
        activation="ffn.1",
        gated=False,
        down="ffn.2",
        mlp_out="ffn",
    ),
    Family(
        name="Mamba",
        types=("mamba",),
        blocks="backbone.layers",
        norm="backbone.norm_f",
        attention=None,
        projections=(),
        z=None,
        attn_out=None,
        activation=None,
        gated=False,
        down=None,
        mlp_out=None,
    ),
    # Its gate's activation is a function, not a module: there is no `mlp_gate`.
    _like(
        _LLAMA,
        "LFM2",
        "lfm2",
        norm="model.embedding_norm",
        z="self_attn.out_proj",
        attn_out="self_attn.out_proj",
        activation=None,
        down="feed_forward.w2",
        mlp_out="feed_forward",
    ),
    _like(
        _LLAMA,
        "Jamba",
        "jamba",
        norm="model.final_layernorm",
        activation="feed_forward.act_fn",
        down="feed_forward.down_proj",
        experts="feed_forward.experts",
        mlp_out="feed_forward",
    ),
)
"""Every family that is tested, in the order of the docs."""

_BY_TYPE = {kind: family for family in FAMILIES for kind in family.types}
# What a model with a vision part calls its language model.
_WITHIN = ("model.language_model", "model.text_model", "language_model.model")


def find(kind: str) -> Family | None:
    """The family of a `model_type`, or None."""
    return _BY_TYPE.get(kind)


def recognised(hf_model: nn.Module) -> tuple[Family, tuple[nn.Module, ...], nn.Module]:
    """A model's family, its blocks and its final norm.

    Raises:
        ValueError: no layout fits.
    """
    config: Any = hf_model.config
    kind = str(config.get_text_config().model_type)
    known = find(kind)
    for family in (known, *FAMILIES) if known else FAMILIES:
        for blocks_path, norm_path in _layouts(family):
            try:
                blocks = hf_model.get_submodule(blocks_path)
                norm = hf_model.get_submodule(norm_path)
            except AttributeError:
                continue
            return known or _unknown(kind, family), tuple(blocks.children()), norm
    pairs = dict.fromkeys(f"{family.blocks} + {family.norm}" for family in FAMILIES)
    raise ModelError(
        f"{type(hf_model).__name__} keeps its blocks and final norm in a layout that xlens does "
        f"not know (or has none, or is no decoder); known are {', '.join(pairs)}. Add a record to "
        "xlens.models.families."
    )


def _layouts(family: Family) -> Iterator[tuple[str, str]]:
    yield family.blocks, family.norm
    within = [path.split(".", 1)[1] for path in (family.blocks, family.norm)]
    for body in _WITHIN:
        yield f"{body}.{within[0]}", f"{body}.{within[1]}"


def _unknown(kind: str, family: Family) -> Family:
    """Where the blocks are is known of it, and nothing of what is in them."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("attention", "z", "attn_out", "attn_scale", "activation", "down", "mlp_out", "mlp_scale")
    )
    return Family(
        name=kind,
        types=(kind,),
        blocks=family.blocks,
        norm=family.norm,
        projections=(),
        gated=False,
        **nothing,
    )
