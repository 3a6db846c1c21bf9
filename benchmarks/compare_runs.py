"""Two runs of one command by different code, number by number: what is equal, what by how much.

`xlens compare` sets two runs side by side that people asked; this one is for changes of the code.
It reads the files themselves, so that code of before need not be able to read what is written now:
every cell of every table, array and plain field of every part, row by row. Provenance is left out.

    python benchmarks/compare_runs.py RUN RUN         # what differs, a line for each table
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

HEADER = "result.json"


@dataclass
class Difference:
    """How two tables, arrays or fields differ.

    Attributes:
        numbers: Cells that are numbers with a fraction.
        unequal: Of these, those that are not the same to the bit.
        most: The largest difference of two of them.
        share: The same of the largest number in its column.
        at: The column.
        discrete: Cells of text, truth and whole numbers that are not the same.
        shape: What of the form differs, in words; then nothing else is told.
    """

    numbers: int = 0
    unequal: int = 0
    most: float = 0.0
    share: float = 0.0
    at: str = ""
    discrete: int = 0
    shape: str = ""

    def __str__(self) -> str:
        if self.shape:
            return self.shape
        if not (self.unequal or self.discrete):
            return "equal"
        said = [f"{self.unequal:,} of {self.numbers:,} numbers"] if self.unequal else []
        if self.unequal:
            said.append(f"by {self.most:.1e} at most, {self.share:.1e} of the largest ({self.at})")
        if self.discrete:
            said.append(f"other cells: {self.discrete:,}")
        return ", ".join(said)

    def add(self, name: str, one: np.ndarray, two: np.ndarray) -> None:
        """Compare a column."""
        if one.dtype.kind != "f" or two.dtype.kind != "f":
            pairs = zip(one.ravel().tolist(), two.ravel().tolist(), strict=True)
            self.discrete += sum(not _same(a, b) for a, b in pairs)
            return
        a, b = one.astype(float).ravel(), two.astype(float).ravel()
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        self.numbers += a.size
        self.unequal += int((~same).sum())
        if same.all():
            return
        off = np.abs(a[~same] - b[~same])
        most = float(np.where(np.isnan(off), math.inf, off).max())
        known = np.abs(np.concatenate([a, b]))
        largest = float(np.max(known, where=np.isfinite(known), initial=0.0))
        share = most / largest if largest else math.inf
        if share >= self.share:
            self.most, self.share, self.at = most, share, name


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def differences(one: Path, two: Path) -> Iterator[tuple[str, Difference]]:
    """Of every table, array and field of the parts that both runs have; and parts of one alone."""
    parts = [{p.parent.relative_to(run): p.parent for p in run.rglob(HEADER)} for run in (one, two)]
    for name in sorted({*parts[0]} | {*parts[1]}):
        if not all(name in each for each in parts):
            yield (
                f"{name}",
                Difference(shape=f"only in the {'first' if name in parts[0] else 'second'}"),
            )
            continue
        held = [_held(each[name]) for each in parts]
        for field in sorted({*held[0]} | {*held[1]}):
            if not all(field in each for each in held):
                where = "first" if field in held[0] else "second"
                yield f"{name}/{field}", Difference(shape=f"only in the {where}")
            else:
                yield f"{name}/{field}", _compared(held[0][field], held[1][field])


def _held(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {p.stem: pd.read_parquet(p) for p in folder.glob("*.parquet")}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    plain = json.loads((folder / HEADER).read_text())["fields"]
    return found | {name: value for name, value in plain.items() if name != "provenance"}


def _compared(one: Any, two: Any) -> Difference:
    found = Difference()
    if isinstance(one, pd.DataFrame) and isinstance(two, pd.DataFrame):
        if len(one) != len(two) or {*one.columns} != {*two.columns}:
            columns = sorted(map(str, {*one.columns} ^ {*two.columns}))
            found.shape = f"{len(one)} and {len(two)} rows, columns of one alone: {columns}"
            return found
        for column in one.columns:
            found.add(str(column), one[column].to_numpy(), two[column].to_numpy())
    elif isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        if one.shape != two.shape:
            found.shape = f"{one.shape} and {two.shape}"
            return found
        found.add("values", one, two)
    else:
        found.add("value", np.array([one], dtype=object), np.array([two], dtype=object))
    return found


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(f"{__doc__}\nGive two folders of runs.")
    told = list(differences(*map(Path, sys.argv[1:])))
    if not told:
        raise SystemExit("No results in either folder: give two folders of runs.")
    differing = [(name, found) for name, found in told if str(found) != "equal"]
    for name, found in differing:
        print(f"{name}: {found}")
    numbers, unequal = (sum(getattr(f, n) for _, f in told) for n in ("numbers", "unequal"))
    print(
        f"{len(told) - len(differing)} of {len(told)} tables, arrays and fields are equal; "
        f"{unequal:,} of {numbers:,} numbers differ, the farthest by "
        f"{max(f.share for _, f in told):.1e} of its column's largest; "
        f"other cells: {sum(f.discrete for _, f in told):,}, "
        f"other forms: {sum(bool(f.shape) for _, f in told)}."
    )


if __name__ == "__main__":
    main()
