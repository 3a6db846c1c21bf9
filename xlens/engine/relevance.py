"""`relevance`: how much each token, at each layer, has to do with a chosen output."""

from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from xlens.checks import typed
from xlens.engine.gather import REDUCED
from xlens.engine.halving import Note, until_done
from xlens.engine.harvest import prompt_table
from xlens.engine.plan import Tokens, plan
from xlens.engine.positions import labels
from xlens.engine.progress import token_bar
from xlens.engine.relevance_scores import RelevanceScores
from xlens.engine.rules import Rule, Scalar, check, find_rule, relevance_pass
from xlens.engine.store import Parts, Store
from xlens.engine.stored import computed, kept_in
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts, Slot, TokenizedPrompt, parse_slot
from xlens.results import versions

# The backward pass keeps every block's intermediate values: the budget is what bounds memory.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 8_192}
SHARD_PROMPTS = 64  # prompts whose relevance a kill loses at most


@typed
def relevance(
    model: HookedModel,
    prompts: Prompts | Sequence[Prompt],
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
        raise ValueError("relevance needs at least one layer and one slot.")
    if scalar not in ("logit", "logprob"):
        raise ValueError(f"Unknown scalar {scalar!r}; accepted are 'logit' and 'logprob'.")
    items = list(prompts if isinstance(prompts, Prompts) else Prompts(prompts))
    ids = _target_ids(model, targets, len(items))
    named = (slot.span for slot in (read, *parts))
    spans = frozenset(name for name in named if name is not None)
    tokens = model.tokenize(items, prepend_bos=prepend_bos, spans=spans)
    ends = [t.positions(read)[0] for t in tokens]
    places = [[t.positions(part) for t in tokens] for part in parts]
    if token_budget is None:
        token_budget = TOKEN_BUDGET.get(model.device.type, TOKEN_BUDGET["cpu"])
    # What stands after the position that is read has no say in it.
    inputs = [t.ids[: end + 1] for t, end in zip(tokens, ends, strict=True)]
    check(model, backward)

    def compute(start: int, stop: int) -> tuple[list[Tensor], Tensor]:
        some = slice(start, stop)
        return _run(
            model,
            tokens[some],
            inputs[some],
            ids[some],
            points,
            token_budget,
            scalar=scalar,
            rule=backward,
            progress=progress,
        )

    origin, made_by = model.provenance(tokens), versions()
    kept = kept_in(store, model)
    if kept is None:
        scores, values = compute(0, len(tokens))
    else:

        def shard(start: int, stop: int, _parts: Parts) -> tuple[dict[str, Tensor], pd.DataFrame]:
            found, value = compute(start, stop)
            return {"relevance": torch.cat(found, 1), "values": value}, meta.iloc[start:stop]

        meta = prompt_table(tokens)
        bounds = [*range(0, len(tokens), SHARD_PROMPTS), len(tokens)]
        entry = computed(
            kept,
            "relevance",
            model,
            origin,
            tokens,
            shard,
            bounds,
            edits=[],
            layers=list(points),
            ends=ends,
            targets=ids,
            scalar=scalar,
            rule=asdict(backward),
        )
        made_by = entry.versions
        parts_found = [entry.read(n) for n in range(len(bounds) - 1)]
        values = torch.cat([part["values"] for part in parts_found])
        whole = torch.cat([part["relevance"] for part in parts_found], 1)
        scores = list(whole.split([len(t) for t in tokens], 1))

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
                "position": ends,
                "token": ids,
                "label": [model.vocab.label(i) for i in ids],
                "value": values.tolist(),
            }
        ),
        layers=points,
        meta=prompt_table(tokens),
        fingerprint=model.fingerprint,
        rule=backward.name,
        scalar=scalar,
        provenance={
            **origin,
            "rule": asdict(backward),
            "scalar": scalar,
            "at": at,
            "versions": made_by,
        },
    )


