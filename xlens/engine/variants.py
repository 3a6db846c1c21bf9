"""The same prompts under many interventions; what these have in common runs once."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from xlens.activations import RESID, Activations, SlotValues
from xlens.checks import typed
from xlens.engine.backoff import pass_budget
from xlens.engine.gather import layout
from xlens.engine.harvest import prepare, prompt_table, states
from xlens.engine.interventions import Edits, Interventions, check, spans
from xlens.engine.score import SLOT, ScoreRequest, Scores, sums
from xlens.engine.store import Store
from xlens.engine.stored import joined, kept_in, stored
from xlens.engine.trunk import Trunk, start
from xlens.models import HookedModel
from xlens.models.sites import Point, heads_at
from xlens.prompts import Prompt, Prompts, TokenizedPrompt, parse_slot
from xlens.results import versions

# The stream at every layer that something begins at is held at once, for this many bytes of it.
TRUNK_BYTES = 2**30


@typed
def score_variants(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    variants: Mapping[str, Interventions],
    *,
    layers: str | int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
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

    Raises:
        ValueError: no variants, or what `score` refuses; all variants are checked first.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not variants:
        raise ValueError("variants is empty; give interventions by name, () for none.")
    request = ScoreRequest.of(prompts, candidates)
    named = frozenset[str]().union(*(spans(v) for v in variants.values()))
    points, _, tokens = prepare(model, request.texts, layers, SLOT, prepend_bos, named)
    edits = {name: request.bind(variant, model, tokens) for name, variant in variants.items()}
    budget = pass_budget(model, token_budget)
    kept = kept_in(store, model)
    origin = {**model.provenance(tokens), "kept_dtype": "torch.float32", "versions": versions()}
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in edits}
    made_by: list[dict[str, str]] = []
    bounds = _bounds(model, request.owner, [len(t) for t in tokens], edits, points)
    n = len(edits) * (len(bounds) - 1)
    with tqdm(total=n, desc="variants", unit="run", disable=not progress) as bar:
        for first, last in pairwise(bounds):
            some, at = request.part(first, last)
            mine = {name: e.take(range(at.start, at.stop)) for name, e in edits.items()}
            chunk = _Chunk(model, tokens[at], points, [SLOT], mine, budget, bar)
            for name, edit in mine.items():
                read = partial(chunk.scores, edit)
                if kept is None:
                    table = read(0, len(some.texts))
                else:
                    table, by = some.stored(kept, model, origin, tokens[at], points, edit, read)
                    made_by.append(by)
                tables[name].append(table)
                bar.update()
    origin |= {"versions": joined(made_by)} if made_by else {}
    return {
        name: request.result(
            pd.concat(tables[name], ignore_index=True),
            points,
            {**origin, "interventions": edit.key} if edit else origin,
        )
        for name, edit in edits.items()
    }


@typed
def harvest_variants(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
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

    Raises:
        ValueError: no variants, or what `harvest` refuses; all variants are checked first.
        MemoryError: a single prompt doesn't fit in memory.
    """
    if not variants:
        raise ValueError("variants is empty; give interventions by name, () for none.")
    named = frozenset[str]().union(*(spans(v) for v in variants.values()))
    points, names, tokens = prepare(model, prompts, layers, slots, prepend_bos, named, site)
    edits = {name: check(variant, model, tokens) for name, variant in variants.items()}
    budget = pass_budget(model, token_budget)
    kept = kept_in(store, model)
    origin = {**model.provenance(tokens), "kept_dtype": "torch.float32", "versions": versions()}
    meta = prompt_table(tokens)
    made_by: list[dict[str, str]] = []
    found: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in edits}
    owners = range(len(tokens))
    bounds = _bounds(model, owners, [len(t) for t in tokens], edits, points)
    n = len(edits) * (len(bounds) - 1)
    with tqdm(total=n, desc="variants", unit="run", disable=not progress, leave=False) as bar:
        for first, last in pairwise(bounds):
            mine = {name: e.take(range(first, last)) for name, e in edits.items()}
            chunk = _Chunk(
                model, tokens[first:last], points, names, mine, budget, bar, share_prefixes
            )
            for name, edit in mine.items():
                if kept is None:
                    found[name].append(chunk.states(edit))
                else:
                    held = stored(
                        kept,
                        model,
                        tokens[first:last],
                        points,
                        names,
                        lambda *_, chunk=chunk, edit=edit: chunk.states(edit),
                        dtype=torch.float32,
                        meta=meta.iloc[first:last],
                        provenance=origin,
                        edits=edit.key,
                        kind="variant",
                        whole=True,
                    )
                    made_by.append(held.provenance["versions"])
                    found[name].append({k: v.values for k, v in held.load().slots.items()})
                bar.update()
    origin |= {"versions": joined(made_by)} if made_by else {}
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
            meta=meta,
            fingerprint=model.fingerprint,
            site=site,
            n_heads=heads_at(model, site),
            provenance={**origin, "interventions": edits[variant].key}
            if edits[variant]
            else origin,
        )
        for variant, parts in found.items()
    }


