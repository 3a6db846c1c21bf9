"""Greedy continuations of few-shot prompts, against what transformers offers and what one writes.

Twelve prompts share a header of demonstrations and go on for 32 tokens each, in fp32 and in bf16.
The usual call is `generate` with one prompt after the other; better is `generate` on batches of 8,
sorted and padded on the left, and the best is the same after keys and values of the header were
computed once, by hand. `generate_batch`, transformers' continuous batching, takes part where it
runs.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import Times, draw_ids, interleaved, make_model, prompts_of, ratios, settings, twin_of
from tables import Row, write
from torch import Tensor
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig

from xlens.engine import generate
from xlens.models import HookedModel

SHAPE = "Gemma 3 270M"
SIZE = (12, 120, 32)  # prompts, tokens that all begin with, new tokens
ROWS = 8
PAGE = 32
ALONE = "usual: transformers generate, prompt by prompt"
BATCHED = f"transformers generate, sorted, padded on the left, {ROWS} at a time"
PREFIX = "best: the same after a prefix cache written by hand"
CONTINUOUS = "transformers generate_batch (continuous batching)"
# To reach; in the table above the others, as it is what was measured first.
TARGETS = {BATCHED: "≥ 1.3"}
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peers:
    """Hugging Face's ways to continue the same ids by `new` tokens, in modules of their own."""

    def __init__(
        self, model: HookedModel, sequences: Sequence[list[int]], shared: int, new: int
    ) -> None:
        self.inner: Any = twin_of(model)
        self.inner.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=new, pad_token_id=0, eos_token_id=None
        )
        self.sequences = sorted(sequences, key=len)
        self.shared, self.new = shared, new

    def alone(self) -> list[list[int]]:
        """One after the other."""
        return [row for ids in self.sequences for row in self._continued([ids])]

    def batched(self) -> list[list[int]]:
        """Sorted by length, padded on the left."""
        return [row for some in self._batches() for row in self._continued(some)]

    def after_prefix(self) -> list[list[int]]:
        """What all begin with runs once; its keys and values are copied for every row."""
        with torch.inference_mode():
            header = torch.tensor([self.sequences[0][: self.shared]])
            once = DynamicCache(config=self.inner.config)
            self.inner(header, past_key_values=once, use_cache=True, logits_to_keep=1)
        found: list[list[int]] = []
        for some in self._batches():
            cache = copy.deepcopy(once)
            cache.batch_repeat_interleave(len(some))
            found += self._continued(some, self.shared, past_key_values=cache)
        return found

    def continuous(self) -> list[list[int]]:
        """Paged attention, common beginnings shared.

        Room for as many tokens as there are, as it takes 60 % of the machine's memory by itself.
        """
        blocks = sum(len(ids) + self.new for ids in self.sequences) // PAGE + len(self.sequences)
        how = ContinuousBatchingConfig(page_size=PAGE, num_blocks=blocks, max_batch_tokens=512)
        said = self.inner.generate_batch(
            self.sequences, self.inner.generation_config, continuous_batching_config=how
        )
        return [list(answer.generated_tokens) for answer in said.values()]

    def _batches(self) -> list[list[list[int]]]:
        return [self.sequences[i : i + ROWS] for i in range(0, len(self.sequences), ROWS)]

    @torch.inference_mode()
    def _continued(
        self, some: Sequence[list[int]], first: int = 0, **options: Any
    ) -> list[list[int]]:
        """New tokens of rows that are padded on the left, but for what all begin with."""
        width = max(map(len, some))
        ids, mask = (torch.zeros(len(some), width, dtype=torch.long) for _ in range(2))
        for row, own in enumerate(some):
            rest = width - len(own) + first
            ids[row, :first], ids[row, rest:] = torch.tensor(own[:first]), torch.tensor(own[first:])
            mask[row, :first] = mask[row, rest:] = 1
        made: Tensor = self.inner.generate(ids, attention_mask=mask, **options)
        return made[:, width:].tolist()


def measured(
    dtype: torch.dtype, size: tuple[int, int, int], args: argparse.Namespace
) -> tuple[dict[str, Times], list[str]]:
    """Every way in one precision, and what is to be said of them."""
    n, shown, new = size
    model = make_model(SHAPE, quick=args.quick, dtype=dtype)
    (header,) = draw_ids([shown])
    own = draw_ids([4 + i for i in range(n)], seed=1)
    sequences = [header + ids for ids in own]
    peers = Peers(model, sequences, shown, new)
    few = Peers(model, sequences[:1], shown, 2)
    methods: dict[str, Callable[[], list[list[int]]]] = {
        "xlens": partial(ours, model, sequences, new),
        ALONE: peers.alone,
        BATCHED: peers.batched,
        PREFIX: peers.after_prefix,
    }
    warm: dict[str, Callable[[], object]] = {
        "xlens": partial(ours, model, sequences[:1], 2),
        ALONE: few.alone,
        BATCHED: few.batched,
        PREFIX: few.after_prefix,
    }
    notes: list[str] = []
    try:
        few.continuous()
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else ""
        notes.append(f"{CONTINUOUS} did not run here: {type(error).__name__}: {said}"[:300])
    else:
        methods[CONTINUOUS], warm[CONTINUOUS] = peers.continuous, few.continuous
    if dtype is torch.float32:  # in bf16 a batch rounds differently from a prompt alone
        told = methods["xlens"]()
        for peer in (BATCHED, PREFIX):
            same = sum(a == b for a, b in zip(told, methods[peer](), strict=True))
            notes.append(f"fp32: {same} of {n} continuations are those of {peer}.")
    once = {ALONE: 1} | ({CONTINUOUS: 1} if CONTINUOUS in methods else {})
    return interleaved(methods, args.rounds, fewer=once, warm=warm), notes


def ours(model: HookedModel, sequences: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """xlens's tokens, of prompts from short to long."""
    found = generate(model, prompts_of(sequences), max_new_tokens=new, progress=False)
    return list(found.table["tokens"])


def main() -> None:
    args = settings(__doc__, rounds=2)
    rows: list[Row] = []
    times: dict[str, dict[str, Times]] = {}
    notes: list[str] = []
    n, shown, new = size = (4, 4, 2) if args.quick else SIZE
    setting = f"{SHAPE}, {n} prompts after {shown} common tokens, {new} new tokens each"
    for kind, dtype in KINDS.items():
        times[kind], said = measured(dtype, size, args)
        notes += said
        rows += [
            Row(
                f"generate, {kind}",
                setting,
                peer,
                ratios(taken, times[kind]["xlens"]),
                target=TARGETS.get(peer, ""),
            )
            for peer, taken in times[kind].items()
            if peer != "xlens"
        ]
    write("generate", rows, args, times=times, notes=notes)


if __name__ == "__main__":
    main()
