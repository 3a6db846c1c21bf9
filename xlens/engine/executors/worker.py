"""What runs on another machine: holds a model, computes shards of requests with it."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from xlens import files
from xlens.engine.request import Execution, Request, Shard, Subject
from xlens.errors import InputError
from xlens.models import HookedModel, load
from xlens.models.computation import computation
from xlens.store import EPOCH, Store

# A model object, its tokenizer, and what `HookedModel` is told of them.
Parcel = tuple[torch.nn.Module, Any, dict[str, Any]]


class Worker:
    """One process with one model.

    Args:
        threads: Of torch, as many as cores are its own.
        gpu: Whether it has a GPU.
    """

    def __init__(self, threads: int, gpu: bool) -> None:
        torch.set_num_threads(threads)
        self._device = "cuda" if gpu and torch.cuda.is_available() else "cpu"
        self._model: HookedModel | None = None
        name = torch.cuda.get_device_name() if self._device == "cuda" else "cpu"
        self._host = f"{platform.node()} ({name})"

    @property
    def _ready(self) -> HookedModel:
        assert self._model is not None  # it is given a model before anything else
        return self._model

    def host(self) -> str:
        """The machine, and what computes there."""
        return self._host

    def load(self, loading: dict[str, Any], subject: Subject) -> list[str]:
        """Load the model as the driver did.

        Returns:
            In what it differs from the subject, in words; empty for the same.
        """
        options: dict[str, Any] = {**loading, "dtype": getattr(torch, loading["dtype"])}
        try:
            where: dict[str, Any] = {} if loading["device_map"] else {"device": self._device}
            self._model = load(options.pop("source"), **options, **where)
        except (ValueError, OSError) as error:
            return [f"it can't be loaded there ({error})"]
        return differences(self._model, subject)

    def take(self, parcel: Parcel, subject: Subject) -> list[str]:
        """Take a model that the driver sends; as `load`."""
        hf_model, tokenizer, told = parcel
        self._model = HookedModel(hf_model.to(self._device), tokenizer, **told)
        return differences(self._model, subject)

    def compute(self, request: Request, how: Execution) -> Shard:
        """A shard, back to the driver."""
        tensors, rows = request.on(self._ready.device).compute(self._ready, how)
        # A view would be sent with all that it is a view of.
        return {name: tensor.clone() for name, tensor in tensors.items()}, rows

    def write(
        self,
        request: Request,
        how: Execution,
        folder: Path,
        key: dict[str, Any],
        place: tuple[int, int],
    ) -> None:
        """A shard, into the store that both see.

        Args:
            request: For the shard.
            how: As for `compute`.
            folder: Of the whole entry.
            key: Of the whole entry.
            place: The shard's number, and how many there are.

        Raises:
            ValueError: it can't write there.
        """
        if problem := _problem(folder):
            raise InputError(
                f"The worker on {self._host} can't write to {str(folder)!r}: {problem}. Give a "
                "store in a folder that all machines share and may write to, or leave `shared` "
                "out: shards then come back through Ray."
            )
        shard, shards = place
        entry = Store(folder.parent).entry(key, shards=shards)
        entry.write(shard, *self.compute(request, how), host=self._host)


def _problem(folder: Path) -> str | None:
    """Why an entry's folder can't be written to from here, in words."""
    if not any(folder.glob("journal*")):
        return "it does not see the driver's files there"
    probe = files.unique(folder / "probe.tmp")
    try:
        probe.write_bytes(b"")
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    finally:
        with suppress(OSError):
            probe.unlink()
    return None


def differences(model: HookedModel, subject: Subject) -> list[str]:
    """In what a model computes otherwise than the subject of a request, in words."""
    mine, other = computation(model.hf_model), subject.computation
    has = model.provenance()
    found = [] if subject.epoch == EPOCH else [f"its xlens counts another epoch, {EPOCH}"]
    found += [
        f"{name} is {has.get(name)}, not {subject.provenance.get(name)}"
        for name in ("fingerprint", "dtype", "attention", "tokenizer", "compiled")
        if has.get(name) != subject.provenance.get(name)
    ]
    for name in ("precision", "code"):
        changed = sorted(
            key
            for key in {*mine[name], *other[name]}
            if mine[name].get(key) != other[name].get(key)
        )
        found += [f"{k} is {mine[name].get(k)}, not {other[name].get(k)}" for k in changed]
    if mine["modules"] != other["modules"]:
        found.append("buffers or attributes of its modules are others")
    return found
