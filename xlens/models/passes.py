"""One pass at a time: what a model must be while it runs for xlens, and stays for nobody else.

Hooks sit on the model's own blocks, which all threads share, and evaluation mode is one switch
for all of them. So one thread at a time has a model; others wait.
"""

import logging
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from xlens.errors import ModelError
from xlens.models.tree import walk

PATIENCE = 10.0  # seconds of waiting after which it is said
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()
_log = logging.getLogger(__name__)


@contextmanager
def alone(hf_model: nn.Module) -> Generator[None]:
    """No other thread runs this model for xlens inside; the same thread may enter again."""
    with _making:
        lock = _locks.setdefault(hf_model, threading.RLock())
    if not lock.acquire(timeout=PATIENCE):
        _log.warning(
            "Waiting for another thread that runs %s, or is inside intervene(...) on it. A thread "
            "that was started inside intervene(...) and is waited for there never gets the model: "
            "pass interventions=[...] instead.",
            type(hf_model).__name__,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def full_precision() -> Generator[None]:
    """Autocast off, as long as this lasts: numbers are computed in the dtype of the weights."""
    with ExitStack() as stack:
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def evaluating(hf_model: nn.Module) -> Generator[None]:
    """The model is this thread's, without dropout and autocast; then in its mode of before."""
    with alone(hf_model), full_precision():
        training = [m for _, m in walk(hf_model) if m.training]
        if training:
            hf_model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def widest(device: torch.device) -> torch.dtype:
    """The dtype for long sums there: fp64, but fp32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def require_host() -> None:
    """Refuse a default device of torch: what xlens makes on the host would be made there.

    Raises:
        ValueError: one is set.
    """
    if (device := torch.get_default_device()).type != "cpu":
        raise ModelError(
            f"torch makes new tensors on {device} (torch.set_default_device, or inside `with "
            "torch.device(...)`), where xlens counts on the host; the model may lie anywhere. Call "
            "xlens inside `with torch.device('cpu'):`, or set the default back."
        )
