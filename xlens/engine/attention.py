"""`attention`: the mass that each head puts on named spans from a position; no pattern is kept."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float32
from torch import Tensor

from xlens.checks import typed
from xlens.engine.backoff import pass_budget, run_all
from xlens.engine.copies import HostCopies
from xlens.engine.executors import Executor
from xlens.engine.gather import Seats
from xlens.engine.interventions import Edits
from xlens.engine.progress import token_bar
from xlens.engine.request import Execution, Request, Shard, Subject, split
from xlens.engine.states import prompt_table
from xlens.engine.stored import answered, made_by, tensors_of
from xlens.engine.trunk import Distinct
from xlens.engine.trust import shares_prefixes
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.hooks import instead, zeroed
from xlens.models.kernels import Given, NotTheseWeights, showing
from xlens.models.sites import Keep, Point, n_heads
from xlens.prompts import Prompts, PromptsLike, TokenizedPrompt, parse_slot
from xlens.results import Result
from xlens.store import Parts, Store, digest

SHARD_PROMPTS = 256  # prompts whose attention a kill loses at most
# Of rows and queries of a pass, their weights `[n, head, key]` in fp32.
_Weights = Callable[[Tensor, Tensor], Tensor]
_See = Callable[[int, int, _Weights], None]


@dataclass(frozen=True, kw_only=True)
class AttentionMass(Result):
    """How much of a position's attention lies on spans. Made by `attention`.

    Attributes:
        mass: Share of the position's attention on each span's tokens.
        top: Whether the token with the largest weight lies in the span.
        rest: Share on tokens of no span. With the masses of spans that don't overlap, and `sink`,
            it makes 1.
        sink: Share that goes to no token (gpt-oss); 0 elsewhere.
        spans: Their names.
        layers: Blocks.
        prompts: One row per prompt.
        slot: The position that attends.
        provenance: Model and versions.
    """

    mass: Float32[np.ndarray, "prompt layer head span"]
    top: Bool[np.ndarray, "prompt layer head span"]
    rest: Float32[np.ndarray, "prompt layer head"]
    sink: Float32[np.ndarray, "prompt layer head"]
    spans: tuple[str, ...]
    layers: tuple[int, ...]
    prompts: pd.DataFrame
    slot: str
    provenance: dict[str, Any]


@typed
def attention(
    model: HookedModel,
    prompts: PromptsLike,
    spans: str | Sequence[str],
    *,
    slot: str = "last",
    layers: str | int | Sequence[int] = "all",
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> AttentionMass:
    """Read how much each head looks at named spans from one position.

    Worked out for this position alone, from what the attention kernel is given (rotary, norms of
    queries and keys, soft-cap, window, sinks and the keys of shared prefixes included), and held
    against what it makes of it. Families that call no kernel (BLOOM, MPT, Falcon, GPT-J, GPT-Neo,
    CodeGen, XGLM) are asked for their own weights.

    Args:
        model: From `xlens.load`.
        prompts: What to run; each has the spans.
        spans: Names of spans of the prompts.
        slot: The position that attends: `last`, `NAME:first` or `NAME:last`.
        layers: Blocks; "all" for every one that has attention.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        share_prefixes: Run common beginnings once.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: an unknown span, slot or block; a family whose attention has no one weight for
            each token (DiffLlama, linear attention), or does something unknown to it.
        MemoryError: a single prompt doesn't fit in memory.
    """
    names = (spans,) if isinstance(spans, str) else tuple(spans)
    at = parse_slot(slot)
    if not at.single:
        raise InputError(
            f"slot={slot!r} is not one position; take 'last', 'NAME:first' or ':last'."
        )
    if not names:
        raise InputError("At least one span is needed.")
    blocks = _blocks(model, layers)
    items = list(Prompts.of(prompts))
    named = frozenset(names) | frozenset([at.span] if at.span else [])
    tokens = model.tokenize(items, prepend_bos=prepend_bos, spans=named)
    request = AttentionRequest(
        subject=Subject.of(model, tokens),
        tokens=tuple(tokens),
        points=blocks,
        slots=(str(at),),
        edits=Edits((), []),
        split=split(len(tokens), SHARD_PROMPTS),
        spans=names,
    )
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=store,
        progress=progress,
        executor=executor,
    )
    with answered(model, [request], how) as entries:
        shards = tensors_of(model, request, how, entries)
        came = made_by(entries)
    return AttentionMass(
        **{name: torch.cat([part[name] for part in shards]).numpy() for name in _Out.names()},
        spans=names,
        layers=blocks,
        prompts=prompt_table(tokens),
        slot=str(at),
        provenance={**request.subject.provenance, **came},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionRequest(Request):
    """Attention from a slot to spans, in blocks.

    Attributes:
        spans: Names of spans.
    """

    kind: ClassVar[str] = "attention"
    spans: tuple[str, ...]

    @property
    def looks(self) -> "list[_Looks]":
        """From where each prompt looks, and onto what."""
        at = parse_slot(self.slots[0])
        return [_Looks(t, t.positions(at)[0], self.spans) for t in self.tokens]

    def decided(self) -> dict[str, Any]:
        """Blocks, and positions."""
        looks = [[each.query, [[s.start, s.stop] for s in each.spans]] for each in self.looks]
        return {"layers": self.layers, "spans": self.spans, "looks": digest(looks)}

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """`mass`, `top`, `rest` and `sink`, `[prompt, layer, head (, span)]`."""
        ids = [t.ids for t in self.tokens]
        found = Distinct.of(ids, ids)
        out = _Out.of(len(ids), len(self.layers), n_heads(model), len(self.spans))
        run = _Run(self.looks, found.owners, out)
        bar = token_bar("attention", self.tokens, how.progress)
        with _looking(model, self.layers, run.see), bar as advance:
            run_all(
                model,
                found.sequences,
                [self.layers[-1] + 1],
                run.watch,
                codes=found.codes,
                budget=pass_budget(model, how.token_budget),
                share=how.share_prefixes and shares_prefixes(model),
                commit=run.copies.commit,
                discard=lambda _: run.copies.discard(),
                advance=lambda done: advance([p for i in done for p in found.owners[i]]),
            )
            run.copies.finish()
        return vars(out), prompt_table(self.tokens)


class _Looks:
    """What is asked of one prompt: from where, and onto which positions."""

    def __init__(self, tokens: TokenizedPrompt, query: int, names: Sequence[str]) -> None:
        self.query = query
        self.spans = [tokens.positions(parse_slot(f"{name}:each")) for name in names]


@dataclass(frozen=True)
class _Out:
    mass: Tensor
    top: Tensor
    rest: Tensor
    sink: Tensor

    @classmethod
    def of(cls, *shape: int) -> "_Out":
        return cls(
            torch.zeros(shape),
            torch.zeros(shape, dtype=torch.bool),
            torch.zeros(shape[:-1]),
            torch.zeros(shape[:-1]),
        )

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


@dataclass
class _Run:
    """Sees the weights of each pass and keeps their sums."""

    wanted: Sequence[_Looks]
    owners: dict[int, list[int]]
    out: _Out
    copies: HostCopies = field(default_factory=HostCopies)
    seats: Seats | None = None

    def watch(self, seats: Seats) -> Keep:
        self.seats = seats

        def nothing(_point: Point, _states: Tensor) -> None:
            return None

        return nothing

    def see(self, number: int, n_keys: int, weights: _Weights) -> None:
        """One block in one pass."""
        if self.seats is None:
            return
        places = [
            (prompt, row, index + self.wanted[prompt].query - first, first, index)
            for sequence, (row, first, held, index) in self.seats.tokens.items()
            for prompt in self.owners[sequence]
            if first <= self.wanted[prompt].query < first + held
        ]
        if not places:
            return
        inside = torch.zeros(len(places), len(self.wanted[0].spans), n_keys, dtype=torch.bool)
        for i, (prompt, _row, _at, first, index) in enumerate(places):
            # The pass's own tokens are the last keys; what it shares ends right before them,
            # less what a sliding window has dropped.
            own = n_keys - self.seats.width
            for j, span in enumerate(self.wanted[prompt].spans):
                keys = [own + index + p - first if p >= first else own - (first - p) for p in span]
                inside[i, j, [k for k in keys if k >= 0]] = True
        # The same text in several prompts is one row of the pass.
        queries = torch.tensor([(row, query) for _, row, query, *_ in places])
        unique, which = queries.unique(dim=0, return_inverse=True)
        of_each = weights(*unique.T)
        picked, mask = of_each[which.to(of_each.device)], inside.to(of_each.device)
        spread = rearrange(picked, "n head key -> n head 1 key")
        mass = (spread * rearrange(mask, "n span key -> n 1 span key")).sum(-1)
        best = picked.argmax(-1)  # [n, head]
        top = mask.transpose(1, 2).gather(1, best[..., None].expand(*best.shape, mask.shape[1]))
        free = ~mask.any(1)
        rest = (picked * free[:, None]).sum(-1)
        sink = (1 - picked.sum(-1)).clamp_min(0)
        prompts = torch.tensor([place[0] for place in places])
        tensors = (self.out.mass, self.out.top, self.out.rest, self.out.sink)
        for out, found in zip(tensors, (mass, top, rest, sink), strict=True):
            self.copies.take(found, partial(_put, out, prompts, number))


def _put(out: Tensor, prompts: Tensor, number: int, found: Tensor) -> None:
    out[prompts, number] = found


def _blocks(model: HookedModel, layers: str | int | Sequence[int]) -> tuple[int, ...]:
    have = [*model.family.attentions(model.blocks)]
    if not have:
        raise InputError(f"{model.name} ({model.family.name}) has no attention that xlens knows.")
    if layers == "all":
        return tuple(have)
    asked = (layers,) if isinstance(layers, int) else layers
    n = model.n_layers
    if isinstance(asked, str) or any(not -n <= x < n or x % n not in have for x in asked):
        raise InputError(f"Unknown block in {layers!r}: {model.name} has attention in {have}.")
    return tuple(sorted({x % n for x in asked}))


@contextmanager
def _looking(model: HookedModel, blocks: Sequence[int], see: _See) -> Generator[None]:
    """Inside, `see` gets the weights of each block, by its number among `blocks`."""
    modules = model.family.attentions(model.blocks)
    watched = {
        modules[block]: _Watched(model, block, partial(see, number))
        for number, block in enumerate(blocks)
    }
    seen = {module: each.given for module, each in watched.items()}
    with model.evaluating(), ExitStack() as stack:
        stack.enter_context(showing(model.hf_model, seen))
        for module, each in watched.items():
            stack.enter_context(instead(module, each.forward))
        stack.enter_context(zeroed(modules.values(), model.family.twice))
        yield


class _Watched:
    """One block's attention: what its kernel is given, or the weights that it gives itself."""

    def __init__(
        self, model: HookedModel, block: int, see: Callable[[int, _Weights], None]
    ) -> None:
        self.name = f"The attention of block {block} of {model.name} ({model.family.name})"
        self.see = see
        self.kernels = 0

    def given(self, given: Given) -> None:
        """The kernel was called."""
        self.kernels += 1
        if self.kernels > 1:
            raise InputError(f"{self.name} is made of several: it has no one weight per token.")
        try:
            self.see(given.n_keys, given.weights)
        except NotTheseWeights as problem:
            raise InputError(f"{self.name} can't be told: {problem}.") from None

    def forward(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        """The module's forward, which may go another way than by a kernel."""
        telling = "output_attentions" in signature(usual).parameters

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.kernels = 0
            if telling:
                kwargs["output_attentions"] = True
            output = usual(*args, **kwargs)
            if self.kernels == 0:
                self._own(output)
            return output

        return forward

    def _own(self, output: Any) -> None:
        parts = output[1:] if isinstance(output, tuple) else ()
        found = [x for x in parts if isinstance(x, Tensor) and _is_pattern(x, output[0])]
        if found:
            self.see(found[0].shape[-1], partial(_picked, found[0]))
            return
        raise InputError(
            f"{self.name} gives no weights. If the model was loaded for flash attention, load it "
            "with attention='eager'."
        )


def _is_pattern(weights: Tensor, output: Tensor) -> bool:
    """Whether these are weights `[batch, head, query, key]`: what linear attention gives is not."""
    if weights.ndim != 4 or (weights.shape[0], weights.shape[2]) != output.shape[:2]:
        return False
    last = weights[:, :, -1].float()
    return bool((last >= 0).all()) and bool(((last.sum(-1) - 1).abs() < 0.02).all())


def _picked(weights: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
    return weights[rows.to(weights.device), :, queries.to(weights.device)].float()
