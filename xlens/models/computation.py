"""What a model computes with besides its weights: what a store's key says of it.

Stored results are found again by a key, and whatever decides the numbers stands in it. What can't
be named, such as the user's own hooks, is `xlens.models.foreign`.
"""

import functools
import inspect
import json
import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from xlens.models.fingerprint import config_text
from xlens.models.tree import walk

# Attributes that say where a model lies or came from, and what a pass leaves behind.
_IDLE = frozenset(
    {*vars(nn.Module()), "forward", "_old_forward", "_hf_hook", "hf_device_map", "name_or_path"}
    | {"_is_hf_initialized", "warnings_issued", "max_seq_len_cached", "is_gradient_checkpointing"}
    | {"gradient_checkpointing", "_output_capturing_hooks_installed"}
)
# Before the name of an attention kernel while what it is given is looked at (`kernels`).
LOOKED = "xlens_"
# Whose files are as they were released.
_RELEASED = frozenset({"torch", "transformers", "accelerate", "peft", "xlens"})
_around: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()


def computation(hf_model: nn.Module) -> dict[str, Any]:
    """What decides the numbers besides parameters, config and prompts, as JSON.

    Buffers, the attributes of every module (scales, windows, an adapter's state), the code by
    version or digest, matrix precision, and the interventions around. Not the training mode:
    xlens runs every pass in evaluation mode.
    """
    return {
        "precision": precision(),
        "modules": _modules(hf_model),
        "code": _code(hf_model),
        "around": around(hf_model),
    }


def precision() -> dict[str, Any]:
    """How exactly torch multiplies matrices; said further only where it departs from the usual."""
    backends: Any = torch.backends
    set_now = {k: str(getattr(backends, k).matmul.fp32_precision) for k in ("cuda", "mkldnn")}
    try:
        with warnings.catch_warnings():  # torch 2.9 warns of old settings who only reads them
            warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
            found: dict[str, Any] = {"float32_matmul": torch.get_float32_matmul_precision()}
    except RuntimeError:  # set through `fp32_precision`, and the two differ
        found = {"float32_matmul": set_now}
    else:
        usual = {"none", "ieee"}
        if found["float32_matmul"] == "highest" and not {*set_now.values()} <= usual:
            found = {"float32_matmul": set_now}
    if torch.get_default_dtype() != torch.float32:
        found["default_dtype"] = str(torch.get_default_dtype())
    kernels = ("flash", "mem_efficient", "math", "cudnn")
    off = [k for k in kernels if not getattr(torch.backends.cuda, f"{k}_sdp_enabled")()]
    if off:
        found["sdpa_without"] = off
    return found


@contextmanager
def surrounded(hf_model: nn.Module, key: Any) -> Generator[None]:
    """Say that interventions of this key lie around whatever runs inside."""
    mine = _around.setdefault(hf_model, [])
    mine.append(key)
    try:
        yield
    finally:
        mine.pop()


def around(hf_model: nn.Module) -> list[Any]:
    """Keys of the interventions around, the outermost first."""
    return list(_around.get(hf_model, ()))


def attention_of(hf_model: nn.Module) -> str | None:
    """The attention implementation that is set now for the blocks."""
    config: Any = hf_model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return _usual(getattr(text, "_attn_implementation", None))


def attention_configs(hf_model: nn.Module) -> list[Any]:
    """Each config whose name of an attention implementation some module goes by."""
    held = (getattr(module, "config", None) for _, module in walk(hf_model))
    named = {id(c): c for c in held if getattr(c, "_attn_implementation", None) is not None}
    return [*named.values()]


def _usual(attention: str | None) -> str | None:
    """The same kernel's name where nobody looks."""
    return attention and attention.removeprefix(LOOKED)


# --- modules, their attributes and buffers ---


def _modules(hf_model: nn.Module) -> str:
    whole = blake2b(digest_size=16)
    configs = dict[int, int]()
    known = {id(module): name for name, module in walk(hf_model)}
    for name, module in walk(hf_model):
        rotary = _varying(module)
        said: dict[str, Any] = {
            "": [name, f"{type(module).__module__}.{type(module).__qualname__}"],
            "forward": _whose(type(module).forward),
        }
        for attribute, value in vars(module).items():
            if attribute in _IDLE or attribute in rotary:
                continue
            if module is hf_model and attribute.startswith("_"):
                continue  # how it was loaded
            if hasattr(value, "to_dict") and hasattr(value, "_attn_implementation"):
                if id(value) not in configs:  # most modules hold the model's own
                    configs[id(value)] = len(configs)
                    # The model's own attention stands in the key by its name.
                    own = None if value is hf_model.config else _usual(value._attn_implementation)
                    whole.update(f"{config_text(value)} {own}".encode())
                said[attribute] = ["config", configs[id(value)]]
            else:
                said[attribute] = _plain(value, known)
        buffers = vars(module)["_buffers"]
        said |= {k: _plain(v, known) for k, v in buffers.items() if k not in rotary}
        whole.update(json.dumps(said, sort_keys=True).encode())
    return whole.hexdigest()


