"""Greedy decoding of many sequences side by side, shared beginnings once.

Prompts run as everywhere in the core, padded on the right and after their shared prefix. Then
keys and values are moved to the right edge, once, and decoding appends to them: real tokens stand
side by side, so sliding windows and ALiBi see what they would see alone. They have room for what
follows: a step writes its own and copies nothing. Finished sequences leave when they are many, or
when others can take their places.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from xlens.engine.forward import (
    body,
    forward,
    padded,
    prefix_pass,
    rows_of,
    run_batch,
)
from xlens.engine.gather import Seats
from xlens.engine.greedy import Greedy
from xlens.engine.interventions import Edits
from xlens.engine.plan import Batch, Tokens, plan
from xlens.engine.positions import fresh, labels
from xlens.engine.room import kv_places
from xlens.engine.roomy import roomy
from xlens.models import HookedModel
from xlens.models.sites import Keep, Point, visiting

LEAVING = 8  # sequences that are done leave when they are one in so many
REFILLS = 4  # prompts that are to join run in such parts of all places, so that few need be free


@dataclass(frozen=True)
class Job:
    """What is to be continued.

    Attributes:
        model: Runs.
        sequences: Token ids, each to be continued by itself.
        codes: Of the sequences; equal beginnings may be shared (`Edits.codes`).
        owners: By sequence, the prompts that it stands for.
        edits: Interventions on the prompts.
        room: Most tokens that follow a sequence.
        take: Called with a sequence and its next token, -1 where its state is not finite; says
            whether the sequence goes on.
    """

    model: HookedModel
    sequences: Sequence[Tokens]
    codes: Sequence[Tokens]
    owners: Mapping[int, Sequence[int]]
    edits: Edits
    room: int
    take: Callable[[int, int], bool]

    @property
    def points(self) -> tuple[Point, ...]:
        """Residual points that a pass visits: what is edited, and the last, which is read."""
        return self.edits.visiting((self.model.n_layers,))

    @cached_property
    def best(self) -> Greedy:
        """What gives the next tokens."""
        return Greedy(self.model.readout)

    def part(self, some: Sequence[int]) -> "Job":
        """Some of the sequences."""
        return replace(
            self,
            sequences=[self.sequences[i] for i in some],
            codes=[self.codes[i] for i in some],
            owners={k: self.owners[i] for k, i in enumerate(some)},
            take=lambda k, token: self.take(some[k], token),
        )


@dataclass
class _Rows:
    """Sequences side by side, between two steps.

    Attributes:
        members: Which sequences.
        states: Their last tokens' states at the last point.
        positions: Of their next tokens.
        mask: Which places of the cache hold their tokens; the last one does.
        cache: Keys and values.
    """

    members: list[int]
    states: Float[Tensor, "row d_model"]
    positions: Int[Tensor, " row"]
    mask: Int[Tensor, "row place"]
    cache: Any


def continued(job: Job, budget: int, *, cached: bool) -> Generator[list[int]]:
    """Continue all sequences, each in the way that is right for it.

    Args:
        job: What and how.
        budget: As for `decode`.
        cached: Whether keys and values can be kept.

    Yields:
        Sequences that are done.
    """
    ends = [len(ids) + job.room - 1 for ids in job.sequences]
    far = labels(job.model, ends) if cached else None
    if far is None:
        with fresh(job.model):
            yield from (decode if cached else decode_uncached)(job, budget)
        return
    near = [i for i, label in enumerate(far) if not label]
    beyond = [i for i, label in enumerate(far) if label]
    for some, way in ((near, decode), (beyond, decode_alone)):
        if some:
            with fresh(job.model):
                for done in way(job.part(some), budget):
                    yield [some[k] for k in done]


def decode(job: Job, budget: int) -> Generator[list[int]]:
    """Continue all sequences, by the most probable token each time.

    Args:
        job: What and how.
        budget: Most tokens in a pass over prompts; keys and values of all sequences that go on
            side by side take at most as many places as `kv_places` says.

    Yields:
        Sequences that are done.
    """
    limit = kv_places(job.model, budget)
    coming = _pieces(job, budget, limit)
    waiting = next(coming, None)
    going: list[_Rows] = []
    while waiting or going:
        while waiting and (not going or _places([*going, waiting], job.room) <= limit):
            going.append(waiting)
            waiting = next(coming, None)
        rows = _joined(going, job.room)
        done = _onward(job, rows, waiting, limit)
        going = [rows] if rows.members else []
        yield done


def _pieces(job: Job, budget: int, limit: int) -> Generator[_Rows]:
    """Run the prompts; what can be continued, some at a time."""
    from transformers import DynamicCache

    # The last token stands alone: every sequence has something left to run after its prefix.
    ends = [(*codes[:-1], 2**50 + i) for i, codes in enumerate(job.codes)]
    for batch in plan(ends, budget, places=limit):
        shared = DynamicCache()
        if batch.prefix_tokens:

            def watch(seats: Seats) -> Keep:
                return job.edits.prepare(seats, job.owners)

            shared = prefix_pass(job.model, batch, job.sequences, job.points, watch)
        for rows in batch.passes:
            longest = max(len(job.sequences[i]) for i in batch.members)
            step = max(1, limit // (REFILLS * (longest + job.room)))
            for start in range(0, len(rows), step):
                yield _prompts(job, batch, rows[start : start + step], shared)


def decode_alone(job: Job, _budget: int) -> Generator[list[int]]:
    """`decode` one by one, as the `generate` of transformers does it.

    For sequences that may pass the length from which on positions depend on it: what was kept
    stays as it was rotated, unless the model asks to read everything anew (Phi-3).
    """
    from transformers import DynamicCache

    for i, ids in enumerate(job.sequences):
        with fresh(job.model):
            grown, cache, held = list(ids), None, 0
            while True:
                if cache is None or _reads_anew(job.model, grown, cache):
                    cache, held = DynamicCache(), 0
                new = len(grown) - held
                read = _Reader(job, Seats(new, {i: (0, held, new, 0)}), job.owners)
                mask = torch.ones(1, len(grown), dtype=torch.long)
                positions = torch.arange(held, len(grown)).unsqueeze(0)
                left = torch.tensor([grown[held:]])
                forward(job.model, left, mask, positions, job.points, read, cache)
                held = len(grown)
                token = int(job.best(read.states))
                if not job.take(i, token):
                    break
                grown.append(token)
        yield [i]


def decode_uncached(job: Job, budget: int) -> Generator[list[int]]:
    """`decode` without keys and values: every step runs every token again.

    For families whose cache can't be trusted.
    """
    alive = list(range(len(job.sequences)))
    grown = [list(ids) for ids in job.sequences]
    while alive:
        readers: list[tuple[list[int], _Reader]] = []
        owners = {k: job.owners[i] for k, i in enumerate(alive)}

        def watch(seats: Seats, readers: Any = readers, owners: Any = owners) -> Keep:
            readers.append((list(seats.tokens), _Reader(job, seats, owners)))
            return readers[-1][1]

        sequences = [tuple(grown[i]) for i in alive]
        apart = labels(job.model, list(map(len, sequences)))
        for batch in plan(sequences, budget, share=False, apart=apart):
            run_batch(job.model, batch, sequences, job.points, watch)
        states = {
            k: row for some, read in readers for k, row in zip(some, read.states, strict=True)
        }
        chosen = job.best(torch.stack([states[k] for k in range(len(alive))]))
        for i, token in zip(alive, chosen.tolist(), strict=True):
            grown[i].append(token)
        done = [i for i in alive if not job.take(i, grown[i][-1])]
        alive = [i for i in alive if i not in done]
        yield done


def _reads_anew(model: HookedModel, ids: Sequence[int], cache: Any) -> bool:
    """Whether the model's own `generate` would drop what it kept before the next token."""
    from transformers import GenerationMixin

    own: Any = model.hf_model
    plain: Any = vars(GenerationMixin)["prepare_inputs_for_generation"]
    if type(own).prepare_inputs_for_generation is plain:
        return False
    prepared = own.prepare_inputs_for_generation(
        torch.tensor([list(ids)], device=model.device),
        past_key_values=cache,
        attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=model.device),
        next_sequence_length=1,
        use_cache=True,
    )
    return prepared.get("past_key_values") is not cache


