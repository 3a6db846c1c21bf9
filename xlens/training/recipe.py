"""How an adapter is trained; the defaults are those of arXiv 2405.13816's commands.

Read there: LoRA on the query and value projections, cutoff 2048, 4 rows a batch and 4 batches a
step, a cosine after a tenth of warm-up, learning rate 5e-5, 3 epochs. Rank 8 and an alpha twice as
large are LLaMA-Factory's defaults of that time (secondary; the commands say neither).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from xlens.checks import check_fields, check_least
from xlens.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]
SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant"),
    *("constant_with_warmup", "inverse_sqrt"),
)
"""Those of transformers that need nothing but a warm-up and a number of steps."""
# Beyond anything that is meant; a number of thirty digits would fail in the middle of a run.
_MOST = {
    **{"rank": 2**16, "epochs": 10**4, "batch": 2**16, "accumulate": 2**16},
    **{"cutoff": 10**7, "save_every": 10**9},
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """LoRA's shape and its training.

    Attributes:
        rank: Of the adapter.
        alpha: Its weight, over the rank; twice the rank by default.
        targets: Modules that get one, by the end of their names; default `q_proj` and `v_proj`, or
            what peft takes for the family.
        dropout: Before the adapter.
        learning_rate: The highest.
        schedule: How it falls, after warming up: linear, cosine, cosine_with_restarts, polynomial,
            constant, constant_with_warmup or inverse_sqrt.
        warmup: Share of the steps.
        epochs: Times that every row is seen.
        batch: Rows in a pass.
        accumulate: Passes in a step.
        cutoff: Longest row in tokens; longer ones are left out, and counted.
        precision: Of the passes; adapters and their optimizer stay in float32.
        save_every: Steps between checkpoints; default once an epoch.
        seed: Of the first weights, the order and dropout.
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    learning_rate: float = 5e-5
    schedule: str = "cosine"
    warmup: float = 0.1
    epochs: int = 3
    batch: int = 4
    accumulate: int = 4
    cutoff: int = 2048
    precision: Precision = "float32"
    save_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_least(self, rank=1, epochs=1, batch=1, accumulate=1, cutoff=2, save_every=1)
        for name, most in _MOST.items():
            if (given := getattr(self, name)) is not None and given > most:
                raise InputError(f"{name} is {given}; accepted are whole numbers up to {most:,}.")
        for name in ("alpha", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; accepted are numbers above 0.")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule is {self.schedule!r}; accepted are {', '.join(SCHEDULES)}.")
        if odd := [name for name in self.targets if not name.strip() or not name.isprintable()]:
            raise InputError(f"targets holds {odd[0]!r}, which is no module's name.")
        for name in ("dropout", "warmup"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise InputError(f"{name} is {value}; accepted is a share from 0 to below 1.")

    @property
    def weight(self) -> float:
        """Alpha, where none was given, too."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def options(self) -> dict[str, Any]:
        """As plain values, as provenance has them."""
        return {**asdict(self), "alpha": self.weight, "targets": list(self.targets)}
