"""Copies from the device to the host, beside the computation: few, through memory used again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

# What a pass keeps is gathered on the device and leaves it in one copy, or in one for so many bytes
# of it: the states of all layers at all tokens would else lie there twice.
STAGE_BYTES = 2**28

Land = Callable[[Tensor], None]


@dataclass
class _Stage:
    """Tensors of one device and dtype that leave together."""

    taken: list[tuple[Tensor, Land]] = field(default_factory=list[tuple[Tensor, Land]])
    size: int = 0


@dataclass
class _Batch:
    """What a batch kept: how it is awaited and landed, and what is to follow."""

    sent: list[Callable[[], None]]
    then: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])


class Lane:
    """A CUDA device's way to the host: a stream of its own, and pinned memory that is used again.

    To pin memory takes milliseconds and makes the device wait; a buffer is free again when what it
    brought has landed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._free: list[Tensor] = []

    def send(self, flat: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """A buffer that the tensor is on its way to, and what waits until it is there."""
        size = flat.numel() * flat.element_size()
        buffer = self._buffer(size)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            buffer[:size].view(flat.dtype).copy_(flat, non_blocking=True)
            there = self._stream.record_event()
        flat.record_stream(self._stream)  # its memory is not given away before the copy is done
        return buffer, there.synchronize

    def pinned(self, size: int) -> Tensor:
        """New host memory that copies need not wait for."""
        # Also used outside inference mode: it must not be one of its tensors.
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def release(self, buffer: Tensor) -> None:
        """A buffer may be used again; the stream keeps copies into it in order."""
        self._free.append(buffer)

    def _buffer(self, size: int) -> Tensor:
        if fitting := [buffer for buffer in self._free if len(buffer) >= size]:
            chosen = min(fitting, key=len)
            self._free = [buffer for buffer in self._free if buffer is not chosen]
            return chosen
        self._free.clear()  # too small now, and so they would be for what follows
        return self.pinned(2 ** max(0, size - 1).bit_length())


def lane_of(device: torch.device) -> Lane | None:
    """The way from a device to the host beside the computation; None: copies are made at once."""
    return Lane(device) if device.type == "cuda" else None


class HostCopies:
    """Takes tensors to the host; what a batch kept lands when the batch is whole.

    On CUDA it lands one batch late: while the device runs a batch, the host adds up the one before.
    On other devices copies are made at once, and land with their batch.
    """

    def __init__(self) -> None:
        self._lanes: dict[torch.device, Lane | None] = {}
        self._stages: dict[tuple[torch.device, torch.dtype], _Stage] = {}
        self._sent: list[Callable[[], None]] = []
        self._given_back: list[tuple[Lane, Tensor]] = []
        self._late: _Batch | None = None

    def take(self, tensor: Tensor, land: Land) -> None:
        """Bring a tensor over, in its own dtype.

        Args:
            tensor: On any device. Not changed by anything afterwards.
            land: Called with it on the host when its batch is good. It may be memory that is used
                again: what is to stay is copied out of it.
        """
        if tensor.device not in self._lanes:
            self._lanes[tensor.device] = lane_of(tensor.device)
        if self._lanes[tensor.device] is None:
            host = tensor.to("cpu")
            self._sent.append(lambda: land(host))
            return
        stage = self._stages.setdefault((tensor.device, tensor.dtype), _Stage())
        stage.taken.append((tensor, land))
        stage.size += tensor.numel() * tensor.element_size()
        if stage.size >= STAGE_BYTES:
            self._send(tensor.device, stage)

    def commit(self) -> None:
        """The batch under way is good: it lands, now or while the next one runs."""
        for (device, _), stage in self._stages.items():
            self._send(device, stage)
        before, self._late = self._late, _Batch(self._sent)
        self._sent = []
        self._given_back.clear()  # they go back as they land
        _land(before)
        if not any(self._lanes.values()):
            self.finish()

    def then(self, call: Callable[[], None]) -> None:
        """Do something when what was committed last has landed."""
        if self._late is None:
            call()
        else:
            self._late.then.append(call)

    def discard(self) -> None:
        """The batch under way failed: nothing of it lands."""
        self._stages.clear()
        self._sent.clear()
        for lane, buffer in self._given_back:
            lane.release(buffer)
        self._given_back.clear()

    def finish(self) -> None:
        """Until all that was committed has landed."""
        late, self._late = self._late, None
        _land(late)

    def _send(self, device: torch.device, stage: _Stage) -> None:
        if not stage.taken:
            return
        lane = self._lanes[device]
        assert lane is not None  # `take` has seen to it
        taken, stage.taken, stage.size = stage.taken, [], 0
        flat = torch.cat([tensor.flatten() for tensor, _ in taken])
        buffer, wait = lane.send(flat)
        shapes = [tensor.shape for tensor, _ in taken]
        lands, dtype = [land for _, land in taken], flat.dtype
        self._given_back.append((lane, buffer))

        def landed() -> None:
            wait()
            whole = buffer[: sum(map(prod, shapes)) * dtype.itemsize].view(dtype)
            for part, shape, land in zip(
                whole.split([prod(shape) for shape in shapes]), shapes, lands, strict=True
            ):
                land(part.view(shape))
            lane.release(buffer)

        self._sent.append(landed)


def _land(batch: _Batch | None) -> None:
    for call in () if batch is None else (*batch.sent, *batch.then):
        call()
