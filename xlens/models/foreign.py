"""What changes a model's passes and can't stand in a key: nothing is then stored or found.

The user's own hooks, forwards and functions put in another's place, modes of torch, compiled
modules. What xlens, accelerate, peft and transformers place is told by the key or changes nothing.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from operator import is_
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from xlens.models.computation import attention_of, named_source, package_of
from xlens.models.tree import walk

# Whose hooks and forwards change nothing that a key doesn't say: weights fetched from elsewhere,
# outputs recorded, adapters (their state is attributes and parameters of modules).
_KNOWN = frozenset({"torch", "transformers", "accelerate", "peft", "safetensors", "xlens"})
_LIBRARIES = frozenset({"accelerate", "peft", "xlens"})
# What these put around a function hands on what it got.
_DECORATORS = frozenset({"contextlib", "functools", "typing_extensions", "jaxtyping", "beartype"})
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
# What dynamo leaves in the file of a module that it compiled; nothing else calls it.
_COMPILED = ("__compiled_fn", "__resume_at")
# Files whose functions every model calls.
_SHARED = ("integrations.sdpa_attention", "masking_utils", "activations", "modeling_rope_utils")
# As torch brought them: even one of its own functions in another's place changes the numbers.
_TORCH = (torch, functional, torch.Tensor, nn.Module)
_as_brought: dict[Any, dict[str, Any]] = {owner: dict(vars(owner)) for owner in _TORCH}
_checked: dict[Any, tuple[list[Any], list[str]]] = {}


def foreign(hf_model: nn.Module) -> list[str]:
    """What it is, in words; empty for nothing."""
    found = [f"a hook on all modules ({_named(h)})" for h in _hooks(torch_module, _GLOBAL_HOOKS)]
    found += [f"the torch mode {type(m).__name__}" for m in _modes()]
    found += [what for owner in _TORCH for what in _looked_through(owner, _exchanged)]
    classes = set[type[nn.Module]]()
    for name, module in walk(hf_model):
        where = name or type(module).__name__
        classes.add(type(module))
        held = vars(module)
        # Each call comes by here: what is nearly always empty is asked in the cheapest way.
        if any(map(held.__getitem__, _HOOKS)):
            hooks = _hooks(module, _HOOKS)
            found += [f"a hook ({_named(h)}) on {where}" for h in hooks if not _is_known(h)]
        if "_hf_hook" in held:
            found += [
                f"accelerate's {type(hook).__name__} on {where}"
                for hook in _placements(held["_hf_hook"])
                if package_of(type(hook).__module__) not in _KNOWN
            ]
        for method, function in held.items():
            if callable(function):
                if method == "_compiled_call_impl":
                    found.append(f"torch.compile on {where}")
                usual = getattr(type(module), method, None)
                if inspect.isfunction(usual) and not _stands_for(function, usual):
                    found.append(f"{where}.{method} replaced by {_named(function)}")
    compiled = {kind for kind in classes if kind.__module__.startswith("torch._dynamo")}
    found += ["torch.compile on a module"] if compiled else []
    for owner in dict.fromkeys(o for kind in classes - compiled for o in _above_modules(kind)):
        found += _looked_through(owner, _methods_elsewhere)
    for source in sorted({kind.__module__ for kind in classes}):
        if not named_source(source):
            found.append(f"modules of {source}, which is no file")
        if package_of(source) == "transformers":
            found += _looked_through(sys.modules[source], _functions_elsewhere)
    shared = (sys.modules.get(f"transformers.{name}") for name in _SHARED)
    found += [w for file in shared if file for w in _looked_through(file, _functions_elsewhere)]
    return [*dict.fromkeys(found), *_attention(hf_model)]


def _hooks(owner: Any, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        yield from getattr(owner, name).values()


def _modes() -> list[Any]:
    """Of whoever wrote them, but for torch's own (the default device, for one)."""
    from torch.utils._python_dispatch import (
        _get_current_dispatch_mode_stack,  # pyright: ignore[reportPrivateUsage]
    )

    functions = torch.overrides._get_current_function_mode_stack()  # pyright: ignore[reportPrivateUsage]
    stack = [*functions, *_get_current_dispatch_mode_stack()]
    return [mode for mode in stack if package_of(type(mode).__module__) != "torch"]


def _placements(hook: Any) -> Iterator[Any]:
    if hook is not None:
        yield hook
    for inner in getattr(hook, "hooks", ()):
        yield from _placements(inner)


# --- who wrote a function ---


