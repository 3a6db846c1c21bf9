"""Weights of a series on a hub: the next ones come while some run, and go when they have run."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from xlens.models import hub
from xlens.studies.running.places import Place


class Ahead:
    """Fetches and releases revisions; what was on this machine before is never taken away.

    Args:
        places: What will run, in order.
        keep: So many finished revisions stay; None: all.
    """

    def __init__(self, places: Sequence[Place], keep: int | None) -> None:
        self._todo = [weights for place in places if (weights := _weights(place))]
        self._keep = keep
        self._mine: list[tuple[str, str]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="xlens-fetch")
        self._coming: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is on its way when a run is stopped isn't waited for: it is whole, or not there.
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def begin(self, place: Place) -> None:
        """A model is about to be loaded: the one after it is sent for."""
        weights = _weights(place)
        if weights is None or weights not in self._todo:
            return
        if self._coming is not None:
            self._coming.result()
        elif not hub.cached(*weights):
            self._mine.append(weights)  # loading fetches it
        after = self._todo[self._todo.index(weights) + 1 :]
        self._coming = None
        if after and not hub.cached(*after[0]):
            self._mine.append(after[0])
            self._coming = self._pool.submit(hub.fetch, *after[0])

    def done(self, place: Place) -> None:
        """A model has run and is let go."""
        weights = _weights(place)
        if self._keep is None or weights not in self._mine:
            return
        finished = self._mine[: self._mine.index(weights) + 1]
        for old in finished[: len(finished) - self._keep]:
            hub.release(*old)
            self._mine.remove(old)


def _weights(place: Place) -> tuple[str, str] | None:
    """Hub id and commit of what a place loads."""
    source = place.source
    if source is None or source.kind != "hub" or source.revision is None:
        return None
    return source.location, source.revision
