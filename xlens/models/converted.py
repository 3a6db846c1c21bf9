"""The cache of converted models: a GGUF file becomes a checkpoint folder, once.

`transformers` takes about a minute to unpack a small GGUF file and loads the unpacked checkpoint in
seconds. What is unpacked is written in fp32, which holds every dequantised number exactly: the
reloaded model has the same weights, bit for bit.

A folder appears under its final name only when it is whole (written beside, flushed, renamed), one
process at a time. Its manifest holds the size and SHA-256 of every file.
"""

import errno
import importlib
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlens import files
from xlens.errors import ModelError, StoreError
from xlens.models.checked import MANIFEST, check, read_manifest
from xlens.models.gguf import Header, read_header
from xlens.models.hf import load_model, load_tokenizer, quietly, replaced
from xlens.results import versions

# Raise it when the conversion writes something else: older folders are then rebuilt. 2: numbers
# begin at multiples of 64 bytes; those of 1 were copied at each load, at twice the memory.
FORMAT = 2
_ALIGNMENT = 64  # bytes
_STAGES = ("hash", "dequantise", "write", "verify")
_log = logging.getLogger(__name__)

# Byte-level vocabularies that split off every digit first, by the name of their rule in llama.cpp;
# transformers reads them as GPT-2's. SmolLM2 would tokenize "\n 3" differently.
_DIGIT_RULES = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2_RULES = {"default", "gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "phi-2"}
_PROBES = (
    'Français: "chien" - English: "dog"\n\n 3 x  12,345\t',
    "中文：狗。日本語のテスト 한국어 हिन्दी ไทย",
    "שלום עולם مرحبا بالعالم Привет",
    " 👩🏽‍🔬 e\u0301 \u1e69 \x00 <bos></s><|im_end|>",
    "",
)


def folder_for(name: str, digest: str) -> Path:
    """The folder of the converted model of a GGUF file, by the file's SHA-256."""
    return files.cache_root() / "models" / f"{name}-{digest[:12]}"


def verify(folder: Path, digest: str | None = None, *, full: bool = False) -> None:
    """Check a converted model: manifest and file sizes; with `full`, the SHA-256 of every file.

    Args:
        folder: As `folder_for` names it.
        digest: SHA-256 of the GGUF file it must come from.
        full: Read every byte.

    Raises:
        ValueError: missing, damaged, of another file or of another version of the conversion.
    """
    try:
        manifest = read_manifest(folder)
        fmt, source, sizes = manifest["format"], manifest["source"]["sha256"], manifest["files"]
        if fmt != FORMAT or digest not in (None, source):
            raise ModelError(
                f"{str(folder)!r} was converted from {source} in format {fmt}; "
                f"expected {digest or source} in format {FORMAT}"
            )
        for name, entry in sizes.items():
            path = folder / name
            if (size := path.stat().st_size) != entry["size"]:
                raise ModelError(f"{str(path)!r} has {size} bytes, not {entry['size']}")
            if full and files.digest(path) != entry["sha256"]:
                raise ModelError(f"{str(path)!r} does not have the SHA-256 of the manifest")
    except FileNotFoundError as error:
        raise ModelError(f"{str(error.filename)!r} is missing") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{str(folder / MANIFEST)!r} is damaged") from error


def is_converted(name: str, digest: str) -> bool:
    """Whether the converted model is in the cache: its files are there, in their size."""
    try:
        verify(folder_for(name, digest), digest)
    except (ValueError, OSError):
        return False
    return True


def find_converted(name: str, digest: str) -> Path | None:
    """The folder of the converted model, checked (`checked.check`); None if it is to be made.

    What is wrong with a damaged one is logged: it is made again.
    """
    folder = folder_for(name, digest)
    try:
        verify(folder, digest)
        check(folder, read_manifest(folder)["files"])
    except (ValueError, OSError) as error:
        if folder.exists():
            what = "the converted model %s is of older code, or damaged, and made again: %s"
            _log.warning(what, folder, error)
        return None
    return folder


def convert(
    name: str, digest: str, gguf_file: Callable[[Path], Path], *, progress: bool = True
) -> Path:
    """The folder of the converted model; made if it is missing or damaged.

    Args:
        name: Of the model.
        digest: SHA-256 of its GGUF file.
        gguf_file: Gives the file, checked against the digest; may write it into the folder it gets.
        progress: Draw a bar on stderr.

    Raises:
        ValueError: the file cannot be converted.
        OSError: the cache cannot be written; nothing half-written is left.
    """
    folder = folder_for(name, digest)
    if find_converted(name, digest):  # without the lock: a read-only cache can be used
        return folder
    try:
        files.make(folder.parent)
        lock = folder.parent / f".{folder.name}.lock"
        with files.Lock(lock, f"the conversion of {name}", math.inf):
            if is_converted(name, digest) and find_converted(name, digest):
                return folder  # by the process that was waited for
            with files.replacing(folder) as draft:
                _build(draft, name, digest, gguf_file, progress)
    except OSError as error:
        raise StoreError(
            f"The converted model {name!r} cannot be written to {str(folder.parent)!r}: {error}. "
            "Set XLENS_CACHE to a folder that can be written and has room."
        ) from error
    return folder


def _build(
    draft: Path, name: str, digest: str, gguf_file: Callable[[Path], Path], progress: bool
) -> None:
    with _bar(name, progress) as stage:
        stage("hash")
        source = draft / "source"
        source.mkdir()
        file = gguf_file(source)
        header = read_header(file)
        _need_room(draft, 4 * header.n_weights)
        stage("dequantise")
        model, tokenizer = dequantise(header)
        stage("write")
        _write(draft, model, tokenizer)
        stage("verify")
        _compare(draft, model, tokenizer)
        shutil.rmtree(source)
        manifest = {
            "format": FORMAT,
            "source": {"name": name, "sha256": digest, "architecture": header.architecture},
            "weights": header.weights_note,
            "licence": header.licence,
            "versions": versions(),
            "files": {
                p.name: {"size": p.stat().st_size, "sha256": files.digest(p)}
                for p in sorted(draft.iterdir())
            },
        }
        files.write(draft / MANIFEST, files.sealed_json(manifest))


def dequantise(header: Header) -> tuple[nn.Module, Any]:
    """Load a GGUF file's model, in fp32, and its tokenizer with transformers (slow).

    Raises:
        ValueError: transformers cannot read this architecture or vocabulary.
    """
    import gguf
    import transformers

    options: dict[str, Any] = {"gguf_file": header.path.name}
    packed: dict[str, Any] = {}
    if unpack := getattr(transformers, "GgufConfig", None):
        # Versions that can compute on packed blocks must be told to unpack them.
        packed["quantization_config"] = unpack(dequantize=True)
    reader = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    with (
        replaced(reader, "tqdm", lambda items, **_: items),  # no switch turns this bar off
        # transformers parses the file three times, ten seconds each for a large vocabulary.
        replaced(gguf, "GGUFReader", cache(gguf.GGUFReader)),
    ):
        model = load_model(header.path.parent, **options, **packed)
        tokenizer = load_tokenizer(header.path.parent, **options)
    _forget_quantization(model)
    _split_as_trained(header, tokenizer)
    _begin_as_trained(header, tokenizer)
    return model, tokenizer


def _forget_quantization(model: nn.Module) -> None:
    """The numbers are plain fp32 now; transformers refuses to save a model that says otherwise."""
    for owner, name in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "quantization_method"),
    ):
        if name in vars(owner):
            delattr(owner, name)
    model.is_quantized = False  # type: ignore[assignment]


