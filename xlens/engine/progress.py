"""Progress of long work, in prompts and tokens per second."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import perf_counter

from xlens.bars import tqdm
from xlens.prompts import TokenizedPrompt


@contextmanager
def token_bar(
    what: str, tokens: Sequence[TokenizedPrompt], show: bool
) -> Generator[Callable[[Sequence[int]], None]]:
    """A bar over tokens; call what it gives with the positions of the prompts that are done."""
    started, done = perf_counter(), 0
    bar = tqdm(
        total=sum(len(t) for t in tokens),
        desc=f"{what} {len(tokens)} prompts",
        unit="tok",
        unit_scale=True,
        disable=not show,
        leave=False,
    )

    def advance(prompts: Sequence[int]) -> None:
        nonlocal done
        done += len(prompts)
        rate = done / (perf_counter() - started)
        bar.set_postfix_str(f"{done} prompts, {rate:.1f} prompts/s", refresh=False)
        bar.update(sum(len(tokens[i]) for i in prompts))

    with bar:
        yield advance
