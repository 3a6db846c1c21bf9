"""`harvest`: prompts through a model, residual-stream states out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor

from xlens.activations import Activations, SlotValues
from xlens.checks import typed
from xlens.engine.executors import Executor
from xlens.engine.gather import SlotLayout, layout
from xlens.engine.interventions import Edits, Interventions, check, spans
from xlens.engine.request import Execution, Request, Shard, Subject
from xlens.engine.states import prepare, prompt_table, require_finite, states
from xlens.engine.stored import (
    StoredActivations,
    answered,
    by_bytes,
    made_by,
    opened,
    require_named,
)
from xlens.models import HookedModel
from xlens.models.hf import checked_dtype
from xlens.models.sites import Place, Point, heads_at, width_at
from xlens.prompts import PromptsLike, TokenizedPrompt, parse_slot
from xlens.sites import RESID
from xlens.store import Entry, Parts, Store, digest


@typed
def harvest(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    layers: str | int | Sequence[int] = "all",
    slots: str | Sequence[str] = "last",
    site: str = RESID,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    dtype: torch.dtype | str = torch.float32,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> Activations:
    """Run prompts and keep the residual stream at chosen layers and positions.

    A prompt's states do not depend on its neighbours: the same alone or in any batch, with or
    without shared prefixes, to rounding (fp32: 1e-5 relative on every family tested). No
    vocabulary projection, no gradients, nothing above the deepest layer, a common beginning of
    several prompts only once, and the reduction to slots inside the hook. Out of memory halves
    the token budget and goes on.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        layers: Residual points: "all", one, or several; 0 is the embedding, `n_layers` the output
            of the last block, before the final norm.
        slots: Positions to keep: `last`, `all`, `NAME:first|last|mean|sum|each|predict`.
        site: What to keep there: the residual stream, or `z`, `attn_out`, `mlp_gate`, `mlp_post`,
            `mlp_out` of blocks (see `xlens.models.sites`); `layers` are then blocks 0..n_layers-1.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass, padding included.
        share_prefixes: Run common beginnings once, where the family's cache can be trusted.
        interventions: Changes to the stream, from `xlens.engine.interventions`; what is kept at a
            point is the stream after them.
        dtype: Of what is kept, `torch.float16` or "float16".
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show a bar with prompts and tokens per second.
        executor: Where it runs: `local`, `ray`, `ray://HOST:PORT` (see `xlens.engine.executors`).

    Returns:
        Activations in the prompts' order.

    Raises:
        ValueError: unknown layer, slot or span; a prompt that is empty or too long; all before
            the model runs. Also when a state is not finite, naming prompt and layer.
        MemoryError: a single prompt doesn't fit in memory.
    """
    request = HarvestRequest.of(
        model,
        prompts,
        layers=layers,
        slots=slots,
        site=site,
        prepend_bos=prepend_bos,
        interventions=interventions,
        dtype=dtype,
    )
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=store,
        progress=progress,
        executor=executor,
    )
    with answered(model, [request], how) as entries:
        if entries is None:
            return request.activations(request.values(model, how))
        return request.stored(entries[0]).load()


@typed
def harvest_to_store(
    model: HookedModel,
    prompts: PromptsLike,
    store: Store | str | Path | None = None,
    *,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    progress: bool = True,
    executor: str | Executor | None = None,
    **options: Any,
) -> StoredActivations:
    """`harvest` into a store and no further: for what is larger than memory.

    Read it back with `.load(layers=…)` or `.parts()`. What the store holds already is not
    computed again; a killed run goes on where it was, and ends with the same bytes.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        store: A `Store` or its folder; None for the one in the user's cache.
        token_budget: As for `harvest`, and so on.
        share_prefixes: Run common beginnings once.
        progress: Show a bar.
        executor: Where it runs.
        **options: The other options of `harvest`, with its defaults and errors.
    """
    require_named(model, "harvested into a store", "or use harvest(...)")
    request = HarvestRequest.of(model, prompts, **options)
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=opened(store),
        progress=progress,
        executor=executor,
    )
    with answered(model, [request], how) as entries:
        assert entries is not None  # there is a store
        return request.stored(entries[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class HarvestRequest(Request):
    """States at points and slots.

    Attributes:
        meta: One row per prompt.
        layouts: Where each prompt's rows of each slot stand.
        dtype: Of what is kept.
        width: Of a state.
        n_heads: As of `Activations`.
    """

    kind: ClassVar[str] = "harvest"
    meta: pd.DataFrame
    layouts: dict[str, SlotLayout]
    dtype: torch.dtype = torch.float32
    width: int
    n_heads: int | None = None

    @classmethod
    def of(
        cls,
        model: HookedModel,
        prompts: PromptsLike,
        *,
        layers: str | int | Sequence[int] = "all",
        slots: str | Sequence[str] = "last",
        site: str = RESID,
        prepend_bos: bool | None = None,
        interventions: Interventions = (),
        dtype: torch.dtype | str = torch.float32,
    ) -> "HarvestRequest":
        """Check everything that can be checked before the model runs.

        Raises:
            ValueError: as `harvest`.
        """
        dtype = checked_dtype(dtype)
        points, names, tokens = prepare(
            model, prompts, layers, slots, prepend_bos, spans(interventions), site
        )
        edits = check(interventions, model, tokens)
        request = cls.asked(model, tokens, points, names, edits, dtype)
        row = len(points) * request.width * dtype.itemsize
        return replace(request, split=by_bytes(request.layouts, row, len(tokens)))

    @classmethod
    def asked(
        cls,
        model: HookedModel,
        tokens: Sequence[TokenizedPrompt],
        points: tuple[Point, ...],
        slots: tuple[str, ...],
        edits: Edits,
        dtype: torch.dtype = torch.float32,
        subject: Subject | None = None,
        meta: pd.DataFrame | None = None,
        **more: Any,
    ) -> Self:
        """What is asked of the model as it is now, in one shard."""
        first = points[0]
        return cls(
            subject=subject or Subject.of(model, tokens),
            tokens=tuple(tokens),
            points=points,
            slots=slots,
            edits=edits,
            split=(0, len(tokens)),
            meta=prompt_table(tokens) if meta is None else meta,
            layouts=_layouts(tokens, slots),
            dtype=dtype,
            width=width_at(model, points),
            n_heads=heads_at(model, first.site if isinstance(first, Place) else RESID),
            **more,
        )

    def decided(self) -> dict[str, Any]:
        """Points, slots, and the dtype that is kept."""
        layouts = self.layouts
        return {
            "kept_dtype": str(self.dtype),
            "layers": self.layers,
            **({} if self.site == RESID else {"site": self.site}),
            "slots": {name: digest(at.positions) for name, at in layouts.items()},
            "spans": digest(
                [[list(t.positions(at.slot)) for t in self.tokens] for at in layouts.values()]
            ),
        }

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        if (start, stop) == (0, len(self)):
            return replace(self, split=(0, stop))
        meta = self.meta.iloc[start:stop].reset_index(drop=True)
        layouts = _layouts(self.tokens[start:stop], self.slots)
        return replace(super().part(start, stop), meta=meta, layouts=layouts)

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """A tensor for each slot and layer, and the prompts."""
        found = self.values(model, how, parts)
        tensors = {f"{n}/{p}": v[i] for n, v in found.items() for i, p in enumerate(self.layers)}
        return tensors, self.meta

    def values(
        self, model: HookedModel, how: Execution, parts: Parts | None = None
    ) -> dict[str, Tensor]:
        """`[layer, row, width]` by slot.

        Raises:
            ValueError: a state is not finite.
        """
        layouts = self.layouts
        found = states(
            model,
            self.tokens,
            self.points,
            layouts,
            self.edits,
            token_budget=how.token_budget,
            share=how.share_prefixes,
            dtype=self.dtype,
            progress=how.progress,
            parts=parts,
        )
        for name, kept in found.items():
            offsets = layouts[name].offsets
            require_finite(kept, self.points, name, self.tokens, offsets, self.dtype)
        return found

    def activations(self, values: Mapping[str, Tensor]) -> Activations:
        """What `values` gave, with names."""
        return Activations(
            slots={
                name: SlotValues(values=values[name], offsets=at.offsets, positions=at.positions)
                for name, at in self.layouts.items()
            },
            layers=self.layers,
            meta=self.meta,
            fingerprint=self.subject.fingerprint,
            provenance=self.provenance(None),
            site=self.site,
            n_heads=self.n_heads,
        )

    def stored(self, entry: Entry) -> StoredActivations:
        """What an entry holds, read when it is asked for."""
        return StoredActivations(
            entry=entry,
            tokens=self.tokens,
            bounds=self.split,
            slots=self.slots,
            layers=self.layers,
            site=self.site,
            n_heads=self.n_heads,
            fingerprint=self.subject.fingerprint,
            provenance=self.provenance([entry]),
            meta=self.meta,
        )

    def provenance(self, entries: Sequence[Entry] | None) -> dict[str, Any]:
        """Of results: the model, the dtype, the interventions, and how they came about."""
        return {
            **self.subject.provenance,
            "kept_dtype": str(self.dtype),
            **made_by(entries),
            **({"interventions": self.edits.key} if self.edits else {}),
        }


def _layouts(tokens: Sequence[TokenizedPrompt], slots: Sequence[str]) -> dict[str, SlotLayout]:
    return {name: layout(tokens, parse_slot(name)) for name in slots}
