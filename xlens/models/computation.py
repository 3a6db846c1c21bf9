"""What a model computes with besides its weights, and what changes it that cannot be named.

Stored results are found again by a key. Whatever decides the numbers stands in it (`computation`);
what can't be named, such as the user's own hooks, is `foreign`: nothing is then stored or found.
"""

import inspect
import json
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from xlens.models.fingerprint import config_text
from xlens.models.tree import walk

# Whose hooks and forwards change nothing that a key doesn't say: weights fetched from elsewhere,
# outputs recorded, adapters (their state is attributes and parameters of modules).
_KNOWN = frozenset({"torch", "transformers", "accelerate", "peft", "safetensors", "xlens"})
# Attributes that say where a model lies or came from, and what a pass leaves behind.
_IDLE = frozenset(
    {*vars(nn.Module()), "forward", "_old_forward", "_hf_hook", "hf_device_map", "name_or_path"}
    | {"_is_hf_initialized", "warnings_issued", "max_seq_len_cached", "is_gradient_checkpointing"}
    | {"gradient_checkpointing", "_output_capturing_hooks_installed"}
)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
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


def precision() -> dict[str, str]:
    """How exactly torch multiplies matrices; said only where it departs from fp32 in full."""
    found = {"float32_matmul": torch.get_float32_matmul_precision()}
    if torch.get_default_dtype() != torch.float32:
        found["default_dtype"] = str(torch.get_default_dtype())
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


def foreign(hf_model: nn.Module) -> list[str]:
    """What changes the model's passes and can't stand in a key, in words; empty for nothing."""
    found = [f"a hook on all modules ({_named(h)})" for h in _hooks(torch_module, _GLOBAL_HOOKS)]
    stack = torch.overrides._get_current_function_mode_stack()  # pyright: ignore[reportPrivateUsage]
    modes = [m for m in stack if _package(type(m).__module__) != "torch"]
    found += [f"the torch function mode {type(mode).__name__}" for mode in modes]
    classes = dict[type[nn.Module], str]()
    for name, module in walk(hf_model):
        where = name or type(module).__name__
        classes.setdefault(type(module), where)
        held = vars(module)
        # Each call comes by here: what is nearly always empty is asked in the cheapest way.
        if any(map(held.__getitem__, _HOOKS)):
            hooks = _hooks(module, _HOOKS)
            found += [f"a hook ({_named(h)}) on {where}" for h in hooks if not _is_known(h)]
        if "_hf_hook" in held:
            found += [
                f"accelerate's {type(hook).__name__} on {where}"
                for hook in _placements(held["_hf_hook"])
                if _package(type(hook).__module__) not in _KNOWN
            ]
        for method, function in held.items():
            if callable(function):
                own = inspect.isfunction(getattr(type(module), method, None))
                if own and not _is_known(function):
                    found.append(f"{where}.{method} replaced by {_named(function)}")
    for kind in classes:
        found += _replaced(kind)
    for source in {kind.__module__ for kind in classes}:
        found += _patched(sys.modules.get(source))
    return [*found, *_attention(hf_model)]


def attention_of(hf_model: nn.Module) -> str | None:
    """The attention implementation that is set now."""
    return getattr(hf_model.config, "_attn_implementation", None)


# --- modules, their attributes and buffers ---


def _modules(hf_model: nn.Module) -> str:
    whole = blake2b(digest_size=16)
    configs = dict[int, int]()
    for name, module in walk(hf_model):
        rotary = _varying(module)
        said: dict[str, Any] = {
            "": [name, f"{type(module).__module__}.{type(module).__qualname__}"]
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
                    own = None if value is hf_model.config else value._attn_implementation
                    whole.update(f"{config_text(value)} {own}".encode())
                said[attribute] = ["config", configs[id(value)]]
            else:
                said[attribute] = _plain(value)
        buffers = vars(module)["_buffers"]
        said |= {k: _plain(v) for k, v in buffers.items() if k not in rotary}
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


def _plain(value: Any) -> Any:
    """A value as JSON; of what has no such form, its type."""
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, Enum)):
        return repr(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), blake2b(value.tobytes()).hexdigest()]
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), tensor_digest(value)]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast(list[Any], value)]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(item) for item in cast(set[Any], value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, FunctionType):
        code, cells = value.__code__, value.__closure__ or ()
        constants = [c for c in code.co_consts if not isinstance(c, CodeType)]
        held = [_plain(cell.cell_contents) for cell in cells]
        told = [value.__module__, value.__qualname__, code.co_code.hex(), list(code.co_names)]
        return [*told, repr(constants), held]
    kind = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def tensor_digest(tensor: Tensor) -> str:
    """32 hexadecimal digits of a tensor's bytes."""
    if tensor.device.type == "meta":
        return "meta"
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return blake2b(flat.numpy().data, digest_size=16).hexdigest()


