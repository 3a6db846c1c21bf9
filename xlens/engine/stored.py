"""Requests in a store: computed once, resumed after a kill, read in slices, larger than memory."""

import logging
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xlens.activations import Activations, SlotValues
from xlens.engine import executors
from xlens.engine.gather import SlotLayout, layout
from xlens.engine.request import Execution, Request
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.foreign import foreign
from xlens.prompts import TokenizedPrompt, parse_slot
from xlens.results import versions
from xlens.sites import RESID
from xlens.store import Entry, Store

_log = logging.getLogger(__name__)

# Size of a shard: what is held in memory while it is made. A kill loses no more than a few seconds:
# parts of it are kept meanwhile.
SHARD_BYTES = 64 * 2**20


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
        site: Where: one of `xlens.sites.SITES`.
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
                raise InputError(f"{kind} {missing} were not harvested; there are {list(there)}.")
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


@contextmanager
def answered(
    model: HookedModel, requests: Sequence[Request], how: Execution
) -> Generator[list[Entry] | None]:
    """Requests' entries, found or computed shard by shard; None where nothing is to be kept.

    Several processes may work on one entry; each takes the shards that nobody has. Where shards
    come from elsewhere and there is no store, they are kept as long as this lasts.

    Raises:
        ValueError: something of yours changes the model's passes, and they would run elsewhere.
    """
    executor = executors.find(how.executor)
    store = kept_in(how.store, model)
    if store is None and executor.here:
        yield None
        return
    for request in requests:
        request.subject.look()
    if store is not None:
        yield _entries(model, requests, store, how, executor)
        return
    require_named(model, "run elsewhere", "executor='local' runs it here")
    with tempfile.TemporaryDirectory(prefix="xlens-") as folder:
        yield _entries(model, requests, Store(folder), how, executor)


def _entries(
    model: HookedModel,
    requests: Sequence[Request],
    store: Store,
    how: Execution,
    executor: executors.Executor,
) -> list[Entry]:
    entries = [store.entry(r.key, shards=r.shards, about=r.about) for r in requests]
    jobs = list(zip(requests, entries, strict=True))
    if open_jobs := [(r, e) for r, e in jobs if not e.complete]:
        executor.run(model, open_jobs, how)
    return entries


def tensors_of(
    model: HookedModel, request: Request, how: Execution, entries: Sequence[Entry] | None
) -> list[Mapping[str, torch.Tensor]]:
    """What the shards of `answered`'s only request hold; computed here where nothing is kept."""
    if entries is None:
        return [request.compute(model, how)[0]]
    return [entries[0].read(number) for number in range(request.shards)]


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


def require_named(model: HookedModel, what: str, instead: str) -> None:
    """Refuse a model that something without a name changes.

    Raises:
        ValueError: it can't be told what it computes.
    """
    if others := foreign(model.hf_model):
        raise InputError(
            f"{model.name} can't be {what}: {_told(others)}, so that what it computes can't be "
            f"told from what it computes without. Take that off first; {instead}."
        )


def opened(store: Store | str | Path | None) -> Store:
    """A store, by itself or by its folder; None for the one in the user's cache."""
    return store if isinstance(store, Store) else Store(store)


def made_by(entries: Sequence[Entry] | None) -> dict[str, Any]:
    """What provenance says of how a result came about: versions, and hosts where not this one.

    Several of one package where a run with another went on.
    """
    if entries is None:
        return {"versions": versions()}
    hosts = sorted({host for entry in entries for host in entry.hosts})
    return {
        "versions": _joined([entry.versions for entry in entries]),
        **({"hosts": hosts} if hosts else {}),
    }


def by_bytes(layouts: Mapping[str, SlotLayout], row_bytes: int, n: int) -> tuple[int, ...]:
    """Cut prompts into shards of about `SHARD_BYTES`; by what is kept, nothing else."""
    ends = sum((at.offsets for at in layouts.values()), torch.zeros(n + 1, dtype=torch.long))
    bounds = [0]
    for i, (_, end) in enumerate(pairwise(ends.tolist())):
        if i > bounds[-1] and (end - int(ends[bounds[-1]])) * row_bytes > SHARD_BYTES:
            bounds.append(i)
    return (*bounds, n)


def _joined(versions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(name for each in versions for name in each)
    told = {name: [each[name] for each in versions if name in each] for name in names}
    return {name: ", ".join(dict.fromkeys(found)) for name, found in told.items()}


def _told(others: Sequence[str]) -> str:
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"something else changes its passes ({'; '.join(others[:3])}{more})"
