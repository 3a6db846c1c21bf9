"""What an executor is, how it is named, and the one that is used where none is named."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from xlens.bars import tqdm
from xlens.engine.request import Execution, Request
from xlens.models import HookedModel
from xlens.store import Entry

Job = tuple[Request, Entry]


@runtime_checkable
class Executor(Protocol):
    """Computes shards.

    Attributes:
        here: Whether the model of this process computes: without a store it is then simply called.
    """

    @property
    def here(self) -> bool:
        """See above."""
        ...

    def check(self) -> None:
        """See that it is there, before anything expensive.

        Raises:
            ValueError: it isn't.
        """
        ...

    def run(self, model: HookedModel, jobs: Sequence[Job], how: Execution) -> None:
        """Compute what the entries lack, and finish them.

        Args:
            model: The subject of all requests, as it is in this process.
            jobs: Requests and their entries.
            how: Budget and so on; its store and executor play no part.
        """
        ...


class Local:
    """This process, with the model that it has."""

    @property
    def here(self) -> bool:
        """This process computes."""
        return True

    def check(self) -> None:
        """It is there."""

    def run(self, model: HookedModel, jobs: Sequence[Job], how: Execution) -> None:
        """Compute what the entries lack, one shard after the other."""
        hidden = len(jobs) == 1 or not how.progress  # one shows its own
        for request, entry in tqdm(jobs, desc="runs", disable=hidden, leave=False):
            for shard in entry.todo():
                found = request.shard(shard).compute(model, how, entry.parts(shard))
                entry.write(shard, *found)
            entry.finish()


_in_use: Executor = Local()


def find(executor: str | Executor | None) -> Executor:
    """An executor, by itself or by its name.

    Args:
        executor: `local`; `ray`, a cluster that `RAY_ADDRESS` names or this machine alone;
            `ray://HOST:PORT`; both also with options, `ray?cpus=2&gpus=0.5`; an executor; None for
            the one in use.

    Raises:
        ValueError: anything else.
    """
    if executor is None:
        return _in_use
    if not isinstance(executor, str):
        return executor
    if executor == "local":
        return Local()
    from xlens.engine.executors.on_ray import Ray

    return Ray.of(executor)


def use(executor: str | Executor) -> None:
    """Let this executor run whatever names none, until the process ends.

    Raises:
        ValueError: as `find`, or it is not there.
    """
    global _in_use
    found = find(executor)
    found.check()
    _in_use = found
