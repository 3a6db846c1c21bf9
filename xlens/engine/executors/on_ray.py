"""Shards as tasks of a Ray cluster: this machine's cores, one node's GPUs, or many machines.

Which cluster, and what a request becomes there; its actors are `pool`. A shard comes back through
Ray's object store, or is written by the actor where the folder is shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xlens.bars import tqdm
from xlens.cluster import connect, named, truth
from xlens.engine.executors.base import Job
from xlens.engine.executors.pool import Actors, Pool, Task, close
from xlens.engine.request import Execution
from xlens.errors import InputError
from xlens.models import HookedModel


@dataclass(frozen=True, kw_only=True)
class Ray(Actors):
    """A Ray cluster, and what its actors are to be (`Actors`).

    Attributes:
        address: `ray://HOST:PORT` of its client server, or `HOST:PORT` of its head from a machine
            of the cluster; None for what `RAY_ADDRESS` names, else this machine alone.
    """

    address: str | None = None

    @classmethod
    def of(cls, text: str) -> "Ray":
        """Read `ray`, `ray://HOST:PORT`, each also with options: `ray?cpus=2&gpus=0.5`.

        Raises:
            ValueError: anything else.
        """
        kinds = {"workers": int, "cpus": int, "gpus": float, "shared": truth}
        address, options = named(text, kinds)
        return cls(address=address, **options)

    @property
    def here(self) -> bool:
        """Other processes compute."""
        return False

    def check(self) -> None:
        """See that Ray is installed and answers.

        Raises:
            ValueError: as `connect`.
        """
        connect(self.address)

    def run(self, model: HookedModel, jobs: Sequence[Job], how: Execution) -> None:
        """Compute what the entries lack.

        Raises:
            ValueError: Ray is not installed or not reachable; workers that compute otherwise, or
                that can't write to a folder that is said to be shared.
            RuntimeError: workers are lost again and again.
        """
        subject = jobs[0][0].subject
        if subject.computation["around"]:
            raise InputError(
                "intervene(...) around a call acts in this process alone, and the call would run "
                "elsewhere: pass interventions=[...] to it, or executor='local'."
            )
        ray = connect(self.address)
        tasks = [
            Task(request, entry, shard)
            for request, entry in jobs
            for shard in sorted(set(range(entry.shards)) - entry.done)
        ]
        quiet = replace(how, store=None, progress=False, executor="local")
        bar = tqdm(total=len(tasks), desc="shards", disable=not how.progress, leave=False)
        try:
            pool = Pool.of(ray, self, model, subject)
            with bar:
                pool.run(tasks, quiet, bar)
                for request, entry in jobs:
                    # What another process had and did not end, if any.
                    for shard in entry.todo():
                        pool.run([Task(request, entry, shard)], quiet, bar)
                    entry.finish()
            pool.model = None
        except BaseException:
            close()
            for task in tasks:  # also what was on its way from a worker to the disk
                task.entry.release(task.shard)
            raise
