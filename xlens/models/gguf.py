"""What a GGUF file says about itself, read and checked before anything expensive starts."""

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from xlens.errors import ModelError
from xlens.models.declared import check_config

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
# What reading numbers out of a damaged header ends in.
_DAMAGE = (struct.error, IndexError, OverflowError, ZeroDivisionError, UnicodeDecodeError)
_FLOATS = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class Header:
    """A GGUF file's own description.

    Attributes:
        path: The file.
        architecture: llama.cpp's name of the family: "gemma3", "llama".
        quantization: llama.cpp's name of the format: "Q4_K_M", "F16".
        licence: As the file states it: "apache-2.0".
        splits: Name of the rule that splits text into words ("smollm"), if it has one.
        adds_bos: Whether BOS is put before a text, if the file decides that.
        n_weights: Numbers in all tensors.
    """

    path: Path
    architecture: str
    quantization: str
    licence: str | None
    splits: str | None
    adds_bos: bool | None
    n_weights: int

    @property
    def weights_note(self) -> str:
        """How results describe the weights: "Q4_K_M, dequantised"."""
        return (
            f"{self.quantization} GGUF"
            if self.quantization in _FLOATS
            else dequantised(self.quantization)
        )


def dequantised(quantization: str) -> str:
    """The note on weights that were stored in `quantization` and unpacked."""
    return f"{quantization}, dequantised"


def is_gguf(path: Path) -> bool:
    """Whether the file starts as GGUF files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file and check that the whole file is there.

    Raises:
        ValueError: not a GGUF file, cut short, one part of several, or of a kind that
            `transformers` would load wrongly.
    """
    size = path.stat().st_size
    if not is_gguf(path):
        raise ModelError(
            f"{str(path)!r} is not a GGUF file: it does not start with the bytes 'GGUF'. Accepted "
            "are a .gguf file, a folder with config.json, a hub id, or a name `xlens models` lists."
        )
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            version, n_tensors, n_fields = struct.unpack_from("<IQQ", data, 4)
            if version not in _VERSIONS:
                raise ModelError(
                    f"{str(path)!r} is GGUF version {version} (or big-endian); xlens reads "
                    "versions 2 and 3. Convert it with a current llama.cpp."
                )
            fields, at = _fields(data, n_fields, 24)
            tensors, at = _tensors(data, n_tensors, at)
            alignment = int(fields.get("general.alignment", 32))
            start = -(-at // alignment) * alignment
            end = start + max((t.offset + t.n_bytes for t in tensors), default=0)
            if end > size:
                raise _truncated(path, size, end)
            _check(path, fields, tensors, data, start)
    except _DAMAGE as error:
        raise _truncated(path, size, None) from error
    vocabulary = fields["tokenizer.ggml.model"]
    return Header(
        path=path,
        architecture=str(fields["general.architecture"]),
        quantization=_quantization(fields, tensors),
        licence=fields.get("general.license"),
        splits=fields.get("tokenizer.ggml.pre") if vocabulary == "gpt2" else None,
        adds_bos=_adds_bos(vocabulary, fields.get("tokenizer.ggml.add_bos_token")),
        n_weights=sum(prod(t.shape) for t in tensors),
    )


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    n_bytes: int


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    start, end = at + 8, at + 8 + length
    if end > len(data):
        raise IndexError("text past the end of the file")
    return data[start:end].decode("utf-8"), end


def _fields(data: mmap.mmap, n: int, at: int) -> tuple[dict[str, Any], int]:
    """The single values of the metadata; of an array only its length."""
    found: dict[str, Any] = {}
    for _ in range(n):
        key, at = _string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        found[key], at = _value(data, kind, at + 4)
    return found, at


def _value(data: mmap.mmap, kind: int, at: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, at)
    if kind == _ARRAY:
        inner, length = struct.unpack_from("<IQ", data, at)
        at += 12
        if inner in _SCALARS:
            return length, at + length * struct.calcsize(_SCALARS[inner])
        for _ in range(length):
            if inner == _STRING:  # skipped, not decoded: a vocabulary has 262,144
                at += 8 + struct.unpack_from("<Q", data, at)[0]
            else:
                _, at = _value(data, inner, at)
        return length, at
    if kind not in _SCALARS:
        raise IndexError(f"no value has type {kind}")
    code = "<" + _SCALARS[kind]
    return struct.unpack_from(code, data, at)[0], at + struct.calcsize(code)


def _tensors(data: mmap.mmap, n: int, at: int) -> tuple[list[_Tensor], int]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    found: list[_Tensor] = []
    for _ in range(n):
        name, at = _string(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
        number, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n_dims)
        at += 16 + 8 * n_dims
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelError(
                f"The GGUF tensor {name!r} has type {number}, which the installed gguf package "
                "does not know; upgrade it (pip install -U gguf)."
            ) from error
        block, n_bytes = GGML_QUANT_SIZES[kind]
        found.append(_Tensor(name, shape, kind.name, offset, prod(shape) // block * n_bytes))
    return found, at


def _quantization(fields: dict[str, Any], tensors: list[_Tensor]) -> str:
    from gguf import LlamaFileType

    try:
        return LlamaFileType(fields["general.file_type"]).name.split("_", 1)[1]  # MOSTLY_Q4_K_M
    except (KeyError, ValueError):
        weights: Counter[str] = Counter()
        for tensor in tensors:
            weights[tensor.kind] += prod(tensor.shape)
        return weights.most_common(1)[0][0]


def _adds_bos(vocabulary: str, flag: bool | None) -> bool | None:
    if (
        vocabulary == "gemma4"
    ):  # its files say yes, its own tokenizer leaves BOS to the chat template
        return None
    return True if flag is None and vocabulary == "llama" else flag  # llama.cpp's default


def _check(
    path: Path, fields: dict[str, Any], tensors: list[_Tensor], data: mmap.mmap, start: int
) -> None:
    needed = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.tokens")
    absent = [key for key in needed if key not in fields]
    if absent or not tensors:
        raise ModelError(
            f"{str(path)!r} is a GGUF file, but not of a whole language model: it has no "
            f"{', '.join(absent) or 'tensors'}. xlens needs weights and vocabulary in one file."
        )
    check_config(fields, f"The header of {str(path)!r}")
    if (parts := int(fields.get("split.count", 1))) > 1:
        raise ModelError(
            f"{str(path)!r} is one of {parts} parts; join them first: "
            f"llama-gguf-split --merge {path.name} whole.gguf"
        )
    for tensor in tensors:
        if not tensor.name.startswith("rope_f"):
            continue
        at = start + tensor.offset
        # Factors of 1 change nothing; older files carry them.
        ones = tensor.kind == "F32" and data[at : at + tensor.n_bytes] == struct.pack(
            f"<{prod(tensor.shape)}f", *[1.0] * prod(tensor.shape)
        )
        if not ones:
            raise ModelError(
                f"{str(path)!r} stretches its rotary positions ({tensor.name}, as Llama 3.1 and "
                "later do), which transformers drops when it reads GGUF files: the model would "
                "be another one. Load the same model from its hub id or a checkpoint folder."
            )


def _truncated(path: Path, size: int, expected: int | None) -> ValueError:
    needed = f"at least {expected:,}" if expected else "more"
    return ModelError(
        f"{str(path)!r} is a GGUF file that was cut short or damaged: it has {size:,} bytes and "
        f"its own header asks for {needed}. Copy or download it again."
    )
