"""The one loop that goes on where memory runs out: with half the tokens in a pass."""

import logging
from collections.abc import Callable, Iterable, Sequence

# Told what is about to run, and in how many tokens.
Note = Callable[[Sequence[int], int], None]
# Runs some items within a token budget; gives those that are done, some at a time.
Attempt = Callable[[Sequence[int], int, Note], Iterable[Sequence[int]]]

_log = logging.getLogger(__name__)


def until_done(
    lengths: Sequence[int],
    budget: int,
    attempt: Attempt,
    *,
    advice: str,
    alone: str = "A prompt of {} tokens alone",
) -> None:
    """Attempt all items, and those that are left again whenever memory runs out.

    Args:
        lengths: Of the items, in tokens.
        budget: Most tokens in a pass, to begin with.
        attempt: See `Attempt`.
        advice: What helps where one item alone doesn't fit.
        alone: What it is that doesn't fit; `{}` is its length.

    Raises:
        MemoryError: one item alone doesn't fit.
    """
    from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

    left = list(range(len(lengths)))
    while left:
        done = set[int]()
        running, tokens = left, budget

        def note(items: Sequence[int], size: int) -> None:
            nonlocal running, tokens
            running, tokens = list(items), size

        try:
            for some in attempt(left, budget, note):
                done.update(some)
        except Exception as problem:
            if not should_reduce_batch_size(problem):
                raise
            if len(running) == 1 or budget == 1:
                longest = max(lengths[i] for i in running)
                raise MemoryError(
                    f"{alone.format(longest)} does not fit in memory ({problem}). {advice}"
                ) from problem
            # From what was really run: the budget asked for can be far above it.
            budget = max(1, min(budget, tokens) // 2)
            _log.warning("Out of memory: going on with a token budget of %s.", f"{budget:,}")
        else:
            return
        # Only now: what the pass held is let go with its exception.
        clear_device_cache(garbage_collection=True)
        left = [i for i in left if i not in done]
