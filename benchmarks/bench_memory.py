"""Peak memory of states kept at every token, of prompts with one header, over the result itself.

Peak is how far the process's resident memory rises above what was there; the result is in it, and
so are the keys and values of a pass: of a wide model the most of it, as long as prompts are few.
"""

from functools import partial

from common import draw_ids, make_model, peak_memory, prompts_of, settings
from tables import Row, write

from xlens.engine import harvest
from xlens.models import HookedModel

HEADER, OWN = 100, 8  # tokens


def main() -> None:
    args = settings(__doc__, rounds=1)
    rows: list[Row] = []
    for shape, narrow, n in (("GPT-2 small", True, 3_000), ("GPT-2 small", False, 150)):
        model = make_model(shape, quick=args.quick or narrow)
        n = 30 if args.quick else n
        (header,) = draw_ids([HEADER])
        sequences = [header + own for own in draw_ids([OWN] * n, seed=1)]
        mb = (model.n_layers + 1) * n * (HEADER + OWN) * model.d_model * 4 / 2**20

        def kept(
            n: int, model: HookedModel = model, sequences: list[list[int]] = sequences
        ) -> object:
            return harvest(model, prompts_of(sequences[:n]), slots="all", progress=False)

        peaks = [peak_memory(partial(kept, n), warm=partial(kept, 4)) for _ in range(args.rounds)]
        rows.append(
            Row(
                "harvest, all layers at all",
                f"GPT-2 of {model.n_layers} blocks and width {model.d_model}, {n:,} prompts of "
                f"{OWN} tokens after {HEADER}",
                f"the result itself, {mb:,.0f} MB",
                [peak / mb for peak in peaks],
                "memory over",
                "≤ 1.3" if narrow else "",
            )
        )
    write("memory", rows, args)


if __name__ == "__main__":
    main()
