"""`relevance`: how much each token, at each layer, has to do with a chosen output."""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.checks import typed
from xlens.engine.backoff import pass_budget
from xlens.engine.executors import Executor
from xlens.engine.graphs import in_passes
from xlens.engine.halving import Note, until_done
from xlens.engine.interventions import Edits
from xlens.engine.progress import token_bar
from xlens.engine.relevance_scores import RelevanceScores
from xlens.engine.request import Execution, Request, Shard, Subject, split
from xlens.engine.rules import Rule, Scalar, check, find_rule, relevance_pass
from xlens.engine.states import prompt_table
from xlens.engine.stored import answered, made_by, tensors_of
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompts, PromptsLike, Slot, TokenizedPrompt, parse_slot
from xlens.results import analysed
from xlens.store import Parts, Store

# The backward pass keeps every block's intermediate values: the budget is what bounds memory.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 8_192}
SHARD_PROMPTS = 64


@typed
def relevance(
    model: HookedModel,
    prompts: PromptsLike,
    *,
    targets: Sequence[int] | Sequence[str],
    scalar: Scalar = "logit",
    at: str = "last",
    layers: str | int | Sequence[int] = "all",
    slots: str | Sequence[str] = "all",
    rule: Rule | str = "gradient",
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
    executor: str | Executor | None = None,
) -> RelevanceScores:
    """Gradient × input, `sum_d h * dh`, of every residual point and token, in one backward pass.

    A prompt's scores do not depend on its neighbours, to rounding. Nothing is computed after the
    position where the scalar is read (tokens after it have relevance 0), below the shallowest
    layer there is no graph, and logits are computed at that position only.

    Args:
        model: From `xlens.load`.
        prompts: What to run.
        targets: One token per prompt, whose logit or log-probability is explained: ids, or texts
            of which the first token counts, as the tokenizer cuts it: mind the leading space. A
            token for a space that is not in the text does not count.
        scalar: `logit`, after the model's soft-cap and scale, or `logprob` (nats).
        at: Where the target is predicted: `last`, `NAME:first` or `NAME:last`.
        layers: Residual points: "all", one, or several; 0 is the embedding, `n_layers` the output
            of the last block, before the final norm.
        slots: What to keep of the token axis: `all`, `last`,
            `NAME:first|last|mean|sum|each|predict`. A span's `sum` is the segment relevance of
            arXiv 2504.10906; BOS belongs to no span.
        rule: `gradient` (any model), `attnlrp` (arXiv 2402.05602), `cp-lrp` (arXiv 2202.07304), or
            a `Rule`.
        prepend_bos: None keeps what the tokenizer does by itself.
        token_budget: Most tokens in a pass, padding included; halved when memory runs out.
        store: A `Store` or its folder: what it holds, whatever the slots, is not computed again, a
            killed run goes on where it was. None keeps nothing on disk.
        progress: Show a bar.
        executor: Where it runs, as for `harvest`.

    Returns:
        Scores in the prompts' order; gradients in the model's dtype, sums in fp32.

    Raises:
        ValueError: unknown layer, slot, span, rule or target, not one target per prompt, a prompt
            that is empty or too long, a rule that this model's family does not allow, a model whose
            layers pass no gradient (quantised ones): all before the model runs. Also when a score
            is not finite, naming prompt and layer.
        MemoryError: a single prompt doesn't fit in memory.
    """
    backward = find_rule(rule)
    points = model.layers(layers)
    parts = [parse_slot(s) for s in dict.fromkeys([slots] if isinstance(slots, str) else slots)]
    read = _position(at)
    if not points or not parts:
        raise InputError("relevance needs at least one layer and one slot.")
    items = list(Prompts.of(prompts))
    ids = _target_ids(model, targets, len(items))
    named = (slot.span for slot in (read, *parts))
    spans = frozenset(name for name in named if name is not None)
    tokens = model.tokenize(items, prepend_bos=prepend_bos, spans=spans)
    places = [[t.positions(part) for t in tokens] for part in parts]
    check(model, backward)
    request = RelevanceRequest(
        subject=Subject.of(model, tokens),
        tokens=tuple(tokens),
        points=points,
        slots=("all",),
        edits=Edits((), []),
        split=split(len(tokens), SHARD_PROMPTS),
        meta=prompt_table(tokens),
        ends=tuple(t.positions(read)[0] for t in tokens),
        targets=tuple(ids),
        scalar=scalar,
        rule=backward,
    )
    how = Execution(token_budget=token_budget, store=store, progress=progress, executor=executor)
    with answered(model, [request], how) as entries:
        shards = tensors_of(model, request, how, entries)
        came = made_by(entries)
    values = torch.cat([shard["values"] for shard in shards])
    whole = torch.cat([shard["relevance"] for shard in shards], 1)
    scores = whole.split([len(t) for t in tokens], 1)
    return RelevanceScores(
        values=torch.cat(
            [
                _reduced(scores[i][:, list(picked)], part)
                for part, where in zip(parts, places, strict=True)
                for i, picked in enumerate(where)
            ],
            dim=1,
        ).numpy(),
        rows=_rows(parts, places, tokens),
        totals=torch.stack([s.sum(1) for s in scores], dim=1).numpy(),
        targets=pd.DataFrame(
            {
                "prompt": range(len(tokens)),
                "position": request.ends,
                "token": ids,
                "label": list(map(model.vocab.label, ids)),
                "value": values.tolist(),
            }
        ),
        layers=points,
        meta=request.meta,
        fingerprint=request.subject.fingerprint,
        rule=backward.name,
        scalar=scalar,
        provenance=analysed(
            {**request.subject.provenance, **came},
            "relevance",
            {"rule": asdict(backward), "scalar": scalar, "at": at},
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevanceRequest(Request):
    """Relevance of every token at residual points; slots are reduced from it.

    Attributes:
        meta: One row per prompt.
        ends: Where each prompt's scalar is read.
        targets: Whose logit it is.
        scalar: `logit` or `logprob`.
        rule: Of the backward pass.
    """

    kind: ClassVar[str] = "relevance"
    meta: pd.DataFrame
    ends: tuple[int, ...]
    targets: tuple[int, ...]
    scalar: Scalar
    rule: Rule

    def decided(self) -> dict[str, Any]:
        """What is explained, where, and how."""
        return {
            "layers": self.layers,
            "ends": self.ends,
            "targets": self.targets,
            "scalar": self.scalar,
            "rule": asdict(self.rule),
        }

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        return replace(
            super().part(start, stop),
            meta=self.meta.iloc[start:stop],
            ends=self.ends[start:stop],
            targets=self.targets[start:stop],
        )

    def compute(self, model: HookedModel, how: Execution, parts: Parts | None = None) -> Shard:
        """`[layer, token]` of all prompts side by side, and the scalars."""
        budget = pass_budget(model, how.token_budget, TOKEN_BUDGET)
        scores, values = _run(model, self, budget, how.progress, parts)
        return {"relevance": torch.cat(scores, 1), "values": values}, self.meta


def _run(
    model: HookedModel,
    request: RelevanceRequest,
    budget: int,
    progress: bool,
    parts: Parts | None,
) -> tuple[list[Float[Tensor, "layer pos"]], Float[Tensor, " prompt"]]:
    """Relevance of every token of each prompt, and the scalars; `parts` keeps what is done."""
    tokens, points, ids = request.tokens, request.layers, request.targets
    # What stands after the position that is read has no say in it.
    inputs = [t.ids[: end + 1] for t, end in zip(tokens, request.ends, strict=True)]
    wide = torch.promote_types(model.dtype, torch.float32)
    lengths = list(map(len, tokens))
    ends = list(accumulate(lengths, initial=0))
    whole = torch.zeros(len(points), ends[-1], dtype=wide)
    scores = list(whole.split(lengths, 1))
    values = torch.zeros(len(tokens), dtype=wide)
    kept = {"relevance": whole, "values": values.unsqueeze(0)}

    def rows_of(name: str, prompts: Sequence[int]) -> list[int]:
        if name == "values":
            return list(prompts)
        return [row for i in prompts for row in range(ends[i], ends[i + 1])]

    with token_bar("relevance of", tokens, progress) as advance:

        def attempt(left: Sequence[int], budget: int, note: Note) -> Generator[Sequence[int]]:
            for rows in in_passes(model, inputs, left, budget):
                if parts is not None and parts.done.issuperset(rows):
                    parts.restore(rows, kept, rows_of)
                    advance(rows)
                    yield rows
                    continue
                note(rows, len(rows) * max(len(inputs[i]) for i in rows))
                found, value = relevance_pass(
                    model,
                    [inputs[i] for i in rows],
                    torch.tensor([ids[i] for i in rows]),
                    points,
                    scalar=request.scalar,
                    rule=request.rule,
                )
                values[list(rows)] = value
                for i, of_prompt in zip(rows, found.unbind(1), strict=True):
                    scores[i][:, : len(inputs[i])] = of_prompt[:, : len(inputs[i])]
                if parts is not None:
                    parts.keep(rows, kept, rows_of)
                advance(rows)
                yield rows

        until_done(
            list(map(len, inputs)),
            budget,
            attempt,
            alone="The backward pass of one prompt",
            advice="Shorten it, ask for deeper layers only, or use a smaller dtype or model.",
        )
    _require_finite(scores, points, tokens, model)
    return scores, values


def _reduced(scores: Float[Tensor, "layer picked"], slot: Slot) -> Float[Tensor, "layer row"]:
    """Of one prompt's picked positions."""
    if not slot.reduced:
        return scores
    shares = torch.tensor(slot.shares(scores.shape[1]), dtype=scores.dtype)
    return (scores * shares).sum(1, keepdim=True)


def _position(at: str) -> Slot:
    slot = parse_slot(at)
    if slot.single:
        return slot
    raise InputError(
        f"at={at!r} is not one position; accepted are 'last', 'NAME:first' and 'NAME:last'."
    )


def _target_ids(
    model: HookedModel, targets: Sequence[int] | Sequence[str], n_prompts: int
) -> list[int]:
    if len(targets) != n_prompts:
        raise InputError(
            f"relevance needs one target per prompt, in their order: got {len(targets)} targets "
            f"for {n_prompts} prompts. Give a list of token ids or of texts."
        )
    ids: list[int] = []
    for target in targets:
        if isinstance(target, str):
            ids.append(_first_token(model, target))
        elif 0 <= target < model.d_vocab:
            ids.append(int(target))
        else:
            raise InputError(
                f"Target {target} is no token id of {model.name}; ids are 0 to {model.d_vocab - 1}."
            )
    return ids


def _first_token(model: HookedModel, text: str) -> int:
    cut = model.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    if not cut or max(cut) >= model.d_vocab:
        raise InputError(
            f"Target {text!r} has no token that {model.name} could predict; give a longer text or "
            "a token id."
        )
    pieces = model.vocab.pieces
    written = b"".join(pieces[i] or b"" for i in cut)
    if written == b" " + text.encode():
        # Llama's kind puts a space before every text, now and then as a part of its first word:
        # what the text begins with inside a prompt shows behind a line break.
        inside = model.tokenizer("\n" + text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(inside["input_ids"], inside["offset_mapping"], strict=True)
        cut = [i for i, (start, _) in pairs if start >= 1] or cut
    return int(cut[0])


def _rows(
    parts: Sequence[Slot], places: Sequence[Sequence[range]], tokens: Sequence[TokenizedPrompt]
) -> pd.DataFrame:
    rows: list[tuple[str, int, int, int]] = []
    for part, where in zip(parts, places, strict=True):
        for i, picked in enumerate(where):
            if not part.reduced:
                rows.extend((str(part), i, p, tokens[i].ids[p]) for p in picked)
            else:
                rows.append((str(part), i, -1, -1))
    return pd.DataFrame(rows, columns=["slot", "prompt", "position", "token"])


def _require_finite(
    scores: Sequence[Tensor],
    layers: Sequence[int],
    tokens: Sequence[TokenizedPrompt],
    model: HookedModel,
) -> None:
    for found, t in zip(scores, tokens, strict=True):
        if (bad := ~found.isfinite()).any():
            layer, pos = bad.nonzero()[0].tolist()
            raise InputError(
                f"Relevance is not finite, first at layer {layers[layer]}, token {pos} of prompt "
                f"{t.prompt.id!r} ({t.prompt.language}) in {model.dtype}. fp16 overflows at "
                "65,504: load the model in float32 or bfloat16."
            )
