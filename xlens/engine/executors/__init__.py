"""Where a request's shards are computed: here, or on the machines of a Ray cluster."""

from xlens._lazy import listed
from xlens.engine.executors.base import Executor, Job, Local, find, use
from xlens.engine.executors.on_ray import Ray
from xlens.engine.executors.pool import close

__all__ = ["Executor", "Job", "Local", "Ray", "close", "find", "use"]
__dir__ = listed(__all__)
