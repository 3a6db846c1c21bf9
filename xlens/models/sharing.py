"""Modules of one's own around the same weights: what is done to them reaches nobody else's."""

import copy
from typing import Any, TypeVar

from torch import nn

from xlens.models.tree import tensors

M = TypeVar("M", bound=nn.Module)


def sharing(hf_model: M) -> M:
    """A copy of a model's modules that holds its very tensors, in evaluation mode.

    Adapters can be put in and hooks set without the model noticing, and the weights are in memory
    once. Whoever changes a weight in place changes both.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors(hf_model)}
    return copy.deepcopy(hf_model, memo).eval()
