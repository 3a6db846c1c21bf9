"""Slots: what is kept of the position axis."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from xlens.checks import typed
from xlens.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What can be kept of a span.

    Attributes:
        positions: Which token positions it reads, of the span's.
        shares: Of so many positions, the factor of each in the sum that is kept as one row; None
            where each position is a row.
        single: Whether it is always one position.
        writable: Whether an intervention can be said to be there.
    """

    positions: Callable[[range], range] = lambda span: span
    shares: Callable[[int], list[float]] | None = None
    single: bool = False
    writable: bool = True


KINDS = {
    "first": Kind(positions=lambda span: span[:1], single=True),
    "last": Kind(positions=lambda span: span[-1:], single=True),
    "mean": Kind(shares=lambda n: [1 / n] * n),
    "sum": Kind(shares=lambda n: [1.0] * n, writable=False),
    "each": Kind(),
    # The state at t - 1 predicts token t.
    "predict": Kind(positions=lambda span: range(span.start - 1, span.stop - 1)),
}
"""By what follows `NAME:`."""
_GRAMMAR = re.compile(r"(?P<span>[^:\s]+):(?P<how>[a-z]+)")


@dataclass(frozen=True)
class Slot:
    """One named selection of token positions.

    | text | positions | rows per prompt |
    |---|---|---|
    | `last` | the prompt's last token | 1 |
    | `all` | every token | its length |
    | `NAME:first`, `NAME:last` | first or last token of span NAME | 1 |
    | `NAME:mean` | mean over the span's tokens | 1 |
    | `NAME:sum` | sum over the span's tokens | 1 |
    | `NAME:each` | every token of the span | the span's length |
    | `NAME:predict` | the positions that predict the span's tokens: each one's predecessor | same |

    Attributes:
        span: Span name; None for `last` and `all`, which speak of the whole prompt.
        how: One of `KINDS`; `each` for `all`.
    """

    span: str | None
    how: str

    @property
    def kind(self) -> Kind:
        """What `how` means."""
        return KINDS[self.how]

    @property
    def single(self) -> bool:
        """Whether it is one position of each prompt."""
        return self.kind.single

    @property
    def reduced(self) -> bool:
        """Whether its positions become one row."""
        return self.kind.shares is not None

    @property
    def ragged(self) -> bool:
        """Whether the number of rows differs between prompts."""
        return not self.single and not self.reduced

    def shares(self, n: int) -> list[float]:
        """The factors of `n` positions in their one row."""
        assert self.kind.shares is not None  # it is reduced
        return self.kind.shares(n)

    def __str__(self) -> str:
        if self.span is None:
            return "all" if self.how == "each" else "last"
        return f"{self.span}:{self.how}"


@typed
def parse_slot(text: str) -> Slot:
    """Read a slot: `last`, `all` or `NAME:first|last|mean|sum|each|predict`.

    Raises:
        ValueError: anything else.
    """
    if text in ("last", "all"):
        return Slot(None, "last" if text == "last" else "each")
    match = _GRAMMAR.fullmatch(text)
    if match is None or match["how"] not in KINDS:
        raise InputError(
            f"Unknown slot {text!r}; accepted are 'last', 'all' and 'NAME:{'|'.join(KINDS)}' "
            "where NAME is a span of the prompts, for example 'question:last'."
        )
    return Slot(match["span"], match["how"])