def _split_as_trained(header: Header, tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if header.splits is None or not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return  # transformers knows the rule
    if header.splits in _DIGIT_RULES:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif header.splits not in _GPT2_RULES:
        _log.warning(
            "%s splits text by the rule %r, which transformers reads as GPT-2's: some words may be "
            "tokenized in another way than in training. Prefer the model's hub id.",
            header.path.name,
            header.splits,
        )


def _begin_as_trained(header: Header, tokenizer: Any) -> None:
    """Put BOS first, or not, as the file says; transformers 5.9 overlooks it."""
    adds = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if header.adds_bos is not None and header.adds_bos != adds:
        tokenizer.add_bos_token = header.adds_bos


def _write(draft: Path, model: Any, tokenizer: Any) -> None:
    from safetensors import SafetensorError

    try:
        with quietly():
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    except Exception as error:
        if type(error) in (SafetensorError, Exception):  # how Rust says that the disk is full
            raise OSError(str(error)) from error
        raise
    # The general class takes tokenizer.json as it stands; a family's own class would take only the
    # vocabulary from it and build the rest by itself.
    path = draft / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "padding_side": tokenizer.padding_side,
    }
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for weights in draft.glob("*.safetensors"):
        _align(weights)
        weights.chmod(path.stat().st_mode)  # written for the owner only, unlike the rest


