"""What planning costs: which prompts share a beginning, and which run together.

Prompts as of few-shot jobs: 12 headers, each before one twelfth of them. Planning is linear but for
a sort, and for what more Python objects cost each.
"""

import gc
import random

from common import Times, draw_ids, interleaved, ratios, settings
from tables import Row, write

from xlens.engine import plan
from xlens.engine.backoff import TOKEN_BUDGET

HEADERS, HEADER, OWN = 12, 100, 8  # how many, and tokens of each
FEW, MANY, MOST = 16_000, 64_000, 1_000_000


def prompts(n: int) -> list[tuple[int, ...]]:
    """Token ids; own tokens differ from prompt to prompt."""
    headers = [tuple(ids) for ids in draw_ids([HEADER] * HEADERS)]
    draw = random.Random(1)
    return [headers[i % HEADERS] + tuple(draw.choices(range(3, 4_096), k=OWN)) for i in range(n)]


def main() -> None:
    args = settings(__doc__, rounds=3)
    few, many, most = (n // 200 if args.quick else n for n in (FEW, MANY, MOST))
    given = prompts(most)
    gc.freeze()  # the million is not to weigh on the others' garbage collections

    def planned(n: int) -> None:
        plan(given[:n], TOKEN_BUDGET["cpu"])

    times: dict[str, Times] = interleaved(
        {f"{n:,}": (lambda n=n: planned(n)) for n in (few, many, most)},
        args.rounds,
        fewer={f"{most:,}": 1},
        warm={f"{most:,}": lambda: None},
    )
    what = "plan of prompts that share headers"
    setting = f"{HEADERS} headers of {HEADER} tokens, {OWN} of each prompt's own"
    grown = ratios(times[f"{many:,}"], times[f"{few:,}"])
    rows = [
        Row(what, f"{many:,} prompts, {setting}", f"{few:,} prompts", grown, "growth"),
        *(
            Row(
                what,
                f"{n:,} prompts, {setting}",
                "",
                list(times[f"{n:,}"].cpu.values()),
                "seconds",
                to,
            )
            for n, to in ((few, ""), (many, ""), (most, "≤ 20"))
        ),
    ]
    write("plan", rows, args, times={"": times})


if __name__ == "__main__":
    main()
