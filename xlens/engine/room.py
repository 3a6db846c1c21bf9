"""How many tokens' keys and values may lie on a device at once."""

from typing import Any

import torch

from xlens.engine.plan import KV_BUDGETS
from xlens.models import HookedModel

SHARE = 4  # a quarter of what is free: batches that join hold theirs twice for a moment


def kv_bytes(model: HookedModel) -> int:
    """What the keys and values of one token take, over all blocks."""
    text: Any = model.config.get_text_config()
    heads = int(getattr(text, "num_attention_heads", None) or 1)
    groups = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or model.d_model // heads
    return 2 * model.n_layers * int(groups) * int(width) * model.dtype.itemsize


def kv_places(model: HookedModel, budget: int) -> int:
    """Most token places whose keys and values are held beside a pass of so many tokens.

    `KV_BUDGETS` budgets, but on a GPU no more than a share of its free memory, rounded down to a
    power of two: what else happens to lie there should not make another plan each time.
    """
    usual = KV_BUDGETS * budget
    if model.device.type != "cuda":
        return usual
    least = min(map(_free, model.devices)) * len(model.devices)
    fitting = max(1, least // (SHARE * kv_bytes(model)))
    return max(budget, min(usual, 2 ** (fitting.bit_length() - 1)))


def _free(device: torch.device) -> int:
    """Free bytes there, with what torch holds and does not use."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