def _align(weights: Path) -> None:
    """Let the numbers begin at a multiple of 64 bytes, where kernels like them.

    So they are used where they lie when the file is mapped; else each is copied, at twice the
    memory. The format takes a header with blanks at its end.
    """
    moved = weights.with_suffix(".moved")
    with weights.open("rb") as old, moved.open("wb") as new:
        size = int.from_bytes(old.read(8), "little")
        blanks = -(8 + size) % _ALIGNMENT
        new.write((size + blanks).to_bytes(8, "little") + old.read(size) + b" " * blanks)
        shutil.copyfileobj(old, new, 1 << 24)
    moved.replace(weights)


def _compare(draft: Path, model: Any, tokenizer: Any) -> None:
    """Load what was written and compare it with what was meant."""
    model_again: Any = load_model(draft, own_memory=False)
    written, meant = model_again.state_dict(), model.state_dict()
    wrong = [k for k in meant if k not in written or not torch.equal(meant[k], written[k])]
    wrong += [k for k in written if k not in meant]
    here, there = (
        {k: v for k, v in m.config.to_dict().items() if k not in ("_name_or_path", "architectures")}
        for m in (model, model_again)
    )
    wrong += [f"config.{k}" for k in here.keys() | there.keys() if here.get(k) != there.get(k)]
    tokenizer_again = load_tokenizer(draft)
    for key in ("special_tokens_map", "padding_side", "chat_template", "model_max_length"):
        if getattr(tokenizer, key) != getattr(tokenizer_again, key):
            wrong.append(f"tokenizer.{key}")
    if tokenizer.backend_tokenizer.to_str() != tokenizer_again.backend_tokenizer.to_str():
        wrong.append("tokenizer.json")
    wrong += [
        f"tokenizer({text!r})"
        for text in _PROBES
        if dict(tokenizer(text)) != dict(tokenizer_again(text))
    ]
    if wrong:
        raise ModelError(
            f"The converted model differs from the GGUF file in {', '.join(sorted(wrong)[:5])}; it "
            "was not kept. The versions of transformers and safetensors may not fit together."
        )


@contextmanager
def _bar(name: str, progress: bool) -> Generator[Callable[[str], None]]:
    from xlens.bars import tqdm

    if progress:
        print(f"{name}: converting the GGUF file, once; it may take minutes.", file=sys.stderr)
    with tqdm(
        total=len(_STAGES),
        disable=None if progress else True,  # None: off where stderr is not a terminal
        leave=False,
        bar_format="{desc} |{bar:20}| {n}/{total} [{elapsed}]",
    ) as bar:

        def stage(what: str) -> None:
            bar.n = _STAGES.index(what)
            bar.set_description_str(f"{name}: {what}")  # draws

        yield stage


def _need_room(folder: Path, n_bytes: int) -> None:
    if (free := shutil.disk_usage(folder).free) < n_bytes:
        raise OSError(
            errno.ENOSPC, f"{n_bytes / 1e9:.1f} GB needed in fp32, {free / 1e9:.1f} GB free"
        )
