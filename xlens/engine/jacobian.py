"""`jacobians`: how the last point of the stream follows each point below it, summed over prompts.

Of one prompt, row i of the matrix at point l is the gradient of the last point's i-th number, added
up over all positions from `skip` to the last but one, at point l, and its mean over the same
positions (Gurnee et al. 2026, transformer-circuits.pub/2026/workspace; the reference code's
estimator). What stands before `skip` can't follow what comes after it: keys and values of it are
made once, without a graph. A prompt may give a part of the rows only (see `dealt`).
"""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.bars import tqdm
from xlens.checks import typed
from xlens.engine.backoff import pass_budget
from xlens.engine.executors import Executor
from xlens.engine.folded import FoldedMLP, mlps_folded
from xlens.engine.graphs import body_pass, in_passes, parted, weights_constant
from xlens.engine.halving import Note, until_done
from xlens.engine.interventions import Edits
from xlens.engine.many_rows import for_many_rows
from xlens.engine.plan import Tokens
from xlens.engine.positions import fresh
from xlens.engine.request import Execution, Request, Shard, Subject
from xlens.engine.stored import answered, made_by
from xlens.engine.trust import shares_prefixes
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, PromptsLike, TokenizedPrompt, tokenize
from xlens.stats import generator
from xlens.store import Parts, Store

# Tokens times rows in a backward pass.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 16_384}
# Backward passes of a block before the next block's: they share the matrix that its MLP is made.
AT_ONCE = 32
# Multiplications in them, all blocks together: about five minutes of one core. A kill loses these.
MOST_WORK = {"cpu": 10**13, "cuda": 10**15}
GRAPH_TOKENS = {"cpu": 512, "cuda": 4_096}  # whose intermediate values are held at once
# A shard is a matrix for every point, however many prompts it is the sum of.
MOST_SHARDS = 8


@dataclass(frozen=True, kw_only=True)
class JacobianSums:
    """What `jacobians` gives.

    Attributes:
        sums: Over the prompts, by layer.
        counts: How many prompts gave each row.
        layers: Which residual points.
        provenance: Of the model and the prompts, and how it was made.
    """

    sums: Float[np.ndarray, "layer d_model d_model"]
    counts: Int[np.ndarray, " d_model"]
    layers: tuple[int, ...]
    provenance: dict[str, Any]


