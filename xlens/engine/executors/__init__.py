"""Where a request's shards are computed: here, or on the machines of a Ray cluster."""

from xlens.engine.executors.base import Executor, Job, find, use

__all__ = ["Executor", "Job", "find", "use"]