def _layers(what: Any) -> Iterator[Any]:
    """A callable, and what lies in it: of partials, bound methods and decorators."""
    while what is not None:
        yield what
        inner = getattr(what, "func", None) or getattr(what, "__func__", None)
        what = inner or getattr(what, "__wrapped__", None)


def _homes(what: Any) -> Iterator[str]:
    """The packages in which the layers of a callable were written, whatever they call themselves.

    All count: a decorator that calls what it wraps can change what comes back.
    """
    layers = list(_layers(what))
    for layer in layers:
        if isinstance(layer, FunctionType):
            name = str(layer.__globals__.get("__name__"))
            yield "torch.compile" if name.startswith("torch._dynamo") else package_of(name)
        elif layer is layers[-1] and not inspect.isroutine(layer):
            yield package_of(type(layer).__module__)


def _is_known(what: Any, further: frozenset[str] = frozenset()) -> bool:
    return {*_homes(what)} <= _KNOWN | _DECORATORS | further


def _stands_for(function: Any, usual: Any) -> bool:
    """Whether a module's own method is its class's, or what a known package put around it."""
    if not _is_known(function):
        return False
    *_, inner = _layers(function)
    *_, meant = _layers(usual)
    return inner is meant or not _LIBRARIES.isdisjoint(_homes(function))


def _named(what: Any) -> str:
    *_, inner = _layers(what)
    outer = next((x for x in _layers(what) if isinstance(x, FunctionType)), inner)
    home = next((h for h in _homes(what) if h not in _KNOWN), "torch")
    return f"{getattr(outer, '__qualname__', type(outer).__name__)}, {home}"


# --- classes and files that hold what was written elsewhere ---


def _looked_through(owner: Any, look: Callable[[Any], list[str]]) -> list[str]:
    """What `look` finds in a class or file; it looks again when a name there was given anew."""
    now = vars(owner)
    values, found = _checked.get(owner, (None, []))
    if values is None or len(values) != len(now) or not all(map(is_, now.values(), values)):
        found = look(owner)
        _checked[owner] = [*now.values()], found
    return found


def _exchanged(owner: Any) -> list[str]:
    """Names of torch that hold what others wrote, or another of its functions than at import."""
    before = _as_brought[owner]
    return [
        f"{owner.__name__}.{name} replaced by {_named(value)}"
        for name, value in vars(owner).items()
        if callable(value)
        and not isinstance(value, type)
        and not _by_dynamo(value)
        and (not _is_known(value, _standard()) or _swapped(before.get(name, value), value))
    ]


def _swapped(before: Any, now: Any) -> bool:
    # torch itself puts wrappers around some (manual_seed) when parts of it are imported later.
    names = [getattr(function, "__name__", None) for function in (before, now)]
    return before is not now and names[0] != names[1] and {*_homes(now)} <= {"torch"}


@cache
def _above_modules(kind: type[nn.Module]) -> tuple[type, ...]:
    return kind.__mro__[: kind.__mro__.index(nn.Module)]


def _by_dynamo(value: Any) -> bool:
    """Whether this is one of torch's own, wrapped by torch.compile to mark what is made inside."""
    homes = {*_homes(value)}
    return "torch.compile" in homes and homes <= {"torch.compile", "torch", "functools"}


def _methods_elsewhere(kind: type) -> list[str]:
    own = frozenset({package_of(kind.__module__)})
    return [
        f"{kind.__name__}.{name} replaced by {_named(value)}"
        for name, value in vars(kind).items()
        if isinstance(value, FunctionType) and not _is_known(value, own)
    ]


def _functions_elsewhere(source: ModuleType) -> list[str]:
    """Functions in a file of transformers that others wrote (fused kernels)."""
    return [
        f"{source.__name__}.{name} replaced by {_named(value)}"
        for name, value in vars(source).items()
        if callable(value)
        and not isinstance(value, type)
        and not name.startswith(_COMPILED)
        and not _is_known(value, _standard())
    ]


def _standard() -> frozenset[str]:
    return sys.stdlib_module_names - {"__main__"}


def _attention(hf_model: nn.Module) -> list[str]:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name: Any = attention_of(hf_model)
    tables: dict[str, Any] = {
        "attention implementation": ALL_ATTENTION_FUNCTIONS,
        "attention mask": ALL_MASK_ATTENTION_FUNCTIONS,
    }
    return [
        f"the {what} {name!r} ({_named(function)})"
        for what, table in tables.items()
        if (function := table.get(name)) is not None and not _is_known(function)
    ]
