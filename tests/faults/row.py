"""A row of the table: what was tried, how often, and what went wrong."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Row:
    """Trials of one kind.

    Attributes:
        what: What was tried.
        tried: How often.
        faults: What went wrong, in words.
        counts: What else was counted.
    """

    what: str
    tried: int = 0
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        told = "".join(f", {n} {name}" for name, n in sorted(self.counts.items()))
        first = f": {self.faults[0][:300]}" if self.faults else ""
        return f"{self.what}: {self.tried} tried, {len(self.faults)} wrong{told}{first}"
