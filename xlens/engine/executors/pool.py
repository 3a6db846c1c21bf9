"""Actors of a Ray cluster that hold one model, and the tasks that they are given.

Whoever asks owns the list of tasks and their claims in the store. What a lost actor had is given to
another; who is lost over one task again and again says something of the task.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from xlens.bars import tqdm
from xlens.engine.executors.worker import Parcel, Worker
from xlens.engine.request import Execution, Request, Subject
from xlens.errors import InputError, MachineError
from xlens.models import HookedModel
from xlens.store import Entry

_log = logging.getLogger(__name__)
LOSSES = 3  # after so many workers were lost over one shard, it is the shard
PATIENCE = 30.0  # seconds without any worker after which it is said


@dataclass(frozen=True, kw_only=True)
class Actors:
    """What actors are to be.

    Attributes:
        workers: Most of them; None for as many as fit.
        cpus: Cores of each; None for as many as torch uses here.
        gpus: GPUs of each, also a part of one; None for one where the cluster has any.
        shared: The store's folder is shared by all machines: actors write to it themselves.
    """

    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "cpus"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise InputError(f"{name} is {given}; at least 1 is needed.")
        if self.gpus is not None and not self.gpus >= 0:
            raise InputError(f"gpus is {self.gpus}; accepted are 0, parts of one, and more.")


class Task:
    """A shard of an entry; `losses` counts the workers that were lost over it."""

    def __init__(self, request: Request, entry: Entry, shard: int) -> None:
        self.request, self.entry, self.shard = request, entry, shard
        self.losses = 0

    @property
    def place(self) -> tuple[int, int]:
        """Its number, and how many there are."""
        return self.shard, self.entry.shards


def close() -> None:
    """Let the workers that wait for the next call go."""
    if Pool.last is not None:
        Pool.last.end()


class Pool:
    """Actors that hold one model; kept for the next call, one pool at a time.

    Attributes:
        ray: The library.
        how: What the actors are to be.
        model: Is sent where it can't be loaded; None between two calls.
        subject: The model.
        idle: Actors that wait.
        flight: Actors by what they do: a task, or None while they get their model.
        hosts: Where each is.
        sent: Those that were sent the model itself.
        parcel: What they were sent.
        failures: Workers lost one after the other while they got the model.
    """

    last: ClassVar["Pool | None"] = None

    def __init__(self, ray: Any, how: Actors, model: HookedModel, subject: Subject) -> None:
        self.ray, self.how, self.subject = ray, how, subject
        self.model: HookedModel | None = model
        self.idle: list[Any] = []
        self.flight: dict[Any, tuple[Any, Task | None]] = {}
        self.hosts: dict[Any, str] = {}
        self.sent: set[Any] = set()
        self.parcel: Any = None
        self.failures = 0

    @classmethod
    def of(cls, ray: Any, how: Actors, model: HookedModel, subject: Subject) -> "Pool":
        """The last pool, if it is for the same model; else another."""
        pool = cls.last
        if pool is None or pool.how != how or _name(pool.subject) != _name(subject):
            close()
            pool = cls.last = cls(ray, how, model, subject)
        pool.model = model
        return pool

    def grow(self, n: int) -> None:
        """Start actors until there are as many as tasks, or as many as fit."""
        cpus, gpus, fit = _room(self.ray, self.how)
        for _ in range(min(n, fit) - len(self.idle) - len(self.flight)):
            self.start(cpus, gpus)

    def start(self, cpus: int, gpus: float) -> None:
        """One more actor; it begins to load its model."""
        kind = self.ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
        actor = kind.remote(cpus, gpus > 0)
        if self.subject.loading is None:
            self.send(actor)
        else:
            self.flight[actor.load.remote(self.subject.loading, self.subject)] = actor, None

    def send(self, actor: Any) -> None:
        """Give an actor the model itself."""
        if self.parcel is None:
            assert self.model is not None  # inside a call
            self.parcel = self.ray.put(_parcel(self.model))
        self.sent.add(actor)
        self.flight[actor.take.remote(self.parcel, self.subject)] = actor, None

    def run(self, tasks: Sequence[Task], how: Execution, bar: tqdm) -> None:
        """Run tasks, as many at once as there are actors."""
        left = list(tasks)
        self.grow(len(left))
        while left or any(task for _, task in self.flight.values()):
            while left and self.idle:
                task = left.pop(0)
                if task.entry.claim(task.shard):
                    self.give(self.idle.pop(), task, how)
                else:
                    bar.update()  # done, or another process's
            if not self.flight:
                self.grow(len(left))
                continue
            done, _ = self.ray.wait(list(self.flight), num_returns=1, timeout=PATIENCE)
            if not done and not any(task for _, task in self.flight.values()):
                _log.warning(
                    "Waiting for a first worker: the Ray cluster has no free room for one of %s, "
                    "or the model is being loaded.",
                    self.how,
                )
            for ref in done:
                actor, task = self.flight.pop(ref)
                if task is None:
                    self.met(ref, actor)
                elif self.took(ref, actor, task):
                    bar.update()
                else:
                    left.append(task)

    def give(self, actor: Any, task: Task, how: Execution) -> None:
        """Let an actor do a task that this process has claimed."""
        request = task.request.shard(task.shard).sent()
        if self.how.shared:
            ref = actor.write.remote(request, how, task.entry.path, task.entry.key, task.place)
        else:
            ref = actor.compute.remote(request, how)
        self.flight[ref] = actor, task

    def met(self, ref: Any, actor: Any) -> None:
        """An actor has its model, or another than it should, or is lost."""
        try:
            different = self.ray.get(ref)
            self.hosts[actor] = self.ray.get(actor.host.remote())
        except _lost(self.ray) as error:
            self.failures += 1
            if self.failures >= LOSSES:
                raise MachineError(
                    f"{self.failures} workers were lost while they got {self.subject.name} "
                    f"({_first_line(error)}). Does it fit into the memory of one?"
                ) from error
            self.grow(len(self.flight) + len(self.idle) + 1)
            return
        except self.ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        if different and actor not in self.sent:
            self.send(actor)
            return
        if different:
            raise InputError(
                f"The worker on {self.hosts[actor]} computes otherwise than this process: "
                f"{'; '.join(different)}. Install the same versions on every machine."
            )
        self.failures = 0
        self.idle.append(actor)

    def took(self, ref: Any, actor: Any, task: Task) -> bool:
        """Whether a task is done; else its worker is lost, and it is to be done again."""
        try:
            found = self.ray.get(ref)
        except _lost(self.ray) as error:
            task.losses += 1
            task.entry.release(task.shard)
            _log.warning(
                "The worker on %s was lost; shard %s of %s is computed again.",
                self.hosts.get(actor),
                task.shard,
                task.entry.id,
            )
            self.ray.kill(actor)
            if task.losses >= LOSSES:
                raise MachineError(
                    f"{task.losses} workers were lost over shard {task.shard} of entry "
                    f"{task.entry.id} ({_first_line(error)}). Most often it is their memory: give "
                    "a smaller token_budget, or more cores (cpus) to each, so that fewer run."
                ) from error
            self.grow(len(self.flight) + len(self.idle) + 1)
            return False
        except self.ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        if not self.how.shared:
            task.entry.write(task.shard, *found, host=self.hosts[actor])
        self.idle.append(actor)
        return True

    def end(self) -> None:
        """Let all actors go, and give back what is claimed for them."""
        type(self).last = None
        for actor, task in self.flight.values():
            if task is not None:
                task.entry.release(task.shard)
            self.idle.append(actor)
        self.flight = {}
        for actor in self.idle:
            self.ray.kill(actor)
        self.idle = []


def _name(subject: Subject) -> Any:
    known = subject.provenance
    return subject.fingerprint, known["attention"], known.get("compiled"), subject.computation


def _room(ray: Any, how: Actors) -> tuple[int, float, int]:
    """Cores and GPUs of an actor, and how many actors fit into the cluster."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    cpus = how.cpus or max(1, min(torch.get_num_threads(), most))
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    gpus = how.gpus if how.gpus is not None else float(has_gpus)
    fit = sum(
        int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else 2**30))
        for node in nodes
    )
    if not fit:
        raise InputError(
            f"No machine of the Ray cluster has room for a worker of {cpus} cores and {gpus:g} "
            f"GPUs: they have {nodes}. Ask for less (cpus=, gpus=)."
        )
    return cpus, gpus, min(fit, how.workers or fit)


def _parcel(model: HookedModel) -> Parcel:
    hf_model = model.hf_model
    if model.device.type != "cpu":
        import copy

        hf_model = copy.deepcopy(hf_model).to("cpu")
    told = {"name": model.name, "weights_note": model.weights_note, "origin": model.origin}
    return hf_model, model.tokenizer, told


def _lost(ray: Any) -> tuple[type[BaseException], ...]:
    """What Ray raises where a worker, its machine, or what it gave is no longer there."""
    known = ray.exceptions
    return (
        known.RayActorError,
        known.WorkerCrashedError,
        known.ObjectLostError,
        known.NodeDiedError,
        known.OutOfMemoryError,
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
