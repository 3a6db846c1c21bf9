"""Attention as the model was meant: what an implementation leaves out shows against `eager`.

transformers hands scores, mask and extras (soft-cap, sinks, ALiBi, windows) to one of several
implementations, and one that cannot do an extra may say nothing: below 5.21, sdpa dropped the
soft-cap of Gemma 2, a change of .59 of the states that the readout check cannot see. `eager` spells
every step out, so each other implementation is compared with it once, on a short and a long text.
"""

import logging
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from xlens.errors import InputError
from xlens.models.computation import attention_configs, attention_of
from xlens.models.families import Family
from xlens.models.hooks import residual, zeroed
from xlens.models.tree import walk

_SHORT, _LONG = 8, 160
# Windows that no text of this length fills are made narrower for the comparison, on both sides.
_WINDOW = 64
_WINDOWS = ("sliding_window", "attention_chunk_size")
# Blocks that are compared where the config does not say which differ in kind.
_BLOCKS = 4
# Relative error of the states. Kernels sum in another order; half precision rounds in between.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_TOLERANCE = 0.1
# Without even a try: a soft-cap of 50 leaves most random texts almost as they are.
_NO_SOFTCAP = ("sdpa",)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """A forward of transformers that was wrong in a way that no check of ours can see.

    Attributes:
        first: Version that has it.
        fixed: First version without it.
        what: What is wrong.
        concerns: Whether a model with this config has it.
    """

    first: str
    fixed: str
    what: str
    concerns: Callable[[Any], bool]


def _scales_positions(config: Any) -> bool:
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(v for v in rope.values() if isinstance(v, Mapping))]  # newer: by kind of layer
    return any(kind.get("rope_type", "default") != "default" for kind in kinds)


KNOWN_WRONG: dict[str, Fault] = {
    "olmo3": Fault(
        "5.0",
        "5.13",
        "its scaling of positions (YaRN) is put on layers with a window too",
        _scales_positions,
    ),
}
"""By `model_type`."""


def warn_of_known_faults(hf_model: nn.Module) -> None:
    """Say so where this version of transformers is known to compute the family wrongly."""
    import transformers

    config: Any = hf_model.config
    text = config.get_text_config()
    for kind in {config.model_type, text.model_type} & KNOWN_WRONG.keys():
        fault, version = KNOWN_WRONG[kind], transformers.__version__
        there = Version(fault.first) <= Version(version) < Version(fault.fixed)
        if there and fault.concerns(text):
            _log.warning(
                "transformers %s is known to compute %s wrongly: %s. Install %s or newer.",
                *(version, kind, fault.what, fault.fixed),
            )


def ensure_complete(
    hf_model: nn.Module, blocks: Sequence[nn.Module], family: Family, *, high: int, asked: bool
) -> None:
    """See that attention is computed whole; where it wasn't asked for by name, `eager` takes over.

    Args:
        hf_model: In evaluation mode.
        blocks: Its blocks.
        family: Its family.
        high: Token ids are drawn below this.
        asked: Whether the implementation is somebody's choice, which is not changed behind them.

    Raises:
        ValueError: the implementation leaves something out, and was asked for, or `eager` is no
            better.
    """
    if not (reason := _left_out(hf_model, blocks, family, high)):
        return
    name = type(hf_model).__name__
    if asked or _twice(hf_model, family):
        other = "sdpa" if attention_of(hf_model) == "eager" else "eager"
        raise InputError(
            f"{name} is refused with this attention: {reason}. Every analysis would be one of "
            f"another model. Load it with attention={other!r} (--attention {other}), or for a "
            f"model object first: {how_to_set(hf_model, other)}."
        )
    _log.warning("%s: %s; it runs with 'eager' attention.", name, reason)
    _spell_out(hf_model)


def how_to_set(hf_model: nn.Module, name: str) -> str:
    """What to write so that a model object has this implementation."""
    can: Callable[[], bool] | None = getattr(hf_model, "_can_set_attn_implementation", None)
    if can is None or can():
        return f"model.set_attn_implementation({name!r})"
    return f"from_pretrained(..., attn_implementation={name!r}), as it can't be set later"


