"""The one place that puts hooks and other forwards on a model's modules, and takes them off again.

Modules are shared by all threads. What is put here acts in the thread that put it alone, unless it
says `everywhere`; it is gone when its block ends, however it ends.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn

# Sees a tensor; what it returns, if anything, takes its place.
See = Callable[[Tensor], Tensor | None]
# Sees the residual stream at a point, likewise.
Keep = Callable[[int, Tensor], Tensor | None]
Forward = Callable[..., Any]


class _Enough(Exception):
    """A signal, not an error: what lies above is not computed. Caught by whoever raised it."""


@contextmanager
def before(module: nn.Module, see: See, *, everywhere: bool = False) -> Generator[None]:
    """Call `see` with the states that go into a module."""
    mine = _mine(everywhere)

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not mine():
            return None
        changed = see(args[0] if args else kwargs["hidden_states"])
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": changed})

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after(module: nn.Module, see: See, *, everywhere: bool = False) -> Generator[None]:
    """Call `see` with the states that come out of a module, the first thing that it returns."""
    mine = _mine(everywhere)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if not mine():
            return None
        if isinstance(output, Tensor):
            return see(output)
        changed = see(output[0])
        return None if changed is None else (changed, *output[1:])

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def instead(module: nn.Module, wrap: Callable[[Forward], Forward]) -> Generator[None]:
    """Let a module's forward be what `wrap` makes of it."""
    usual: Forward = module.forward
    own = "forward" in vars(module)  # accelerate's, or an earlier one of these
    mine, wrapped = _mine(everywhere=False), wrap(usual)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (wrapped if mine() else usual)(*args, **kwargs)

    module.forward = forward
    try:
        yield
    finally:
        if own:
            module.forward = usual
        else:
            del module.forward  # the class's shows again


@contextmanager
def ending() -> Generator[Callable[[], None]]:
    """Gives what ends this context when it is called inside: nothing further is computed."""
    enough = _Enough()

    def end() -> None:
        raise enough

    try:
        yield end
    except _Enough as signal:
        if signal is not enough:
            raise
        # It knows the frames that it left, and they know it: a pass's states and its keys and
        # values would live until the garbage collector comes by.
        enough.__traceback__ = None


def at_point(
    blocks: Sequence[nn.Module], point: int, see: See, *, everywhere: bool = False
) -> AbstractContextManager[None]:
    """Call `see` with the residual stream at a point: 0 before the first block, l after l-1."""
    if point == 0:
        return before(blocks[0], see, everywhere=everywhere)
    return after(blocks[point - 1], see, everywhere=everywhere)


@contextmanager
def residual(
    blocks: Sequence[nn.Module],
    points: Sequence[int],
    keep: Keep,
    *,
    stop: bool = True,
    everywhere: bool = False,
) -> Generator[None]:
    """Call `keep(point, resid)` at residual points.

    A tensor that `keep` returns replaces the stream there. With `stop` the block of this context
    ends where the deepest point is reached: nothing above it is computed.
    """
    with ExitStack() as stack:
        stop_here = stack.enter_context(ending()) if stop else None
        deepest = max(points, default=0)

        def at(point: int) -> See:
            def see(resid: Tensor) -> Tensor | None:
                changed = keep(point, resid)
                if stop_here is not None and point == deepest:
                    stop_here()
                return changed

            return see

        for point in points:
            stack.enter_context(at_point(blocks, point, at(point), everywhere=everywhere))
        yield


@contextmanager
def handing_on(blocks: Sequence[nn.Module], returns: Sequence[int]) -> Generator[None]:
    """Let blocks return what they are given.

    Args:
        blocks: Not computed.
        returns: How many things each of them returns; 0 for a bare tensor. As `counting` found it.
    """

    def skipped(n: int) -> Callable[[Forward], Forward]:
        def forward(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            return hidden_states if n == 0 else (hidden_states, *[None] * (n - 1))

        return lambda _usual: forward

    with ExitStack() as stack:
        for block, n in zip(blocks, returns, strict=True):
            stack.enter_context(instead(block, skipped(n)))
        yield


@contextmanager
def counting(blocks: Sequence[nn.Module], returns: dict[int, int]) -> Generator[None]:
    """Learn how many things each block returns; 0 for a bare tensor."""

    def told(number: int) -> Callable[[Forward], Forward]:
        def wrap(usual: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = usual(*args, **kwargs)
                returns[number] = 0 if isinstance(output, Tensor) else len(output)
                return output

            return forward

        return wrap

    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            stack.enter_context(instead(block, told(number)))
        yield


@contextmanager
def zeroed(modules: Iterable[nn.Module], argument: str) -> Generator[None]:
    """Let modules be given zeros for one of their arguments, if they are given it at all."""

    def wrap(usual: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if isinstance(given := kwargs.get(argument), Tensor):
                kwargs[argument] = given.new_zeros(given.shape)
            return usual(*args, **kwargs)

        return forward

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(instead(module, wrap))
        yield


def _mine(everywhere: bool) -> Callable[[], bool]:
    """Whether the thread that asks is the one that is asked for."""
    owner = get_ident()
    return lambda: everywhere or get_ident() == owner
