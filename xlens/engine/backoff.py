"""Run a plan to its end; out of memory halves the token budget and goes on."""

from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import chain

from xlens.engine.forward import Passed, Watch, run_batch
from xlens.engine.halving import Note, until_done
from xlens.engine.plan import Batch, Tokens, plan
from xlens.engine.positions import labels
from xlens.engine.room import kv_places
from xlens.models import HookedModel
from xlens.models.sites import Point

# Measured on two cores: 2,048 tokens a batch is fastest; a GPU wants larger ones.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 16_384}


def pass_budget(
    model: HookedModel, asked: int | None, usual: Mapping[str, int] = TOKEN_BUDGET
) -> int:
    """Most tokens in a pass: what was asked for, or what is usual on the model's device."""
    return asked or usual.get(model.device.type, usual["cpu"])


def run_all(
    model: HookedModel,
    sequences: Sequence[Tokens],
    layers: Sequence[Point],
    watch: Watch,
    *,
    codes: Sequence[Tokens],
    budget: int,
    share: bool,
    commit: Callable[[], None],
    discard: Callable[[Sequence[int]], None],
    advance: Callable[[Sequence[int]], None],
    skip: Callable[[Batch], bool] = lambda _: False,
    longest: int | None = None,
    by_pass: bool = False,
    run: Callable[
        [HookedModel, Batch, Sequence[Tokens], Sequence[Point], Watch, Passed], object
    ] = run_batch,
) -> None:
    """Plan and run all sequences.

    Args:
        model: Runs.
        sequences: Token ids.
        layers: Residual points to visit.
        watch: As for `run_batch`.
        codes: What sequences are compared by when they are planned: their ids, with another
            number where an intervention treats a token differently.
        budget: Most tokens in a pass, to begin with.
        share: Whether common prefixes run once.
        commit: Called after each whole batch: what it kept is now good.
        discard: Called instead when a batch failed, with its sequences that are not done.
        advance: Called with the sequences that are done.
        skip: Whether a batch was done by an earlier run. The plan is the same with it as without,
            so that no value depends on where a run was cut off.
        longest: Most passes in a batch; None: as many as share its prefixes.
        by_pass: Commit and advance after each pass of a batch. Of sequences that are discarded,
            what they begin with may then have been committed.
        run: Runs a batch.

    Raises:
        MemoryError: one sequence alone doesn't fit.
    """

    def attempt(left: Sequence[int], budget: int, note: Note) -> Generator[Sequence[int]]:
        apart = labels(model, [len(sequences[i]) for i in left])
        places = kv_places(model, budget)
        asked = [codes[i] for i in left]
        batches = plan(asked, budget, share=share, apart=apart, places=places)
        for planned in chain.from_iterable(b.pieces(longest or len(b.passes)) for b in batches):
            batch = planned.renumbered(left)
            if skip(batch):
                yield batch.members
                continue
            note(batch.members, batch.padded_tokens)
            left_over = dict.fromkeys(batch.members)

            def passed(rows: Sequence[int], left_over: dict[int, None] = left_over) -> None:
                if by_pass:
                    commit()
                    advance(rows)
                    for row in rows:
                        del left_over[row]

            try:
                run(model, batch, sequences, layers, watch, passed)
            except Exception:
                discard([*left_over])
                yield [m for m in batch.members if m not in left_over]
                raise
            if left_over:
                commit()
                advance([*left_over])
            yield batch.members

    advice = "Shorten it, ask for fewer layers or slots, or use a smaller dtype or model."
    until_done(list(map(len, sequences)), budget, attempt, advice=advice)
