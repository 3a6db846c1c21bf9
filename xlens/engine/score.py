"""`score`: exact log-probabilities of continuations, at the output or at any layer."""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine.executors import Executor
from xlens.engine.harvest import HarvestRequest
from xlens.engine.interventions import Edits, Interventions, check, spans
from xlens.engine.request import Execution, Shard
from xlens.engine.states import prepare
from xlens.engine.stored import answered
from xlens.engine.stream import stream
from xlens.engine.transport import Transport
from xlens.errors import InputError
from xlens.lengths import WAYS, compared
from xlens.models import HookedModel
from xlens.models.sites import Point
from xlens.prompts import Prompt, Prompts, PromptsLike, TokenizedPrompt
from xlens.prompts.prompt import first_prompt
from xlens.results import Result, analysed
from xlens.store import Parts, Store

SHARD_PROMPTS = 256
_SPAN = "candidate"
SLOT = f"{_SPAN}:predict"
_COLUMNS = ["id", "language", "layer", "candidate", "text", "logprob", "n_tokens", *WAYS[1:]]


@dataclass(frozen=True, kw_only=True)
class Scores(Result):
    """Log-probability of each candidate after its prompt.

    Attributes:
        table: One row per prompt, layer and candidate: `id language layer candidate text
            logprob n_tokens mean_logprob byte_logprob char_logprob`. `logprob` is summed over the
            candidate's tokens, in nats; the others are that per token, per byte and per character
            (see `xlens.lengths`).
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def best(self, *, by: str = "logprob") -> pd.DataFrame:
        """The row of the most probable candidate of each prompt and layer.

        Args:
            by: `logprob` (summed), or `mean_logprob`, `byte_logprob`, `char_logprob`.

        Raises:
            ValueError: another column.
        """
        if by not in WAYS:
            raise InputError(f"by is {by!r}; accepted are {', '.join(map(repr, WAYS))}.")
        cells = [self.table[name] for name in ("id", "language", "layer")]
        where = compared(self.table, by).groupby(cells, sort=False).idxmax()
        return self.table.loc[where].reset_index(drop=True)


@dataclass(frozen=True)
class Offered:
    """Prompts with their candidates, as what the model runs.

    Attributes:
        asked: The prompts.
        candidates: Of each.
        texts: Prompt and candidate together, with a span for the candidate.
        owner: For each of these, which prompt it is of.
    """

    asked: list[Prompt]
    candidates: list[list[str]]
    texts: list[Prompt]
    owner: list[int]

    @classmethod
    def of(
        cls,
        prompts: PromptsLike,
        candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    ) -> "Offered":
        """Check candidates and put them behind their prompts.

        Raises:
            ValueError: as `score`.
        """
        asked = list(Prompts.of(prompts))
        offered = _per_prompt(asked, candidates)
        texts = [
            Prompt(
                prompt.text + text,
                prompt.language,
                f"{prompt.id}\0{n}",
                {**prompt.spans, _SPAN: (len(prompt.text), len(prompt.text) + len(text))},
            )
            for prompt, mine in zip(asked, offered, strict=True)
            for n, text in enumerate(mine)
        ]
        return cls(asked, offered, texts, [i for i, mine in enumerate(offered) for _ in mine])

    def __len__(self) -> int:
        return len(self.asked)

    @property
    def split(self) -> tuple[int, ...]:
        """Texts in shards of whole prompts: their candidates share a pass."""
        firsts = [bisect_left(self.owner, i) for i in range(0, len(self), SHARD_PROMPTS)]
        return (*firsts, len(self.texts))

    def bind(
        self, interventions: Interventions, model: HookedModel, tokens: Sequence[TokenizedPrompt]
    ) -> Edits:
        """Interventions on these texts, where slots of the prompt are the prompt's."""
        ends = [candidate_at(t) for t in tokens]
        return check(interventions, model, tokens, prompts=self.asked, of=self.owner, ends=ends)

    def result(
        self, found: pd.DataFrame, points: Sequence[Point], provenance: dict[str, Any]
    ) -> Scores:
        """The table of what `sums` gave for every text."""
        rows = [
            (prompt.id, prompt.language, n, text)
            for prompt, mine in zip(self.asked, self.candidates, strict=True)
            for n, text in enumerate(mine)
        ]
        table = pd.concat(
            [
                pd.DataFrame(rows, columns=["id", "language", "candidate", "text"]).assign(
                    layer=layer, logprob=found[str(layer)], n_tokens=found["n_tokens"]
                )
                for layer in points
            ],
            ignore_index=True,
        )
        table = table.assign(**{by: compared(table, by) for by in WAYS})
        asked = {**provenance, **first_prompt(self.asked)}  # without a candidate
        known = analysed(asked, "score", {"slot": SLOT})
        return Scores(provenance=known, table=table[_COLUMNS])


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreRequest(HarvestRequest):
    """Log-probabilities of candidates: the states that predict them, read and let go."""

    kind: ClassVar[str] = "score"
    lens: Transport | None = None

    def decided(self) -> dict[str, Any]:
        """Points, where the candidates begin, and through what is read."""
        through = None if self.lens is None else self.lens.key
        return {
            "layers": self.layers,
            "ends": [candidate_at(t) for t in self.tokens],
            **({} if through is None else {"through": through}),
        }

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """The rows of `sums`; a shard holds a tensor, and this one its size."""
        values = self.values(model, how, parts)
        states = self.activations(values)
        table = sums(model, states, lens=self.lens, progress=how.progress)
        return {"n": torch.tensor(len(table))}, table


