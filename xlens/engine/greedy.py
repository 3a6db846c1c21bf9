"""The most probable token of each row, without the whole unembedding in fp32.

Where a CPU multiplies bf16 quickly, one product in bf16 says of nearly every item that it can't be
the best: its logit lies further below the best one than all that the product may be wrong by. The
few that are left are computed exactly, and these decide. With other weights and elsewhere all
logits are computed as the readout does it.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.models import Readout

VOCAB_TILE = 16_384
CHUNK = 512  # items of which the largest logit alone is looked at first
LEAST = 16_384  # items below which all logits cost next to nothing
MOST = 256  # items of a row to be computed exactly; where there are more, all are, tile by tile
EXACT = 4_096  # pairs of a row and an item computed exactly at once
_ROUNDED = 2.0**-8 * 1.01  # what rounding to bf16 changes, of what was rounded
_SUMMED = 2.0**-22  # what a product and a sum in fp32 change, for each item that is summed
_LOST = 2.0**-125  # what denormal numbers, which may be taken for zero, change
_LARGE = 1e37  # logits beyond it are at the end of what bf16 can tell
_TIES = 2.0**-19  # of two logits that differ by less of them, fp32 may make one


class Greedy:
    """Callable that gives the most probable token of each row, of equals the first.

    -1 where a state is not finite. Made once for many steps, between which weights stay.

    Args:
        readout: Gives the logits.
    """

    def __init__(self, readout: Readout) -> None:
        self._readout = readout
        self._norms: Tensor | None = None

    def __call__(self, states: Float[Tensor, "row d_model"]) -> Int[Tensor, " row"]:
        """Ids of the rows' tokens, where the readout lies."""
        normed = self._readout.normed(states)
        if not shortens(self._readout):
            return whole(self._readout, normed)
        rows, items, left = self._shortlist(normed)
        ids = _best(self._readout, normed, rows, items)
        if left.any():
            ids[left] = whole(self._readout, normed[left])
        return ids

    def _shortlist(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a row and an item that may be its best, and rows of which nothing is known."""
        weight = self._readout.W_U.T
        n, d = weight.shape
        chunks = -(-n // CHUNK)
        if self._norms is None:
            self._norms = _norms(weight, chunks * CHUNK).view(chunks, CHUNK)
        narrow = normed.bfloat16()
        logits = torch.full((len(normed), chunks * CHUNK), -torch.inf, dtype=torch.bfloat16)
        # This way round the weights are read as they lie.
        logits[:, :n] = (weight @ narrow.T).T
        logits = logits.view(len(normed), chunks, CHUNK)
        # How far each may be from the logit: `slope` for each unit of the item's norm, `floor`
        # whatever it is, and what its own rounding may have changed.
        missed = torch.linalg.vector_norm(normed - narrow.float(), dim=1).double()
        length = torch.linalg.vector_norm(normed, dim=1).double()
        slope = ((missed + _SUMMED * d * length) * 1.01).float().unsqueeze(1)
        floor = (_LOST * d * (2 + length)).float().unsqueeze(1)

        def off(logits: Tensor, norms: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
            return slope[rows] * norms + logits.abs() * _ROUNDED + floor[rows]

        best, at = logits.flatten(1).float().max(1, keepdim=True)
        reached = (best - off(best, self._norms.flatten()[at])).double()
        least = _told_apart(self._readout, reached).float()
        top = logits.amax(2).float()
        among = top + off(top, self._norms.amax(1)) >= least
        known = least.isfinite() & (best.abs() < _LARGE) & (among.sum(1, keepdim=True) <= MOST)
        row, chunk = (among & known).nonzero().unbind(1)
        here = logits[row, chunk].float()
        pair, within = (here + off(here, self._norms[chunk], row) >= least[row]).nonzero().unbind(1)
        row, items = row[pair], chunk[pair] * CHUNK + within
        few = (row.bincount(minlength=len(normed)) <= MOST) & known.squeeze(1)
        return row[few[row]], items[few[row]], ~few


def shortens(readout: Readout) -> bool:
    """Whether a product in bf16 is quick here, and says something of the readout's logits."""
    return (
        readout.device.type == "cpu"
        and readout.W_U.dtype == torch.bfloat16
        and readout.d_vocab >= LEAST
        and readout.b_U is None
        and readout.logit_scale > 0
        and multiplies_bf16()
    )


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies in bf16; False where torch can't say (2.9)."""
    told = getattr(torch.cpu, "get_capabilities", None)
    return told is not None and bool(told().get("avx512_bf16"))


def whole(readout: Readout, normed: Float[Tensor, "row d_model"]) -> Int[Tensor, " row"]:
    """The same from all logits of already normed rows.

    The vocabulary is visited in tiles: no `[row, d_vocab]` is held.
    """
    best = torch.full((len(normed),), -torch.inf, device=normed.device)
    ids = torch.full_like(best, -1, dtype=torch.long)
    for start in range(0, readout.d_vocab, VOCAB_TILE):
        logits = readout.tile(normed, start, min(start + VOCAB_TILE, readout.d_vocab))
        here, at = logits.max(-1)
        better = here > best
        best, ids = torch.where(better, here, best), torch.where(better, at + start, ids)
    return ids


def _best(readout: Readout, normed: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Of a row's items the best one, of equals the first."""
    pairs = zip(rows.split(EXACT), items.split(EXACT), strict=True)
    logits = torch.cat([readout.exactly(normed[some], ids) for some, ids in pairs])
    best = torch.full((len(normed),), -torch.inf).scatter_reduce_(0, rows, logits, "amax")
    mine = logits == best[rows]
    first = torch.full((len(normed),), readout.d_vocab)
    return first.scatter_reduce_(0, rows[mine], items[mine], "amin")


def _told_apart(readout: Readout, logits: Tensor) -> Tensor:
    """Raw logits below which an item is surely less than these, whatever is done to both.

    Rounding to fp32 makes equals of neighbours, and a soft-cap of all that lie far above it.
    """
    if (cap := readout.softcap) is not None:
        capped = (logits * (readout.logit_scale / cap)).tanh() - _TIES
        logits = torch.minimum(logits, capped.atanh() * (cap / readout.logit_scale))
    return logits - logits.abs() * _TIES


def _norms(weight: Tensor, places: int) -> Tensor:
    """An upper bound of each item's norm; 0 where there is no item."""
    norms = torch.zeros(places)
    # Squares of small numbers are lost; the norm itself is summed in fp32, and rounded.
    norms[: len(weight)] = torch.linalg.vector_norm(weight, dim=1).float() * 1.01
    return norms + 2e-19 * math.sqrt(weight.shape[1])
