"""What a study takes of a model: prompts, tokens, and from these an estimate of its time."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from xlens.models.size import Size
    from xlens.prompts import Prompt

# Measured on a CPU with two models (18 and 30 blocks): passes and the lens reach .6 of what one
# large product of matrices does in the same time; words that are said one after the other, whose
# weights are read again for each, a sixth.
_PASSES, _SAID = 0.6, 1 / 6
BACKWARD = 4.0
"""What relevance costs, in passes: forward, back, and what is computed twice for that."""


@dataclass(frozen=True)
class Work:
    """What parts take of a model.

    Attributes:
        prompts: Texts that it reads; one that is read under several interventions, or with several
            continuations, counts as often.
        tokens: Of these, a common beginning once; passes through some of the blocks count by their
            share of them.
        read: Positions that are read as probabilities of the whole vocabulary.
        said: Tokens of answers, at most.
    """

    prompts: int = 0
    tokens: int = 0
    read: int = 0
    said: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.prompts + other.prompts,
            self.tokens + other.tokens,
            self.read + other.read,
            self.said + other.said,
        )

    def __str__(self) -> str:
        said = f", at most {_n(self.said, 'token')} of answers" if self.said else ""
        return f"{_n(self.prompts, 'prompt')} of {_n(self.tokens, 'token')}{said}"

    def seconds(self, size: "Size", flops: float) -> float:
        """About how long that takes.

        Args:
            size: Of the model.
            flops: Of the machine, a second, from `flops_of`.
        """
        block, head = 2.0 * size.n_params, 2.0 * size.d_model * size.d_vocab
        passes = block * self.tokens + head * self.read
        return passes / (_PASSES * flops) + (block + head) * self.said / (_SAID * flops)


NOTHING = Work()


@dataclass(frozen=True)
class Plan:
    """What there will be, and what it takes.

    Attributes:
        parts: Names of a model's parts, in order.
        work: What they take, by part; several that are made in one go stand at the first. None:
            that isn't known of this study, or no model was named.
        size: Of the model.
        flops: Operations a second of the machine; None: it would run elsewhere.
        fetched: Bytes of weights that come from a hub before it runs; None: the hub doesn't say.
    """

    parts: tuple[str, ...]
    work: Mapping[str, Work] | None = field(default=None, hash=False)
    size: "Size | None" = None
    flops: float | None = None
    fetched: int | None = 0

    @property
    def seconds(self) -> float | None:
        """About how long; on a CPU within a factor of two. None: not known."""
        if self.work is None or self.size is None or self.flops is None:
            return None
        return self.total.seconds(self.size, self.flops)

    @property
    def total(self) -> Work:
        """Of all parts."""
        return sum((self.work or {}).values(), NOTHING)

    def without(self, done: Iterable[str]) -> "Plan":
        """What is left where these parts are there."""
        gone = {*done}
        left = tuple(name for name in self.parts if name not in gone)
        if self.work is None:
            return replace(self, parts=left)
        work = {name: each for name, each in self.work.items() if name not in gone}
        return replace(self, parts=left, work=work)

    def __str__(self) -> str:
        said = [_n(len(self.parts), "part")]
        if self.work is not None:
            said.append(str(self.total))
        if self.fetched != 0:
            size = "of unknown size" if self.fetched is None else f"of {self.fetched / 1e9:.1f} GB"
            said.append(f"weights {size} to fetch")
        return f"{', '.join(said)}{self._time()}"

    def _time(self) -> str:
        """How long it takes: answers may end at once, or be as long as they may be."""
        if self.seconds is None or self.size is None or self.flops is None:
            return ""
        most = lasting(self.seconds)
        least = lasting(replace(self.total, said=0).seconds(self.size, self.flops))
        if least == most:
            return f": the model takes about {most}"
        return f": the model takes {least} to {most}, by how long answers are"


def _n(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def lasting(seconds: float) -> str:
    """As one would say it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


_counted: ContextVar[list["Prompt"] | None] = ContextVar("counted", default=None)


@contextmanager
def counted() -> Generator[list["Prompt"]]:
    """The prompts that are counted within: those that a study would read."""
    found: list[Prompt] = []
    token = _counted.set(found)
    try:
        yield found
    finally:
        _counted.reset(token)


def passes(tokenizer: Any, prompts: "Sequence[Prompt]", runs: Sequence[float] = (1.0,)) -> Work:
    """What it takes to read prompts.

    Args:
        tokenizer: The model's.
        prompts: What is read.
        runs: For each time that they are read, the share of the blocks that they go through.
    """
    from xlens.engine.plan import plan
    from xlens.prompts import tokenize

    if not prompts:
        return NOTHING
    if (found := _counted.get()) is not None:
        found += prompts
    ids = [t.ids for t in tokenize(tokenizer, list(prompts), spans=frozenset())]
    # Any budget will do: it decides how much is padded, hardly what is shared.
    n = sum(batch.padded_tokens for batch in plan(ids, 2_048))
    return Work(len(prompts) * len(runs), round(n * sum(runs)))


def scored(
    tokenizer: Any,
    prompts: "Sequence[Prompt]",
    candidates: Sequence[Sequence[str]],
    *,
    layers: int = 1,
    runs: Sequence[float] = (1.0,),
) -> Work:
    """What it takes to score candidates after prompts, read at so many layers."""
    from xlens.engine.score import Offered

    offered = Offered.of(prompts, candidates)
    found = passes(tokenizer, offered.texts, runs)
    said = [text for mine in offered.candidates for text in mine]
    n = sum(map(len, tokenizer(said, add_special_tokens=False)["input_ids"])) if said else 0
    return found + Work(read=n * layers * len(runs))


def from_layers(n_layers: int, starts: Iterable[int]) -> list[float]:
    """Share of the blocks that is run from each residual point on."""
    return [1 - start / n_layers for start in starts]


@cache
def flops_of(device: "torch.device", dtype: "torch.dtype") -> float:
    """Operations a second of one large product of matrices: the machine as it is now."""
    import time

    import torch

    def once() -> float:
        begun = time.perf_counter()
        _ = a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    n = 1024 if device.type == "cpu" else 8192
    a = torch.ones(n, n, device=device, dtype=dtype)
    once()  # what is set up at the first
    return 2.0 * n**3 / sorted(once() for _ in range(5))[2]