def candidate_at(tokens: TokenizedPrompt) -> int:
    """The position of a text's first token that is the candidate's."""
    return tokens.spans[_SPAN][0]


def sums(
    model: HookedModel,
    states: Activations,
    *,
    lens: Transport | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Summed log-probabilities of each candidate, a column per layer, and its `n_tokens`."""
    logprobs, counts = span_logprobs(model, states, SLOT, lens=lens, progress=progress)
    return pd.DataFrame(logprobs.T, columns=list(map(str, states.layers))).assign(n_tokens=counts)


@typed
def score(
    model: HookedModel,
    prompts: PromptsLike,
    candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    *,
    layers: str | int | Sequence[int] = -1,
    lens: Transport | None = None,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> Scores:
    """Exact log-probability of each candidate continuation given its prompt.

    `Σ_τ log p(c_τ | prompt, c_<τ)` over the candidate's tokens, teacher-forced; at a layer below
    the last, through the lens (each token read from the state that predicts it). The prompt runs
    once for all its candidates, and so does whatever prompts have in common.

    Where the tokenizer joins the prompt's end and the candidate's beginning in one token, that
    token is the candidate's first. A candidate is the text that follows as it stands: begin it
    with a space where the language wants one.

    Args:
        model: From `xlens.load`.
        prompts: Each ends where a candidate begins.
        candidates: The same texts for every prompt, or one sequence per prompt by position, or by
            prompt id.
        layers: Residual points; -1, the output, by default.
        lens: Through which layers below the last are read (`xlens.lens`); None: as they are.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        share_prefixes: Run common beginnings once.
        interventions: Changes to the stream. Slot `all` acts on prompt and candidate, `generated`
            on the candidate alone, others on the prompt alone.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show bars.
        executor: Where it runs, as for `harvest`.

    Raises:
        ValueError: no candidates, an empty one, the same twice for one prompt, or what `harvest`
            refuses; a layer that the lens lacks.
    """
    offered = Offered.of(prompts, candidates)
    if lens is not None:
        layers = _read_by(lens, model, layers)
    points, names, tokens = prepare(
        model, offered.texts, layers, SLOT, prepend_bos, spans(interventions)
    )
    edits = offered.bind(interventions, model, tokens)
    request = replace(
        ScoreRequest.asked(model, tokens, points, names, edits), split=offered.split, lens=lens
    )
    how = Execution(
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        store=store,
        progress=progress,
        executor=executor,
    )
    with answered(model, [request], how) as entries:
        found = request.compute(model, how)[1] if entries is None else entries[0].rows()
        return offered.result(found, points, request.provenance(entries))


def _read_by(
    lens: Transport, model: HookedModel, layers: str | int | Sequence[int]
) -> tuple[int, ...]:
    """The layers that are asked for, all of which a lens has; of "all", those that it has."""
    asked = model.layers(layers)
    found = lens.readable(asked, model)
    if layers != "all" and (lacking := sorted(set(asked) - set(found))):
        raise InputError(f"The lens has no matrix for layers {lacking}; it can read {list(found)}.")
    return found


def span_logprobs(
    model: HookedModel,
    states: Activations,
    slot: str,
    *,
    lens: Transport | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of a span's own tokens, from the states of its `NAME:predict` slot.

    Of the layers that `lens` can read; without one, of all.

    Returns:
        `[layer, prompt]` sums in nats, `[prompt]` numbers of tokens.
    """
    kept = states.slot(slot)
    layers = states.layers if lens is None else lens.readable(states.layers, model)
    values = kept.values
    if layers != tuple(states.layers):
        values = values[[states.layers.index(n) for n in layers]]
    counts = kept.offsets.diff()
    targets = _following(states, slot)
    # Candidates of one prompt begin at the same state: the vocabulary is visited once for them.
    first, group, place = _alike(values)
    beside = torch.full((len(first), int(place.max()) + 1), -1, dtype=torch.long)
    beside[group, place] = targets
    read = stream(
        model.readout,
        values[:, first],
        targets=beside[:, :, None],
        top_k=0,
        statistics=(),
        carry=None if lens is None else lens.over(layers),
        progress=progress,
    )
    assert read.set_logprobs is not None
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums = torch.zeros(len(layers), len(counts), dtype=torch.float64)
    sums.index_add_(1, owner, read.set_logprobs[:, group, place].double())
    return sums.float().numpy(), counts.numpy()


def _alike(
    values: Float[Tensor, "layer row d_model"],
) -> tuple[list[int], Int[Tensor, " row"], Int[Tensor, " row"]]:
    """Rows that differ, bit by bit; of each row, which it is, and its number among its like."""
    known: dict[bytes, int] = {}
    first, group, place, sizes = list[int](), list[int](), list[int](), list[int]()
    for i, row in enumerate(values.transpose(0, 1)):
        bits = hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest()
        at = known.setdefault(bits, len(known))
        if at == len(first):
            first.append(i)
            sizes.append(0)
        group.append(at)
        place.append(sizes[at])
        sizes[at] += 1
    return first, torch.tensor(group), torch.tensor(place)


def _following(states: Activations, slot: str) -> Int[Tensor, " row"]:
    """The token after each kept position."""
    kept = states.slot(slot)
    owner = torch.repeat_interleave(torch.arange(len(states)), kept.offsets.diff())
    tokens = states.meta["tokens"]
    after = [
        int(tokens[i][at + 1])
        for i, at in zip(owner.tolist(), kept.positions.tolist(), strict=True)
    ]
    return torch.tensor(after, dtype=torch.long)


def _per_prompt(
    prompts: Sequence[Prompt],
    candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
) -> list[list[str]]:
    if isinstance(candidates, Mapping):
        if missing := [p.id for p in prompts if p.id not in candidates]:
            raise InputError(f"{len(missing)} prompts have no candidates, first {missing[0]!r}.")
        offered = [list(candidates[p.id]) for p in prompts]
    elif all(isinstance(c, str) for c in candidates):
        offered = [[str(c) for c in candidates]] * len(prompts)
    elif len(candidates) == len(prompts):
        offered = [list(c) for c in candidates]
    else:
        raise InputError(
            f"{len(candidates)} sequences of candidates for {len(prompts)} prompts; give one per "
            "prompt, a mapping by prompt id, or one sequence of texts for all."
        )
    for prompt, mine in zip(prompts, offered, strict=True):
        if not mine or not all(mine) or len(set(mine)) < len(mine):
            raise InputError(
                f"Prompt {prompt.id!r} has candidates {mine!r}; at least one is needed, each a "
                "non-empty text that occurs once."
            )
    return offered
