"""A Llama whose weights are written by hand: named subspaces, attention heads, linear maps.

The residual stream is a sum of codes in orthogonal subspaces. Every state has the same norm: a
`balance` direction gives up what a code adds, so that RMSNorm is multiplication by a constant and
the blocks do exactly what they are told. Attention is made sharp by large scores, with BOS as the
place to look at when there is nothing to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.errors import InputError
from xlens.models import HookedModel, load
from xlens.stats import generator

HEAD_DIM = 96
N_HEADS = 3  # two that are told what to do, one for the leak
N_CTX = 128
SQUARED_NORM = 8.0  # of every state; a code counts 1
LOGIT = 12.0  # of a code that is there; a word has two, its concept and its language

# Rotary angles per position are RATIO**i. The first four pairs of a head tell distances apart;
# from pair 16 on (4e-9 rad) nothing turns, and what stands there is compared as it is.
_RATIO = 0.3
_STILL = 16
MAX_CODES = HEAD_DIM // 2 - _STILL - 1 + HEAD_DIM // 2 - _STILL  # one still dimension is the sink's
# Chosen so that cos-scores at any other distance below N_CTX stay 0.238 below the right one.
_DISTANCE = (0.502, 0.158, 0.162, 0.178)
_BY_DISTANCE = 800.0  # score of the right distance
_BY_CODE = 120.0  # score of a matching code
_GATE = 4.0

Rows = Float[Tensor, "n d_model"]
Vector = Float[Tensor, " d_model"]


class Spaces:
    """Orthogonal named subspaces in a randomly turned basis, float64.

    Attributes:
        bases: Orthonormal rows `[rank, d_model]` by name.
    """

    def __init__(self, ranks: Mapping[str, int], *, seed: int) -> None:
        ranks = {"one": 1, "balance": 1, "bos": 1, **ranks}
        total = sum(ranks.values())
        # At least 96: noise in few dimensions would hit the codes harder. Heads must divide it.
        d_model = max(96, -(-total // 12) * 12)
        turn = np.linalg.qr(generator(seed).standard_normal((d_model, d_model)))[0]
        self.bases: dict[str, Tensor] = {}
        start = 0
        for name, rank in ranks.items():
            self.bases[name] = torch.from_numpy(turn[start : start + rank].copy())
            start += rank
        self.d_model = d_model

    def __getitem__(self, name: str) -> Rows:
        return self.bases[name]

    def sole(self, name: str, index: int = 0) -> Vector:
        """One code of a subspace."""
        return self.bases[name][index]

    def state(self, *codes: Tensor) -> Vector:
        """The sum of codes, with `one` and filled up to the common norm."""
        parts = torch.stack([self.sole("one"), *codes]).sum(0)
        return parts + (SQUARED_NORM - float(parts @ parts)) ** 0.5 * self.sole("balance")

    def adding(self, writes: Rows, *, to: int) -> Rows:
        """`writes`, each one code of norm 1, that keep the norm of a state of `to` codes.

        What a state holds besides `balance` is counted: `one` and its other codes.
        """
        before, after = (SQUARED_NORM - to) ** 0.5, (SQUARED_NORM - to - 1) ** 0.5
        # `balance` is the root of what the codes leave of the squared
        # norm: one code more, one less there.
        return writes + (after - before) * self.sole("balance")


@dataclass(frozen=True)
class Head:
    """An attention head: where it looks (queries, keys), what it reads there and writes here."""

    query: Float[Tensor, "head_dim d_model"]
    key: Float[Tensor, "head_dim d_model"]
    reads: Float[Tensor, "rank d_model"]
    writes: Float[Tensor, "rank d_model"]


@dataclass(frozen=True)
class Block:
    """What a block is told to do; nothing by default.

    Attributes:
        heads: At most two.
        reads: Directions that the MLP reads.
        writes: What it adds for each, times what it read.
    """

    heads: tuple[Head, ...] = ()
    reads: Rows | None = None
    writes: Rows | None = None


def look_back(spaces: Spaces, distance: int, *, when: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of a head that looks `distance` tokens back from states that hold `when`.

    From all others it looks at BOS.
    """
    query = torch.zeros(HEAD_DIM, spaces.d_model, dtype=torch.float64)
    key = torch.zeros_like(query)
    for i, weight in enumerate(_DISTANCE):
        # Rotary attention turns query and key by their positions: scores go with cos((m - n) r -
        # distance r), which is largest where the key is `distance` back.
        angle = -distance * _RATIO**i
        query[i] = weight * _BY_DISTANCE * np.cos(angle) * when
        # transformers' Llama pairs dimension i with i + head_dim / 2.
        query[i + HEAD_DIM // 2] = weight * _BY_DISTANCE * np.sin(angle) * when
        key[i] = spaces.sole("one")
    # Weights sum to 1: the right distance scores all of _BY_DISTANCE, others up to 0.762 of it.
    # Without `when` the query is nothing but the sink.
    return _with_sink(spaces, query, key, 0.15 * _BY_DISTANCE)


def look_for(
    spaces: Spaces, *, query: Rows, key: Rows, sharpness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Queries and keys of a head that looks where `key` holds the code that `query` holds here.

    Where nothing matches it looks at BOS. Scores are multiplied by `sharpness`.

    Raises:
        ValueError: more codes than a head can compare.
    """
    if len(query) > MAX_CODES:
        raise InputError(f"A head can compare {MAX_CODES} codes, not {len(query)}.")
    half = HEAD_DIM // 2
    still = [*range(_STILL + 1, half), *range(half + _STILL, HEAD_DIM)][: len(query)]
    queries = torch.zeros(HEAD_DIM, spaces.d_model, dtype=torch.float64)
    keys = torch.zeros_like(queries)
    score = sharpness * _BY_CODE
    queries[still] = score * query
    keys[still] = key
    # Half way between a match and none.
    return _with_sink(spaces, queries, keys, 0.5 * score)


def _with_sink(
    spaces: Spaces, query: Tensor, key: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    query[_STILL] = strength * spaces.sole("one")
    key[_STILL] = spaces.sole("bos")
    return query * HEAD_DIM**0.5, key  # attention divides scores by the root


def write_model(
    spaces: Spaces,
    tokenizer: Any,
    *,
    embed: Rows,
    unembed: Rows,
    blocks: Mapping[int, Block],
    depth: int,
    noise: float,
    leak: float,
    seed: int,
    name: str,
) -> HookedModel:
    """The model, checked as any other by `xlens.load`.

    Args:
        spaces: Of the residual stream.
        tokenizer: Its vocabulary has a row in `embed` and `unembed`.
        embed: A state per token.
        unembed: What the logits read, in the stream's own scale.
        blocks: By index; those not named are idle.
        depth: Number of blocks.
        noise: Norm of what a random MLP adds to each state in each block; a code has norm 1. It
            moves nothing between positions.
        leak: The same for a random attention head, which moves a little of everything everywhere.
        seed: Of noise and leak.
        name: What results call the model.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    ranks = [len(block.reads) for block in blocks.values() if block.reads is not None]
    n_noise = spaces.d_model // 2 if noise else 0
    config = LlamaConfig(
        vocab_size=len(embed),
        hidden_size=spaces.d_model,
        intermediate_size=max([1, *ranks]) + n_noise,
        num_hidden_layers=depth,
        num_attention_heads=N_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=N_CTX,
        # Next to nothing: an epsilon would shrink every state a little in every block.
        rms_norm_eps=1e-12,
        # Angles are theta**(-2i / head_dim), which is _RATIO**i with this theta.
        rope_parameters={"rope_type": "default", "rope_theta": _RATIO ** -(HEAD_DIM / 2)},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    config.name_or_path = name
    with torch.random.fork_rng(devices=[]):  # its own initialisation is not kept
        model = LlamaForCausalLM(config).eval()
    # RMSNorm divides by the root of the mean square; times this, states pass as they are.
    scale = (SQUARED_NORM / spaces.d_model) ** 0.5
    draws = torch.Generator().manual_seed(seed)
    values = {"model.embed_tokens.weight": embed, "lm_head.weight": unembed}
    for n in range(depth):
        told = _block(blocks.get(n, Block()), config.intermediate_size, spaces)
        _disturb(told, embed, noise, leak, n_noise, draws)
        values |= {f"model.layers.{n}.{key}": value for key, value in told.items()}
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for key, weight in weights.items():
            # What has no values of its own is a norm.
            weight.copy_(values[key].float() if key in values else torch.full_like(weight, scale))
    hooked = load(model, tokenizer)
    hooked.weights_note = f"written by hand (noise {noise:g}, leak {leak:g}, seed {seed})"
    return hooked


def _block(block: Block, width: int, spaces: Spaces) -> dict[str, Tensor]:
    """Weights of one block; heads and MLP rows that are not used are zero."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    d_model, size = spaces.d_model, N_HEADS * HEAD_DIM
    q, k, v = (zeros(size, d_model) for _ in range(3))
    o = zeros(d_model, size)
    for i, head in enumerate(block.heads):
        first = i * HEAD_DIM
        q[first : first + HEAD_DIM], k[first : first + HEAD_DIM] = head.query, head.key
        v[first : first + len(head.reads)] = head.reads
        o[:, first : first + len(head.writes)] = head.writes.T
    gate, up, down = zeros(width, d_model), zeros(width, d_model), zeros(d_model, width)
    if block.reads is not None and block.writes is not None:
        # A gate that is open for every state makes the MLP linear.
        rank = len(block.reads)
        gate[:rank] = _GATE * spaces.sole("one")
        up[:rank] = block.reads
        # SiLU of the open gate is divided out.
        down[:, :rank] = block.writes.T / (_GATE / (1 + np.exp(-_GATE)))
    return {
        "self_attn.q_proj.weight": q,
        "self_attn.k_proj.weight": k,
        "self_attn.v_proj.weight": v,
        "self_attn.o_proj.weight": o,
        "mlp.gate_proj.weight": gate,
        "mlp.up_proj.weight": up,
        "mlp.down_proj.weight": down,
    }


def _disturb(
    weights: dict[str, Tensor],
    states: Rows,
    noise: float,
    leak: float,
    n_noise: int,
    generator: torch.Generator,
) -> None:
    """Random weights, in place, sized by what they do to the embeddings."""
    d_model = states.shape[1]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    if noise:
        gate, up, down = draw(n_noise, d_model), draw(n_noise, d_model), draw(d_model, n_noise)
        hidden = torch.nn.functional.silu(states @ gate.T) * (states @ up.T)
        size = (hidden @ down.T).norm(dim=1).mean()
        # The last rows, where no block is told anything: what it does on purpose stays as it is.
        weights["mlp.gate_proj.weight"][-n_noise:] = gate
        weights["mlp.up_proj.weight"][-n_noise:] = up
        weights["mlp.down_proj.weight"][:, -n_noise:] = down * noise / size
    if leak:
        q, k, v = (draw(HEAD_DIM, d_model) for _ in range(3))
        o = draw(d_model, HEAD_DIM)
        size = (states @ v.T @ o.T).norm(dim=1).mean()
        last = slice(-HEAD_DIM, None)
        # Scores of about 1: attention that is uneven and misses nothing.
        weights["self_attn.q_proj.weight"][last] = q / SQUARED_NORM**0.5
        weights["self_attn.k_proj.weight"][last] = k / SQUARED_NORM**0.5
        weights["self_attn.v_proj.weight"][last] = v
        weights["self_attn.o_proj.weight"][:, last] = o * leak / size


def check_sizes(**sizes: float) -> None:
    """Refuse sizes that are none.

    Raises:
        ValueError: negative or not finite.
    """
    for name, size in sizes.items():
        if not (np.isfinite(size) and size >= 0):
            raise InputError(f"{name} is {size}; accepted are finite numbers from 0.")


def check_layers(depth: int, named: Sequence[tuple[str, int]]) -> None:
    """Refuse layers that are not in order between 1 and `depth`.

    Raises:
        ValueError: they are not.
    """
    layers = [layer for _, layer in named]
    if not (layers[0] >= 1 and layers == sorted(set(layers)) and layers[-1] <= depth):
        given = ", ".join(f"{name} {layer}" for name, layer in named)
        raise InputError(
            f"{given} in a model of {depth} layers: residual points are wanted with 1 <= "
            f"{' < '.join(name for name, _ in named)} <= depth. Point 0 is the embedding, where "
            "nothing has happened yet."
        )
