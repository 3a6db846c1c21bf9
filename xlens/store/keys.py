"""What an entry is about, as canonical JSON, and the id that follows from it."""

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xlens.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# Part of every id: raise it when shards, journal or manifest mean something else.
FORMAT = 1
# Part of every key: raise it when the engine's numbers may be others than before. Entries of
# another epoch are never served; `prune(old=True)` removes them.
EPOCH = 2
_ATOMS = frozenset({int, str, bool, type(None)})


def plain(value: Any, where: str = "key") -> Any:
    """`value` as JSON knows it: mappings, lists, strings, finite numbers, booleans, None.

    Args:
        value: What to bring into this form; tuples become lists, NumPy scalars Python numbers.
        where: How to call it in an error.

    Raises:
        ValueError: something without one exact JSON form, named by its place.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        items = cast(list[Any], value)
        # Exact types: NumPy's are none of them, and floats may be NaN.
        if all(type(item) in _ATOMS for item in items):  # the token ids of a prompt
            return list(items)
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
    if isinstance(value, Mapping):
        pairs = cast(Mapping[Any, Any], value)
        if bad := [k for k in pairs if not isinstance(k, str)]:
            raise InputError(f"{where} has the name {bad[0]!r}; names must be strings.")
        return {k: plain(v, f"{where}[{k!r}]") for k, v in pairs.items()}
    raise InputError(
        f"{where} is {value!r:.80} ({type(value).__name__}), which has no exact JSON form. Use "
        "strings, finite numbers, booleans, None, lists and mappings; str() for a dtype or a path, "
        "digest() for a tensor or a long list."
    )


def canonical(value: Any) -> str:
    """The one JSON text of `value`: sorted names, no blanks, ASCII."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def entry_id(key: Mapping[str, Any]) -> str:
    """The id of the entry of `key`: 32 hexadecimal digits of BLAKE2b.

    Raises:
        ValueError: see `plain`.
    """
    text = canonical({"format": FORMAT, "key": plain(key)})
    return blake2b(text.encode(), digest_size=16).hexdigest()


def digest(value: Any) -> str:
    """32 hexadecimal digits that stand for a tensor or for any JSON value in a key.

    For what is too long to be read in a manifest: token ids of all prompts, a steering vector.

    Raises:
        ValueError: see `plain`.
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        # Said before the bytes, which are the same for [2, 3] and [3, 2] and know no dtype.
        head = f"tensor {value.dtype} {tuple(value.shape)}\n"
        return blake2b(head.encode() + tensor_bytes(value), digest_size=16).hexdigest()
    return blake2b(b"json\n" + canonical(value).encode(), digest_size=16).hexdigest()


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """The bytes of a tensor, row by row; a view where it is contiguous and on the CPU."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
