"""Hashes that name a model and a tokenizer, whatever file they came from."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from xlens.models.adapters import states
from xlens.models.tree import parameters

# Where a model was loaded from and what loaded it do not change what it computes.
_VOLATILE = frozenset(
    {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype"}
)

_SMALL = 32 * 2**10  # bytes up to which a checksum is quicker than sums
_ROW = 64


class Fingerprint:
    """Callable that hashes architecture, configuration and every weight of a model.

    The weights are hashed again only when a tensor was replaced or written to. PyTorch counts
    writes, but not those through `.data` or in inference mode; a sum over the bits shows them too
    (about 0.1 s per GB where the hash takes a second), unless numbers only change places among
    neighbours, within half a kilobyte.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen: tuple[Any, ...] | None = None
        self._config = ("", "")
        self._value = ""

    def __call__(self) -> str:
        """32 hexadecimal digits."""
        tensors = parameters(self._model)
        # As it is now: some of it is read at run time. Spelling it out copies it, so only after
        # its attributes changed.
        if (raw := repr(vars(self._model.config))) != self._config[0]:
            self._config = raw, config_text(self._model.config)
        config = self._config[1]
        adapters = json.dumps([*states(self._model)])  # on or off, and how strong
        state = (
            config,
            adapters,
            *((t.data_ptr(), _version(t), _bit_sum(t)) for t in tensors.values()),
        )
        if state != self._seen:
            with ThreadPoolExecutor() as pool:
                hashes = list(pool.map(_tensor_hash, tensors.values()))
            whole = blake2b(type(self._model).__name__.encode(), digest_size=16)
            whole.update(config.encode())
            for name, digest in zip(tensors, hashes, strict=True):
                whole.update(name.encode() + digest)
            if adapters != "[]":
                whole.update(adapters.encode())
            self._seen, self._value = state, whole.hexdigest()
        return self._value


def config_text(config: Any) -> str:
    """A config as JSON, but for where it came from."""
    kept = {k: v for k, v in config.to_dict().items() if k not in _VOLATILE}
    return json.dumps(kept, sort_keys=True, default=str)


class TokenizerHash:
    """Callable that hashes a fast tokenizer's whole specification.

    Spelling it out takes half a second where the vocabulary is large; it is done again only when
    tokens were added or a part was replaced.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._seen: tuple[Any, ...] | None = None
        self._value = ""

    def __call__(self) -> str:
        """32 hexadecimal digits."""
        specials = json.dumps(self._tokenizer.special_tokens_map, sort_keys=True, default=str)
        backend = self._tokenizer.backend_tokenizer
        parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        settings = [str(getattr(backend, part)) for part in (*parts, "padding", "truncation")]
        state = (id(backend), backend.get_vocab_size(), specials, *settings)
        if state != self._seen:
            text = backend.to_str() + specials
            self._seen, self._value = state, blake2b(text.encode(), digest_size=16).hexdigest()
        return self._value


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]


def _bit_sum(tensor: Tensor) -> int:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if len(flat) <= _SMALL and flat.device.type == "cpu":
        return zlib.crc32(flat.numpy().data)
    whole = len(flat) // (8 * _ROW) * 8 * _ROW
    rest = int(flat[whole:].sum()) if whole < len(flat) else 0
    # Eight bytes at a time: 50 times faster than one by one. Each row counts by its place.
    rows = flat[:whole].view(torch.int64).reshape(-1, _ROW).sum(1)
    return int(rows.mul_(torch.arange(1, len(rows) + 1, device=flat.device)).sum()) + rest


def _tensor_hash(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    head = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return blake2b(
        flat.numpy().data, digest_size=16, key=blake2b(head, digest_size=16).digest()
    ).digest()