def _left_out(hf_model: nn.Module, blocks: Sequence[nn.Module], family: Family, high: int) -> str:
    """What the implementation leaves out of the forward, in words; empty if nothing."""
    config: Any = hf_model.config
    name = attention_of(hf_model)
    if name is None or (name == "eager" and not _twice(hf_model, family)):
        return ""
    text = config.get_text_config()
    if name in _NO_SOFTCAP and getattr(text, "attn_logit_softcapping", None):
        return f"{name!r} leaves out the soft-cap on attention scores"
    n_ctx = getattr(text, "max_position_embeddings", None) or _LONG
    some = blocks[: _differing(text, len(blocks))]
    generator = torch.Generator().manual_seed(0)
    device = hf_model.get_input_embeddings().weight.device  # type: ignore[operator]
    dtype = next(iter(hf_model.parameters())).dtype
    tolerance = _TOLERANCE.get(dtype, _HALF_TOLERANCE)
    with _narrowed(hf_model):
        for n in (_SHORT, min(_LONG, n_ctx)):
            ids = torch.randint(high, (1, n), generator=generator).to(device)
            found = _states(hf_model, some, ids)
            try:
                with _eager(hf_model, blocks, family):
                    wanted = _states(hf_model, some, ids)
            except (ValueError, NotImplementedError) as problem:
                _log.info("%s has no eager attention to compare with: %s", name, problem)
                return ""
            error = float((found - wanted).norm() / wanted.norm())
            if not error <= tolerance:  # NaN too
                return (
                    f"on a text of {n} tokens its states under {name!r} differ from those of "
                    f"attention spelled out by {error:.2g} of their size (accepted: {tolerance:g})"
                )
    return ""


def _differing(config: Any, n_blocks: int) -> int:
    """Blocks up to the last kind of them."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if not kinds:
        return min(_BLOCKS, n_blocks)
    return max(list(kinds).index(kind) for kind in set(kinds)) + 1


@torch.inference_mode()
def _states(model: nn.Module, blocks: Sequence[nn.Module], ids: Tensor) -> Tensor:
    """What these blocks give, one row per token and block; the rest of the model does not run."""
    found: list[Tensor] = []

    def keep(_point: int, states: Tensor) -> None:
        found.append(states.float().cpu().reshape(-1, states.shape[-1]))

    with residual(blocks, range(1, len(blocks) + 1), keep):
        model(input_ids=ids, use_cache=False)
    return torch.cat(found)


def _twice(hf_model: nn.Module, family: Family) -> bool:
    """Whether `eager` is wrong here."""
    config: Any = hf_model.config
    return bool(family.twice and getattr(config.get_text_config(), family.twice, None))


@contextmanager
def _eager(hf_model: nn.Module, blocks: Sequence[nn.Module], family: Family) -> Generator[None]:
    """Attention spelled out inside, afterwards as before."""
    changed = _spell_out(hf_model)
    try:
        with zeroed(family.attentions(blocks).values(), family.twice):
            yield
    finally:
        for owner, name, before in changed:
            setattr(owner, name, before)


def _spell_out(hf_model: nn.Module) -> list[tuple[Any, str, Any]]:
    """Make attention `eager` everywhere; which attributes were changed, and what they were.

    Not by `set_attn_implementation`, which leaves families outside the interface as they are with
    no more than a warning: Falcon would be compared with itself. They go by their config, or by
    the class that was chosen from a table in their file when they were built (flash attention).
    """
    changed: list[tuple[Any, str, Any]] = [
        (config, "_attn_implementation_internal", config._attn_implementation_internal)
        for config in attention_configs(hf_model)
    ]
    for config, name, _ in changed:
        setattr(config, name, "eager")
    for _, module in walk(hf_model):
        kind = type(module)
        for table, classes in vars(sys.modules[kind.__module__]).items():
            if table.endswith("_ATTENTION_CLASSES") and kind in classes.values():
                changed.append((module, "__class__", kind))
                module.__class__ = classes["eager"]
    return changed


@contextmanager
def _narrowed(model: nn.Module) -> Generator[None]:
    """Windows that a short text would not fill, narrower inside."""
    configs = (getattr(module, "config", None) for module in model.modules())
    owners = [*{id(c): c for c in configs if c is not None}.values(), *model.modules()]
    changed = [(o, name, getattr(o, name)) for name in _WINDOWS for o in _wide(owners, name)]
    try:
        for owner, name, _ in changed:
            setattr(owner, name, _WINDOW)
        yield
    finally:
        for owner, name, before in changed:
            setattr(owner, name, before)


def _wide(owners: Iterable[Any], name: str) -> list[Any]:
    sizes = ((owner, getattr(owner, name, None)) for owner in owners)
    return [owner for owner, size in sizes if type(size) is int and size > _WINDOW]
