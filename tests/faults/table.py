"""The whole table: what was tried of every kind of fault, and what went wrong.

    python tests/faults/table.py [PART [TIMES [NAME …]]]

Without arguments all of it, which takes about half an hour on a core; else one part (`kills`), with
fewer trials or only some of its rows.
"""

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch  # noqa: E402
from commands import Ground  # noqa: E402
from row import Row  # noqa: E402

torch.set_num_threads(1)
Rows = Callable[[Ground, Path, int, Sequence[str]], Iterator[Row]]


def warm() -> None:
    """Import here what every forked process would import."""
    import plotly.io
    import sklearn.linear_model

    from xlens import figures, report
    from xlens.cli import main

    assert all((plotly.io, sklearn.linear_model, figures, report, main))


def printed(rows: Rows, times: int, only: Sequence[str] = ()) -> bool:
    """Print rows as they come; whether nothing was wrong."""
    warm()
    right = True
    with tempfile.TemporaryDirectory(prefix="xlens-faults-") as folder:
        os.environ["XLENS_CACHE"] = f"{folder}/cache"
        ground = Ground.make(Path(folder))
        start = time.process_time(), time.monotonic()
        for row in rows(ground, Path(folder), times, only):
            print(row, flush=True)
            right &= not row.faults
        times_ = os.times()
        spent = time.process_time() - start[0] + times_.children_user + times_.children_system
        print(f"  {spent:.0f} s of CPU, {time.monotonic() - start[1]:.0f} s", flush=True)
    return right


PARTS = {
    "corruptions": 200,
    "kills": 30,
    "together": 3,
    "disk_errors": 1,
    "power_cuts": 10,
    "bad_input": 1,
}
"""The parts of the table, and how often each of their trials is made."""


if __name__ == "__main__":
    part, times, *only = [*sys.argv[1:], "", ""][: max(2, len(sys.argv) - 1)]
    right = True
    for name in [part] if part else PARTS:
        print(f"{name}:", flush=True)
        right &= printed(importlib.import_module(name).rows, int(times or PARTS[name]), only)
    sys.exit(0 if right else 1)
