"""Harvests on disk: computed once, resumed after a kill, read in slices, larger than memory."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xlens.activations import RESID, Activations, SlotValues
from xlens.engine.gather import SlotLayout, layout
from xlens.engine.store import EPOCH, Entry, Parts, Store, digest
from xlens.models import HookedModel
from xlens.models.computation import computation, foreign
from xlens.models.sites import Place, Point, heads_at, width_at
from xlens.prompts import TokenizedPrompt, parse_slot

_log = logging.getLogger(__name__)

# Size of a shard: what is held in memory while it is made. A kill loses no more than a few seconds:
# parts of it are kept meanwhile.
SHARD_BYTES = 64 * 2**20

# Values by slot of the prompts from one position to another; the parts keep what is done.
Compute = Callable[[int, int, Parts], dict[str, Tensor]]
# Tensors and rows, likewise.
ComputeShard = Callable[[int, int, Parts], tuple[Mapping[str, Tensor], pd.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class StoredActivations:
    """A harvest in a store, read from there when asked for.

    Attributes:
        entry: Where it lies.
        tokens: The prompts, tokenised.
        bounds: Prompts of shard i are `bounds[i]:bounds[i+1]`.
        slots: Slot names.
        layers: Residual points.
        fingerprint: Of the model.
        provenance: Of the harvest.
        meta: One row per prompt.
        site: Where: one of `xlens.activations.SITES`.
        n_heads: As of `Activations`.
    """

    entry: Entry
    tokens: Sequence[TokenizedPrompt]
    bounds: tuple[int, ...]
    slots: tuple[str, ...]
    layers: tuple[int, ...]
    fingerprint: str
    provenance: dict[str, Any]
    meta: pd.DataFrame
    site: str = RESID
    n_heads: int | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def load(
        self, *, layers: Sequence[int] | None = None, slots: Sequence[str] | None = None
    ) -> Activations:
        """All prompts in memory; with `layers` or `slots`, these alone are read."""
        return self._read(range(len(self.bounds) - 1), layers, slots)

    def parts(
        self, *, layers: Sequence[int] | None = None, slots: Sequence[str] | None = None
    ) -> Iterator[Activations]:
        """Shard by shard, for what doesn't fit in memory."""
        for shard in range(len(self.bounds) - 1):
            yield self._read(range(shard, shard + 1), layers, slots)

    def _read(
        self, shards: range, layers: Sequence[int] | None, slots: Sequence[str] | None
    ) -> Activations:
        points = self.layers if layers is None else tuple(layers)
        names = self.slots if slots is None else tuple(slots)
        for kind, asked, there in (("layers", points, self.layers), ("slots", names, self.slots)):
            if missing := [x for x in asked if x not in there]:
                raise ValueError(f"{kind} {missing} were not harvested; there are {list(there)}.")
        first, last = self.bounds[shards.start], self.bounds[shards.stop]
        tokens = self.tokens[first:last]
        values: dict[str, SlotValues] = {}
        wanted = [f"{name}/{layer}" for name in names for layer in points]
        read = [self.entry.read(shard, wanted) for shard in shards]
        for name in names:
            at = layout(tokens, parse_slot(name))
            whole = [torch.cat([part.pop(f"{name}/{n}") for part in read]) for n in points]
            values[name] = SlotValues(
                values=torch.stack(whole), offsets=at.offsets, positions=at.positions
            )
        return Activations(
            slots=values,
            layers=points,
            meta=self.meta.iloc[first:last].reset_index(drop=True),
            fingerprint=self.fingerprint,
            provenance=self.provenance,
            site=self.site,
            n_heads=self.n_heads,
        )


def stored(
    store: Store,
    model: HookedModel,
    tokens: Sequence[TokenizedPrompt],
    points: tuple[Point, ...],
    slots: tuple[str, ...],
    compute: Compute,
    *,
    dtype: torch.dtype,
    meta: pd.DataFrame,
    provenance: dict[str, Any],
    edits: Any,
    kind: str = "harvest",
    whole: bool = False,
) -> StoredActivations:
    """Find a harvest in the store, or run what is missing of it: see `computed`.

    With `whole` it is one shard.
    """
    layouts = {name: layout(tokens, parse_slot(name)) for name in slots}
    layers = tuple(int(point) for point in points)
    site = points[0].site if isinstance(points[0], Place) else RESID
    bounds = (0, len(tokens))
    if not whole:
        row = len(points) * width_at(model, points) * dtype.itemsize
        bounds = _bounds(layouts, row, len(tokens))
    if others := foreign(model.hf_model):
        raise ValueError(
            f"{model.name} can't be harvested into a store: {_told(others)}, so that what it "
            "computes can't be told from what is kept. Take that off first, or use harvest(...)."
        )

    def shard(start: int, stop: int, parts: Parts) -> tuple[dict[str, Tensor], pd.DataFrame]:
        found = compute(start, stop, parts)
        tensors = {f"{n}/{p}": v[i] for n, v in found.items() for i, p in enumerate(layers)}
        return tensors, meta.iloc[start:stop].reset_index(drop=True)

    entry = computed(
        store,
        kind,
        model,
        provenance,
        tokens,
        shard,
        bounds,
        edits=edits,
        kept_dtype=str(dtype),
        layers=list(layers),
        **({} if site == RESID else {"site": site}),
        slots={name: digest(at.positions) for name, at in layouts.items()},
        spans=digest([[list(t.positions(at.slot)) for t in tokens] for at in layouts.values()]),
    )
    return StoredActivations(
        entry=entry,
        tokens=tokens,
        bounds=bounds,
        slots=slots,
        layers=layers,
        site=site,
        n_heads=heads_at(model, site),
        fingerprint=str(provenance["fingerprint"]),
        provenance={**provenance, "versions": entry.versions},
        meta=meta,
    )


