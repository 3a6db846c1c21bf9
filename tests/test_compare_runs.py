"""Runs by different code compared: planted differences are found, and nothing else."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from xlens.results import Result

TOOL = Path(__file__).parent.parent / "benchmarks" / "compare_runs.py"


@dataclass(frozen=True, kw_only=True)
class Held(Result):
    """A table, an array and a plain field."""

    table: pd.DataFrame
    values: np.ndarray
    n: int


PART = Held(
    provenance={"seed": 0},
    table=pd.DataFrame({"id": ["a", "b"], "value": [0.5, np.nan], "rank": [1, 2]}),
    values=np.arange(6, dtype=np.float32).reshape(2, 3),
    n=3,
)


def told(tmp_path, other):
    for name, part in (("one", PART), ("two", other)):
        part.save(tmp_path / name / "results/model/part")
    line = [sys.executable, str(TOOL), str(tmp_path / "one"), str(tmp_path / "two")]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()


def test_what_is_equal_is_said_to_be_whatever_made_it(tmp_path):
    lines = told(tmp_path, replace(PART, provenance={"seed": 1}))
    assert lines == [
        "3 of 3 tables, arrays and fields are equal; 0 of 8 numbers differ, the farthest by "
        "0.0e+00 of its column's largest; other cells: 0, other forms: 0."
    ]


def test_each_difference_is_told_with_its_place(tmp_path):
    table = PART.table.assign(value=[0.75, np.nan], rank=[1, 3])
    values = PART.values.copy()
    values[1, 2] = 4.5
    lines = told(tmp_path, replace(PART, table=table, values=values, n=4))
    assert lines[:3] == [
        "results/model/part/n: other cells: 1",
        "results/model/part/table: 1 of 2 numbers, by 2.5e-01 at most, 3.3e-01 of the largest "
        "(value), other cells: 1",
        "results/model/part/values: 1 of 6 numbers, by 5.0e-01 at most, 1.0e-01 of the largest "
        "(values)",
    ]
    assert lines[3].startswith("0 of 3") and "2 of 8 numbers" in lines[3]
    lines = told(tmp_path / "rows", replace(PART, table=PART.table.iloc[:1]))
    assert lines[0] == "results/model/part/table: 2 and 1 rows, columns of one alone: []"