def _run(
    model: HookedModel,
    tokens: Sequence[TokenizedPrompt],
    inputs: Sequence[Tokens],
    ids: Sequence[int],
    points: Sequence[int],
    budget: int,
    *,
    scalar: Scalar,
    rule: Rule,
    progress: bool,
) -> tuple[list[Float[Tensor, "layer pos"]], Float[Tensor, " prompt"]]:
    """Relevance of every token of each prompt, and the scalars."""
    wide = torch.promote_types(model.dtype, torch.float32)
    scores = [torch.zeros(len(points), len(t), dtype=wide) for t in tokens]
    values = torch.empty(len(tokens), dtype=wide)
    with token_bar("relevance of", tokens, progress) as advance:

        def attempt(left: Sequence[int], budget: int, note: Note) -> Generator[Sequence[int]]:
            for rows in _batches(model, inputs, left, budget):
                note(rows, len(rows) * max(len(inputs[i]) for i in rows))
                found, value = relevance_pass(
                    model,
                    [inputs[i] for i in rows],
                    torch.tensor([ids[i] for i in rows]),
                    points,
                    scalar=scalar,
                    rule=rule,
                )
                values[list(rows)] = value
                for i, of_prompt in zip(rows, found.unbind(1), strict=True):
                    scores[i][:, : len(inputs[i])] = of_prompt[:, : len(inputs[i])]
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
    if slot.how == "mean":
        return scores.mean(1, keepdim=True)
    return scores.sum(1, keepdim=True) if slot.how == "sum" else scores


def _position(at: str) -> Slot:
    slot = parse_slot(at)
    if slot.how in ("first", "last"):
        return slot
    raise ValueError(
        f"at={at!r} is not one position; accepted are 'last', 'NAME:first' and 'NAME:last'."
    )


def _target_ids(
    model: HookedModel, targets: Sequence[int] | Sequence[str], n_prompts: int
) -> list[int]:
    if isinstance(targets, str) or len(targets) != n_prompts:
        given = f"the text {targets!r}" if isinstance(targets, str) else f"{len(targets)} targets"
        raise ValueError(
            f"relevance needs one target per prompt, in their order: got {given} for {n_prompts} "
            "prompts. Give a list of token ids or of texts."
        )
    ids: list[int] = []
    for target in targets:
        if isinstance(target, str):
            ids.append(_first_token(model, target))
        elif 0 <= target < model.d_vocab:
            ids.append(int(target))
        else:
            raise ValueError(
                f"Target {target} is no token id of {model.name}; ids are 0 to {model.d_vocab - 1}."
            )
    return ids


def _first_token(model: HookedModel, text: str) -> int:
    cut = model.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    if not cut or max(cut) >= model.d_vocab:
        raise ValueError(
            f"Target {text!r} has no token that {model.name} could predict; give a longer text or "
            "a token id."
        )
    written = b"".join(model.vocab.pieces[i] or b"" for i in cut)
    if written == b" " + text.encode():
        # Llama's kind puts a space before every text, now and then as a part of its first word:
        # what the text begins with inside a prompt shows behind a line break.
        inside = model.tokenizer("\n" + text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(inside["input_ids"], inside["offset_mapping"], strict=True)
        cut = [i for i, (start, _) in pairs if start >= 1] or cut
    return int(cut[0])


def _batches(
    model: HookedModel, inputs: Sequence[Tokens], some: Sequence[int], budget: int
) -> list[tuple[int, ...]]:
    chosen = [inputs[i] for i in some]
    batches = plan(chosen, budget, share=False, apart=labels(model, list(map(len, chosen))))
    return [tuple(some[m] for m in batch.members) for batch in batches]


def _rows(
    parts: Sequence[Slot], places: Sequence[Sequence[range]], tokens: Sequence[TokenizedPrompt]
) -> pd.DataFrame:
    rows: list[tuple[str, int, int, int]] = []
    for part, where in zip(parts, places, strict=True):
        for i, picked in enumerate(where):
            if part.how not in REDUCED:
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
            raise ValueError(
                f"Relevance is not finite, first at layer {layers[layer]}, token {pos} of prompt "
                f"{t.prompt.id!r} ({t.prompt.language}) in {model.dtype}. fp16 overflows at "
                "65,504: load the model in float32 or bfloat16."
            )
