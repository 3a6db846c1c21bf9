"""`score`: exact log-probabilities of continuations, at the output or at any layer."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine.harvest import Harvest
from xlens.engine.interventions import Edits, Interventions, check
from xlens.engine.store import Store
from xlens.engine.stored import kept_in, stored_rows
from xlens.engine.stream import stream
from xlens.lengths import WAYS, compared
from xlens.models import HookedModel
from xlens.models.sites import Point
from xlens.prompts import Prompt, Prompts, TokenizedPrompt
from xlens.results import Result

SHARD_PROMPTS = 256  # prompts whose scores a kill loses at most
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
            raise ValueError(f"by is {by!r}; accepted are {', '.join(map(repr, WAYS))}.")
        cells = [self.table[name] for name in ("id", "language", "layer")]
        where = compared(self.table, by).groupby(cells, sort=False).idxmax()
        return self.table.loc[where].reset_index(drop=True)


@dataclass(frozen=True)
class ScoreRequest:
    """Prompts with their candidates, as what the model runs.

    Attributes:
        asked: The prompts.
        offered: The candidates of each.
        texts: Prompt and candidate together, with a span for the candidate.
        owner: For each of these, which prompt it is of.
    """

    asked: list[Prompt]
    offered: list[list[str]]
    texts: list[Prompt]
    owner: list[int]

    @classmethod
    def of(
        cls,
        prompts: Prompts | Sequence[Prompt],
        candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    ) -> "ScoreRequest":
        """Check candidates and put them behind their prompts.

        Raises:
            ValueError: as `score`.
        """
        asked = list(prompts if isinstance(prompts, Prompts) else Prompts(prompts))
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

    def part(self, start: int, stop: int) -> tuple["ScoreRequest", slice]:
        """Some of the prompts, and where their texts stand among all."""
        at = slice(bisect_left(self.owner, start), bisect_left(self.owner, stop))
        owner = [i - start for i in self.owner[at]]
        some = ScoreRequest(self.asked[start:stop], self.offered[start:stop], self.texts[at], owner)
        return some, at

    def bind(
        self, interventions: Interventions, model: HookedModel, tokens: Sequence[TokenizedPrompt]
    ) -> Edits:
        """Interventions on these texts, where slots of the prompt are the prompt's."""
        return check(
            interventions, model, tokens, prompts=self.asked, of=self.owner, ends=_ends(tokens)
        )

    def stored(
        self,
        store: Store,
        model: HookedModel,
        provenance: dict[str, Any],
        tokens: Sequence[TokenizedPrompt],
        points: Sequence[Point],
        edits: Edits,
        read: Callable[[int, int], pd.DataFrame],
        firsts: Sequence[int] = (0,),
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """What `read` gives, found in the store or computed; `firsts` begin the shards.

        With the versions that computed it.
        """
        return stored_rows(
            store,
            "score",
            model,
            provenance,
            tokens,
            read,
            [*firsts, len(self.texts)],
            edits=edits.key,
            layers=list(points),
            ends=_ends(tokens),
        )

    def result(
        self, found: pd.DataFrame, points: Sequence[Point], provenance: dict[str, Any]
    ) -> Scores:
        """The table of what `sums` gave for every text."""
        rows = [
            (prompt.id, prompt.language, n, text)
            for prompt, mine in zip(self.asked, self.offered, strict=True)
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
        return Scores(provenance={**provenance, "slot": SLOT}, table=table[_COLUMNS])


def sums(model: HookedModel, states: Activations, *, progress: bool = False) -> pd.DataFrame:
    """Summed log-probabilities of each candidate, a column per layer, and its `n_tokens`."""
    logprobs, counts = span_logprobs(model, states, SLOT, progress=progress)
    return pd.DataFrame(logprobs.T, columns=list(map(str, states.layers))).assign(n_tokens=counts)


def _ends(tokens: Sequence[TokenizedPrompt]) -> list[int]:
    return [t.spans[_SPAN][0] for t in tokens]


@typed
def score(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
    candidates: Sequence[str] | Mapping[str, Sequence[str]] | Sequence[Sequence[str]],
    *,
    layers: str | int | Sequence[int] = -1,
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    share_prefixes: bool = True,
    interventions: Interventions = (),
    store: Store | str | Path | None = None,
    progress: bool = True,
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
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass.
        share_prefixes: Run common beginnings once.
        interventions: Changes to the stream. Slot `all` acts on prompt and candidate, `generated`
            on the candidate alone, others on the prompt alone.
        store: A `Store` or its folder: what it holds is not computed again, a killed run goes on
            where it was. None keeps nothing on disk.
        progress: Show bars.

    Raises:
        ValueError: no candidates, an empty one, the same twice for one prompt, or what `harvest`
            refuses.
    """
    request = ScoreRequest.of(prompts, candidates)
    run = Harvest(
        model,
        request.texts,
        layers=layers,
        slots=SLOT,
        prepend_bos=prepend_bos,
        token_budget=token_budget,
        share_prefixes=share_prefixes,
        interventions=interventions,
        bind=lambda tokens: request.bind(interventions, model, tokens),
        progress=progress,
    )

    def read(start: int, stop: int) -> pd.DataFrame:
        return sums(model, run.part(start, stop), progress=progress)

    kept = kept_in(store, model)
    if kept is None:
        found, made_by = read(0, len(request.texts)), run.provenance["versions"]
    else:
        # Whole prompts: their candidates share a pass.
        bounds = [bisect_left(request.owner, i) for i in range(0, len(request), SHARD_PROMPTS)]
        found, made_by = request.stored(
            kept, model, run.provenance, run.tokens, run.points, run.edits, read, bounds
        )
    return request.result(found, run.points, {**run.provenance, "versions": made_by})


def span_logprobs(
    model: HookedModel, states: Activations, slot: str, *, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of a span's own tokens, from the states of its `NAME:predict` slot.

    Returns:
        `[layer, prompt]` sums in nats, `[prompt]` numbers of tokens.
    """
    kept = states.slot(slot)
    counts = kept.offsets.diff()
    targets = _following(states, slot)
    # Candidates of one prompt begin at the same state: the vocabulary is visited once for them.
    first, group, place = _alike(kept.values)
    beside = torch.full((len(first), int(place.max()) + 1), -1, dtype=torch.long)
    beside[group, place] = targets
    read = stream(
        model.readout,
        kept.values[:, first],
        targets=beside[:, :, None],
        top_k=0,
        statistics=(),
        progress=progress,
    )
    assert read.set_logprobs is not None
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums = torch.zeros(len(states.layers), len(counts), dtype=torch.float64)
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
            raise ValueError(f"{len(missing)} prompts have no candidates, first {missing[0]!r}.")
        offered = [list(candidates[p.id]) for p in prompts]
    elif all(isinstance(c, str) for c in candidates):
        offered = [[str(c) for c in candidates]] * len(prompts)
    elif len(candidates) == len(prompts):
        offered = [list(c) for c in candidates]
    else:
        raise ValueError(
            f"{len(candidates)} sequences of candidates for {len(prompts)} prompts; give one per "
            "prompt, a mapping by prompt id, or one sequence of texts for all."
        )
    for prompt, mine in zip(prompts, offered, strict=True):
        if not mine or not all(mine) or len(set(mine)) < len(mine):
            raise ValueError(
                f"Prompt {prompt.id!r} has candidates {mine!r}; at least one is needed, each a "
                "non-empty text that occurs once."
            )
    return offered
