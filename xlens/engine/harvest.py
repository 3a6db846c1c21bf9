"""`harvest`: prompts through a model, residual-stream states out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xlens.activations import RESID, Activations, SlotValues
from xlens.checks import typed
from xlens.engine.backoff import pass_budget, run_all
from xlens.engine.copies import HostCopies
from xlens.engine.gather import Seats, SlotLayout, layout, picks
from xlens.engine.interventions import Edits, Interventions, check, spans
from xlens.engine.plan import Batch
from xlens.engine.progress import token_bar
from xlens.engine.store import Parts, Store
from xlens.engine.stored import StoredActivations, kept_in, opened, stored
from xlens.engine.trunk import Distinct, Trunk
from xlens.engine.trust import shares_prefixes
from xlens.models import HookedModel
from xlens.models.hf import check_dtype
from xlens.models.sites import Keep, Point, heads_at, places, width_at
from xlens.prompts import Prompt, Prompts, TokenizedPrompt, parse_slot
from xlens.results import versions


@typed
def harvest(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    *,
    layers: str | int | Sequence[int] = "all",
    slots: str | Sequence[str] = "last",
    site: str = RESID,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    dtype: torch.dtype = torch.float32,
    store: Store | str | Path | None = None,
    progress: bool = True,
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
        dtype: Of what is kept.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show a bar with prompts and tokens per second.

    Returns:
        Activations in the prompts' order.

    Raises:
        ValueError: unknown layer, slot or span; a prompt that is empty or too long; all before
            the model runs. Also when a state is not finite, naming prompt and layer.
        MemoryError: a single prompt doesn't fit in memory.
    """
    run = Harvest(
        model,
        prompts,
        layers=layers,
        slots=slots,
        prepend_bos=prepend_bos,
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        interventions=interventions,
        site=site,
        dtype=dtype,
        progress=progress,
    )
    kept = kept_in(store, model)
    return run.in_memory() if kept is None else run.on_disk(kept).load()


@typed
def harvest_to_store(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    store: Store | str | Path | None = None,
    **options: Any,
) -> StoredActivations:
    """`harvest` into a store and no further: for what is larger than memory.

    Read it back with `.load(layers=…)` or `.parts()`. What the store holds already is not
    computed again; a killed run goes on where it was, and ends with the same bytes.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        store: A `Store` or its folder; None for the one in the user's cache.
        **options: The other options of `harvest`, with its defaults and errors.
    """
    return Harvest(model, prompts, **options).on_disk(opened(store))


class Harvest:
    """A checked request: what both ways of running it share."""

    def __init__(
        self,
        model: HookedModel,
        prompts: Prompts | Sequence[Prompt],
        *,
        layers: str | int | Sequence[int] = "all",
        slots: str | Sequence[str] = "last",
        site: str = RESID,
        prepend_bos: bool | None = None,
        token_budget: int | None = None,
        share_prefixes: bool = True,
        interventions: Interventions = (),
        bind: Callable[[Sequence[TokenizedPrompt]], Edits] | None = None,
        dtype: torch.dtype = torch.float32,
        progress: bool = True,
    ) -> None:
        check_dtype(dtype)
        self.points, self.names, self.tokens = prepare(
            model, prompts, layers, slots, prepend_bos, spans(interventions), site
        )
        self.site = site
        self.edits = bind(self.tokens) if bind else check(interventions, model, self.tokens)
        self.model, self.dtype = model, dtype
        self.options: dict[str, Any] = {
            "token_budget": token_budget,
            "share": share_prefixes,
            "dtype": dtype,
            "progress": progress,
        }
        self.meta = prompt_table(self.tokens)
        self.provenance = {
            **model.provenance(self.tokens),
            "kept_dtype": str(dtype),
            "versions": versions(),
        }
        if self.edits:
            self.provenance["interventions"] = self.edits.key

    def compute(self, start: int, stop: int, parts: Parts | None = None) -> dict[str, Tensor]:
        """Values by slot of prompts `start:stop`; of them, `parts` keeps what is done."""
        tokens = self.tokens[start:stop]
        layouts = {name: layout(tokens, parse_slot(name)) for name in self.names}
        edits = self.edits.take(range(start, stop))
        values = states(
            self.model, tokens, self.points, layouts, edits, **self.options, parts=parts
        )
        for name, kept in values.items():
            offsets = layouts[name].offsets
            _require_finite(kept, self.points, name, tokens, offsets, self.dtype)
        return values

    def in_memory(self) -> Activations:
        """Run all and hold it."""
        return self.part(0, len(self.tokens))

    def part(self, start: int, stop: int) -> Activations:
        """Run prompts `start:stop` and hold their states."""
        tokens = self.tokens[start:stop]
        layouts = {name: layout(tokens, parse_slot(name)) for name in self.names}
        values = self.compute(start, stop)
        return Activations(
            slots={
                name: SlotValues(values=values[name], offsets=at.offsets, positions=at.positions)
                for name, at in layouts.items()
            },
            layers=tuple(int(point) for point in self.points),
            meta=self.meta.iloc[start:stop].reset_index(drop=True),
            fingerprint=str(self.provenance["fingerprint"]),
            provenance=self.provenance,
            site=self.site,
            n_heads=heads_at(self.model, self.site),
        )

    def on_disk(self, store: Store) -> StoredActivations:
        """Run what the store lacks."""
        return stored(
            store,
            self.model,
            self.tokens,
            self.points,
            self.names,
            self.compute,
            dtype=self.dtype,
            meta=self.meta,
            provenance=self.provenance,
            edits=self.edits.key,
        )


