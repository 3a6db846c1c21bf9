"""Errors that xlens raises on purpose, by whose fault they are; any other exception is a bug.

Each is a `ValueError`, a `RuntimeError` or an `OSError` too, so that `except ValueError` holds.
"""

from xlens._lazy import listed

__all__ = ["DataError", "InputError", "MachineError", "ModelError", "StoreError", "XlensError"]
__dir__ = listed(__all__)


class XlensError(Exception):
    """Something is in the way that its message tells how to mend."""


class InputError(XlensError, ValueError):
    """What was asked for, or how, can't be."""


class DataError(XlensError, ValueError):
    """A file or a data set isn't what it should be."""


class ModelError(XlensError, ValueError):
    """A model is one that xlens can't read, or gives numbers that aren't finite."""


class MachineError(XlensError, RuntimeError):
    """A worker, a service or a browser that is needed failed; what was asked for may be right."""


class StoreError(XlensError, OSError):
    """The store can't be read or written; the message says what to do."""
