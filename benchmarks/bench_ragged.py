"""Prompts of 16 to 512 tokens, against naive padded batches of 32 and against sorted ones.

The best that a careful user does by hand is to sort prompts by length and fill batches up to a
number of padded tokens: 2,048, where it ran quickest. Naive batches are cut: each round runs a
quarter of the rows of one. Rows are independent, so the work is the same, and a slice is if
anything quicker than its batch (its logits take a quarter of the memory).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from common import (
    draw_ids,
    interleaved,
    make_model,
    padded,
    planned_batches,
    prompts_of,
    ratios,
    settings,
)
from tables import Row, write
from torch import nn

from xlens.engine import harvest
from xlens.engine.backoff import TOKEN_BUDGET
from xlens.models import HookedModel

NAIVE = "usual: naive batches of 32"
NAIVE_BARE = "naive batches of 32, without the head"
SORTED = "sorted by length, 2,048 padded tokens a batch, output_hidden_states=True"
SORTED_BARE = f"best: {SORTED}, without the head"
BATCHES = 2
SLICES = 4


def log_uniform(low: int, high: int, n: int) -> list[int]:
    """Quantiles of a log-uniform distribution, in no order: n prompts that stand for many."""
    lengths = [round(low * (high / low) ** ((i + 0.5) / n)) for i in range(n)]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    return [lengths[i] for i in order]


def naive(run: nn.Module, sequences: Sequence[Sequence[int]]) -> Callable[[], None]:
    """Batches of 32, each padded to its longest; every call runs a quarter of the next one."""
    batches = [padded(sequences[i : i + 32]) for i in range(0, len(sequences), 32)]
    calls = 0

    @torch.inference_mode()
    def next_slice() -> None:
        nonlocal calls
        batch = batches[calls % len(batches)]
        rows = slice(calls % SLICES, None, SLICES)
        calls += 1
        run(**{name: tensor[rows] for name, tensor in batch.items()}, use_cache=False)

    return next_slice


def by_length(run: nn.Module, sequences: Sequence[Sequence[int]]) -> Callable[[], object]:
    """Sorted batches; the states of every layer at each prompt's last token."""
    batches = planned_batches(sequences, TOKEN_BUDGET["cpu"])

    @torch.inference_mode()
    def every_batch() -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        for batch in batches:
            states = run(**batch, use_cache=False, output_hidden_states=True).hidden_states
            rows, last = torch.arange(len(states[0])), batch["attention_mask"].sum(1) - 1
            found.append(torch.stack([layer[rows, last] for layer in states]))
        return found

    return every_batch


def methods(
    model: HookedModel, sequences: Sequence[Sequence[int]]
) -> dict[str, Callable[[], object]]:
    """xlens and the others, by name."""
    return {
        "xlens": partial(harvest, model, prompts_of(sequences), progress=False),
        NAIVE: naive(model.hf_model, sequences),
        NAIVE_BARE: naive(model.body, sequences),
        SORTED: by_length(model.hf_model, sequences),
        SORTED_BARE: by_length(model.body, sequences),
    }


def main() -> None:
    args = settings(__doc__, rounds=3)
    shape = "GPT-2 small"
    model = make_model(shape, quick=args.quick)
    low, high = (4, 64) if args.quick else (16, 512)
    lengths = log_uniform(low, high, 32 * BATCHES)
    sequences = draw_ids(lengths)
    times = interleaved(
        methods(model, sequences),
        args.rounds,
        fewer={SORTED: 2},
        warm=methods(model, draw_ids([low] * SLICES)),
    )
    when_padded = sum(32 * max(lengths[i : i + 32]) for i in range(0, len(lengths), 32))
    row = partial(
        Row,
        "harvest of ragged prompts, all layers at last",
        f"{shape}, {len(lengths)} prompts of {min(lengths)}..{max(lengths)} tokens, "
        f"{sum(lengths):,} in all ({when_padded:,} when padded)",
        note=f"Naive batches: a quarter of one of {BATCHES} a round, × {SLICES * BATCHES}.",
    )
    scale = {NAIVE: SLICES * BATCHES, NAIVE_BARE: SLICES * BATCHES}
    rows = [
        row(
            peer,
            ratios(times[peer], times["xlens"], scale=scale.get(peer, 1)),
            target="≥ 4.5" if peer == NAIVE else "",
        )
        for peer in (NAIVE, NAIVE_BARE, SORTED, SORTED_BARE)
    ]
    write("ragged", rows, args, times={shape: times})


if __name__ == "__main__":
    main()
