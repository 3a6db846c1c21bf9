"""The vocabulary, streamed: statistics of softmax(readout(h)) without ever holding it.

Rows and vocabulary are visited in tiles of about 256 × 4,096; what is carried from tile to tile
is a handful of numbers per row, so memory does not grow with prompts, layers or `d_vocab`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from xlens.activations import Activations
from xlens.checks import check_shape, typed
from xlens.engine.transport import Carry
from xlens.models import Readout
from xlens.models.passes import full_precision
from xlens.sites import RESID

ROW_TILE = 256
VOCAB_TILE = 4_096
_BITS = 1 / math.log(2)
# Below this, exponentials would be denormal numbers, with which a CPU is ten times slower. A whole
# vocabulary of e^-80 weighs 1e-29.
_FLOOR = -80.0

Statistic = Literal["entropy", "kl", "rank"]


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """Statistics of the readout at every layer and row.

    Attributes:
        entropy: Of the whole distribution, in bits; None if not asked for.
        kl: KL(last layer given || this layer) in bits, for the same row; None if not asked for.
        top_ids: Ids of the `top_k` most probable items.
        top_logprobs: Their log-probabilities, in nats.
        set_logprobs: Log of the summed probability of each target set, in nats; None without
            targets. -inf for an empty set.
        set_ranks: 1 + the number of items that are more probable than the set's best item; items
            within fp32 rounding of it count as ties. 0 for an empty set; None if not asked for.
    """

    entropy: Float[Tensor, "layer row"] | None
    kl: Float[Tensor, "layer row"] | None
    top_ids: Int[Tensor, "layer row k"]
    top_logprobs: Float[Tensor, "layer row k"]
    set_logprobs: Float[Tensor, "layer row set"] | None
    set_ranks: Int[Tensor, "layer row set"] | None


@typed
@torch.inference_mode()
@full_precision()
def stream(
    readout: Readout,
    resid: Activations | Float[Tensor, "layer row d_model"],
    *,
    slot: str | None = None,
    layers: Sequence[int] | None = None,
    targets: Int[Tensor, "row set size"] | None = None,
    top_k: int = 10,
    statistics: Collection[Statistic] = ("entropy", "kl", "rank"),
    carry: Carry | None = None,
    row_tile: int = ROW_TILE,
    vocab_tile: int = VOCAB_TILE,
    progress: bool = False,
) -> Streamed:
    """Read residual vectors through the final norm and the unembedding, tile by tile.

    Args:
        readout: Of the model that made `resid`.
        resid: Residual states, raw basis: activations, whose axes are known, or a tensor with the
            layers first. The last layer is the reference of the KL divergence.
        slot: Of activations; the only one by default.
        layers: Which points a tensor's first axis holds; to be told for `kl` where these aren't all
            of the model's.
        targets: Token ids of each row's target sets, padded with -1; the same at every layer.
        top_k: Most probable items to keep, 0 to `d_vocab`.
        statistics: What else is asked for: `entropy`, `kl`, `rank`. Each costs a pass over the
            tile.
        carry: Of a lens: what brings the states of these layers to where they are read.
        row_tile: Layer-row pairs in flight; at least one row with all its layers.
        vocab_tile: Vocabulary items in flight.
        progress: Show a bar.

    Raises:
        ValueError: states or targets of another shape, activations of another model or site;
            target ids or a `top_k` outside the vocabulary, or an unknown statistic.
    """
    if isinstance(resid, Activations):
        resid.require(readout.fingerprint, what="Readout")
        require_residual(resid)
        layers, resid = resid.layers, resid.slot(slot).values
    check_states(resid, readout, layers, compared="kl" in statistics)
    n_layers, n_rows, _ = resid.shape
    if targets is not None:
        check_shape("targets", targets, "row set size", row=n_rows)
    if targets is not None and targets.numel() and int(targets.max()) >= readout.d_vocab:
        raise ValueError(
            f"Target id {int(targets.max())} lies outside the vocabulary of {readout.d_vocab}."
        )
    if not 0 <= top_k <= readout.d_vocab:
        raise ValueError(f"top_k is {top_k}; accepted are 0 to d_vocab = {readout.d_vocab}.")
    if unknown := sorted(set(statistics) - set(get_args(Statistic))):
        raise ValueError(f"Unknown statistics {unknown}; accepted are {get_args(Statistic)}.")
    step = max(1, row_tile // n_layers)
    parts: list[Streamed] = []
    starts = range(0, n_rows, step)
    for a in tqdm(starts, desc="lens", unit="tile", disable=not progress, leave=False):
        rows = resid[:, a : a + step]
        if carry is not None:
            rows = carry(rows.to(readout.device, torch.float32))
        wanted = None if targets is None else targets[a : a + step]
        parts.append(_rows(readout, rows, wanted, top_k, frozenset(statistics), vocab_tile))

    def joined(name: str) -> Any:
        pieces = [getattr(part, name) for part in parts]
        return None if pieces[0] is None else torch.cat(pieces, dim=1).cpu()

    return Streamed(**{field.name: joined(field.name) for field in fields(Streamed)})


def require_residual(activations: Activations) -> None:
    """See that these are states of the residual stream, which alone a readout reads.

    Raises:
        ValueError: they are of another site.
    """
    if activations.site != RESID:
        raise ValueError(
            f"A lens reads the residual stream; these activations are of {activations.site!r}."
        )


def check_states(
    resid: Tensor, readout: Readout, layers: Sequence[int] | None, *, compared: bool
) -> None:
    """See that a tensor's first axis is the layers, as far as can be told.

    Args:
        resid: The tensor.
        readout: Of the model.
        layers: Which points it is said to hold.
        compared: Layers are compared with the last: with prompts first, these would be.

    Raises:
        ValueError: another number of axes or another width; not as many layers as are named, more
            than the model has, or fewer where they are compared and not named.
    """
    known = {} if layers is None else {"layer": len(layers)}
    check_shape("resid", resid, "layer row d_model", **known, d_model=readout.d_model)
    n, most = len(resid), readout.n_points
    if layers is None and most is not None and (n > most or (compared and n < most)):
        raise ValueError(
            f"resid has the shape {list(resid.shape)} and is read as [layer, row, d_model], but "
            f"the model has {most} layers, counted with the embedding. Give the activations "
            "themselves, or a tensor with the layers first (slot(name).values; what get() gives "
            "has the prompts first), and name some of the layers with layers=[…]."
        )


def _rows(
    readout: Readout,
    resid: Float[Tensor, "layer row d_model"],
    targets: Int[Tensor, "row set size"] | None,
    top_k: int,
    statistics: frozenset[Statistic],
    vocab_tile: int,
) -> Streamed:
    shape = resid.shape[:2]
    normed = readout.normed(resid).flatten(0, 1)
    sets = None if targets is None else _set_logits(readout, normed, targets, shape[0])
    totals = _Totals(len(normed), normed.device)
    top = _Top(len(normed), top_k, normed.device)
    entropy = _Entropy(len(normed), normed.device) if "entropy" in statistics else None
    kl = _Divergence(shape, normed.device) if "kl" in statistics else None
    ranks = _Ranks(sets) if sets is not None and "rank" in statistics else None
    for start in range(0, readout.d_vocab, vocab_tile):
        logits = readout.tile(normed, start, min(start + vocab_tile, readout.d_vocab))
        best = logits.amax(-1)
        top.add(logits, best, start)
        if ranks is not None:
            ranks.add(logits)
        shrink, weights = totals.add(logits, best)
        if entropy is not None:
            entropy.add(logits, weights, shrink)
        if kl is not None:
            kl.add(logits, weights, shrink)

    log_z = totals.log_z()

    def shaped(flat: Tensor) -> Tensor:
        return flat.reshape(*shape, *flat.shape[1:])

    logprobs = None
    if sets is not None:
        logprobs = shaped((sets.double().logsumexp(-1) - log_z.unsqueeze(-1)).float())
    return Streamed(
        entropy=None if entropy is None else shaped(entropy.bits(log_z, totals.mass)),
        kl=None if kl is None else kl.bits(log_z.view(shape), totals.mass.view(shape)),
        top_ids=shaped(top.ids),
        top_logprobs=shaped((top.values.double() - log_z.unsqueeze(-1)).float()),
        set_logprobs=logprobs,
        set_ranks=None if ranks is None else shaped(ranks.ranks()),
    )


class _Totals:
    """Running maximum and sum of exponentials: sums of tiles in fp32, across tiles in fp64."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.peak = torch.full((rows,), -math.inf, device=device)
        self.mass = torch.zeros(rows, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """What sums so far shrink by, and this tile's exponentials."""
        peak = torch.maximum(self.peak, best)
        shrink = (self.peak - peak).exp().double()
        weights = (logits - peak.unsqueeze(-1)).clamp_min_(_FLOOR).exp_()
        self.mass = self.mass * shrink + weights.sum(-1).double()
        self.peak = peak
        return shrink, weights

    def log_z(self) -> Tensor:
        return self.peak.double() + self.mass.log()


class _Entropy:
    """Σ e^(l-peak)·l, from which H = log Z - Σ p·l."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.sum = torch.zeros(rows, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, weights: Tensor, shrink: Tensor) -> None:
        self.sum = self.sum * shrink + torch.linalg.vecdot(weights, logits).double()

    def bits(self, log_z: Tensor, mass: Tensor) -> Tensor:
        return ((log_z - self.sum / mass) * _BITS).clamp_min(0).float()


class _Divergence:
    """Σ q·(lq - lp) of every layer's logits lp with the last layer's q and lq."""

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.shape = shape
        self.sum = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, weights: Tensor, shrink: Tensor) -> None:
        here = logits.view(*self.shape, -1)
        last = weights.view(here.shape)[-1]
        self.sum = self.sum * shrink.view(self.shape)[-1]
        # The product with the last layer itself is part of it: no second sum for it.
        self.sum += torch.linalg.vecdot(last.unsqueeze(0), here).double()

    def bits(self, log_z: Tensor, mass: Tensor) -> Tensor:
        expected = self.sum / mass[-1]
        divergence = (expected[-1] - log_z[-1]) - (expected - log_z)
        return (divergence * _BITS).clamp_min(0).float()


class _Top:
    """The most probable items so far; tiles without a better one are passed over."""

    def __init__(self, rows: int, k: int, device: torch.device) -> None:
        self.k = k
        self.values = torch.full((rows, k), -math.inf, device=device)
        self.ids = torch.zeros(rows, k, dtype=torch.long, device=device)

    def add(self, logits: Tensor, best: Tensor, start: int) -> None:
        if self.k == 0:
            return
        better = (best > self.values[:, -1]).nonzero().squeeze(-1)
        if len(better) == 0:
            return
        rows = logits if len(better) == len(logits) else logits[better]
        values, ids = rows.topk(min(self.k, rows.shape[-1]), dim=-1)
        values = torch.cat([self.values[better], values], dim=-1)
        ids = torch.cat([self.ids[better], ids + start], dim=-1)
        self.values[better], order = values.topk(self.k, dim=-1)
        self.ids[better] = ids.gather(-1, order)


class _Ranks:
    """How many items are more probable than each set's best."""

    def __init__(self, sets: Float[Tensor, "layer_row set size"]) -> None:
        best = sets.amax(-1)
        self.empty = best.isneginf()
        # The same item's logit differs in the last bits between two matrix products; without the
        # margin an item would now and then outrank itself.
        self.best = best + (1e-6 * best.abs() + 1e-6)
        self.above = torch.zeros_like(best, dtype=torch.long)

    def add(self, logits: Tensor) -> None:
        for s in range(self.best.shape[-1]):
            higher = logits > self.best[:, s : s + 1]
            # Summing bytes is a third faster than summing truth values.
            self.above[:, s] += higher.view(torch.uint8).sum(-1, dtype=torch.int32)

    def ranks(self) -> Tensor:
        return (self.above + 1).masked_fill(self.empty, 0)


def _set_logits(
    readout: Readout,
    normed: Float[Tensor, "layer_row d_model"],
    targets: Int[Tensor, "row set size"],
    n_layers: int,
) -> Float[Tensor, "layer_row set size"]:
    """Logits of the target ids alone: a product with the few rows of W_U that are asked for."""
    targets = targets.to(normed.device)
    wanted = targets.clamp_min(0)
    ids, where = torch.unique(wanted, return_inverse=True)
    logits = readout.at(normed, ids)
    index = where.repeat(n_layers, 1, 1).flatten(1)
    picked = logits.gather(1, index).view(len(normed), *targets.shape[1:])
    return picked.masked_fill(targets.repeat(n_layers, 1, 1) < 0, -math.inf)