def prepare(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    layers: str | int | Sequence[int],
    slots: str | Sequence[str],
    prepend_bos: bool | None,
    further_spans: frozenset[str] = frozenset(),
    site: str = RESID,
) -> tuple[tuple[Point, ...], tuple[str, ...], list[TokenizedPrompt]]:
    """Check everything that can be checked before the model runs.

    Returns:
        Residual points or places of the site, slot names, tokenised prompts.
    """
    points = places(model, site, layers)
    if points:
        width_at(model, points)
    parsed = {str(s): s for s in map(parse_slot, [slots] if isinstance(slots, str) else slots)}
    if not points or not parsed:
        raise ValueError("At least one layer and one slot are needed.")
    items = list(prompts if isinstance(prompts, Prompts) else Prompts(prompts))
    named = frozenset(s.span for s in parsed.values() if s.span is not None)
    tokens = model.tokenize(items, prepend_bos=prepend_bos, spans=named | further_spans)
    for prompt in tokens:
        for slot in parsed.values():
            prompt.positions(slot)
    return points, tuple(parsed), tokens


def states(
    model: HookedModel,
    tokens: Sequence[TokenizedPrompt],
    points: Sequence[Point],
    layouts: dict[str, SlotLayout],
    edits: Edits,
    *,
    token_budget: int | None,
    share: bool,
    dtype: torch.dtype,
    progress: bool,
    trunk: Trunk | None = None,
    parts: Parts | None = None,
) -> dict[str, Tensor]:
    """Run prompts and fill each slot's `[layer, row, d_model]`.

    Raises:
        ValueError: a token budget below 1.
        MemoryError: a single prompt doesn't fit in memory.
    """
    found = (
        trunk.distinct
        if trunk
        else Distinct.of([t.ids for t in tokens], edits.codes([t.ids for t in tokens]))
    )
    prompts_of = found.owners
    out = {
        name: torch.zeros(len(points), len(at.positions), width_at(model, points), dtype=dtype)
        for name, at in layouts.items()
    }
    index = {layer: i for i, layer in enumerate(points)}
    kept: list[tuple[str, int, Tensor, Tensor]] = []
    copies = HostCopies()

    def watch(seats: Seats) -> Keep:
        found = {
            name: chosen
            for name, at in layouts.items()
            if (chosen := picks(seats, at, tokens, prompts_of)) is not None
        }
        # Indices are moved once to each device that holds blocks.
        placed = {
            device: {name: chosen.to(device) for name, chosen in found.items()}
            for device in model.devices
        }
        change = edits.prepare(seats, prompts_of) if edits else None

        def keep(layer: Point, resid: Tensor) -> Tensor | None:
            changed = None if change is None else change(layer, resid)
            if layer not in index:
                return changed
            here = resid if changed is None else changed
            for name, chosen in placed[here.device].items():
                host = copies.take(chosen(here).to(dtype))
                kept.append((name, index[layer], chosen.rows, host))
            return changed

        return keep

    def commit() -> None:
        copies.wait()
        for name, layer, rows, host in kept:
            # A mean over a span that a shared prefix cuts comes in two parts.
            out[name][layer].index_add_(0, rows, host)
        kept.clear()

    if trunk:
        trunk.run(edits, points, watch, commit)
        return out

    def rows(name: str, sequences: Sequence[int]) -> list[int]:
        starts = layouts[name].offsets.tolist()
        prompts = [p for i in sequences for p in prompts_of[i]]
        return [row for p in prompts for row in range(starts[p], starts[p + 1])]

    with token_bar("harvest", tokens, progress) as bar:

        def advance(done: Sequence[int]) -> None:
            bar([p for i in done for p in prompts_of[i]])

        def finished(done: Sequence[int]) -> None:
            if parts is not None:
                parts.keep(done, out, rows)
            advance(done)

        def skip(batch: Batch) -> bool:
            if parts is None or not parts.done.issuperset(batch.members):
                return False
            parts.restore(batch.members, out, rows)
            advance(batch.members)
            return True

        run_all(
            model,
            found.sequences,
            edits.visiting(points),
            watch,
            codes=found.codes,
            budget=pass_budget(model, token_budget),
            share=share and shares_prefixes(model),
            commit=commit,
            discard=kept.clear,
            advance=finished,
            skip=skip,
        )
    return out


def prompt_table(tokens: Sequence[TokenizedPrompt]) -> pd.DataFrame:
    """One row per prompt: `id`, `language`, `n_tokens`, `tokens` and its meta."""
    rows: list[dict[str, Any]] = [
        {
            "id": t.prompt.id,
            "language": t.prompt.language,
            "n_tokens": len(t),
            "tokens": list(t.ids),
            **t.prompt.meta,
        }
        for t in tokens
    ]
    return pd.DataFrame(rows)


def _require_finite(
    values: Tensor,
    layers: Sequence[Point],
    slot: str,
    tokens: Sequence[TokenizedPrompt],
    offsets: Tensor,
    dtype: torch.dtype,
) -> None:
    finite = values.isfinite().all(-1)
    if finite.all():
        return
    layer, row = (~finite).nonzero()[0].tolist()
    prompt = tokens[int(torch.searchsorted(offsets, row, right=True)) - 1].prompt
    raise ValueError(
        f"{int((~finite).sum())} states are not finite; the first is layer {layers[layer]}, slot "
        f"{slot!r}, prompt {prompt.id!r} ({prompt.language}), kept as {dtype}. fp16 overflows at "
        "65,504 (Gemma's residual passes it at position 0): load the model in float32 or bfloat16."
    )
