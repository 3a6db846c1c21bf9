"""`Edits`: interventions bound to a model and its sequences, ready for any pass."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xlens.engine.gather import Seats
from xlens.engine.interventions.kinds import Add, Intervention, Patch
from xlens.engine.plan import Tokens
from xlens.models.sites import Keep, Point

ENDLESS = sys.maxsize  # the end of slots that go on with what is generated


@dataclass(frozen=True, eq=False)
class Bound:
    """One intervention on one model and its sequences.

    Attributes:
        what: The intervention.
        points: Residual points, as listed.
        where: Positions, by sequence.
        base: Row of `values` for each sequence's first position; None: row 0 for all.
        each: Whether every position has its own row, the first at `base`.
        values: `[row, layer, d_model]` with 1 layer for all alike; of a projection
            `[1 + rank, 1, d_model]`, center and orthonormal basis.
    """

    what: Intervention
    points: tuple[Point, ...]
    where: tuple[range, ...]
    base: tuple[int, ...] | None
    each: bool
    values: Float[Tensor, "row layer d_model"]

    @property
    def uniform(self) -> bool:
        """Whether every token of every sequence is treated alike."""
        return self.what.slot == "all" and self.base is None

    def row(self, sequence: int, position: int) -> int:
        """The row of `values` for a position of a sequence."""
        if self.base is None:
            return 0
        return self.base[sequence] + self.each * (position - self.where[sequence].start)

    def sent(self) -> "Bound":
        """The same without what it was bound from and other sequences' values."""
        what = self.what
        if isinstance(what, Add | Patch):  # the values lie here, as the sequences need them
            what = replace(what, values=torch.empty(0))
        if self.base is None:
            return replace(self, what=what, values=self.values.cpu())
        rows = [
            range(b, b + (len(w) if self.each else 1))
            for b, w in zip(self.base, self.where, strict=True)
        ]
        kept = sorted({row for some in rows for row in some})
        at = {row: n for n, row in enumerate(kept)}
        base = tuple(at.get(b, 0) for b in self.base)
        return replace(self, what=what, base=base, values=self.values[kept].cpu())

    def inside(self, sequence: int, first: int, stop: int) -> range:
        """Which of the positions `[first, stop)` of a sequence are changed."""
        where = self.where[sequence]
        return range(max(first, where.start), min(stop, where.stop))

    def change(self, resid: Tensor, layer: Point, placed: "_Placed") -> Tensor:
        """The stream with this edit."""
        flat, values = placed.beside(resid)
        at = self.points.index(layer) if values.shape[1] > 1 else 0
        values = values[:, at]
        if flat is None:
            return self.what.change(resid.to(values.dtype), values).to(resid.dtype)
        states = resid.flatten(0, 1)
        rows = self.what.change(states.index_select(0, flat).to(values.dtype), values)
        return states.index_copy(0, flat, rows.to(resid.dtype)).view_as(resid)


class _Placed:
    """Where a pass is edited, and with what: moved and widened once a pass, not at each layer.

    Args:
        flat: Places in `[batch * pos]`; None for all.
        values: As of `Bound`.
    """

    def __init__(self, flat: Tensor | None, values: Tensor) -> None:
        self._flat, self._values = flat, values
        self._there: dict[tuple[torch.device, torch.dtype], tuple[Tensor | None, Tensor]] = {}

    def beside(self, resid: Tensor) -> tuple[Tensor | None, Tensor]:
        """Places and values on the device of these states."""
        # Half precision would round the sum twice; a projection's dot products lose more.
        wide = torch.promote_types(resid.dtype, torch.float32)
        key = resid.device, wide
        if key not in self._there:
            flat = None if self._flat is None else self._flat.to(resid.device, non_blocking=True)
            self._there[key] = flat, self._values.to(resid.device, wide, non_blocking=True)
        return self._there[key]


