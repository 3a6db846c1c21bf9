"""What lies below an intervention, computed once for many of them.

A sweep asks the same prompts again and again with something changed at one layer. Below that layer
nothing changes: the stream there, and the shared prefixes' keys and values, are kept from one
plain run, and each run with an intervention goes on from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from xlens.engine.backoff import run_all
from xlens.engine.forward import Passed, Watch, run_batch
from xlens.engine.gather import Seats
from xlens.engine.interventions import Edits
from xlens.engine.plan import Batch, Tokens
from xlens.engine.trust import shares_prefixes
from xlens.models import HookedModel
from xlens.models.hooks import counting, handing_on
from xlens.models.sites import Keep, Point


@dataclass(frozen=True)
class Distinct:
    """Sequences without repetitions.

    Attributes:
        sequences: Token ids.
        codes: What they are compared by.
        owners: For each, which of the prompts it is.
    """

    sequences: list[Tokens]
    codes: list[Tokens]
    owners: dict[int, list[int]]

    @classmethod
    def of(cls, ids: Sequence[Tokens], codes: Sequence[Tokens]) -> "Distinct":
        """Those of some prompts' ids that are treated differently."""
        mine: dict[Tokens, list[int]] = {}
        for i, code in enumerate(codes):
            mine.setdefault(tuple(code), []).append(i)
        firsts = [ids[numbers[0]] for numbers in mine.values()]
        return cls(firsts, list(mine), dict(enumerate(mine.values())))


@dataclass(eq=False)
class _Recorded:
    """A batch that ran: the stream at the kept points of each of its passes, in order."""

    batch: Batch
    passes: list[dict[Point, Tensor]] = field(default_factory=list[dict[Point, Tensor]])
    cache: Any = None


class Trunk:
    """A plain run of some prompts, to go on from at any of its points.

    Args:
        model: Runs.
        ids: Token ids of each prompt.
        edits: All interventions that will be asked for; prompts share passes as far as all of them
            allow it.
        points: Residual points that will be read.
        budget: Most tokens in a pass.
        share: Run common beginnings once.

    Raises:
        MemoryError: a single prompt doesn't fit in memory.
    """

    def __init__(
        self,
        model: HookedModel,
        ids: Sequence[Tokens],
        edits: Sequence[Edits],
        points: Sequence[Point],
        *,
        budget: int,
        share: bool = True,
    ) -> None:
        self.model = model
        self.distinct = Distinct.of(ids, _joint([e.codes(ids) for e in edits], ids))
        self._recorded: list[_Recorded] = []
        self._wraps: dict[int, int] = {}
        with model.evaluating(), counting(model.blocks, self._wraps):
            run_all(
                model,
                self.distinct.sequences,
                sorted({start(e, points) for e in edits}),
                lambda _: _nothing,
                codes=self.distinct.codes,
                budget=budget,
                share=share and shares_prefixes(model),
                commit=lambda: None,
                discard=lambda _: None,
                advance=lambda _: None,
                run=self._record,
            )

    def run(
        self, edits: Edits, points: Sequence[Point], watch: Watch, commit: Callable[[], None]
    ) -> None:
        """Run all prompts from where `edits` begin.

        Args:
            edits: One of those given before.
            points: Residual points to read.
            watch: As for `run_batch`; sees the kept stream at the point that is begun at.
            commit: Called after each batch.
        """
        first = start(edits, points)
        for kept in self._recorded:
            passes = iter(kept.passes)

            def going_on(seats: Seats, passes: Any = passes) -> Keep:
                keep, states = watch(seats), next(passes)

                def replaced(layer: Point, resid: Tensor) -> Tensor | None:
                    if layer != first:
                        return keep(layer, resid)
                    changed = keep(layer, states[first])
                    return states[first] if changed is None else changed

                return replaced

            below = () if kept.cache is None else tuple(kept.cache.layers[:first])
            skipped = self.model.blocks[:first]
            returns = [self._wraps[n] for n in range(first)]
            with self.model.evaluating(), handing_on(skipped, returns):
                run_batch(
                    self.model,
                    kept.batch,
                    self.distinct.sequences,
                    sorted({first, *edits.visiting(points)}),
                    going_on,
                    below=below,
                )
            commit()

    def _record(
        self,
        model: HookedModel,
        batch: Batch,
        sequences: Sequence[Tokens],
        layers: Sequence[Point],
        _watch: Watch,
        _passed: Passed,
    ) -> None:
        found = _Recorded(batch)

        def recording(_seats: Seats) -> Keep:
            states: dict[Point, Tensor] = {}
            found.passes.append(states)

            def keep(layer: Point, resid: Tensor) -> None:
                states[layer] = resid

            return keep

        found.cache = run_batch(model, batch, sequences, layers, recording)
        self._recorded.append(found)


def start(edits: Edits, points: Sequence[Point]) -> int:
    """The lowest point that is changed or read; of a place inside a block, what goes into it."""
    return int(min((*edits.visiting(points), *points)))


def _nothing(_layer: Point, _resid: Tensor) -> None:
    pass


def _joint(codes: Sequence[Sequence[Tokens]], ids: Sequence[Tokens]) -> list[Tokens]:
    """Codes that differ wherever any of the given ones do."""
    if all(some == codes[0] for some in codes):
        return list(codes[0])
    table: dict[Any, int] = {}
    return [
        tuple(
            table.setdefault(at, len(table))
            for at in zip(ids[i], *(c[i] for c in codes), strict=True)
        )
        for i in range(len(ids))
    ]
