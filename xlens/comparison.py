"""Two runs, or two results of one kind, side by side: what differs in them, and by how much.

Rows of the main tables are matched by what names them: the columns of text and whole numbers, in
the order of the table, that it takes to tell its rows apart. All other numbers are compared.
Nothing is tested here: a difference of means is no finding without the study's own test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import HEADER, Result, jsonable, load
from xlens.runs import ACROSS, RunDirectory, differences

_QUIET = ("out", "overwrite", "dry_run")
_ENDS = ("low", "high")
_SHOWN, _LONGEST = 2, 60
_APART = " · "
_NAMES = ("k", "prompt", "seed", "token")
"""Columns of numbers that are none: ranks, vocabulary items. Their differences mean nothing."""


@dataclass(frozen=True, kw_only=True)
class CompareResult(Result):
    """Two of a kind, side by side.

    Attributes:
        table: `part where measure first second difference`: every number that both have, by the
            part's name, what names the row, and its column. `difference` is second less first.
        names: What the two are called, by what differs.
        differs: Options, or what made two results, that are not the same: a pair of values each.
        kind: What is compared: a command, or a kind of result.
        left_out: Parts that one of the two lacks, that have no table, or whose rows nothing names.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    differs: dict[str, Any]
    kind: str
    left_out: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    @property
    def summary(self) -> pd.DataFrame:
        """`part measure n first second difference most at`: means, and where most is between them.

        Ends of intervals are left out, and so are numbers that only one of the two has.
        """
        ends = self.table["measure"].str.rpartition("_")[2].isin(_ENDS)
        table = self.table[~ends].dropna(subset=["difference"])
        rows: list[dict[str, Any]] = []
        for _, own in table.groupby(["part", "measure"], sort=False):
            most = own.sort_values("difference", key=lambda d: -d.abs(), kind="stable").iloc[0]
            means = {c: float(own[c].mean()) for c in ("first", "second", "difference")}
            rows.append(
                {"part": most["part"], "measure": most["measure"], "n": len(own), **means}
                | {"most": float(most["difference"]), "at": most["where"]}
            )
        head = ["part", "measure", "n", "first", "second", "difference", "most", "at"]
        return pd.DataFrame(rows, columns=head)


@typed
def compare(first: str | Path | Result, second: str | Path | Result) -> CompareResult:
    """Two runs of one study, or two results of one kind, side by side.

    A model's parts are compared with those of the same model; where each run has one that the other
    lacks, with that one's.

    Args:
        first: The folder of a run or of a saved result, or a result.
        second: Likewise; what is compared with the first.

    Raises:
        ValueError: a run and a result, different kinds, or nothing that both have.
        DamagedError: a file is not what was written. A `ValueError` too.
    """
    one, two = _opened(first), _opened(second)
    if isinstance(one, RunDirectory) and isinstance(two, RunDirectory):
        kind, parts, differs, left = _of_runs(one, two)
        made_by = (one.provenance, two.provenance)
        called = (one.path.name, two.path.name)
    elif isinstance(one, Result) and isinstance(two, Result):
        if type(one) is not type(two):
            raise InputError(
                f"A {type(one).__name__} and a {type(two).__name__}: only results of one kind can "
                "be compared. Give two of the same."
            )
        kind, left = type(one).__name__, []
        parts = {"": (one, two)}
        made_by = (one.provenance, two.provenance)
        differs = differences(*map(jsonable, made_by))
        called = tuple(str(x) if isinstance(x, (str, Path)) else "" for x in (first, second))
    else:
        told = ["a run" if isinstance(x, RunDirectory) else "a result" for x in (one, two)]
        raise InputError(f"{told[0]} and {told[1]} can't be compared: give two of the same.")
    frames: list[pd.DataFrame] = []
    for name, pair in parts.items():
        found = _matched(*pair)
        if found is None:
            left.append(name)
        else:
            frames.append(found.assign(part=name))
    if not frames:
        raise InputError(
            f"Nothing to compare: the two have no rows in common. {_left(left)}Give runs with the "
            "same languages and parts."
        )
    table = pd.concat(frames, ignore_index=True)
    return CompareResult(
        provenance={"first": made_by[0], "second": made_by[1]},
        table=table[["part", "where", "measure", "first", "second", "difference"]],
        names=_names(differs, (called[0], called[1])),
        differs=differs,
        kind=kind,
        left_out=tuple(left),
    )


def _opened(given: str | Path | Result) -> RunDirectory | Result:
    if isinstance(given, Result):
        return given
    return load(given) if (Path(given) / HEADER).is_file() else RunDirectory.open(given)