@dataclass(frozen=True, eq=False)
class Edits:
    """Interventions bound to a model and its sequences. Made by `check`.

    Attributes:
        key: What they do, as plain JSON values: part of a store's key.
    """

    bound: tuple[Bound, ...]
    key: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.bound)

    @property
    def layers(self) -> tuple[Point, ...]:
        """Residual points that are changed, ascending: a pass must visit them."""
        return tuple(sorted({point for edit in self.bound for point in edit.points}))

    def visiting(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """Residual points that a pass visits to read `points`: these, and what is changed below."""
        asked = set(points)
        return tuple(sorted(asked | {p for p in self.layers if p < max(asked)}))

    @property
    def uniform(self) -> bool:
        """Whether all tokens of all sequences are treated alike: `codes` are the token ids."""
        return all(edit.uniform for edit in self.bound)

    def codes(self, sequences: Sequence[Tokens]) -> list[Tokens]:
        """Sequences with another number where a token is treated differently.

        Two sequences may share a beginning, or be one, as far as their codes are the same: plan
        with these, run the ids.
        """
        table: dict[Any, int] = {}
        uneven = [(n, edit) for n, edit in enumerate(self.bound) if not edit.uniform]
        if not uneven:
            return list(map(tuple, sequences))
        out: list[Tokens] = []
        for i, ids in enumerate(sequences):
            treated: dict[int, list[tuple[int, int]]] = {}
            for n, edit in uneven:
                for p in edit.inside(i, 0, len(ids)):
                    treated.setdefault(p, []).append((n, edit.row(i, p)))
                if edit.where[i].stop == ENDLESS and edit.base is not None:
                    # What is generated after equal prompts differs.
                    treated.setdefault(len(ids) - 1, []).append((n, edit.base[i]))
            codes = list(ids)
            for p, how in treated.items():
                # Beyond any vocabulary.
                codes[p] = table.setdefault((ids[p], tuple(how)), 2**40 + len(table))
            out.append(tuple(codes))
        return out

    def take(self, sequences: Sequence[int]) -> "Edits":
        """The same for some of the sequences, in this order (a shard)."""
        some = [
            replace(
                edit,
                where=tuple(edit.where[i] for i in sequences),
                base=None if edit.base is None else tuple(edit.base[i] for i in sequences),
            )
            for edit in self.bound
        ]
        return replace(self, bound=tuple(some))

    def on(self, device: torch.device) -> "Edits":
        """The same for a model on that device."""
        some = [
            edit if edit.base is not None else replace(edit, values=edit.values.to(device))
            for edit in self.bound
        ]
        return replace(self, bound=tuple(some))

    def sent(self) -> "Edits":
        """The same with no more than is needed elsewhere: on the CPU, and these sequences' rows."""
        return replace(self, bound=tuple(e.sent() for e in self.bound))

    def prepare(self, seats: Seats, owners: Mapping[int, Sequence[int]] | None = None) -> Keep:
        """What to call in the hooks of one pass: gives the changed stream, or None for no change.

        Args:
            seats: Which tokens the pass holds.
            owners: By sequence of the pass, the sequences that `check` saw: the first speaks for
                all, their codes are the same. None: they are the same ones.
        """
        jobs: dict[Point, list[tuple[Bound, _Placed]]] = {}
        for edit in self.bound:
            flat: Tensor | None = None
            values = edit.values
            if not edit.uniform:
                # By place: sequences that share a prefix sit in one row, edited once.
                rows: dict[int, int] = {}
                for sequence, (row, first, held, index) in seats.tokens.items():
                    i = sequence if owners is None else owners[sequence][0]
                    start = row * seats.width + index - first
                    for p in edit.inside(i, first, first + held):
                        rows[start + p] = edit.row(i, p)
                if not rows:
                    continue
                flat = torch.tensor(list(rows))
                if edit.base is not None:
                    values = values[torch.tensor(list(rows.values()))]
            placed = _Placed(flat, values)
            for point in edit.points:
                jobs.setdefault(point, []).append((edit, placed))

        return partial(_edited, jobs)


def _edited(
    jobs: Mapping[Point, Sequence[tuple[Bound, _Placed]]], layer: Point, resid: Tensor
) -> Tensor | None:
    found = jobs.get(layer)
    if found is None:
        return None
    for edit, placed in found:
        resid = edit.change(resid, layer, placed)
    return resid
