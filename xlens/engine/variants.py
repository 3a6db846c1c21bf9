"""The same prompts under many interventions; what these have in common runs once."""

import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pandas as pd
import torch

from xlens.activations import Activations, SlotValues
from xlens.bars import tqdm
from xlens.checks import typed
from xlens.engine.backoff import pass_budget
from xlens.engine.executors import Executor
from xlens.engine.gather import layout
from xlens.engine.harvest import HarvestRequest
from xlens.engine.interventions import Edits, Interventions, check, spans
from xlens.engine.request import Execution, Shard, Subject
from xlens.engine.room import kv_bytes
from xlens.engine.score import SLOT, Offered, ScoreRequest, Scores, sums
from xlens.engine.states import prepare, prompt_table, states
from xlens.engine.stored import answered, made_by
from xlens.engine.trunk import Trunk, start
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.sites import Point, heads_at
from xlens.prompts import PromptsLike, TokenizedPrompt, parse_slot
from xlens.sites import RESID
from xlens.store import Entry, Parts, Store, digest

# The stream at every layer that something begins at is held at once, for this many bytes of it.
TRUNK_BYTES = 2**30
TRUNK_TOKENS = 12_000  # a kill loses at most these, and those of a variant that was under way


@typed
def score_variants(
    model: HookedModel,
    prompts: PromptsLike,
    candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    variants: Mapping[str, Interventions],
    *,
    layers: str | int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> dict[str, Scores]:
    """`score` under each of several interventions, faster than one after the other.

    Each variant's scores are those that `score(..., interventions=variant)` gives, to rounding.
    What lies below the lowest layer that a variant changes is the plain run's, which is made once
    and kept: of 18 blocks, a change at layer 12 runs six. With slots that say where (a vector for
    each prompt, `last`), prompts share beginnings as far as all variants allow it.

    Args:
        model: From `xlens.load`.
        prompts: Each ends where a candidate begins.
        candidates: As for `score`.
        variants: Interventions by a name of yours; `()` for none.
        layers: Residual points; -1, the output, by default.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        store: Where scores are kept, variant by variant: a killed run goes on where it was.
        progress: Show a bar; before it, a line that says how long it will take.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: no variants, or what `score` refuses; all variants are checked first.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not variants:
        raise InputError("variants is empty; give interventions by name, () for none.")
    offered = Offered.of(prompts, candidates)
    named = frozenset[str]().union(*(spans(v) for v in variants.values()))
    points, slots, tokens = prepare(model, offered.texts, layers, SLOT, prepend_bos, named)
    edits = {name: offered.bind(variant, model, tokens) for name, variant in variants.items()}
    how = Execution(token_budget=token_budget, store=store, progress=progress, executor=executor)
    asked = _asked(ScoreVariant, model, tokens, points, slots, edits, offered.owner)
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in edits}
    with _trunks(), answered(model, [request for _, request in asked], how) as entries:
        for name, request, entry in _told(asked, entries, how):
            table = request.compute(model, how)[1] if entry is None else entry.rows()
            tables[name].append(table)
        origin = _origin(asked[0][1].subject, entries)
    return {
        name: offered.result(
            pd.concat(tables[name], ignore_index=True),
            points,
            {**origin, "interventions": edit.key} if edit else origin,
        )
        for name, edit in edits.items()
    }


@typed
def harvest_variants(
    model: HookedModel,
    prompts: PromptsLike,
    variants: Mapping[str, Interventions],
    *,
    layers: str | int | Sequence[int] = "all",
    slots: str | Sequence[str] = "last",
    site: str = RESID,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> dict[str, Activations]:
    """`harvest` under each of several interventions, as `score_variants` does for scores.

    Layers below the lowest that a variant changes are cheapest left out of `layers`: to read them
    is to run from there.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        variants: Interventions by a name of yours; `()` for none.
        layers: Residual points to keep, as for `harvest`.
        slots: Positions to keep.
        site: What to keep there, as for `harvest`.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        share_prefixes: Run common beginnings once.
        store: Where states are kept, variant by variant: a killed run goes on where it was.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: no variants, or what `harvest` refuses; all variants are checked first.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not variants:
        raise InputError("variants is empty; give interventions by name, () for none.")
    named = frozenset[str]().union(*(spans(v) for v in variants.values()))
    points, names, tokens = prepare(model, prompts, layers, slots, prepend_bos, named, site)
    edits = {name: check(variant, model, tokens) for name, variant in variants.items()}
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=store,
        progress=progress,
        executor=executor,
    )
    asked = _asked(HarvestVariant, model, tokens, points, names, edits, range(len(tokens)))
    found: dict[str, list[Mapping[str, torch.Tensor]]] = {name: [] for name in edits}
    with _trunks(), answered(model, [request for _, request in asked], how) as entries:
        for name, request, entry in _told(asked, entries, how):
            if entry is None:
                values = request.values(model, how)
            else:
                kept = request.stored(entry).load()
                values = {slot: held.values for slot, held in kept.slots.items()}
            found[name].append(values)
        origin = _origin(asked[0][1].subject, entries)
    layouts = {name: layout(tokens, parse_slot(name)) for name in names}
    return {
        variant: Activations(
            slots={
                name: SlotValues(
                    values=torch.cat([part[name] for part in parts], dim=1),
                    offsets=at.offsets,
                    positions=at.positions,
                )
                for name, at in layouts.items()
            },
            layers=tuple(int(point) for point in points),
            meta=prompt_table(tokens),
            fingerprint=asked[0][1].subject.fingerprint,
            site=site,
            n_heads=heads_at(model, site),
            provenance={**origin, "interventions": edits[variant].key}
            if edits[variant]
            else origin,
        )
        for variant, parts in found.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class HarvestVariant(HarvestRequest):
    """States under one of several interventions; what they have in common is made once.

    Attributes:
        beside: All of the interventions, this one among them, on the same prompts.
        trunk: Equal where these are.
    """

    kind: ClassVar[str] = "variant"
    beside: tuple[Edits, ...]
    trunk: str

    def sent(self) -> Self:
        """The same with no more than is needed elsewhere."""
        return replace(super().sent(), beside=tuple(edits.sent() for edits in self.beside))

    def on(self, device: torch.device) -> Self:
        """The same for a model on that device."""
        return replace(super().on(device), beside=tuple(edits.on(device) for edits in self.beside))

    def values(
        self, model: HookedModel, how: Execution, parts: Parts | None = None
    ) -> dict[str, torch.Tensor]:
        """`[layer, row, width]` by slot, from the trunk on.

        Raises:
            ValueError: a state is not finite.
        """
        found = states(
            model,
            self.tokens,
            self.points,
            self.layouts,
            self.edits,
            token_budget=how.token_budget,
            share=how.share_prefixes,
            dtype=self.dtype,
            progress=False,
            trunk=_trunk(model, self, how).trunk,
        )
        for values in found.values():
            if not values.isfinite().all():
                raise InputError(
                    f"{int((~values.isfinite().all(-1)).sum())} states are not finite under the "
                    f"interventions {self.edits.key}: a smaller strength, or the model in float32."
                )
        return found


class ScoreVariant(HarvestVariant, ScoreRequest):
    """Scores under one of several interventions."""

    kind: ClassVar[str] = "score"

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """As of a `ScoreRequest`; of the first, with a line that says how long the rest takes."""
        begun = time.perf_counter()
        found = sums(model, self.activations(self.values(model, how)))
        made = _trunk(model, self, how)
        if how.progress and made.untold:
            made.untold = False
            self._tell(model, made.seconds, time.perf_counter() - begun - made.seconds)
        return {"n": torch.tensor(len(found))}, found

    def _tell(self, model: HookedModel, plain: float, one: float) -> None:
        """How long the rest will take: a run costs the blocks above its start, and the readout."""
        blocks = model.n_layers
        per_block = plain / max(1, max(start(e, self.points) for e in self.beside))
        above = [blocks - start(e, self.points) for e in self.beside]
        readout = max(0.0, one - per_block * (blocks - start(self.edits, self.points)))
        total = sum(per_block * n + readout for n in above)
        tqdm.write(
            f"{len(above)} runs over {len(self)} texts: about {total / 60:.1f} minutes "
            "from here, less what the store holds.",
            file=sys.stderr,
        )


R = TypeVar("R", bound=HarvestVariant)


@dataclass
class _Made:
    """The trunk that was made last of a model, how long it took, and whether that is to be told."""

    name: str
    trunk: Trunk
    seconds: float
    untold: bool = True


_last = threading.local()


def _trunk(model: HookedModel, request: HarvestVariant, how: Execution) -> _Made:
    made: _Made | None = getattr(_last, "made", None)
    if made is None or made.trunk.model is not model or made.name != request.trunk:
        _forget()  # one at a time: it holds the stream of all prompts
        begun = time.perf_counter()
        trunk = Trunk(
            model,
            [t.ids for t in request.tokens],
            request.beside,
            request.points,
            budget=pass_budget(model, how.token_budget),
            share=how.share_prefixes,
        )
        made = _last.made = _Made(request.trunk, trunk, time.perf_counter() - begun)
    return made


@contextmanager
def _trunks() -> Generator[None]:
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    _last.made = None


def _asked(
    kind: type[R],
    model: HookedModel,
    tokens: Sequence[TokenizedPrompt],
    points: tuple[Point, ...],
    slots: tuple[str, ...],
    edits: Mapping[str, Edits],
    owners: Sequence[int],
) -> list[tuple[str, R]]:
    """A request for each variant of each chunk of the prompts, with the variant's name."""
    subject = Subject.of(model, tokens)
    bounds = _bounds(model, owners, [len(t) for t in tokens], edits, points)
    meta = prompt_table(tokens)
    found: list[tuple[str, R]] = []
    for first, last in pairwise(bounds):
        at = slice(bisect_left(owners, first), bisect_left(owners, last))
        mine = {name: edit.take(range(at.start, at.stop)) for name, edit in edits.items()}
        ids = [list(t.ids) for t in tokens[at]]
        trunk = digest([subject.fingerprint, ids, [e.key for e in edits.values()], at.start])
        found += [
            (
                name,
                kind.asked(
                    model,
                    tokens[at],
                    points,
                    slots,
                    edit,
                    subject=subject,
                    meta=meta.iloc[at].reset_index(drop=True),
                    beside=tuple(mine.values()),
                    trunk=trunk,
                ),
            )
            for name, edit in mine.items()
        ]
    return found


def _told(
    asked: Sequence[tuple[str, R]], entries: Sequence[Entry] | None, how: Execution
) -> Iterator[tuple[str, R, Entry | None]]:
    """Requests with their entries; with a bar where they are yet to be computed."""
    hidden = entries is not None or not how.progress
    with tqdm(asked, desc="variants", unit="run", disable=hidden, leave=False) as bar:
        for n, (name, request) in enumerate(bar):
            yield name, request, None if entries is None else entries[n]


def _origin(subject: Subject, entries: Sequence[Entry] | None) -> dict[str, Any]:
    return {**subject.provenance, "kept_dtype": "torch.float32", **made_by(entries)}


def _bounds(
    model: HookedModel,
    owners: Sequence[int],
    lengths: Sequence[int],
    edits: Mapping[str, Edits],
    points: Sequence[Point],
) -> list[int]:
    """Prompts in chunks whose kept stream and beginnings take about `TRUNK_BYTES`.

    And that have about `TRUNK_TOKENS`: a chunk's variants are kept when they are done.
    """
    held = len({start(e, points) for e in edits.values()})
    bounds, n = [0], 0
    # Keys and values of shared beginnings are kept beside the stream: at most those of all tokens.
    each = held * model.d_model * model.dtype.itemsize + kv_bytes(model)
    most = min(TRUNK_TOKENS, TRUNK_BYTES / each)
    for owner, length in zip(owners, lengths, strict=True):
        if n > most and owner > bounds[-1]:
            bounds.append(owner)
            n = 0
        n += length
    return [*bounds, owners[-1] + 1]
