"""Where files are counted: in this process, in several, or on the machines of a Ray cluster."""

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from xlens.cluster import connect, named, truth
from xlens.corpus.counting import Job, State
from xlens.errors import DataError, MachineError

Files = Sequence[tuple[Path, Path | None]]
"""Files, and where the state of each is kept."""
Counted = Generator[tuple[int, State]]
"""The numbers of files, in any order, and what was counted in each."""
LOSSES = 3  # after so many workers were lost over one file, it is the file


def here(job: Job, files: Files) -> Counted:
    """Count one file after the other."""
    for n, (path, kept) in enumerate(files):
        yield n, job.run(path, kept)


def in_processes(job: Job, files: Files, workers: int) -> Counted:
    """Count several files at once on this machine."""
    # Processes are begun anew: a fork would take over threads that it can't run.
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (_sent(job),)) as pool:
        tasks = {pool.submit(_count, *files[n]): n for n in _largest_first(files)}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster, all of whose machines see the corpus.

    Attributes:
        address: As `xlens.cluster.connect` takes it.
        workers: Most files at once; None for as many as fit.
        cpus: Cores of each.
        shared: All machines see the folder of the states, too, and keep them themselves; else this
            process keeps that of a file when all of it is counted.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    shared: bool = False

    @classmethod
    def of(cls, text: str) -> "Cluster":
        """Read `ray`, `ray://HOST:PORT`, each also with options: `ray?workers=4`.

        Raises:
            ValueError: anything else.
        """
        address, options = named(text, {"workers": int, "cpus": int, "shared": truth})
        for name, given in options.items():
            if name != "shared" and given < 1:
                raise DataError(f"{name} is {given} in {text!r}; at least 1 is needed.")
        return cls(address=address, **options)

    def check(self) -> None:
        """See that it is there.

        Raises:
            ValueError: it isn't.
        """
        connect(self.address)

    def run(self, job: Job, files: Files) -> Counted:
        """Count files on its machines.

        Raises:
            ValueError: what a count refuses, or a file that a machine does not see.
            RuntimeError: workers were lost over one file again and again.
        """
        ray: Any = connect(self.address)
        # A cluster that was begun here has no other machine.
        shared = self.shared or (self.address is None and "RAY_ADDRESS" not in os.environ)
        task = ray.remote(_count_there).options(num_cpus=self.cpus, max_retries=LOSSES)
        sent, left = ray.put(_sent(job)), list(_largest_first(files))
        flight: dict[Any, int] = {}
        try:
            while left or flight:
                while left and len(flight) < (self.workers or len(files)):
                    path, kept = files[left[0]]
                    how = (kept, None) if shared else (None, job.state(path, kept))
                    flight[task.remote(sent, path, *how)] = left.pop(0)
                for done in ray.wait(list(flight))[0]:
                    n = flight.pop(done)
                    path, kept = files[n]
                    state = _got(ray, done, path)
                    if kept is not None and not shared:
                        job.keep(path, kept, state)
                    yield n, state
        finally:
            for running in flight:
                ray.cancel(running, force=True)


def _got(ray: Any, done: Any, path: Path) -> State:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FileNotFoundError):
            raise DataError(
                f"A machine of the Ray cluster does not see {str(error.cause.filename)!r}: give a "
                "corpus (and with shared=yes an --out) on a disk that all machines have in the "
                "same place."
            ) from None
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise MachineError(
            f"Workers were lost over {str(path)!r} ({str(error).splitlines()[0]}). Is its largest "
            "document too large for their memory? The same call goes on with what is done."
        ) from None


def _largest_first(files: Files) -> Sequence[int]:
    """So that none is left to run alone at the end."""
    return sorted(range(len(files)), key=lambda n: -files[n][0].stat().st_size)


def _sent(job: Job) -> Job:
    """Without what looks for the phrases, which is made where it is used."""
    # A new instance has no cached properties; hyperscan's database can't be pickled.
    return replace(job, pairs=replace(job.pairs))


_jobs: list[Job] = []


def _begin(job: Job) -> None:
    _jobs[:] = [job]


def _count(path: Path, kept: Path | None, state: State | None = None) -> State:
    return _jobs[0].run(path, kept, state)


def _count_there(job: Job, path: Path, kept: Path | None, state: State | None) -> State:
    # A worker counts several files, and makes what looks for the phrases once.
    if not _jobs or _jobs[0].key != job.key:
        _begin(job)
    return _count(path, kept, state)
