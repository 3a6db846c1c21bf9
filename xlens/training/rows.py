"""From a prompt and its completion to the tokens of a row, and which of them are learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts import Prompt, tokenize

IGNORED = -100
"""The label of a token on which no loss falls, as `transformers` has it."""


@dataclass(frozen=True, eq=False)
class Rows(Dataset[dict[str, list[int]]]):
    """Rows to train on.

    Attributes:
        ids: Tokens of each row.
        learned: From which token on each is learned.
        left_out: Rows that were too long.
    """

    ids: tuple[tuple[int, ...], ...]
    learned: tuple[int, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids, start = list(self.ids[index]), self.learned[index]
        return {"input_ids": ids, "labels": [IGNORED] * start + ids[start:]}

    @property
    def n_tokens(self) -> int:
        """In all rows."""
        return sum(map(len, self.ids))

    @property
    def n_learned(self) -> int:
        """Tokens with a loss, in all rows."""
        return self.n_tokens - sum(self.learned)


@typed
def encode(
    tokenizer: Any, prompts: Sequence[str], completions: Sequence[str], *, longest: int
) -> Rows:
    """Tokenise rows as they will be read: prompt and completion together, then the end of text.

    A token that holds the last of the prompt and the first of the completion is learned. The end
    of text is learned too, where the tokenizer has one, so that a model learns to stop.

    Args:
        tokenizer: A fast one.
        prompts: Read, not learned.
        completions: Learned, one for each prompt.
        longest: Most tokens of a row; longer ones are left out.

    Raises:
        ValueError: unequal numbers, an empty side, or no row that is short enough.
    """
    if len(prompts) != len(completions) or not prompts:
        raise InputError(
            f"{len(prompts)} prompts and {len(completions)} completions: give each prompt its own."
        )
    for number, sides in enumerate(zip(prompts, completions, strict=True)):
        if empty := [n for n, t in zip(("prompt", "completion"), sides, strict=True) if not t]:
            raise InputError(
                f"Row {number} has an empty {empty[0]}: nothing to "
                f"{'read' if empty == ['prompt'] else 'learn'}. Leave the row out."
            )
    texts = [
        Prompt(p + c, "und", str(n), {"learned": (len(p), len(p + c))})
        for n, (p, c) in enumerate(zip(prompts, completions, strict=True))
    ]
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    made = tokenize(tokenizer, texts)
    whole = [((*row.ids, *end), row.spans["learned"][0]) for row in made]
    kept = [row for row in whole if len(row[0]) <= longest]
    if not kept:
        raise InputError(
            f"Each of {len(whole)} rows is longer than {longest} tokens (the shortest has "
            f"{min(len(ids) for ids, _ in whole)}). Give shorter texts or a larger cutoff."
        )
    ids, learned = zip(*kept, strict=True)
    return Rows(ids, learned, len(whole) - len(kept))


def collate(
    rows: Sequence[dict[str, list[int]]], *, pad: int, whole: bool = False
) -> dict[str, Tensor]:
    """Rows of a batch, padded on the right; no loss falls on padding.

    Args:
        rows: Each with `input_ids` and `labels`.
        pad: The token after a row's end.
        whole: Ask for logits at all positions; for models that can't leave any out.

    Returns:
        `input_ids` and `attention_mask` `[batch, pos]`, `logits_to_keep` `[kept]`, and `labels`
        `[batch, 1 + kept]`: as usual one place behind the logits that they are compared with.
    """
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    found = {"input_ids": padded("input_ids", pad), "attention_mask": torch.tensor(mask)}
    labels = padded("labels", IGNORED)
    if whole:
        return found | {"labels": functional.pad(labels, (0, 1), value=IGNORED)}
    following = labels[:, 1:]  # the token that each position is asked for
    # A small model's head costs more than its blocks, and its logits more memory than all else.
    kept = (following != IGNORED).any(0).nonzero()[:, 0]
    asked = functional.pad(following[:, kept], (1, 0), value=IGNORED)
    return found | {"labels": asked, "logits_to_keep": kept}


def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Of a batch in nats: the sum over its learned tokens by those of the whole step.

    Args:
        outputs: Of the model, with `logits` `[batch, kept, d_vocab]`.
        labels: From `collate`.
        num_items_in_batch: Learned tokens of the step, which several batches may share; default
            this one's. The name is the Trainer's.
    """
    asked = labels[:, 1:]
    n = (asked != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    logits = outputs.logits.float().flatten(0, 1)
    total = functional.cross_entropy(logits, asked.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / n