def _varying(module: nn.Module) -> set[str]:
    """What a pass writes where frequencies follow its length: the next pass writes it anew."""
    kinds = getattr(module, "rope_type", None)
    named = kinds.values() if isinstance(kinds, Mapping) else [kinds]
    if not any("dynamic" in str(kind) or kind == "longrope" for kind in named):
        return set()
    held = {*vars(module), *vars(module)["_buffers"]}
    return {
        k for k in held if k.endswith(("inv_freq", "max_seq_len_cached")) and "original" not in k
    }


def _plain(value: Any, known: Mapping[int, str], inside: tuple[int, ...] = ()) -> Any:
    """A value as JSON; of what has no such form, its type.

    Args:
        value: An attribute, or what it holds.
        known: Names of the model's own modules by id: they are told by themselves.
        inside: Ids of what `value` lies in.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, torch.dtype, Enum)):
        return repr(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), blake2b(value.tobytes()).hexdigest()]
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), tensor_digest(value)]
    if id(value) in inside or id(value) in known:
        return ["module", known.get(id(value), "around")]

    def within(part: Any) -> Any:
        return _plain(part, known, (*inside, id(value)))

    if isinstance(value, (list, tuple)):
        return [within(item) for item in cast(list[Any], value)]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(item) for item in cast(set[Any], value))
    if isinstance(value, Mapping):
        return {str(k): within(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, functools.partial):
        made = cast("functools.partial[Any]", value)
        return [within(part) for part in (made.func, made.args, made.keywords)]
    if isinstance(value, FunctionType):
        code, cells = value.__code__, value.__closure__ or ()
        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        held = [cell.cell_contents for cell in cells]
        told = [value.__module__, value.__qualname__, code.co_code.hex(), list(code.co_names)]
        given = [value.__defaults__, value.__kwdefaults__]
        return [*told, repr(constants), within(held), within(given)]
    kind = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is value:
        return name  # told by the code
    own: dict[str, Any] = dict(getattr(value, "__dict__", {}))
    if isinstance(value, nn.Module):  # one that torch doesn't know of, in a list
        held = ("_parameters", "_buffers", "_modules")
        own = {k: v for k, v in own.items() if k in held or k not in _IDLE}
    elif _anyones(kind.__module__):
        slots = [s for base in inspect.getmro(type(value)) for s in vars(base).get("__slots__", ())]
        own |= {s: getattr(value, s) for s in slots if hasattr(value, s)}
    else:
        return name
    return [name, within(own)]


def _anyones(module: str) -> bool:
    """Whether objects of this module's classes may hold numbers: not those of torch or Python."""
    package = package_of(module)
    return package == "types" or package not in _RELEASED | sys.stdlib_module_names


def tensor_digest(tensor: Tensor) -> str:
    """32 hexadecimal digits of a tensor's bytes."""
    if tensor.device.type == "meta":
        return "meta"
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return blake2b(flat.numpy().data, digest_size=16).hexdigest()


# --- code ---


def package_of(module: str) -> str:
    """The package of a module's dotted name."""
    return module.partition(".")[0]


def named_source(source: str) -> bool:
    """Whether code of this module can be told from other code: by a version or by its file."""
    return _distribution(source) is not None or _file(source) is not None


def _code(hf_model: nn.Module) -> dict[str, str]:
    """Versions of the packages whose modules compute; of code outside of any, a digest."""
    import transformers
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    for source in {type(module).__module__ for _, module in walk(hf_model)}:
        # Of a package that may be worked on, each file can change by itself.
        name = package_of(source) if package_of(source) in _RELEASED else source
        if name not in found:
            found[name] = _version(source)
    attention: Any = ALL_ATTENTION_FUNCTIONS.get(attention_of(hf_model))
    if attention is not None:  # its name in the config may stand for another's function
        found["attention"] = _whose(attention)
    return dict(sorted(found.items()))


def _version(source: str) -> str:
    package, version = package_of(source), _distribution(source)
    if package == "xlens":
        return "xlens"  # its own changes are told by the epoch of the key
    file = _file(source)
    if file is None or package in _RELEASED:
        return version or "unknown"
    # Such code imports what lies beside it, and a package that is worked on keeps its version.
    return f"{version or ''} {code_of(file.parent)}".strip()


def code_of(folder: Path) -> str:
    """A digest of the Python files that lie in a folder."""
    whole = blake2b(digest_size=16)
    for path in sorted(folder.glob("*.py")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def _distribution(source: str) -> str | None:
    """The version of the package that brought a module, if one did."""
    from importlib import metadata

    package = package_of(source)
    if package in _RELEASED:
        return str(getattr(sys.modules.get(package), "__version__", "")) or None
    try:
        return metadata.version(metadata.packages_distributions()[package][0])
    except (KeyError, metadata.PackageNotFoundError):
        return None


def _file(source: str) -> Path | None:
    file = getattr(sys.modules.get(source), "__file__", None)
    return Path(file) if file is not None and Path(file).is_file() else None


def _whose(function: Any) -> str:
    function = inspect.unwrap(function)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
