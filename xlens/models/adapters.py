"""Adapters (LoRA and its kin) on a base model, by `transformers`' own peft integration.

A kept adapter lies in the model's own modules, whose class and paths stay; it can be switched off
and on (`hf_model.disable_adapters()`), and its state is part of the fingerprint. A merged one is in
the weights. Adapters that are prompts (prefix and prompt tuning) are no modules, and are refused.
"""

import copy
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

from torch import nn

from xlens import files, strict
from xlens.errors import InputError, ModelError
from xlens.models import hub

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SEAL = "xlens.json"
"""Digests of the files of an adapter that xlens trained, beside them."""
_MOVING = "main"
"""A revision that names no moment."""
_AGAIN = "Train it again, or take it from another copy."
INSTALL = "pip install 'xlens-interp[adapters]'"


@dataclass(frozen=True)
class Base:
    """What an adapter says it was trained on.

    Attributes:
        name: As `xlens.load` takes it.
        revision: Commit of a hub id, or step of a model that comes with xlens; None: not said. The
            same adapter fits every revision in shape, and means something on its own one only.
    """

    name: str
    revision: str | None = None


def is_peft_model(model: nn.Module) -> bool:
    """Whether it is peft's wrapper around a model."""
    return any(kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def unwrapped(wrapper: nn.Module, *, merge: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The model inside a `PeftModel`, and the record of its adapters.

    Args:
        wrapper: Stays as it is.
        merge: Give a copy with the adapter in its weights; else the model itself, which has the
            adapter's modules in it.

    Raises:
        ValueError: an adapter that is a prompt.
    """
    model: Any = wrapper
    for name, config in model.peft_config.items():
        _require_modules(name, config)
    records = {name: _record(config, None) for name, config in model.peft_config.items()}
    if merge:
        merged = copy.deepcopy(model).merge_and_unload()
        active = [model.active_adapter] if isinstance(model.active_adapter, str) else []
        kept = {name: records[name] for name in active or records}
        return merged, {"adapters": kept, "merged": True}
    return model.get_base_model(), {"adapters": records}


def add(
    hf_model: nn.Module,
    adapter: str | Path,
    *,
    base: tuple[str, ...],
    revisions: tuple[str | None, ...] = (),
    merge: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Put an adapter into a model.

    Args:
        hf_model: The base, just loaded.
        adapter: A folder with `adapter_config.json`, or a hub id.
        base: What the base is called: where it lies, its name.
        revisions: Of the base: as asked for, as found; none where it has none.
        merge: Fold it into the weights.

    Returns:
        The model (the same one), and what provenance says of the adapter.

    Raises:
        ValueError: peft is not installed; no adapter there; one of another base or another kind;
            one that xlens trained, and that has changed since.
    """
    from xlens.models.hf import explained, quietly

    folder = _folder(str(adapter))
    check_sealed(folder, (CONFIG, *_WEIGHTS))
    stated = _stated_base(folder)
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise ModelError(f"Adapters need peft: {INSTALL}.") from error
    with explained("the adapter", str(adapter)):
        config: Any = PeftConfig.from_pretrained(str(folder))
    _require_modules(str(adapter), config)
    _require_base(str(adapter), stated, base)
    _require_revision(str(adapter), stated, revisions)
    record = _record(config, folder)
    name = type(hf_model).__name__
    if not merge and not (folder / _WEIGHTS[0]).is_file():
        raise ModelError(_no_safetensors(adapter))
    try:
        with quietly():
            if merge:
                wrapper: Any = PeftModel.from_pretrained(cast(Any, hf_model), str(folder))
                _require_whole(adapter, name, wrapper, folder)
                return wrapper.merge_and_unload(), {"adapters": {"default": record}, "merged": True}
            report: Any = cast(Any, hf_model).load_adapter(str(folder))
    except UnpicklingError as error:
        raise ModelError(_no_safetensors(adapter)) from error
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(_other_base(adapter, name, first)) from error
    wrong = [*report.missing_keys, *report.unexpected_keys, *report.mismatched_keys]
    if wrong:
        raise ModelError(_other_base(adapter, name, f"{len(wrong)} weights do not fit: {wrong[0]}"))
    return hf_model, {"adapters": {"default": record}}


def _no_safetensors(adapter: str | Path) -> str:
    return (
        f"The adapter {str(adapter)!r} has no weights in safetensors that can be read: a pickle "
        f"may hold code, and is not run. Get it with {_WEIGHTS[0]}, from where you trust."
    )


def check_sealed(folder: Path, names: Iterable[str] | None = None, again: str = _AGAIN) -> None:
    """Compare files of an adapter that xlens trained with their digests; others have none.

    Args:
        folder: The adapter's.
        names: Of the files; default all that it was written with.
        again: How to make it anew.

    Raises:
        DamagedError: one is not what was written.
    """
    header = folder / SEAL
    if not header.is_file():
        return
    listed: Any = files.unsealed_json(header, strict.read_bytes(header), again).get("files", {})
    for name, entry in listed.items():
        if names is None or name in names:
            files.check_file(folder / name, entry, again)


def base_of(folder: str | Path) -> Base | None:
    """What the adapter in a folder says that its base is; None where no adapter lies alone there.

    Raises:
        ValueError: it says none.
    """
    path = Path(folder).expanduser()
    if not (path / CONFIG).is_file() or (path / "config.json").is_file():
        return None
    stated = _stated_base(path)
    if stated is None:
        raise ModelError(
            f"The adapter {str(folder)!r} doesn't say what its base is: load that, with "
            "adapter=this folder, --adapter."
        )
    return stated


def _stated_base(folder: Path) -> Base | None:
    """What a folder's adapter says its base is.

    Raises:
        ValueError: its config is none.
    """
    path = folder / CONFIG
    try:
        said: Any = json.loads(strict.read_bytes(path), object_pairs_hook=strict.once)
        stated, revision = said.get("base_model_name_or_path"), said.get("revision")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{str(path)!r} is no adapter's config ({error!s:.200}): get the adapter again."
        ) from None
    for what, value in (("its base", stated), ("its base's revision", revision)):
        if value is not None and not isinstance(value, str):
            raise ModelError(f"{str(path)!r} says that {what} is {value!r:.80}, which is no name.")
    return Base(stated, revision or None) if stated else None


def weight_files(adapter: str | Path) -> dict[str, list[int]]:
    """Size in bytes and time of change (ns) of an adapter's files; none where it is on a hub.

    While they are the same, it need not be loaded to know that it is the same adapter.
    """
    found = (Path(adapter).expanduser() / name for name in (CONFIG, *_WEIGHTS))
    stats = {path.name: path.stat() for path in found if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def base_now(model: Any) -> Base:
    """What an adapter that is trained on a `HookedModel` says its base is.

    By the name that `load` took it by, or as it is called; and the revision as found.

    Args:
        model: The base.
    """
    revision = model.origin.get("revision")
    if model.loading is not None:
        return Base(str(model.loading["source"]), revision)
    return Base(str(getattr(model.config, "_name_or_path", "") or model.name), revision)


def states(hf_model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every module with an adapter: which are on, with which factor, which are merged."""
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in hf_model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            layer: Any = module
            yield (
                name,
                {
                    "active": list(layer.active_adapters),
                    "off": bool(layer.disable_adapters),
                    "scaling": dict(getattr(layer, "scaling", {})),
                    "merged": list(getattr(layer, "merged_adapters", ())),
                },
            )


def summary(hf_model: nn.Module) -> dict[str, Any]:
    """The state of the adapters in a model as provenance has it; empty where there are none."""
    found = [state for _, state in states(hf_model)]
    if not found:
        return {}
    factors: dict[str, set[float]] = {}
    for state in found:
        for name, factor in state["scaling"].items():
            factors.setdefault(name, set()).add(float(factor))
    return {
        "active": sorted({name for s in found if not s["off"] for name in s["active"]}),
        "modules": len(found),
        "scaling": {name: sorted(values) for name, values in sorted(factors.items())},
    }


def _folder(adapter: str) -> Path:
    """Where an adapter lies; fetched from a hub unless it is here."""
    path = Path(adapter).expanduser()
    if (path / CONFIG).is_file():
        if not any((path / name).is_file() for name in _WEIGHTS):
            raise InputError(f"The adapter {adapter!r} has no weights ({' or '.join(_WEIGHTS)}).")
        return path
    if path.exists() or len(path.parts) != 2 or path.is_absolute():
        raise InputError(
            f"{adapter!r} holds no adapter: there is no {CONFIG}. Give the folder that "
            "peft's save_pretrained wrote, or a hub id such as 'org/adapter'."
        )
    from huggingface_hub import errors, snapshot_download

    try:
        found = snapshot_download(
            adapter,
            allow_patterns=[CONFIG, *_WEIGHTS],
            local_files_only=not hub.online(),
        )
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(
            f"The adapter {adapter!r} is neither a folder here nor found on the hub: {first}"
        ) from error
    return _folder(found)


def _record(config: Any, folder: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": str(getattr(config.peft_type, "value", config.peft_type)),
        "base": config.base_model_name_or_path,
    }
    for name in ("r", "lora_alpha", "use_rslora"):
        if (value := getattr(config, name, None)) is not None:
            found[name] = value
    if folder is not None:
        weights = next(folder / name for name in _WEIGHTS if (folder / name).is_file())
        found |= {"source": str(folder), "digest": files.digest(weights)}
    return found


def _require_modules(name: str, config: Any) -> None:
    if config.is_prompt_learning:
        raise ModelError(
            f"The adapter {name!r} ({config.peft_type.value}) puts tokens before every prompt, so "
            "that positions are others than the tokenizer's; xlens takes adapters that change "
            "modules (LoRA and its kin)."
        )


def _require_base(adapter: str, stated: Base | None, base: tuple[str, ...]) -> None:
    """Refuse what was trained on something else, as far as names and files can tell."""
    if stated is None:
        return
    place, own = Path(stated.name).expanduser(), Path(base[0]).expanduser()
    if place.is_dir() and own.is_dir():
        if place.resolve() == own.resolve() or _weights(place) == _weights(own):
            return
    elif _last(stated.name) in {_last(name) for name in base if name}:
        return
    raise ModelError(
        f"The adapter {adapter!r} is of another base: it was trained on {stated.name!r}, and this "
        f"is {base[-1]!r} ({base[0]}). Load its own base; or, where both are the same model under "
        f"two names, write this one's into base_model_name_or_path of its {CONFIG}."
    )


def _require_revision(adapter: str, stated: Base | None, revisions: tuple[str | None, ...]) -> None:
    """Refuse another moment of the right base: its shapes fit, so nothing else would tell."""
    known = [revision for revision in revisions if revision is not None]
    if stated is None or stated.revision in (None, _MOVING, *known) or not known:
        return
    raise ModelError(
        f"The adapter {adapter!r} was trained on {stated.name!r} at revision {stated.revision!r}, "
        f"and this is {' or '.join(map(repr, dict.fromkeys(known)))}. Load that one: "
        f"revision={stated.revision!r}, --revision {stated.revision}; or name the adapter's "
        "folder as the model, which takes the base that it names."
    )


def _last(name: str) -> str:
    return Path(name).name.lower()


def _weights(folder: Path) -> dict[str, str]:
    found = (p for pattern in ("*.safetensors", "pytorch_model*.bin") for p in folder.glob(pattern))
    return {path.name: files.digest(path) for path in found}


def _require_whole(adapter: str | Path, base: str, wrapper: Any, folder: Path) -> None:
    """Peft only warns of weights that it found no place for, or that it made up."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    wanted = get_peft_model_state_dict(wrapper)
    given = load_peft_weights(str(folder), device="cpu")
    if wrong := sorted(set(wanted) ^ set(given)):
        raise ModelError(_other_base(adapter, base, f"{len(wrong)} do not fit: {wrong[0]}"))


def _other_base(adapter: str | Path, base: str, why: str) -> str:
    return (
        f"The adapter {str(adapter)!r} does not fit this {base}; it is of another base or damaged "
        f"({why})."
    )
