"""Which token states a pass keeps, worked out once before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.prompts import Slot, TokenizedPrompt


@dataclass(frozen=True)
class SlotLayout:
    """Where each prompt's rows of one slot stand, over the whole run.

    Attributes:
        slot: The slot.
        offsets: Rows of prompt i are `offsets[i]:offsets[i+1]`.
        positions: Token position of each row; -1 for means.
    """

    slot: Slot
    offsets: Int[Tensor, " prompts_1"]
    positions: Int[Tensor, " row"]


def layout(prompts: Sequence[TokenizedPrompt], slot: Slot) -> SlotLayout:
    """The rows of `slot` for all prompts.

    Raises:
        ValueError: a prompt lacks the slot's span.
    """
    counts, positions = [0], list[int]()
    for prompt in prompts:
        where = prompt.positions(slot)
        kept = [-1] if slot.reduced else list(where)
        counts.append(len(kept))
        positions.extend(kept)
    offsets = torch.tensor(counts).cumsum(0)
    return SlotLayout(slot, offsets, torch.tensor(positions, dtype=torch.long))


@dataclass(frozen=True)
class Seats:
    """Where one pass holds the tokens of the sequences that take part in it.

    Attributes:
        width: Length of its `pos` axis.
        tokens: By sequence: (row, first position held, positions held, index of the first one).
    """

    width: int
    tokens: Mapping[int, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Picks:
    """What a pass keeps for one slot: `index_select`, then its share of a mean if asked.

    Attributes:
        flat: Positions in the pass's flattened `[batch * pos]` axis.
        rows: Rows of the slot's output: of each pick, or of each mean or sum.
        source: Which pick each row is, where several are the same one; else None.
        segment: For these, which of `rows` each pick adds to; else None.
        weight: For these, the pick's share in it; else None.
    """

    flat: Int[Tensor, " pick"]
    rows: Int[Tensor, " row"]
    source: Int[Tensor, " row"] | None = None
    segment: Int[Tensor, " pick"] | None = None
    weight: Float[Tensor, " pick"] | None = None

    def to(self, device: torch.device) -> "Picks":
        """Indices where the states are; those of the output stay."""
        if device.type == "cpu":
            return self
        return Picks(
            self.flat.to(device, non_blocking=True),
            self.rows,
            self.source,
            None if self.segment is None else self.segment.to(device, non_blocking=True),
            None if self.weight is None else self.weight.to(device, non_blocking=True),
        )

    def __call__(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "row d_model"]:
        """Reduce a block's states, on their device."""
        picked = resid.flatten(0, 1).index_select(0, self.flat)
        if self.segment is None or self.weight is None:
            return picked
        # Means are summed in fp32: half precision loses a long span's tail.
        total = torch.zeros(len(self.rows), resid.shape[-1], device=resid.device)
        return total.index_add_(0, self.segment, picked.float() * self.weight.unsqueeze(1))


def picks(
    seats: Seats,
    at: SlotLayout,
    prompts: Sequence[TokenizedPrompt],
    owners: Mapping[int, Sequence[int]],
) -> Picks | None:
    """What a pass contributes to one slot; None for nothing.

    Args:
        seats: Which tokens the pass holds.
        at: The slot's rows.
        prompts: All prompts.
        owners: Prompts by sequence: identical prompts share one.
    """
    flat: list[int] = []
    rows: list[int] = []
    segment: list[int] = []
    weight: list[float] = []
    reduced = at.slot.reduced
    for sequence, (row, first, held, index) in seats.tokens.items():
        for prompt in owners[sequence]:
            where = prompts[prompt].positions(at.slot)
            start = int(at.offsets[prompt])
            inside = [(n, p) for n, p in enumerate(where) if first <= p < first + held]
            if not inside:
                continue
            flat.extend(row * seats.width + index + p - first for _, p in inside)
            if reduced:
                shares = at.slot.shares(len(where))
                segment.extend([len(rows)] * len(inside))
                weight.extend(shares[n] for n, _ in inside)
                rows.append(start)
            else:
                rows.extend(start + n for n, _ in inside)
    if not flat:
        return None
    if reduced:
        which, share = torch.tensor(segment), torch.tensor(weight)
        return Picks(torch.tensor(flat), torch.tensor(rows), segment=which, weight=share)
    # What many prompts begin with leaves the pass once.
    once = {place: n for n, place in enumerate(dict.fromkeys(flat))}
    source = torch.tensor([once[place] for place in flat]) if len(once) < len(flat) else None
    return Picks(torch.tensor([*once]), torch.tensor(rows), source)
