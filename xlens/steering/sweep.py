"""`sweep`: the same candidates scored under every layer and strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd

from xlens.checks import typed
from xlens.engine import Scores, score_variants
from xlens.engine.interventions import Intervention, Interventions
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompts
from xlens.results import Result
from xlens.store import Store

Band = tuple[int, ...]


@runtime_checkable
class Steering(Protocol):
    """What can be swept: `SteeringVectors`, `SubspaceRemoval`, or something of yours."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual points at which it can act."""
        ...

    def interventions(
        self,
        model: HookedModel,
        *,
        strength: float = 1.0,
        layers: Sequence[int] | int | None = None,
        slot: str = "all",
    ) -> list[Intervention]:
        """What the engine takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class SweepScores(Result):
    """Scores of every candidate in every cell.

    Attributes:
        table: One row per cell, prompt and candidate: `method band strength` (the cell; the band's
            layers joined by `-`, empty for no steering), then the columns of `Scores.table`
            without `layer` and `text`.
        slot: Where the stream was changed.
    """

    table: pd.DataFrame
    slot: str

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@typed
def sweep(
    model: HookedModel,
    prompts: Prompts,
    candidates: Sequence[str] | Sequence[Sequence[str]],
    steerings: Mapping[str, Steering],
    *,
    bands: Sequence[int | Sequence[int]] | None = None,
    strengths: Sequence[float] | Mapping[str, Sequence[float]] = (-1.0, 0.5, 1.0, 2.0, 4.0, 8.0),
    slot: str = "all",
    token_budget: int | None = None,
    store: Store | str | Path | None = None,
    progress: bool = True,
) -> SweepScores:
    """Score candidates without steering and under every band × strength of every method.

    One run per cell, each from the lowest layer that it changes on (`score_variants`); with a
    store, a stopped sweep goes on where it was.

    Args:
        model: Its states were steered by.
        prompts: Of one language, as a rule: all are steered alike.
        candidates: As for `score`.
        steerings: By a name of yours.
        bands: Layers, or bands of layers changed together; None: each layer that a method has.
        strengths: Factors, for all methods or by method; 0, no steering, is always there.
        slot: Where the stream is changed.
        token_budget: Most tokens in a pass.
        store: Where scores are kept.
        progress: Show a bar, and beforehand how long it will take.

    Raises:
        ValueError: no methods or strengths, a layer that a method lacks, or what `score` refuses.
    """
    factors = strengths if isinstance(strengths, Mapping) else dict.fromkeys(steerings, strengths)
    if not steerings or not all(factors.get(name) for name in steerings):
        raise InputError(
            f"steerings is {dict(steerings)} and strengths {strengths!r}; a sweep needs at least "
            "one of each, for every method."
        )
    # No steering first, once: strength 0 of any method would be that cell again.
    cells: dict[tuple[str, str, float], Interventions] = {("none", "", 0.0): ()}
    for name, steering in steerings.items():
        for band in _bands(bands, steering.layers):
            for strength in factors[name]:
                if strength != 0:
                    cells[(name, "-".join(map(str, band)), float(strength))] = (
                        steering.interventions(model, strength=strength, layers=band, slot=slot)
                    )
    found: dict[str, Scores] = score_variants(
        model,
        prompts,
        candidates,
        {_name(cell): interventions for cell, interventions in cells.items()},
        token_budget=token_budget,
        store=store,
        progress=progress,
    )
    tables: list[pd.DataFrame] = []
    for cell in cells:
        table = found[_name(cell)].table.drop(columns=["layer", "text"])
        for at, (column, value) in enumerate(
            zip(("method", "band", "strength"), cell, strict=True)
        ):
            table.insert(at, column, value)
        tables.append(table)
    plain = found[_name(("none", "", 0.0))]
    return SweepScores(
        provenance=plain.provenance, table=pd.concat(tables, ignore_index=True), slot=slot
    )


def _bands(bands: Sequence[int | Sequence[int]] | None, there: tuple[int, ...]) -> list[Band]:
    asked = list(there) if bands is None else list(bands)
    found = [(band,) if isinstance(band, int) else tuple(band) for band in asked]
    if not found or not all(found) or len(set(found)) < len(found):
        raise InputError(f"bands is {bands!r}; give layers, or non-empty bands, each once.")
    return found


def _name(cell: tuple[str, str, float]) -> str:
    method, band, strength = cell
    return f"{method} {band} {strength!r}"  # :g would call 1.0000001 and 1 the same