class _Reader:
    """Edits a pass, and keeps the states of its last tokens at the last point."""

    def __init__(self, job: Job, seats: Seats, owners: Mapping[int, Sequence[int]]) -> None:
        self.deepest = job.model.n_layers
        self.edited = job.edits.prepare(seats, owners)
        tokens = seats.tokens.values()
        self.last = torch.tensor([r * seats.width + i + held - 1 for r, _, held, i in tokens])
        self.states = torch.empty(0)

    def __call__(self, layer: Point, resid: Tensor) -> Tensor | None:
        changed = self.edited(layer, resid)
        if layer == self.deepest:
            states = (resid if changed is None else changed).flatten(0, 1)
            self.states = states.index_select(0, self.last.to(resid.device))
        return changed


def _prompts(job: Job, batch: Batch, rows: Sequence[int], shared: Any) -> _Rows:
    """Run what follows the prefixes of some sequences, and right-align what it leaves."""
    model = job.model
    groups = {m: (b, g.prefix) for b, g in enumerate(batch.groups) for m in g.members}
    prefixes = torch.tensor([groups[i][1] for i in rows])
    ahead = max(g.prefix for g in batch.groups)
    rest = [job.sequences[i][groups[i][1] :] for i in rows]
    lengths = torch.tensor([len(r) for r in rest])
    width = int(lengths.max())
    ids, mask = padded(model, rest, width)
    before = torch.arange(ahead) >= ahead - prefixes.unsqueeze(1)
    mask = torch.cat([before.long(), mask], dim=1)
    # Padding stays at the last position: learned ones end somewhere.
    positions = torch.arange(width).minimum(lengths.unsqueeze(1) - 1) + prefixes.unsqueeze(1)
    seats = Seats(width, {i: (b, groups[i][1], len(rest[b]), 0) for b, i in enumerate(rows)})
    cache = rows_of(shared, torch.tensor([groups[i][0] for i in rows]))
    read = _Reader(job, seats, job.owners)
    forward(model, ids, mask, positions, job.points, read, cache)
    places = ahead + width
    order = (torch.arange(places) - (width - lengths).unsqueeze(1)) % places
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys, layer.values = _ordered(layer.keys, order), _ordered(layer.values, order)
    return _Rows(list(rows), read.states, prefixes + lengths, mask.gather(1, order), cache)