def dealt(d_model: int, rotation: int, n: int, seed: int) -> list[tuple[int, ...]]:
    """Which rows each of `n` prompts gives: 1/`rotation` of them, each row given as often.

    Both which rows go together and the order in which they are dealt are drawn, the latter anew
    for every round: prompts of some kind that come in a regular order don't get the same rows.

    Raises:
        ValueError: `n` is no multiple of `rotation`: some rows would rest on more prompts.
    """
    if not 1 <= rotation <= d_model:
        raise InputError(f"rotation is {rotation} with {d_model} rows; accepted is 1 to {d_model}.")
    if n % rotation:
        raise InputError(
            f"{n} prompts, each with 1/{rotation} of the rows, can't give all equally often: give "
            f"{n - n % rotation or rotation} or {n - n % rotation + rotation} of them, or another "
            "rotation."
        )
    draw = generator(seed)
    order = np.arange(d_model) if rotation == 1 else draw.permutation(d_model)
    rows = [tuple(sorted(map(int, part))) for part in np.array_split(order, rotation)]
    rounds = [draw.permutation(rotation) for _ in range(n // rotation)]
    return [rows[i] for i in np.concatenate(rounds)] if rounds else []


@typed
def jacobians(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    layers: str | int | Sequence[int] = "all",
    skip: int = 16,
    max_tokens: int = 128,
    rotation: int = 1,
    seed: int = 0,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> JacobianSums:
    """How the last residual point follows those below it, summed over prompts.

    Args:
        model: From `xlens.load`, in the precision that gradients are to be made in.
        prompts: Texts.
        layers: Residual points; "all" is every one below the last, the embedding among them.
        skip: Positions at the beginning that are left out: attention rests there, and states are
            unlike all others.
        max_tokens: Tokens of each prompt that are read.
        rotation: Each prompt gives 1/`rotation` of the rows, drawn with `seed`: as many times
            cheaper.
        seed: Of that.
        token_budget: Most tokens times rows in a backward pass; halved when memory runs out.
        store: Where sums are kept: a killed run goes on where it was. None keeps nothing.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: a prompt that is too short, prompts that can't give all rows equally often,
            points that are not there or not below the last, or a model that passes no gradient.
        MemoryError: a single prompt doesn't fit in memory.
    """
    every = range(model.n_layers)
    points = tuple(every) if layers == "all" else model.layers(layers)
    if not points or points[-1] >= model.n_layers:
        raise InputError(
            f"layers is {layers!r}: what the last point follows lies at points 0 to "
            f"{model.n_layers - 1}; the last, {model.n_layers}, follows itself."
        )
    if skip < 0 or max_tokens < skip + 2:
        raise InputError(
            f"skip is {skip} and max_tokens {max_tokens}; accepted are 0 or more positions, and at "
            "least two tokens after them."
        )
    items = list(Prompts.of(prompts))
    tokens = _heads(model, items, max_tokens)
    if short := [t for t in tokens if len(t.ids) < skip + 2]:
        raise InputError(
            f"{len(short)} of {len(tokens)} prompts have fewer than {skip + 2} tokens, first "
            f"{short[0].prompt.id!r} with {len(short[0].ids)}: the first {skip} are skipped and "
            "the last has nothing to predict. Join short texts, leave them out, or lower skip."
        )
    rows = dealt(model.d_model, rotation, len(tokens), seed)
    request = JacobianRequest(
        subject=Subject.of(model, tokens),
        tokens=tuple(tokens),
        points=points,
        slots=("all",),
        edits=Edits((), []),
        split=_split(len(tokens)),
        skip=skip,
        rows=tuple(rows),
    )
    how = Execution(token_budget=token_budget, store=store, progress=progress, executor=executor)
    with answered(model, [request], how) as entries:
        sums = torch.zeros(len(points), model.d_model, model.d_model)
        for number in range(request.shards):  # one at a time, as they are large
            if entries is None:
                shard = request.shard(number).compute(model, how)[0]
            else:
                shard = entries[0].read(number)
            sums += shard["sums"]
        came = made_by(entries)
    counts = np.zeros(model.d_model, dtype=np.int64)
    for mine in rows:
        counts[list(mine)] += 1
    return JacobianSums(
        sums=sums.numpy(),
        counts=counts,
        layers=points,
        provenance={**request.subject.provenance, **came},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class JacobianRequest(Request):
    """Sums of Jacobians over prompts.

    Attributes:
        skip: Positions left out at the beginning.
        rows: Of each prompt.
    """

    kind: ClassVar[str] = "jacobian"
    skip: int
    rows: tuple[tuple[int, ...], ...]

    def decided(self) -> dict[str, Any]:
        """Points, positions and rows."""
        return {"layers": self.layers, "skip": self.skip, "rows": self.rows}

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        return replace(super().part(start, stop), rows=self.rows[start:stop])

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """`[point, d_model, d_model]`, summed over the prompts."""
        sums = torch.zeros(len(self.points), model.d_model, model.d_model)
        ids = [t.ids[:-1] for t in self.tokens]  # the last has nothing to predict
        lengths = list(map(len, ids))
        budget = pass_budget(model, how.token_budget, TOKEN_BUDGET)
        # No more prompts than give all their rows in the passes that share an MLP's matrices.
        most = AT_ONCE * budget // max(map(len, self.rows))
        most = max(1, min(most, pass_budget(model, None, GRAPH_TOKENS)))
        total = sum(n * len(rows) for n, rows in zip(lengths, self.rows, strict=True))
        bar = tqdm(
            total=total,
            desc=f"Jacobians of {len(self)} prompts",
            unit="tok",
            unit_scale=True,
            disable=not how.progress,
            leave=False,
        )

        kept: Mapping[str, Tensor] = {} if parts is None else parts.sum()
        finished = set[int]() if parts is None else set(parts.done)
        if kept:
            sums.copy_(kept["sums"])

        def attempt(left: Sequence[int], budget: int, note: Note) -> Generator[Sequence[int]]:
            # Planned as if nothing were done, so that no value depends on where a run was cut off.
            for some in in_passes(model, ids, left, min(budget, most)):
                rest = [i for i in some if i not in finished]
                here, begun = torch.zeros_like(sums), 0
                if kept and kept["under_way"].tolist() == rest:
                    here, begun = kept["here"].clone(), int(kept["next"])
                note(rest, budget)
                for upto in _add_rows(self, model, ids, rest, budget, here, begun):
                    bar.update(sum(lengths[i] * len(self.rows[i][begun:upto]) for i in rest))
                    begun = upto
                    if parts is not None:
                        state = {"sums": sums, "here": here, "next": torch.tensor(upto)}
                        state["under_way"] = torch.tensor(rest)
                        parts.keep_sum(sorted(finished), state)
                sums.add_(here)
                finished.update(rest)
                yield some

        with bar:
            until_done(
                lengths,
                budget,
                attempt,
                alone="The graph of one prompt of {} tokens",
                advice="Lower max_tokens, ask for deeper layers only, or use a smaller dtype.",
            )
        if not sums.isfinite().all():
            raise InputError(
                f"Jacobians of {model.name} are not finite in {model.dtype}: load it in float32 "
                "or bfloat16."
            )
        table = pd.DataFrame({"id": [t.prompt.id for t in self.tokens], "n_tokens": lengths})
        return {"sums": sums}, table


def _add_rows(
    request: JacobianRequest,
    model: HookedModel,
    ids: Sequence[Tokens],
    some: Sequence[int],
    budget: int,
    into: Float[Tensor, "point d_model d_model"],
    start: int,
) -> Generator[int]:
    """Add the rows of some prompts from the `start`-th on; gives the next whenever some are in."""
    if not some:
        return
    prompts, rows = [ids[i] for i in some], [request.rows[i] for i in some]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(model.evaluating())
        stack.enter_context(fresh(model))
        stack.enter_context(weights_constant(model))
        points = request.layers
        with for_many_rows(model), mlps_folded(model) as folded:
            begins, ends, first = _graphs(model, prompts, min(points), request.skip)
        top = ends[model.n_layers]
        counted = torch.zeros(top.shape[:2], device=top.device)
        for b, prompt in enumerate(prompts):
            counted[b, request.skip - first : len(prompt) - first] = 1.0
        share = counted / counted.sum(1, keepdim=True)
        each = max(1, budget // counted.numel())
        many = each * _at_once(model, counted.numel() * each)
        for at in range(start, max(map(len, rows)), many):
            now = [torch.tensor(mine[at : at + many]) for mine in rows]
            towards = top.new_zeros(max(map(len, now)), *top.shape)
            for b, mine in enumerate(now):
                which = torch.arange(len(mine), device=top.device)
                towards[which, b, :, mine.to(top.device)] = counted[b].to(top.dtype)
            for point, found in _followed(begins, ends, folded, towards, each):
                if point in points:
                    mean = torch.einsum("rbpd,bp->rbd", found.float(), share.to(found.device)).cpu()
                    for b, mine in enumerate(now):
                        into[points.index(point), mine] += mean[: len(mine), b]
            yield at + many


def _at_once(model: HookedModel, tokens: int) -> int:
    """How many backward passes of so many tokens go through a block before the next one's."""
    weights = sum(p.numel() for block in model.blocks for p in block.parameters())
    most = pass_budget(model, None, MOST_WORK) // (tokens * max(1, weights))
    return min(AT_ONCE, max(1, most))


def _followed(
    begins: Mapping[int, Tensor],
    ends: Mapping[int, Tensor],
    folded: Mapping[int, FoldedMLP],
    towards: Float[Tensor, "row prompt pos d_model"],
    each: int,
) -> Generator[tuple[int, Float[Tensor, "row prompt pos d_model"]]]:
    """Gradients of the last point, many rows of them, at each point below it, from the top."""
    left = {max(ends): towards}
    for point in sorted(begins, reverse=True):
        above, mlp = left.pop(point + 1), folded.get(point)
        back = partial(_one_back, ends[point + 1], begins)
        with mlp.matrices() if mlp and mlp.pays(len(above)) else nullcontext():
            for at in range(0, len(above), each):
                # One graph serves all rows: a row more costs a backward pass and no forward one.
                with warnings.catch_warnings(action="ignore", category=UserWarning):
                    # torch says that its kernels of attention take row by row, however fast.
                    found = torch.func.vmap(back)(above[at : at + each])
                for p, part in found.items():
                    if p not in left:
                        left[p] = part.new_zeros(len(above), *part.shape[1:])
                    left[p][at : at + each] += part
        yield point, left[point]


def _one_back(end: Tensor, begins: Mapping[int, Tensor], row: Tensor) -> dict[int, Tensor]:
    # Of all points: a block may read what an earlier one left (keys and values that are shared).
    found = torch.autograd.grad(
        end, list(begins.values()), row, retain_graph=True, allow_unused=True
    )
    # torch's own annotation has no None, which stands for what is not used.
    each = zip(begins, cast(tuple[Tensor | None, ...], found), strict=True)
    return {p: one for p, one in each if one is not None}


def _graphs(
    model: HookedModel, prompts: Sequence[Tokens], lowest: int, skip: int
) -> tuple[dict[int, Tensor], dict[int, Tensor], int]:
    """The graphs between the points, as `parted`, and the position they begin at."""
    cache, first = None, 0
    if skip and shares_prefixes(model):
        from transformers import DynamicCache

        cache, first = DynamicCache(), skip
        with torch.no_grad():
            body_pass(model, [p[:skip] for p in prompts], cache=cache)
    begins, ends = parted(model, [p[first:] for p in prompts], lowest, first=first, cache=cache)
    if not ends[model.n_layers].requires_grad:
        raise InputError(
            f"{model.name} passes no gradient through its blocks (quantised weights?); load it in "
            "float32 or bfloat16."
        )
    return begins, ends, first


def _heads(model: HookedModel, items: Sequence[Prompt], most: int) -> list[TokenizedPrompt]:
    """The first tokens of each text, which may be longer than the model's context."""
    if model.n_ctx is not None and most > model.n_ctx:
        raise InputError(f"max_tokens is {most}, but {model.name} reads at most {model.n_ctx}.")
    found = tokenize(model.tokenizer, items, spans=frozenset())
    if foreign := [t for t in found if max(t.ids) >= model.d_vocab]:
        raise InputError(
            f"Prompt {foreign[0].prompt.id!r} has the token id {max(foreign[0].ids)}, but "
            f"{model.name} has {model.d_vocab}: the tokenizer is another model's."
        )
    return [replace(t, ids=t.ids[:most], offsets=t.offsets[:most]) for t in found]


def _split(n: int) -> tuple[int, ...]:
    """In at most `MOST_SHARDS`, as alike as can be."""
    return tuple(round(i * n / min(n, MOST_SHARDS)) for i in range(min(n, MOST_SHARDS) + 1))
