"""Shards as tasks of a Ray cluster: this machine's cores, one node's GPUs, or many machines.

Which cluster, and what a request becomes there; its actors are `pool`. A shard comes back through
Ray's object store, or is written by the actor where the folder is shared.
"""

import logging
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tqdm import tqdm

from xlens.engine.executors.base import Job
from xlens.engine.executors.pool import Actors, Pool, Task, close
from xlens.engine.request import Execution
from xlens.models import HookedModel

INSTALL = "pip install 'xlens-interp[ray]'"
_NAME = re.compile(r"ray(?P<address>://[^?/]+:[0-9]+)?(\?(?P<options>.+))?")
REACH_SECONDS = 10.0
_connected: dict[str, str | None] = {}  # "to" what this process was connected here


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
        wrong = ValueError(
            f"Unknown executor {text!r}; accepted are 'local', 'ray' and 'ray://HOST:PORT', the "
            "latter two also with ?workers=N&cpus=N&gpus=N&shared=yes."
        )
        found = _NAME.fullmatch(text)
        if found is None:
            raise wrong
        kinds: dict[str, Any] = {"workers": int, "cpus": int, "gpus": float, "shared": _truth}
        try:
            given = parse_qsl(found["options"] or "", strict_parsing=bool(found["options"]))
            options = {name: kinds[name](value) for name, value in given}
        except (KeyError, ValueError) as error:
            raise wrong from error
        return cls(address=found["address"] and f"ray{found['address']}", **options)

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
            raise ValueError(
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


def connect(address: str | None) -> Any:
    """Ray, connected to a cluster.

    Raises:
        ValueError: it is not installed, nothing answers, or another cluster is connected.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"executor='ray' needs Ray, which is not installed: {INSTALL}, here and on every "
            "machine of the cluster."
        ) from error
    named = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        if address is not None and address != _connected.get("to"):
            raise ValueError(
                f"This process is connected to a Ray cluster already "
                f"({_connected.get('to') or 'this machine, or by a ray.init(...) of yours'}), and "
                f"can't ask {address} as well: call ray.shutdown() first, or leave the address out."
            )
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if named is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            _require_answer(named)
            ray.init(address=named, **quiet)
    except ImportError as error:  # its client is a part that is installed by name
        raise ValueError(f"Ray is not installed whole ({error}): {INSTALL}.") from error
    except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"No Ray cluster can be reached at {named or 'this machine'} ({error}). Start one "
            "(`ray start --head` there; its client server listens on port 10001), mend the "
            "address, or leave it out for this machine alone. A cluster that asks for a token "
            "(the user's ~/.ray has one after a first `ray`) needs RAY_AUTH_MODE=token here too."
        ) from error
    _connected["to"] = named
    return ray


def _require_answer(address: str) -> None:
    """Fail within seconds where Ray would try for minutes."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), REACH_SECONDS).close()


def _truth(text: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[text]
