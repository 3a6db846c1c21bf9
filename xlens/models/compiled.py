"""Blocks compiled by torch, for the passes in which nobody looks inside them.

What is compiled no longer calls the modules in it as they are: hooks inside would be passed over in
silence. So a model's blocks stay as they are, and their compiled forwards stand in their places
only during a pass that keeps no keys and values and in whose blocks nothing is hooked or
replaced. Hooks on the blocks themselves, by which the residual stream is read and changed, fire.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from xlens.errors import InputError
from xlens.models.hooks import Forward, after, instead
from xlens.models.passes import evaluating

BACKEND = "inductor"
# Blocks share their code: kinds of blocks times kinds of masks and shapes.
_VARIANTS = 64
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")


class Compiled:
    """The compiled forwards of a model's blocks. Nothing is compiled before the first pass.

    Args:
        hf_model: Has the blocks.
        blocks: In order.
        backend: Of torch.compile.

    Attributes:
        backend: Of torch.compile; results say it.
    """

    def __init__(self, hf_model: nn.Module, blocks: Sequence[nn.Module], backend: str) -> None:
        self.backend = backend
        self._hf_model, self._blocks = hf_model, blocks
        self._attention = _kernel(hf_model)
        self._forwards = [_made(block.forward, backend) for block in blocks]

    @contextmanager
    def inside(self) -> Generator[None]:
        """Blocks run compiled, if nobody would see less for it."""
        if not self.usable():
            yield
            return
        with ExitStack() as stack:
            stack.enter_context(torch._dynamo.config.patch(recompile_limit=_VARIANTS))  # pyright: ignore
            for block, forward in zip(self._blocks, self._forwards, strict=True):
                stack.enter_context(instead(block, _always(forward)))
            yield

    def usable(self) -> bool:
        """Whether nothing is hooked or replaced inside the blocks, and no gradients are asked."""
        return (
            not torch.is_grad_enabled()
            and _kernel(self._hf_model) == self._attention
            and not any(getattr(torch_module, name) for name in _GLOBAL_HOOKS)
            and not any(map(_seen_into, self._blocks))
        )


def checked(
    hf_model: nn.Module, blocks: Sequence[nn.Module], backend: str, *, high: int, tolerance: float
) -> Compiled:
    """Compile a model's blocks, and see that they compute what they computed.

    Args:
        hf_model: Has the blocks.
        blocks: In order.
        backend: Of torch.compile.
        high: Ids below it are tokens.
        tolerance: Largest difference of the stream, relative to its norm.

    Raises:
        ValueError: no such backend; something already stands in the blocks' way; or they can't be
            compiled, or then compute something else.
    """
    if backend not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise InputError(f"compile={backend!r}: torch has no such backend; it has {known}.")
    found = Compiled(hf_model, blocks, backend)
    own: Any = hf_model
    ids = torch.randint(high, (2, 7), generator=torch.Generator().manual_seed(0))
    ids = ids.to(own.get_input_embeddings().weight.device)

    def states() -> Tensor:
        kept: list[Tensor] = []
        with after(blocks[-1], kept.append):
            own.base_model(input_ids=ids, use_cache=False)
        return kept[0].float()

    with evaluating(hf_model), torch.no_grad():
        if not found.usable():
            raise InputError(
                f"compile={backend!r}: blocks of {type(hf_model).__name__} have hooks or other "
                "forwards inside (accelerate's, of a device_map?), which compiled blocks would "
                "pass over. Load it without compile, or without them."
            )
        plain = states()
        try:
            with found.inside():
                compiled = states()
        except Exception as problem:
            raise InputError(
                f"compile={backend!r}: {type(hf_model).__name__} can't be compiled here "
                f"({type(problem).__name__}: {str(problem).strip().splitlines()[0]:.200}). "
                "Load it without compile."
            ) from problem
    error = float((compiled - plain).norm() / plain.norm())
    if not error <= tolerance:
        raise InputError(
            f"compile={backend!r}: compiled, {type(hf_model).__name__} computes states that differ "
            f"by {error:.2g} (accepted: {tolerance:g}). Load it without compile."
        )
    return found


def _made(forward: Forward, backend: str) -> Forward:
    # Lengths differ from pass to pass: no shape is compiled for itself.
    return torch.compile(forward, backend=backend, dynamic=True)


def _always(forward: Forward) -> Callable[[Forward], Forward]:
    return lambda _usual: forward


def _kernel(hf_model: Any) -> Any:
    """What computes attention; by another name while what it is given is looked at."""
    return getattr(hf_model.config.get_text_config(), "_attn_implementation", None)


def _seen_into(block: nn.Module) -> bool:
    """Whether something inside a block is hooked, or a forward in it is not its class's."""
    return "forward" in vars(block) or any(
        "forward" in (held := vars(module)) or any(map(held.__getitem__, _HOOKS))
        for module in block.modules()
        if module is not block
    )
