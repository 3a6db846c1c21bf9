"""What a checkpoint says of itself, looked at before anything is built from it.

A config is a few bytes that decide how much is made: with a thousand million layers, transformers
would fill the memory before it misses the first weight. An index names files, which need not be
those of its folder.
"""

import json
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from xlens import strict
from xlens.errors import ModelError

# Larger than any model by far; a config beyond is broken, or means harm.
MOST_LAYERS = 10_000
_MOST_PARTS = 1_000_000  # layers times experts
_MOST = {"layers": MOST_LAYERS, "experts": MOST_LAYERS}
_WORDS = {
    "layers": re.compile(r"layers$|^n_layer$|depth$|block_count$"),
    "experts": re.compile(r"experts$|expert_count$"),
}
_NEEDED = re.compile(r"(n|num|num_hidden)_layers?")
_DEEPEST = 100


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse sizes that no model has.

    Args:
        config: As in `config.json`, or of the same kind.
        where: What holds it, for the error.

    Raises:
        ValueError: more layers or experts than are believed, or none.
    """
    most: dict[str, float] = dict.fromkeys(_MOST, 1)
    for name, value in _numbers(config, 0):
        own = name.rsplit(".", 1)[-1]
        for kind, words in _WORDS.items():
            if words.search(own):
                most[kind] = max(most[kind], value)
                fewest = 1 if _NEEDED.fullmatch(own) else 0
                if not fewest <= value <= _MOST[kind]:
                    accepted = f"{fewest} to {_MOST[kind]:,} {kind}"
                    raise _implausible(where, f"{name} is {value!r:.40}", accepted)
    if (parts := prod(most.values())) > _MOST_PARTS:
        said = f"it has {most['layers']:,} layers of {most['experts']:,} experts"
        raise _implausible(where, f"{said}, {parts:,} parts", f"1 to {_MOST_PARTS:,} parts")


def _implausible(where: str, said: str, accepted: str) -> ValueError:
    return ModelError(
        f"{where} can be of no model: {said}; accepted are {accepted}. Copy or download it "
        "again, from where you trust."
    )


def _numbers(value: Any, depth: int, name: str = "") -> Iterator[tuple[str, float]]:
    if depth > _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, depth + 1, f"{name}.{key}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def check_ends(folder: Path) -> None:
    """Refuse a generation config that can't be read: transformers passes over it without a word.

    It says which tokens end a text.

    Raises:
        ValueError: it is no JSON object.
    """
    path = folder / "generation_config.json"
    try:
        found: Any = _object(path) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
    if not isinstance(found, dict):
        raise ModelError(
            f"{str(path)!r} is no generation config ({found!s:.200}). Copy or download it again."
        )


def check_files(folder: Path) -> None:
    """Refuse files of a checkpoint that may never end, or of which two readers read two things.

    Raises:
        ValueError: a pipe, a socket or a device; a config that says one thing twice.
    """
    for path in sorted(folder.iterdir()):
        if path.exists():  # a link may lead nowhere
            strict.require_regular(path)
        if path.suffix == ".json" and "config" in path.name and path.is_file():
            try:
                _object(path)
            except strict.UnclearError as error:
                raise ModelError(f"{str(path)!r}: {error}") from None
            except (OSError, ValueError, RecursionError):
                continue  # who reads it tells


def _object(path: Path) -> Any:
    return json.loads(strict.read_bytes(path), object_pairs_hook=strict.once)


def check_indices(folder: Path) -> None:
    """Refuse an index of weights that names files outside its folder.

    Raises:
        ValueError: such a name, or an index that can't be read.
    """
    for path in sorted(folder.glob("*.index.json")):
        try:
            names = set(_object(path)["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"{str(path)!r} is no index of weights ({type(error).__name__}: {error}). Copy or "
                "download it again."
            ) from None
        for name in sorted(names, key=str):
            if not isinstance(name, str) or Path(name).name != name or "\\" in name:
                raise ModelError(
                    f"{str(path)!r} says that weights lie in {name!r:.200}, which is no file of "
                    "its folder. Put the files beside the index, and name them there by name only."
                )
            if not (folder / name).is_file():
                raise ModelError(
                    f"{str(folder)!r} lacks {name!r:.200}, in which {path.name} says that weights "
                    "lie. Copy or download it again."
                )