# --- code ---


def _code(hf_model: nn.Module) -> dict[str, str]:
    """Versions of the packages whose modules compute; of code outside of any, a digest."""
    import transformers

    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    for source in {type(module).__module__ for _, module in walk(hf_model)}:
        package = _package(source)
        if package not in found:
            found[source if package == "transformers_modules" else package] = _version(source)
    return dict(sorted(found.items()))


def _version(source: str) -> str:
    from importlib import metadata

    package = _package(source)
    if package == "xlens":
        return "xlens"  # its own changes are told by the epoch of the key
    try:
        return metadata.version(metadata.packages_distributions()[package][0])
    except (KeyError, metadata.PackageNotFoundError):
        pass
    file = getattr(sys.modules.get(source), "__file__", None)
    if file is None or not Path(file).is_file():
        return "unknown"
    # Code that comes with a checkpoint imports what lies beside it.
    beside = Path(file).parent.glob("*.py") if package == "transformers_modules" else [Path(file)]
    whole = blake2b(digest_size=16)
    for path in sorted(beside):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


# --- what others placed ---


def _hooks(owner: Any, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        yield from getattr(owner, name).values()


def _placements(hook: Any) -> Iterator[Any]:
    if hook is not None:
        yield hook
    for inner in getattr(hook, "hooks", ()):
        yield from _placements(inner)


def _function(what: Any) -> Any:
    """The function behind a partial, a bound method, or decorators."""
    while True:
        inner = getattr(what, "func", None) or getattr(what, "__func__", None)
        inner = inner or getattr(what, "__wrapped__", None)
        if inner is None:
            return what
        what = inner


def _home(what: Any) -> str:
    """The package in which a callable was written, whatever it calls itself."""
    function = _function(what)
    if isinstance(function, FunctionType):
        return _package(str(function.__globals__.get("__name__")))
    return _package(type(function).__module__ if not inspect.isroutine(function) else "torch")


def _is_known(what: Any) -> bool:
    return _home(what) in _KNOWN


def _replaced(kind: type[nn.Module]) -> list[str]:
    """A class whose forward was written somewhere else than the class."""
    for owner in kind.__mro__:
        step = vars(owner).get("forward")
        if step is None:
            continue
        allowed = {_package(owner.__module__), *_KNOWN, "contextlib", "functools"}
        while isinstance(step, FunctionType):
            if _package(str(step.__globals__.get("__name__"))) not in allowed:
                return [f"{kind.__name__}.forward replaced by {_named(step)}"]
            step = getattr(step, "__wrapped__", None)
        return []
    return []


def _patched(source: ModuleType | None) -> list[str]:
    """Functions of a model's own file that were written elsewhere (fused kernels)."""
    if source is None or _package(source.__name__) != "transformers":
        return []
    functions = [(k, v) for k, v in vars(source).items() if isinstance(v, FunctionType)]
    return [
        f"{source.__name__}.{name} replaced by {_named(function)}"
        for name, function in functions
        if (home := _home(function)) not in _KNOWN and home not in sys.stdlib_module_names
    ]


def _attention(hf_model: nn.Module) -> list[str]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = attention_of(hf_model)
    registered: Any = ALL_ATTENTION_FUNCTIONS
    function = registered.get(name)
    if function is None or _is_known(function):
        return []
    return [f"the attention implementation {name!r} ({_named(function)})"]


def _package(module: str) -> str:
    return module.partition(".")[0]


def _named(what: Any) -> str:
    function = _function(what)
    return f"{getattr(function, '__qualname__', type(function).__name__)}, {_home(what)}"