def _ordered(kept: Tensor, order: Int[Tensor, "row place"]) -> Tensor:
    index = order.to(kept.device)[:, None, :, None].expand(-1, kept.shape[1], -1, kept.shape[3])
    return kept.gather(2, index)


def _places(pieces: Sequence[_Rows], room: int) -> int:
    return sum(len(p.members) for p in pieces) * (max(p.mask.shape[1] for p in pieces) + room)


def _onward(job: Job, rows: _Rows, waiting: _Rows | None, limit: int) -> list[int]:
    """Decode side by side until all are done, or until what waits can take the places of some.

    Returns:
        Those that are done; the others are left in `rows`.
    """
    members = rows.members
    going = list(range(len(members)))
    readers: list[_Reader] = []

    def read(point: Point, resid: Tensor) -> Tensor | None:
        return readers[-1](point, resid)

    # Hooked once: what lies above the last point is no more than a norm.
    with visiting(job.model, job.points, read, stop=False):
        while True:
            tokens = job.best(rows.states).tolist()
            going = [b for b in going if job.take(rows.members[b], tokens[b])]
            if not going:
                rows.members = []
                return members
            # To leave costs a copy of all keys and values, to stay a row of each step.
            if LEAVING * (len(rows.members) - len(going)) >= len(rows.members):
                tokens = [tokens[b] for b in going]
                _keep(rows, going)
                going = list(range(len(going)))
            _step(job, rows, tokens, readers)
            if waiting and len(going) < len(members):
                width = max(rows.mask.shape[1], waiting.mask.shape[1]) + job.room
                if (len(going) + len(waiting.members)) * width <= limit:
                    _keep(rows, going)
                    return [i for i in members if i not in rows.members]


def _joined(pieces: Sequence[_Rows], room: int) -> _Rows:
    """Pieces as one, padded on the left, with room for what follows; they hold nothing any more."""
    held = [int(p.mask.any(0).long().argmax()) for p in pieces]  # where the first token stands
    masks = [p.mask[:, first:] for p, first in zip(pieces, held, strict=True)]
    width = max(mask.shape[1] for mask in masks)
    cache = pieces[0].cache
    # Layer by layer: keys and values lie there twice of one alone.
    for _ in range(len(cache.layers)):
        parts = [p.cache.layers.pop(0) for p in pieces]
        first = parts[0]
        cache.layers.append(roomy(parts, held, width, room) if first.is_initialized else first)
    return _Rows(
        [i for p in pieces for i in p.members],
        torch.cat([p.states for p in pieces]),
        torch.cat([p.positions for p in pieces]),
        torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks]),
        cache,
    )


def _keep(rows: _Rows, some: list[int]) -> None:
    """Let the other rows go, with their keys and values."""
    index = torch.tensor(some)
    rows.cache.batch_select_indices(index)
    rows.members = [rows.members[b] for b in some]
    rows.states = rows.states[index.to(rows.states.device)]
    rows.positions, rows.mask = rows.positions[index], rows.mask[index]


def _step(job: Job, rows: _Rows, tokens: list[int], readers: list["_Reader"]) -> None:
    """One more token each; of sequences that are done, any."""
    at = rows.positions.tolist()
    seats = Seats(1, {i: (b, at[b], 1, 0) for b, i in enumerate(rows.members)})
    readers[:] = [_Reader(job, seats, job.owners)]
    # -1 stands for a state that isn't finite, of a sequence that is done.
    ids = torch.tensor(tokens).clamp_min(0).unsqueeze(1)
    rows.mask = pad(rows.mask, (0, 1), value=1)
    body(job.model, ids, rows.mask, rows.positions.unsqueeze(1), rows.cache)
    rows.states, rows.positions = readers[0].states, rows.positions + 1
