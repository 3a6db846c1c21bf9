"""Hashes that name a model and a tokenizer, whatever file they came from."""

import json
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from operator import is_
from time import perf_counter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from xlens.models.adapters import states
from xlens.models.tree import parameters

# Where a model was loaded from and what loaded it do not change what it computes.
_VOLATILE = frozenset(
    {"_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype"}
)

_SMALL = 32 * 2**10  # bytes up to which a checksum is quicker than sums
_LINE = 17  # words of 8 bytes that are summed; odd: else the signs of a whole line would cancel
_TURN = 61  # a glance sums one line of so many; a prime: a column is in the lines of every turn
_SLAB = 2**14 * _TURN  # lines at a time, so that their sums take little memory
_DUE = 32  # a glance is a look when this many times as long has gone by as the last look took


class Fingerprint:
    """Callable that hashes architecture, configuration and every weight of a model.

    The weights are hashed again only when a tensor was replaced or written to. PyTorch counts
    writes, but not those through `.data` or in inference mode; sums over all bits show them too
    (0.06 s per GB where the hash takes a second), unless all that happens in a line of 136 bytes
    cancels: numbers change places, or an even number of them their signs. `glance` sums one line
    of 61.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._config = ("", "")
        self._seen: _Seen | None = None
        self._turn = 0
        self._due = 0.0
        self._value = ""

    def __call__(self) -> str:
        """32 hexadecimal digits, of the weights as they are."""
        return self._looked(self._now())

    def glance(self) -> str:
        """The same for results that stay in memory, at a tenth of the price.

        Replaced tensors, and writes that PyTorch counts, are always seen. Of those that it doesn't
        count, changes of 8 kB side by side are; smaller ones when their lines have their turn, at
        the latest after 61 glances, or when a look at all weights is due, which takes no more
        than a thirtieth of the time.
        """
        now = self._now()
        if self._seen is None or not self._seen.same(now) or perf_counter() >= self._due:
            return self._looked(now)
        self._turn = (self._turn + 1) % _TURN
        sums = [_bit_sum(tensor, self._turn) for tensor in now.tensors.values()]
        if list(map(int, sums)) != [seen[self._turn % len(seen)] for seen in self._seen.sums]:
            return self._looked(now)
        return self._value

    def _now(self) -> "_Now":
        # As it is now: some of it is read at run time. Spelling it out copies it, so only after
        # its attributes changed.
        if (raw := repr(vars(self._model.config))) != self._config[0]:
            self._config = raw, config_text(self._model.config)
        adapters = json.dumps([*states(self._model)])  # on or off, and how strong
        return _Now(self._config[1], adapters, parameters(self._model))

    def _looked(self, now: "_Now") -> str:
        began = perf_counter()
        sums = [_bit_sums(tensor) for tensor in now.tensors.values()]
        ended = perf_counter()
        if self._seen is None or not self._seen.same(now) or sums != self._seen.sums:
            self._value = now.hashed(type(self._model).__name__)
            self._seen = _Seen.of(now, sums)
        self._due = perf_counter() + _DUE * (ended - began)
        return self._value


@dataclass(frozen=True)
class _Now:
    """What a fingerprint is of."""

    config: str
    adapters: str
    tensors: dict[str, Tensor]

    @property
    def texts(self) -> tuple[str, str, list[str]]:
        return self.config, self.adapters, [*self.tensors]

    @property
    def writes(self) -> list[tuple[int, int]]:
        return [(t.data_ptr(), _version(t)) for t in self.tensors.values()]

    def hashed(self, kind: str) -> str:
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(_tensor_hash, self.tensors.values()))
        whole = blake2b(kind.encode(), digest_size=16)
        whole.update(self.config.encode())
        for name, digest in zip(self.tensors, hashes, strict=True):
            whole.update(name.encode() + digest)
        if self.adapters != "[]":
            whole.update(self.adapters.encode())
        return whole.hexdigest()


@dataclass(frozen=True)
class _Seen:
    """What it was when it was hashed."""

    texts: tuple[str, str, list[str]]
    tensors: list[weakref.ref[Tensor]]
    writes: list[tuple[int, int]]
    sums: list[tuple[int, ...]]

    @classmethod
    def of(cls, now: _Now, sums: list[tuple[int, ...]]) -> Self:
        return cls(now.texts, list(map(weakref.ref, now.tensors.values())), now.writes, sums)

    def same(self, now: _Now) -> bool:
        """As far as it shows without a look at the weights."""
        return (
            (now.texts, now.writes) == (self.texts, self.writes)
            # An address is given anew, and with it the count of writes.
            and all(map(is_, (ref() for ref in self.tensors), now.tensors.values()))
        )


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


def _bit_sums(tensor: Tensor) -> tuple[int, ...]:
    """Of all its bits: a checksum, or a sum for each turn."""
    if (short := _checksum(tensor)) is not None:
        return (short,)
    lines, rest = _lines(tensor)
    whole = torch.zeros(_TURN, dtype=torch.int64, device=tensor.device)
    for first in range(0, len(lines), _SLAB):
        sums = _placed(lines[first : first + _SLAB], first, 1)
        even = len(sums) // _TURN * _TURN
        whole += sums[:even].view(-1, _TURN).sum(0)
        whole[: len(sums) - even] += sums[even:]
    return tuple((whole + rest).tolist())


def _bit_sum(tensor: Tensor, turn: int) -> int | Tensor:
    """One of `_bit_sums`; still on its device, where the next ones need not wait for it."""
    if (short := _checksum(tensor)) is not None:
        return short
    lines, rest = _lines(tensor)
    return _placed(lines[turn::_TURN], turn, _TURN).sum() + rest


def _checksum(tensor: Tensor) -> int | None:
    if tensor.numel() * tensor.itemsize > _SMALL or tensor.device.type != "cpu":
        return None
    return zlib.crc32(_bytes(tensor).numpy().data)


def _lines(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Its words in lines, and the sum of those that are left."""
    flat, size = _bytes(tensor), 8 * _LINE
    whole = len(flat) // size * size
    rest = functional.pad(flat[whole:], (0, size - len(flat) + whole)).view(torch.int64)
    return flat[:whole].view(torch.int64).view(-1, _LINE), rest.sum()


def _placed(lines: Tensor, first: int, step: int) -> Tensor:
    """Sums of lines, each of which counts by its place.

    Eight bytes at a time: 50 times faster than one by one. Their highest bit, a sign, is brought
    down, and places are odd numbers: else a sum that wraps around would lose it.
    """
    sums = lines.sum(1)
    sums ^= sums >> 31
    end = first + step * len(sums)
    return sums.mul_(torch.arange(2 * first + 1, 2 * end + 1, 2 * step, device=sums.device))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _tensor_hash(tensor: Tensor) -> bytes:
    flat = _bytes(tensor.cpu())
    head = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return blake2b(
        flat.numpy().data, digest_size=16, key=blake2b(head, digest_size=16).digest()
    ).digest()
