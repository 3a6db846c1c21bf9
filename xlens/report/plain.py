"""The page of a study that has none of its own: the main table of every part."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from xlens.errors import InputError
from xlens.report.blocks import Paragraph, Section, Table
from xlens.report.cells import rounded
from xlens.report.minute import Minute
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import ACROSS, RunDirectory
from xlens.wording import number_of

_ROWS = 30


def write_plain_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Write `report.html` of any run.

    Args:
        run: With at least one result.
        static: Not used: there are no figures.

    Raises:
        ValueError: no results yet.
    """
    models = [*run.models, *([ACROSS] if ACROSS in run.results() else [])]
    if not models:
        raise InputError(f"{str(run.path)!r} has no results yet: the same command goes on.")
    parts = {model: run.parts(model) for model in models}
    made_by = [part.provenance for each in parts.values() for part in each.values()]
    sections = [
        Section(model, model, tuple(_part(name, part) for name, part in each.items()))
        for model, each in parts.items()
    ]
    n = number_of(len(parts), "model")
    lead = f"Tables of every part of {n}: this study has no sentences of its own."
    return write_page(
        run, f"xlens {run.command}", sections, made_by, minute={run.command: Minute(lead)}
    )


def _part(name: str, part: Result) -> Paragraph | Table:
    try:
        frame = part.to_frame()
    except NotImplementedError:
        return Paragraph(f"{name}: a {type(part).__name__}, which has no table.")
    shown = frame.head(_ROWS)
    more = "" if len(frame) <= _ROWS else f" The first {_ROWS} of {len(frame)} rows."
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    return Table(f"{name}.{more}", [str(column) for column in shown.columns], rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else rounded(value, ".4g")
    return str(value)
