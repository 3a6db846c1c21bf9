"""A benchmark's rows: printed as a table, written as JSON for `report.py`."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from common import Times

import xlens

RESULTS = Path(__file__).parent / "results"
HEADINGS = (
    "what",
    "setting",
    "against",
    "figure",
    "median",
    "min..max",
    "to reach",
    "reached",
)

# Speed is the peer's seconds over xlens's: more is better. Time is the other way round.
Figure = Literal[
    "speed", "time", "seconds", "memory", "memory over", "memory above", "growth", "rate", "share"
]
_UNITS = {"seconds": " s", "memory above": " MB", "rate": " MB/s", "share": ""}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What xlens did.
        setting: The model, and how much of what.
        against: The peer.
        values: Round by round.
        figure: `speed` (peer's seconds over xlens's), `time` (the other way round), `memory` (the
            peer's peak over xlens's), `memory over` (the other way round), `memory above` (xlens's
            peak above what was there, in MB), `growth` (xlens's own, many over few), `seconds` (of
            xlens), `rate` (MB in a second), `share` (of the peer's tokens that xlens runs).
        target: Such as "≥ 0.97"; "" for a line that stands there for comparison only.
        note: What a reader must know.
    """

    what: str
    setting: str
    against: str
    values: list[float]
    figure: Figure = "speed"
    target: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """None without a target."""
        if not self.target:
            return None
        found = re.fullmatch(r"([≥≤>]) ([\d.]+)", self.target)
        if found is None:
            raise ValueError(f"Target {self.target!r} is not like '≥ 0.97'.")
        bound = float(found[2])
        if found[1] == "≤":
            return self.median <= bound
        return self.median >= bound if found[1] == "≥" else self.median > bound

    def cells(self) -> list[str]:
        """As `HEADINGS` has them."""
        unit = _UNITS.get(self.figure, " ×")
        low, high, n = min(self.values), max(self.values), len(self.values)
        return [
            self.what,
            self.setting,
            self.against,
            self.figure,
            f"{_number(self.median)}{unit}",
            f"{_number(low)}..{_number(high)} ({n})" if n > 1 else "",
            f"{self.target}{unit}" if self.target else "",
            {None: "", True: "yes", False: "no"}[self.reached],
        ]


def _number(x: float) -> str:
    return f"{x:.2f}" if abs(x) < 10 else f"{x:.1f}" if abs(x) < 100 else f"{x:,.0f}"


def write(
    name: str,
    rows: Sequence[Row],
    args: argparse.Namespace,
    *,
    times: Mapping[str, Mapping[str, Times]] | None = None,
    notes: Collection[str] = (),
    measured: Mapping[str, Any] | None = None,
) -> None:
    """Print the table and write `results/NAME.json` (`results/quick/` for `--quick`).

    Args:
        name: Of the file.
        rows: The table.
        args: The script's settings.
        times: All seconds, by model and method.
        notes: Printed below the table, after those of the rows.
        measured: Further figures for the file alone.
    """
    said = list(dict.fromkeys([*(row.note for row in rows if row.note), *notes]))
    if args.quick:
        said.append("--quick: models of a few thousand weights, so the figures mean nothing.")
    seconds = {
        label: {method: {"cpu": _list(t.cpu), "wall": _list(t.wall)} for method, t in each.items()}
        for label, each in (times or {}).items()
    }
    document = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "took": {"cpu": round(time.process_time(), 1), "wall": round(_age(), 1)},
        "hardware": hardware(args.threads),
        "versions": versions(),
        "rows": [asdict(row) | {"cells": row.cells()} for row in rows],
        "notes": said,
        "seconds": seconds,
        "measured": dict(measured or {}),
    }
    _print([list(HEADINGS), *(row.cells() for row in rows)])
    for note in said:
        print(f"* {note}")
    folder = RESULTS / "quick" if args.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, indent=1)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _print(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in [*table[:1], ["-" * width for width in widths], *table[1:]]:
        print("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())


def _age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


def _list(seconds: Mapping[int, float]) -> list[float]:
    return [round(s, 4) for s in seconds.values()]


def hardware(threads: int) -> dict[str, Any]:
    """What the figures were taken on."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": threads,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        # Of the last five minutes. Well above `threads`: the machine was not quiet.
        "load": round(os.getloadavg()[1], 1),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _cpu_name() -> str:
    with suppress(OSError):
        if names := re.findall("model name\\s*: (.*)", Path("/proc/cpuinfo").read_text()):
            return names[0]
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version(), "xlens": xlens.__version__}
    for package in ("torch", "transformers", "transformer-lens", "nnsight", "lm-eval"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