def kept_in(store: Store | str | Path | None, model: HookedModel) -> Store | None:
    """The store to look in and write to; None, with a warning, where what runs has no name."""
    if store is None:
        return None
    if others := foreign(model.hf_model):
        _log.warning(
            "%s: %s. Results are computed without the store: they can't be told from others'.",
            model.name,
            _told(others),
        )
        return None
    return opened(store)


def opened(store: Store | str | Path | None) -> Store:
    """A store, by itself or by its folder; None for the one in the user's cache."""
    return store if isinstance(store, Store) else Store(store)


def computed(
    store: Store,
    kind: str,
    model: HookedModel,
    provenance: Mapping[str, Any],
    tokens: Sequence[TokenizedPrompt],
    compute: ComputeShard,
    bounds: Sequence[int],
    *,
    edits: Any,
    **more: Any,
) -> Entry:
    """An entry in the store, found or computed shard by shard.

    The key is all that decides the values: weights, config, tokenizer's ids, dtype, attention,
    buffers and attributes of the modules, versions of the code, interventions, those around
    included, and what else is given. Several processes may work on one entry; each takes the shards
    that nobody has.

    Args:
        store: Where it is kept.
        kind: What is computed: `harvest`, `score`, `generate`, `relevance`.
        model: What computes.
        provenance: Of the model.
        tokens: The sequences.
        compute: Tensors and rows of the sequences from one position to another; can keep what is
            done of them in the parts that it is given.
        bounds: Sequences of shard i are `bounds[i]:bounds[i+1]`.
        edits: Key of the interventions.
        **more: What else decides the values, as `plain` takes it.
    """
    key = _key(kind, model, provenance, tokens, edits, bounds, **more)
    languages = sorted({t.prompt.language for t in tokens})
    about = {"model": model.name, "prompts": len(tokens), "languages": languages}
    entry = store.entry(key, shards=len(bounds) - 1, about=about)
    for shard in entry.todo():
        found = compute(bounds[shard], bounds[shard + 1], entry.parts(shard))
        entry.write(shard, *found)
    entry.finish()
    return entry


def stored_rows(
    store: Store,
    kind: str,
    model: HookedModel,
    provenance: Mapping[str, Any],
    tokens: Sequence[TokenizedPrompt],
    compute: Callable[[int, int], pd.DataFrame],
    bounds: Sequence[int],
    *,
    edits: Any,
    **more: Any,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table with a row per sequence, as `computed`, and the versions that computed it."""

    def rows(start: int, stop: int, _parts: Parts) -> tuple[dict[str, Tensor], pd.DataFrame]:
        table = compute(start, stop)
        # A shard holds a tensor, and this one its size; the rows are what it is about.
        return {"n": torch.tensor(len(table))}, table

    entry = computed(store, kind, model, provenance, tokens, rows, bounds, edits=edits, **more)
    return entry.rows(), entry.versions


def joined(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Versions of what was put together from several entries."""
    names = dict.fromkeys(name for each in versions for name in each)
    told = {name: [each[name] for each in versions if name in each] for name in names}
    return {name: ", ".join(dict.fromkeys(found)) for name, found in told.items()}


def _key(
    kind: str,
    model: HookedModel,
    provenance: Mapping[str, Any],
    tokens: Sequence[TokenizedPrompt],
    edits: Any,
    bounds: Sequence[int],
    **more: Any,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "epoch": EPOCH,
        **{name: provenance.get(name) for name in ("fingerprint", "dtype", "attention")},
        "tokens": digest([list(t.ids) for t in tokens]),
        "prompts": digest([[t.prompt.id, t.prompt.language] for t in tokens]),
        "computation": computation(model.hf_model),
        "interventions": edits,
        "split": list(bounds),
        **more,
    }


def _told(others: Sequence[str]) -> str:
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"something else changes its passes ({'; '.join(others[:3])}{more})"


def _bounds(layouts: dict[str, SlotLayout], row_bytes: int, n: int) -> tuple[int, ...]:
    """Cut the prompts into shards of about `SHARD_BYTES`; by what is kept, nothing else."""
    ends = sum((at.offsets for at in layouts.values()), torch.zeros(n + 1, dtype=torch.long))
    bounds = [0]
    for i, (_, end) in enumerate(pairwise(ends.tolist())):
        if i > bounds[-1] and (end - int(ends[bounds[-1]])) * row_bytes > SHARD_BYTES:
            bounds.append(i)
    return (*bounds, n)
