"""States of prompts at points and slots: what every verb that reads states goes through."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import sub
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xlens.engine.backoff import pass_budget, run_all
from xlens.engine.copies import HostCopies
from xlens.engine.gather import Picks, Seats, SlotLayout, picks
from xlens.engine.interventions import Edits
from xlens.engine.plan import Batch
from xlens.engine.progress import token_bar
from xlens.engine.trunk import Distinct, Trunk
from xlens.engine.trust import shares_prefixes
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.sites import Keep, Point, places, width_at
from xlens.prompts import Prompts, PromptsLike, TokenizedPrompt, parse_slot
from xlens.sites import RESID
from xlens.store import Parts

# Of prompts with one beginning, so many passes are kept at a time: else a kill would lose them all.
# Each run of them computes the beginning again.
KEPT_PASSES = 8
RUN = 2**15  # numbers that torch gives to one thread
TAKEN = 2**20  # numbers that are copied at a time where a copy of all would double the memory


def prepare(
    model: HookedModel,
    prompts: PromptsLike,
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
        raise InputError("At least one layer and one slot are needed.")
    items = list(Prompts.of(prompts))
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
        add = {name: _adder(chosen, out[name].shape[-1]) for name, chosen in found.items()}
        change = edits.prepare(seats, prompts_of) if edits else None

        def keep(layer: Point, resid: Tensor) -> Tensor | None:
            changed = None if change is None else change(layer, resid)
            if layer not in index:
                return changed
            here = resid if changed is None else changed
            for name, chosen in placed[here.device].items():
                picked = chosen(here)
                # Narrowed before it leaves the device, widened on the host.
                narrow = dtype if dtype.itemsize < picked.dtype.itemsize else picked.dtype
                copies.take(picked.to(narrow), partial(add[name], out[name][index[layer]]))
            return changed

        return keep

    if trunk:
        trunk.run(edits, points, watch, copies.commit)
        copies.finish()
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

        def discard(failed: Sequence[int]) -> None:
            copies.discard()
            copies.finish()
            for name, values in out.items():  # what they begin with may have landed
                values[:, rows(name, failed)] = 0

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
            commit=copies.commit,
            discard=discard,
            # What a store keeps of a batch is taken up where all of it is there: passes by
            # themselves would be written and run again.
            by_pass=parts is None,
            advance=lambda done: copies.then(lambda: finished(done)),
            skip=skip,
            longest=None if parts is None else KEPT_PASSES,
        )
        copies.finish()
    return out


def _adder(chosen: Picks, width: int) -> Callable[[Tensor, Tensor], None]:
    """What adds a pass's states to their rows, at each layer.

    It adds: a mean over a span that a shared prefix cuts comes in two parts.
    """
    rows = chosen.rows
    source = torch.arange(len(rows)) if chosen.source is None else chosen.source
    cuts = ((rows.diff() != 1) | (source.diff() != 1)).nonzero().squeeze(-1) + 1
    first, last = [0, *cuts.tolist()], [*cuts.tolist(), len(rows)]
    runs = [*zip(rows[first].tolist(), source[first].tolist(), map(sub, last, first), strict=True)]
    some = max(1, TAKEN // width)

    def by_index(into: Tensor, host: Tensor) -> None:
        if chosen.source is None:
            into.index_add_(0, rows, host.to(into.dtype))
            return
        for to, of in zip(rows.split(some), source.split(some), strict=True):
            into.index_add_(0, to, host[of].to(into.dtype))

    def in_runs(into: Tensor, host: Tensor) -> None:
        for to, of, n in runs:
            into[to : to + n] += host[of : of + n]

    # Of `all`, a prompt's rows lie side by side: long runs are added by several threads and widened
    # on the way; short ones cost more than their index.
    return in_runs if len(rows) * width >= RUN * len(runs) else by_index


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


def require_finite(
    values: Tensor,
    layers: Sequence[Point],
    slot: str,
    tokens: Sequence[TokenizedPrompt],
    offsets: Tensor,
    dtype: torch.dtype,
) -> None:
    """Refuse states that are not finite.

    Raises:
        ValueError: some are not; names the first.
    """
    # Some at a time: torch makes a copy of what it looks at.
    some = max(1, TAKEN // values.shape[-1])
    finite = torch.stack(
        [torch.cat([part.isfinite().all(-1) for part in rows.split(some)]) for rows in values]
    )
    if finite.all():
        return
    layer, row = (~finite).nonzero()[0].tolist()
    prompt = tokens[int(torch.searchsorted(offsets, row, right=True)) - 1].prompt
    raise InputError(
        f"{int((~finite).sum())} states are not finite; the first is layer {layers[layer]}, slot "
        f"{slot!r}, prompt {prompt.id!r} ({prompt.language}), kept as {dtype}. fp16 overflows at "
        "65,504 (Gemma's residual passes it at position 0): load the model in float32 or bfloat16."
    )
