"""Planted activations: what languages share, what sets them apart, noise; all of it known."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from xlens.activations import Activations, SlotValues
from xlens.errors import InputError
from xlens.results import versions
from xlens.stats import generator
from xlens.testbed.planted.lexicon import lexicon

Sizes = float | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ActivationsTruth:
    """What was planted.

    The state of item i in language x at point l is, before noise,

        common[l] + offsets[l, x]
        + semantic_sizes[l] * semantic_codes[i] @ semantic_bases[l]
        + specific_sizes[l] * specific_codes[x, i] @ specific_bases[l, x]

    All directions are orthogonal to each other, rows of bases have norm 1. Codes are centred and
    uncorrelated over the items, not only in expectation, and a part's root mean square norm is its
    size: without noise, means and principal components give the truth to rounding. Arrays are
    float64.

    Attributes:
        ids: Items, in the order of the codes. (Rows of the activations stand in another order in
            each language: pair them by id.)
        languages: In the order of the offsets.
        semantic_codes: Shared by all languages.
        specific_codes: Each language's own.
        common: The mean of all states but for the offsets.
        offsets: What a language adds to every state; one direction per language.
        semantic_bases: Span of the shared part.
        specific_bases: Spans of the languages' own parts.
        semantic_sizes: Norm of the shared part by point.
        specific_sizes: Norm of a language's own part by point.
        noise: Norm of the noise by point.
    """

    ids: tuple[str, ...]
    languages: tuple[str, ...]
    semantic_codes: Float[np.ndarray, "item semantic"]
    specific_codes: Float[np.ndarray, "language item specific"]
    common: Float[np.ndarray, "layer d_model"]
    offsets: Float[np.ndarray, "layer language d_model"]
    semantic_bases: Float[np.ndarray, "layer semantic d_model"]
    specific_bases: Float[np.ndarray, "layer language specific d_model"]
    semantic_sizes: Float[np.ndarray, " layer"]
    specific_sizes: Float[np.ndarray, " layer"]
    noise: Float[np.ndarray, " layer"]

    def offset_basis(self, layer: int) -> Float[np.ndarray, "directions d_model"]:
        """Orthonormal rows that span the differences between the languages' offsets.

        One direction fewer than languages; none where the offsets are 0.
        """
        differences = self.offsets[layer] - self.offsets[layer].mean(0)
        _, sizes, rows = np.linalg.svd(differences, full_matrices=False)
        return rows[sizes > 1e-9 * max(float(sizes[0]), 1e-9)]


@dataclass(frozen=True, kw_only=True)
class PlantedActivations:
    """Activations with the truth about them.

    Attributes:
        activations: As `harvest` returns them; one slot, `last`.
        truth: What was planted.
    """

    activations: Activations
    truth: ActivationsTruth


def planted_activations(
    *,
    languages: int | Sequence[str] = 4,
    n_items: int = 200,
    n_layers: int = 3,
    d_model: int = 64,
    semantic_rank: int = 8,
    specific_rank: int = 2,
    semantic: Sizes = 1.0,
    specific: Sizes = 0.5,
    offset: Sizes = 2.0,
    common: Sizes = 0.0,
    noise: Sizes = 0.0,
    seed: int = 0,
) -> PlantedActivations:
    """States made of a shared part, an offset per language, a part of each language's own, noise.

    Sizes are norms (root mean squares over items) of a part; a sequence gives one per residual
    point, so that languages can come together in the middle, say: `offset=(3.0, 0.5, 3.0)`.
    Directions differ from point to point, codes do not.

    Args:
        languages: Tags, or how many.
        n_items: Parallel items; each has a state in every language.
        n_layers: Residual points.
        d_model: Width.
        semantic_rank: Dimensions of the shared part.
        specific_rank: Dimensions of each language's own part.
        semantic: Size of the shared part.
        specific: Size of a language's own part, which says nothing about the shared one.
        offset: Size of a language's offset.
        common: Size of what all states have in common.
        noise: Norm of independent Gaussian noise on every state.
        seed: Of directions, codes, noise and row order.

    Raises:
        ValueError: sizes or ranks that don't fit: all parts need directions of their own, and
            codes that are exactly uncorrelated need more items than codes.
    """
    tags = lexicon(languages, 1, seed=seed).languages
    n, k, r = len(tags), semantic_rank, specific_rank
    if min(k, r, n_layers) < 1 or d_model < (needed := k + n * r + n + 1):
        raise InputError(
            f"semantic_rank {k}, specific_rank {r} and n_layers {n_layers} must be at least 1, and "
            f"{n} languages need d_model {k + n * r + n + 1}; it is {d_model}."
        )
    if n_items <= k + n * r:
        raise InputError(
            f"{n_items} items for {k} shared and {n} x {r} own dimensions: at least "
            f"{k + n * r + 1} are needed."
        )
    sizes = {
        name: _per_layer(name, value, n_layers)
        for name, value in (
            ("semantic", semantic),
            ("specific", specific),
            ("offset", offset),
            ("common", common),
            ("noise", noise),
        )
    }
    rng = generator(seed)
    # The first column is constant: what is orthogonal to it is centred.
    columns = np.column_stack([np.ones(n_items), rng.standard_normal((n_items, k + n * r))])
    # Columns of Q have length 1 over the items: times √n, each code's variance is 1.
    codes = np.linalg.qr(columns)[0][:, 1:] * n_items**0.5
    # k codes together have a mean square norm of 1, so that a size is a size whatever the rank.
    semantic_codes = codes[:, :k] / k**0.5
    specific_codes = codes[:, k:].reshape(n_items, n, r).transpose(1, 0, 2) / r**0.5
    turns = [
        np.linalg.qr(rng.standard_normal((d_model, d_model)))[0][:needed] for _ in range(n_layers)
    ]
    # [layer, direction, d_model]: common, offsets, shared part, then each language's own.
    rows = np.stack(turns)
    truth = ActivationsTruth(
        ids=tuple(f"i{i:04}" for i in range(n_items)),
        languages=tags,
        semantic_codes=semantic_codes,
        specific_codes=specific_codes,
        common=sizes["common"][:, None] * rows[:, 0],
        offsets=sizes["offset"][:, None, None] * rows[:, 1 : n + 1],
        semantic_bases=rows[:, n + 1 : n + 1 + k],
        specific_bases=rows[:, n + 1 + k :].reshape(n_layers, n, r, d_model),
        semantic_sizes=sizes["semantic"],
        specific_sizes=sizes["specific"],
        noise=sizes["noise"],
    )
    options = {name: value.tolist() for name, value in sizes.items()}
    options |= {"seed": seed, "ranks": [k, r], "languages": list(tags), "n_items": n_items}
    options |= {"d_model": d_model}
    return PlantedActivations(activations=_activations(truth, options, rng), truth=truth)


def _activations(
    truth: ActivationsTruth, options: dict[str, object], rng: np.random.Generator
) -> Activations:
    n_layers, n, d_model = truth.offsets.shape
    shared = truth.semantic_sizes[:, None, None] * (truth.semantic_codes @ truth.semantic_bases)
    parts: list[np.ndarray] = []
    rows: list[tuple[str, str, int]] = []
    for x in range(n):
        # [item, specific] @ [layer, specific, d_model]: [layer, item, d_model], as `shared`.
        own = truth.specific_codes[x] @ truth.specific_bases[:, x]
        states = shared + truth.specific_sizes[:, None, None] * own
        states += (truth.common + truth.offsets[:, x])[:, None]
        noise = rng.standard_normal(states.shape) / d_model**0.5
        # Another order in each language, so that whoever pairs by row is found out.
        order = rng.permutation(len(truth.ids))
        parts.append((states + truth.noise[:, None, None] * noise)[:, order])
        rows += [(truth.ids[i], truth.languages[x], int(i)) for i in order]
    values = torch.from_numpy(np.concatenate(parts, axis=1)).float()
    meta = pd.DataFrame(rows, columns=["id", "language", "item"])
    meta["n_tokens"] = 1
    # As if each item were one token, with its number for an id.
    meta["tokens"] = [[i] for i in meta.pop("item")]
    return Activations(
        slots={
            "last": SlotValues(
                values=values,
                offsets=torch.arange(len(rows) + 1),
                positions=torch.zeros(len(rows), dtype=torch.long),
            )
        },
        layers=tuple(range(n_layers)),
        meta=meta,
        fingerprint=hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest(),
        provenance={"model": "planted activations", "planted": options, "versions": versions()},
    )


def _per_layer(name: str, size: Sizes, n_layers: int) -> Float[np.ndarray, " layer"]:
    values = np.full(n_layers, size, dtype=float) if isinstance(size, int | float) else size
    array = np.asarray(values, dtype=float)
    if array.shape != (n_layers,) or not np.isfinite(array).all() or (array < 0).any():
        raise InputError(
            f"{name} is {size}; accepted are one size or {n_layers}, one per residual point, each "
            "0 or more."
        )
    return array
