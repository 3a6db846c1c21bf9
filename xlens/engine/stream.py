"""The vocabulary, streamed: statistics of softmax(readout(h)) without ever holding it.

Rows and vocabulary are visited in tiles, of a size that suits the device; what is carried from tile
to tile is a handful of numbers per row, so memory does not grow with prompts, layers or `d_vocab`.
A tile of the vocabulary is widened once for many tiles of rows, and none waits for the device.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.activations import Activations
from xlens.bars import tqdm
from xlens.checks import check_shape, typed
from xlens.engine.transport import Carry
from xlens.errors import InputError
from xlens.models import Readout
from xlens.models.passes import full_precision, widest
from xlens.sites import RESID


class Tiles(NamedTuple):
    """What is in flight at once.

    Attributes:
        rows: Layer-row pairs of a product.
        items: Vocabulary items of a product.
        held: Layer-row pairs that a tile of the vocabulary is used for before it is let go.
    """

    rows: int
    items: int
    held: int


# A CPU's caches hold small products; a GPU is kept busy by large ones alone.
TILES = {"cpu": Tiles(256, 4_096, 4_096), "cuda": Tiles(4_096, 8_192, 16_384)}
VOCAB_TILE = TILES["cpu"].items
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
    row_tile: int | None = None,
    vocab_tile: int | None = None,
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
        row_tile: Layer-row pairs in flight; at least one row with all its layers. None: as suits
            the device.
        vocab_tile: Vocabulary items in flight, likewise.
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
        raise InputError(
            f"Target id {int(targets.max())} lies outside the vocabulary of {readout.d_vocab}."
        )
    if not 0 <= top_k <= readout.d_vocab:
        raise InputError(f"top_k is {top_k}; accepted are 0 to d_vocab = {readout.d_vocab}.")
    if unknown := sorted(set(statistics) - set(get_args(Statistic))):
        raise InputError(f"Unknown statistics {unknown}; accepted are {get_args(Statistic)}.")
    tiles = TILES.get(readout.device.type, TILES["cuda"])
    step = max(1, (row_tile or tiles.rows) // n_layers)
    group = step * max(1, tiles.held // (step * n_layers))
    width = vocab_tile or tiles.items
    items = [(a, min(a + width, readout.d_vocab)) for a in range(0, readout.d_vocab, width)]
    parts: list[Streamed] = []
    total = len(items) * math.ceil(n_rows / group)
    with tqdm(total=total, desc="lens", unit="tile", disable=not progress, leave=False) as bar:
        for first in range(0, n_rows, group):
            readings: list[_Reading] = []
            for a in range(first, min(first + group, n_rows), step):
                rows = resid[:, a : min(a + step, first + group)]
                if carry is not None:
                    rows = carry(rows.to(readout.device, torch.float32))
                wanted = None if targets is None else targets[a : a + rows.shape[1]]
                readings.append(_Reading(readout, rows, wanted, top_k, frozenset(statistics)))
            for start, stop in items:
                project = readout.onto(slice(start, stop))
                for reading in readings:
                    reading.add(project(reading.normed), start)
                bar.update()
            parts += [reading.found() for reading in readings]

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
        raise InputError(
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
        raise InputError(
            f"resid has the shape {list(resid.shape)} and is read as [layer, row, d_model], but "
            f"the model has {most} layers, counted with the embedding. Give the activations "
            "themselves, or a tensor with the layers first (slot(name).values; what get() gives "
            "has the prompts first), and name some of the layers with layers=[…]."
        )


class _Reading:
    """What is carried from tile to tile of the vocabulary, for one tile of rows."""

    def __init__(
        self,
        readout: Readout,
        resid: Float[Tensor, "layer row d_model"],
        targets: Int[Tensor, "row set size"] | None,
        top_k: int,
        statistics: frozenset[Statistic],
    ) -> None:
        self.shape = resid.shape[:2]
        self.normed = readout.normed(resid).flatten(0, 1)
        rows, device = len(self.normed), self.normed.device
        self.sets = (
            None if targets is None else _set_logits(readout, self.normed, targets, self.shape[0])
        )
        self.totals = _Totals(rows, device)
        self.top = _Top(rows, top_k, device)
        self.entropy = _Entropy(rows, device) if "entropy" in statistics else None
        self.kl = _Divergence(self.shape, device) if "kl" in statistics else None
        ranked = self.sets is not None and "rank" in statistics
        self.ranks = _Ranks(self.sets) if self.sets is not None and ranked else None

    def add(self, logits: Tensor, start: int) -> None:
        """A tile of the vocabulary, the first of whose items is `start`."""
        best = logits.amax(-1)
        self.top.add(logits, best, start)
        if self.ranks is not None:
            self.ranks.add(logits)
        shrink, weights = self.totals.add(logits, best)
        if self.entropy is not None:
            self.entropy.add(logits, weights, shrink)
        if self.kl is not None:
            self.kl.add(logits, weights, shrink)

    def found(self) -> Streamed:
        """The statistics, when the whole vocabulary was added."""
        log_z, mass = self.totals.log_z(), self.totals.mass
        shape, wide = self.shape, log_z.dtype

        def shaped(flat: Tensor) -> Tensor:
            return flat.reshape(*shape, *flat.shape[1:])

        logprobs = None
        if self.sets is not None:
            sums = self.sets.to(wide).logsumexp(-1)
            logprobs = shaped((sums - log_z.unsqueeze(-1)).float())
        return Streamed(
            entropy=None if self.entropy is None else shaped(self.entropy.bits(log_z, mass)),
            kl=None if self.kl is None else self.kl.bits(log_z.view(shape), mass.view(shape)),
            top_ids=shaped(self.top.ids),
            top_logprobs=shaped((self.top.values.to(wide) - log_z.unsqueeze(-1)).float()),
            set_logprobs=logprobs,
            set_ranks=None if self.ranks is None else shaped(self.ranks.ranks()),
        )


class _Totals:
    """Running maximum and sum of exponentials: sums of tiles in fp32, across tiles in `widest`."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.peak = torch.full((rows,), -math.inf, device=device)
        self.mass = torch.zeros(rows, dtype=widest(device), device=device)

    def add(self, logits: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """What sums so far shrink by, and this tile's exponentials."""
        peak = torch.maximum(self.peak, best)
        shrink = (self.peak - peak).exp().to(self.mass.dtype)
        weights = (logits - peak.unsqueeze(-1)).clamp_min_(_FLOOR).exp_()
        self.mass = self.mass * shrink + weights.sum(-1).to(self.mass.dtype)
        self.peak = peak
        return shrink, weights

    def log_z(self) -> Tensor:
        return self.peak.to(self.mass.dtype) + self.mass.log()


class _Entropy:
    """Σ e^(l-peak)·l, from which H = log Z - Σ p·l."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.sum = torch.zeros(rows, dtype=widest(device), device=device)

    def add(self, logits: Tensor, weights: Tensor, shrink: Tensor) -> None:
        self.sum = self.sum * shrink + torch.linalg.vecdot(weights, logits).to(shrink.dtype)

    def bits(self, log_z: Tensor, mass: Tensor) -> Tensor:
        return ((log_z - self.sum / mass) * _BITS).clamp_min(0).float()


class _Divergence:
    """Σ q·(lq - lp) of every layer's logits lp with the last layer's q and lq."""

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.shape = shape
        self.sum = torch.zeros(shape, dtype=widest(device), device=device)

    def add(self, logits: Tensor, weights: Tensor, shrink: Tensor) -> None:
        here = logits.view(*self.shape, -1)
        last = weights.view(here.shape)[-1]
        self.sum = self.sum * shrink.view(self.shape)[-1]
        # The product with the last layer itself is part of it: no second sum for it.
        self.sum += torch.linalg.vecdot(last.unsqueeze(0), here).to(shrink.dtype)

    def bits(self, log_z: Tensor, mass: Tensor) -> Tensor:
        expected = self.sum / mass[-1]
        divergence = (expected[-1] - log_z[-1]) - (expected - log_z)
        return (divergence * _BITS).clamp_min(0).float()


def looks_first(device: torch.device) -> bool:
    """Whether it costs nothing to look at numbers there before deciding what to compute."""
    return device.type == "cpu"


class _Top:
    """The most probable items so far.

    On the CPU rows without a better item in a tile are passed over; to know which these are,
    another device would have to be waited for at every tile.
    """

    def __init__(self, rows: int, k: int, device: torch.device) -> None:
        self.k = k
        self.values = torch.full((rows, k), -math.inf, device=device)
        self.ids = torch.zeros(rows, k, dtype=torch.long, device=device)

    def add(self, logits: Tensor, best: Tensor, start: int) -> None:
        if self.k == 0:
            return
        is_better = best > self.values[:, -1]
        if not looks_first(logits.device):
            values, ids = logits.topk(min(self.k, logits.shape[-1]), dim=-1)
            values, order = torch.cat([self.values, values], dim=-1).topk(self.k, dim=-1)
            ids = torch.cat([self.ids, ids + start], dim=-1).gather(-1, order)
            self.values = torch.where(is_better.unsqueeze(-1), values, self.values)
            self.ids = torch.where(is_better.unsqueeze(-1), ids, self.ids)
            return
        better = is_better.nonzero().squeeze(-1)
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
    # On the host, where the targets are: what is asked for is known without waiting.
    ids, where = torch.unique(targets.clamp_min(0), return_inverse=True)
    logits = readout.at(normed, ids.to(normed.device))
    index = where.to(normed.device).repeat(n_layers, 1, 1).flatten(1)
    picked = logits.gather(1, index).view(len(normed), *targets.shape[1:])
    absent = (targets < 0).to(normed.device)
    return picked.masked_fill(absent.repeat(n_layers, 1, 1), -math.inf)