def _of_runs(
    one: RunDirectory, two: RunDirectory
) -> tuple[str, dict[str, tuple[Result, Result]], dict[str, Any], list[str]]:
    """Command, pairs of parts, options that differ, and parts that one of them lacks."""
    if one.command != two.command:
        raise InputError(
            f"{str(one.path)!r} is a run of {one.command}, {str(two.path)!r} one of "
            f"{two.command}: only runs of one study can be compared."
        )
    options = [run.config.get(run.command) or {} for run in (one, two)]
    asked = [{k: v for k, v in each.items() if k not in _QUIET} for each in options]
    parts: dict[str, tuple[Result, Result]] = {}
    left: list[str] = []
    pairs = list(_models(one, two))
    for a, b in pairs:
        had = [run.parts(name) for run, name in ((one, a), (two, b))]
        several = f"{a}/" if len(pairs) > 1 else ""
        for name in dict.fromkeys([*had[0], *had[1]]):
            same = name in had[0] and name in had[1] and type(had[0][name]) is type(had[1][name])
            if same:
                parts[f"{several}{name}"] = (had[0][name], had[1][name])
            else:
                left.append(f"{several}{name}")
    return one.command, parts, differences(*map(jsonable, asked)), left


def _models(one: RunDirectory, two: RunDirectory) -> Iterator[tuple[str, str]]:
    """Models that belong together: of one name, and the only ones that are of another."""
    there = [list(run.results()) for run in (one, two)]
    yield from ((name, name) for name in there[0] if name in there[1])
    own = [set(names) - {ACROSS} for names in there]
    if len(first := own[0] - own[1]) == len(second := own[1] - own[0]) == 1:
        yield first.pop(), second.pop()


def _matched(one: Result, two: Result) -> pd.DataFrame | None:
    """`where measure first second difference`; None where no rows are in common."""
    try:
        frames = [x.to_frame().reset_index(drop=True) for x in (one, two)]
    except NotImplementedError:
        return None
    if (keys := _keys(frames)) is None:
        return None
    numbers = [
        c
        for c in frames[0].columns
        if c not in (*keys, *_NAMES) and all(c in f and is_numeric_dtype(f[c]) for f in frames)
    ]
    if not numbers:
        return None
    long = [_long(frame, keys, numbers) for frame in frames]
    both = long[0].merge(long[1], on=["where", "measure"], suffixes=("_first", "_second"))
    if both.empty:
        return None
    both = both.rename(columns={"value_first": "first", "value_second": "second"})
    return both.assign(difference=both["second"] - both["first"])


def _long(frame: pd.DataFrame, keys: list[str], numbers: list[str]) -> pd.DataFrame:
    """`where measure value`."""
    named = frame[numbers].astype(float).set_axis(_where(frame, keys).to_numpy(), axis=0)
    long: Any = named.rename_axis(index="where", columns="measure").stack(future_stack=True)
    return long.rename("value").reset_index()


def _keys(frames: list[pd.DataFrame]) -> list[str] | None:
    """The first columns that tell rows apart; None where none do."""
    exact = [c for c in frames[0].columns if c in frames[1].columns]
    exact = [c for c in exact if not any(frame[c].dtype.kind in "fc" for frame in frames)]
    exact.sort(key=lambda c: frames[0][c].dtype.kind == "b")  # yes and no are mostly answers
    found: list[str] = []
    # By no column at all, each table has one kind of row.
    distinct = len(frames)
    rows = sum(map(len, frames))
    for column in exact:
        if distinct >= rows:
            break
        apart = sum(len(_text(frame, [*found, column]).drop_duplicates()) for frame in frames)
        # A column that tells no more rows apart than those before it names nothing.
        if apart > distinct:
            found, distinct = [*found, column], apart
    return found if distinct >= rows else None


def _text(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return frame[columns].astype(str)


def _where(frame: pd.DataFrame, keys: list[str]) -> "pd.Series[str]":
    """`de · layer 3`: whole numbers need their column's name to be read."""
    found = pd.Series("", index=frame.index)
    for number, key in enumerate(keys):
        told = f"{key} " if frame[key].dtype.kind in "iub" else ""
        found = found + (_APART if number else "") + told + frame[key].astype(str)
    return found


def _names(differs: Mapping[str, Any], called: tuple[str, str]) -> tuple[str, str]:
    """By the first options that differ; by their folders where none does."""
    told = list(differs.items())[:_SHOWN]
    first, second = (
        ", ".join(f"{key} {_short(values[side])}" for key, values in told) for side in (0, 1)
    )
    if first == second:  # what is long may differ where it was cut
        first, second = called
    return (first, second) if first != second else ("first", "second")


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _left(names: list[str]) -> str:
    return f"Left out: {', '.join(names[:6])}. " if any(names) else ""