class _Chunk:
    """Some of the prompts; their plain run is made when the first variant is computed."""

    def __init__(
        self,
        model: HookedModel,
        tokens: Sequence[TokenizedPrompt],
        points: tuple[Point, ...],
        slots: Sequence[str],
        edits: Mapping[str, Edits],
        budget: int,
        bar: "tqdm[Any]",
        share: bool = True,
    ) -> None:
        self.model, self.tokens, self.points = model, tokens, points
        self.edits, self.budget, self.bar = list(edits.values()), budget, bar
        self.share = share
        self.trunk: Trunk | None = None
        self.layouts = {name: layout(tokens, parse_slot(name)) for name in slots}

    def states(self, edit: Edits) -> dict[str, torch.Tensor]:
        """What each slot keeps under one variant, `[layer, row, d_model]`."""
        if self.trunk is None:
            begun = time.perf_counter()
            ids = [t.ids for t in self.tokens]
            self.trunk = Trunk(
                self.model, ids, self.edits, self.points, budget=self.budget, share=self.share
            )
            self.plain = time.perf_counter() - begun
        found = states(
            self.model,
            self.tokens,
            self.points,
            self.layouts,
            edit,
            token_budget=self.budget,
            share=True,
            dtype=torch.float32,
            progress=False,
            trunk=self.trunk,
        )
        for values in found.values():
            if not values.isfinite().all():
                raise ValueError(
                    f"{int((~values.isfinite().all(-1)).sum())} states are not finite under the "
                    f"interventions {edit.key}: a smaller strength, or the model in float32."
                )
        return found

    def scores(self, edit: Edits, _start: int, _stop: int) -> pd.DataFrame:
        """The scores of all the chunk's texts under one variant."""
        begun, first = time.perf_counter(), self.trunk is None
        values = self.states(edit)[SLOT]
        at = self.layouts[SLOT]
        slot = SlotValues(values=values, offsets=at.offsets, positions=at.positions)
        found = sums(
            self.model,
            Activations(
                slots={SLOT: slot},
                layers=tuple(int(point) for point in self.points),
                meta=prompt_table(self.tokens),
                fingerprint=self.model.fingerprint,
                provenance={},
            ),
        )
        if first:
            self._tell(edit, self.plain, time.perf_counter() - begun - self.plain)
        return found

    def _tell(self, edit: Edits, plain: float, one: float) -> None:
        """How long the rest will take: a run costs the blocks above its start, and the readout."""
        blocks = self.model.n_layers
        per_block = plain / max(1, max(start(e, self.points) for e in self.edits))
        above = [blocks - start(e, self.points) for e in self.edits]
        readout = max(0.0, one - per_block * (blocks - start(edit, self.points)))
        total = sum(per_block * n + readout for n in above)
        if not self.bar.disable:
            self.bar.write(
                f"{len(above)} runs over {len(self.tokens)} texts: about {total / 60:.1f} minutes "
                "from here, less what the store holds.",
                file=sys.stderr,
            )


def _bounds(
    model: HookedModel,
    owners: Sequence[int],
    lengths: Sequence[int],
    edits: Mapping[str, Edits],
    points: Sequence[Point],
) -> list[int]:
    """Prompts in chunks whose kept stream takes about `TRUNK_BYTES`, shared beginnings or not."""
    held = len({start(e, points) for e in edits.values()})
    bounds, size = [0], 0
    for owner, length in zip(owners, lengths, strict=True):
        if size > TRUNK_BYTES and owner > bounds[-1]:
            bounds.append(owner)
            size = 0
        size += length * held * model.d_model * model.dtype.itemsize
    return [*bounds, owners[-1] + 1]
