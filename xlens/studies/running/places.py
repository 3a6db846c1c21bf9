"""The models of a run: several, or several revisions of one; each with a folder of its own."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

from xlens import files
from xlens.errors import InputError
from xlens.models import HookedModel, adapters
from xlens.models.series import Checkpoint, find_series, read_series
from xlens.models.sources import Outline, Source, load_outline, resolve, weight_files
from xlens.served import ServedModel
from xlens.studies.loading import Loading
from xlens.studies.serving import Serving

SEEN = "model.json"
"""Beside a model's parts: what shows that it is the same one, without loading it."""
_URL = re.compile(r"@https?://.*$")
Model = str | Path | HookedModel | ServedModel


@dataclass(frozen=True)
class Place:
    """A model of a run.

    Attributes:
        name: As it is called beside the others.
        folder: Of its parts.
        get: The model itself.
        find: Where it is loaded from, unless it is there already, or served.
        there: The model, where it need not be loaded.
        trusted: Whether its own code may run.
        point: Which moment of training it is, where it is one of several.
        asked: What named it, and others of its series; None: its own name did.
        adapter: Folder of the adapter on it.
        in_fp32: The same model in fp32, where it is loaded by a name.
    """

    name: str
    folder: str
    get: Callable[[], HookedModel | ServedModel]
    find: Callable[[], Source] | None = None
    there: HookedModel | ServedModel | None = None
    trusted: bool = False
    point: Checkpoint | None = None
    asked: str | None = None
    adapter: str | None = None
    in_fp32: Callable[[], HookedModel] | None = None

    @cached_property
    def source(self) -> Source | None:
        """Where it is loaded from, looked for once.

        Raises:
            ValueError: it isn't there.
        """
        return None if self.find is None else self.find()

    def outline(self) -> "Outline | HookedModel | ServedModel | None":
        """What is known of it before it is loaded."""
        if self.source is None:
            return self.there
        return load_outline(self.source, trust_remote_code=self.trusted)

    def seen(self) -> dict[str, Any] | None:
        """What shows later that it is the same model; None: only loading it tells."""
        if self.source is None:
            return None
        known = {"revision": self.source.revision, "digest": self.source.digest}
        found = {"source": self.source.kind, **known, "files": weight_files(self.source)}
        if self.adapter is not None:
            found["adapter"] = adapters.weight_files(self.adapter)
        return found


def places(
    models: Sequence[Model], loading: Loading, serving: Serving, *, chat: bool = True
) -> list[Place]:
    """Where the models of a run are had, none of them looked for yet.

    Raises:
        ValueError: a model twice, one that isn't there, or options that don't go together.
    """
    names = list(map(str, models))
    named = [name for name, model in zip(names, models, strict=True) if isinstance(model, str)]
    endpoints = serving.endpoints(named, chat=chat)
    if loading.adapter is not None and (len(models) > 1 or endpoints):
        raise InputError(
            f"--adapter {loading.adapter} goes with one model that is loaded here; got "
            f"{', '.join(names)}. Ask each with its own adapter, and compare the runs."
        )
    asked: list[Place] = []
    for name, model in zip(names, models, strict=True):
        if isinstance(model, HookedModel | ServedModel):
            asked.append(_there(model))
        elif name in endpoints:
            asked.append(replace(_there(endpoints[name]), name=name, folder=_URL.sub("", name)))
        else:
            asked += _loaded(name, loading)
    if loading.series is not None:
        asked += [_checkpoint(p, p.name, p.name, loading) for p in read_series(loading.series)]
    folders = _folders([place.name for place in asked], [place.folder for place in asked])
    return [replace(place, folder=name) for place, name in zip(asked, folders, strict=True)]


def _there(model: HookedModel | ServedModel) -> Place:
    name = model.model if isinstance(model, ServedModel) else model.name
    return Place(name, name, lambda: model, there=model)


def _loaded(name: str, loading: Loading) -> list[Place]:
    """A model by its name: one place, or one for each of its revisions."""
    called = Path(name).resolve().name if Path(name).exists() else name
    points = find_series(name, loading.revision)
    if not points:
        base = adapters.base_of(name)
        point = Checkpoint(name, None, name)
        if base is not None:
            point = Checkpoint(base.name, base.revision, name, adapter=name)
        return [_checkpoint(point, name, called, loading, alone=True)]
    alone = len(points) == 1 and points[0].model == name
    return [
        _checkpoint(
            point,
            name if alone else f"{name}@{point.name}",
            called if alone else f"{called}@{point.name}",
            loading,
            alone=alone,
            asked=name,
        )
        for point in points
    ]


def _checkpoint(
    point: Checkpoint,
    name: str,
    folder: str,
    loading: Loading,
    *,
    alone: bool = False,
    asked: str | None = None,
) -> Place:
    how = loading.of(point.revision)
    if point.adapter is not None:
        how = replace(how, adapter=point.adapter)
    return Place(
        name,
        folder,
        lambda: how.load(point.model),
        partial(resolve, point.model, revision=point.revision),
        trusted=how.trust_remote_code,
        point=None if alone else point,
        asked=asked,
        adapter=how.adapter,
        in_fp32=lambda: how.in_fp32().load(point.model),
    )


def _folders(names: Sequence[str], called: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name, short in zip(names, called, strict=True):
        if names.count(name) > 1:
            raise InputError(f"The model {name!r} is named twice; name each once.")
        # Figures' files are named after it, too: letters and digits of ASCII first.
        plain = re.sub(r"[^A-Za-z0-9_.@-]+", "-", short.replace("/", "--")).strip("-_.") or "model"
        more = (f"{plain}-{n}" for n in count(2))
        found.append(plain if plain not in found else next(n for n in more if n not in found))
    return found


def read_seen(folder: Path) -> dict[str, Any] | None:
    """What was written of the model whose parts are in `folder`."""
    try:
        path = folder / SEEN
        return files.unsealed_json(path, path.read_bytes(), "It is made again.")
    except (OSError, ValueError):
        return None  # then the model is loaded, and its parts compared with it


def write_seen(folder: Path, seen: dict[str, Any]) -> None:
    """Write down what shows later that it is the same model."""
    files.write(folder / SEEN, files.sealed_json(seen))
