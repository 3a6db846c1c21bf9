"""Small calls of `harvest`, as made in a notebook: the bare forward on the same prompts."""

import torch
from common import (
    Times,
    draw_ids,
    interleaved,
    make_model,
    planned_batches,
    prompts_of,
    ratios,
    settings,
)
from tables import Row, write

from xlens.engine import harvest
from xlens.engine.backoff import TOKEN_BUDGET
from xlens.models import HookedModel

# By shape: prompts, tokens of each, and the most that a call may take over the forward.
CALLS = {
    "GPT-2 small": ((1, 16, "≤ 1.15"), (4, 32, "≤ 1.08")),
    "Gemma 3 270M": ((4, 32, "≤ 1.08"),),
}
BARE = "forward without the head, same batch"


def measured(model: HookedModel, n: int, length: int, rounds: int) -> dict[str, Times]:
    """A call and the forward that is in it."""
    sequences = draw_ids([length] * n)
    prompts = prompts_of(sequences)
    (batch,) = planned_batches(sequences, TOKEN_BUDGET["cpu"])

    @torch.inference_mode()
    def bare() -> None:
        model.body(**batch, use_cache=False)

    return interleaved(
        {"xlens": lambda: harvest(model, prompts, progress=False), BARE: bare}, rounds
    )


def main() -> None:
    args = settings(__doc__, rounds=30)
    rows: list[Row] = []
    times: dict[str, dict[str, Times]] = {}
    for shape, calls in CALLS.items():
        model = make_model(shape, quick=args.quick)
        for n, length, target in calls:
            setting = f"{shape}, {n} × {length} tokens"
            taken = times[setting] = measured(model, n, length, args.rounds)
            found = ratios(taken["xlens"], taken[BARE])
            what = "harvest, all layers at last, a small call"
            rows.append(Row(what, setting, BARE, found, figure="time", target=target))
    write("small", rows, args, times=times)


if __name__ == "__main__":
    main()
