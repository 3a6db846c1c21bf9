"""Documents into rows of equal length: several to a row, none across two, none seeing another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from xlens.errors import InputError

_OPEN = 16  # rows being filled at a time: enough to fill them to over 95 %
_IGNORED = -100


@dataclass(frozen=True)
class Packed:
    """Rows of token ids.

    Attributes:
        ids: Token ids.
        document: Which of its row's documents a token belongs to, from 1; 0 is padding.
        position: Place within the document, from 0.
        label: The next token; the end-of-text token after a document's last; -100 on padding and
            where the next token is given.
    """

    ids: Int[np.ndarray, "row pos"]
    document: Int[np.ndarray, "row pos"]
    position: Int[np.ndarray, "row pos"]
    label: Int[np.ndarray, "row pos"]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        """Tokens that are no padding."""
        return int((self.document > 0).sum())


def pack(
    documents: Sequence[Sequence[int]],
    given: Sequence[int],
    *,
    length: int,
    end: int,
    pad: int,
) -> Packed:
    """Put documents side by side into rows of `length` tokens, keeping their order roughly.

    Args:
        documents: Token ids of each, the beginning-of-text token included.
        given: How many tokens of each are given: they are not predicted.
        length: Of a row.
        end: The token that a document's last predicts.
        pad: Fills rows up.

    Raises:
        ValueError: a document longer than a row.
    """
    longest = max(map(len, documents), default=0)
    if longest > length:
        raise InputError(f"A document has {longest} tokens, but rows have {length}; widen rows.")
    done: list[list[int]] = []
    rows: list[tuple[list[int], int]] = []  # documents by number, tokens so far
    for number, document in enumerate(documents):
        for place, (members, used) in enumerate(rows):
            if used + len(document) <= length:
                members.append(number)
                rows[place] = (members, used + len(document))
                break
        else:
            rows.append(([number], len(document)))
            if len(rows) > _OPEN:
                fullest = max(range(len(rows)), key=lambda i: rows[i][1])
                done.append(rows.pop(fullest)[0])
    done += [members for members, _ in rows]
    shape = (len(done), length)
    ids, label = np.full(shape, pad, np.int32), np.full(shape, _IGNORED, np.int32)
    belongs, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, members in enumerate(done):
        at = 0
        for count, number in enumerate(members, start=1):
            tokens = documents[number]
            to = at + len(tokens)
            ids[row, at:to] = tokens
            label[row, at : to - 1] = tokens[1:]
            label[row, to - 1] = end
            label[row, at : at + given[number] - 1] = _IGNORED
            belongs[row, at:to] = count
            position[row, at:to] = np.arange(len(tokens))
            at = to
    return Packed(ids, belongs, position, label)


def batch(packed: Packed, rows: slice) -> dict[str, Any]:
    """What a forward pass takes: ids, positions, a mask that keeps documents apart, labels."""
    document = torch.from_numpy(packed.document[rows])
    return {
        "input_ids": torch.from_numpy(packed.ids[rows]).long(),
        "position_ids": torch.from_numpy(packed.position[rows]).long(),
        "attention_mask": _mask(document),
        "labels": torch.from_numpy(packed.label[rows]).long(),
    }


def _mask(document: Int[Tensor, "row pos"]) -> Bool[Tensor, "row 1 pos pos"]:
    length = document.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return ((document[:, :, None] == document[:, None, :]) & causal)[:, None]
