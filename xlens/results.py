"""The base of every analysis result: frozen, tabular, saved without pickle.

A result is a frozen dataclass whose fields are tables (`pandas.DataFrame`), arrays
(`numpy.ndarray`) or JSON values. It is saved as a folder: `result.json`, which holds the digests of
the other files, one Parquet file per table, one `arrays.safetensors`. `load` reads any of them.
"""

import importlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from xlens import files, strict
from xlens._lazy import listed
from xlens._renamed import names_of
from xlens.errors import DataError
from xlens.html import render

__all__ = [
    "FORMAT",
    "HEADER",
    "Result",
    "analysed",
    "by_group",
    "jsonable",
    "load",
    "spreadsheet_safe",
    "versions",
]
__dir__ = listed(__all__)


HEADER = "result.json"
FORMAT = 1
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
_ARRAYS = "arrays.safetensors"
_LINE, _FEW_ROWS, _COLUMNS = 160, 5, 8  # of what a notebook shows
_AGAIN = (
    "Make it anew: save the result again, or delete its folder and run the command again that "
    "wrote it; verify=False reads it as it is."
)
_DISTRIBUTIONS = ("xlens-interp", "torch", "transformers", "transformer-lens", "numpy", "pandas")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of frozen results.

    Attributes:
        provenance: What made this result: model, tokenizer, dtype, seeds, versions, options.
    """

    KINDS: ClassVar[dict[tuple[str, str], type["Result"]]] = {}
    """Every kind of result whose module was imported, by that module and its name."""
    provenance: dict[str, Any]

    def __init_subclass__(cls) -> None:
        """Known by module and name, by which a folder tells what it holds."""
        Result.KINDS[cls.__module__, cls.__name__] = cls
        if "__repr__" not in cls.__dict__:  # or the dataclass would write one of whole tables
            cls.__repr__ = Result.__repr__

    def __repr__(self) -> str:
        """The kind, the model and how much it holds, in a line."""
        said = [str(self.provenance.get("model", ""))]
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, pd.DataFrame | np.ndarray):
                said.append(f"{field.name}[{'×'.join(map(str, value.shape))}]")
            elif field.repr and isinstance(value, str | int | float) and value != "":
                said.append(f"{field.name}={value!r:.30}")
        line = ", ".join(filter(None, said))
        return f"{type(self).__name__}({line[:_LINE]}{'…' if len(line) > _LINE else ''})"

    def _repr_html_(self) -> str:
        """For notebooks: the line, the first rows of the main table, and the figure."""
        table = self.main_table().head(_FEW_ROWS)
        rows = table.to_html(index=False, border=0, float_format="{:.3g}".format, max_cols=_COLUMNS)
        drawn = self.plot().to_html(full_html=False, include_plotlyjs="cdn")
        return str(render("figures/notebook.html", line=repr(self), rows=rows, drawn=drawn))

    def plot(self, **options: Any) -> Any:
        """The result's figure, a `plotly.graph_objects.Figure`.

        Args:
            **options: Of the function of `xlens.figures` that draws it.

        Raises:
            ValueError: as that function.
        """
        # By name: figures know results, and results know nothing of figures.
        return importlib.import_module("xlens.figures.plots").plot(self, **options)

    def main_table(self) -> pd.DataFrame:
        """`to_frame()`; of a result without, its first table, else the sizes of what it holds."""
        with suppress(NotImplementedError):
            return self.to_frame()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tables = [value for value in values.values() if isinstance(value, pd.DataFrame)]
        if tables:
            return tables[0]
        held = [
            (name, "×".join(map(str, np.shape(value))) or f"{value!s:.60}")
            for name, value in values.items()
            if name != "provenance"
        ]
        return pd.DataFrame(held, columns=["field", "value"])

    def to_frame(self) -> pd.DataFrame:
        """The result's main table."""
        raise NotImplementedError(f"{type(self).__name__} has no main table")

    def save(self, path: str | Path) -> Path:
        """Write the result to the folder `path` (made if missing) and return it.

        A result that was there stays until this one is whole and on the disk.

        Raises:
            ValueError: the folder holds files of somebody else.
            OSError: it can't be written.
        """
        from safetensors.numpy import save

        folder = Path(path)
        plain: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        tables: dict[str, pd.DataFrame] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, pd.DataFrame):
                tables[field.name] = value
            elif isinstance(value, np.ndarray):
                arrays[field.name] = np.ascontiguousarray(value)
            else:
                plain[field.name] = jsonable(value)
        own = [_ARRAYS, *(f"{field.name}.parquet" for field in fields(self))]
        with files.saving(folder, HEADER, own, "a result") as draft:
            for name, table in tables.items():
                files.write(draft / f"{name}.parquet", _parquet(table))
            if arrays:
                files.write(draft / _ARRAYS, save(arrays))
            header = {"format": FORMAT, "type": type(self).__name__}
            header |= {"module": type(self).__module__, "fields": plain}
            files.seal(draft, HEADER, header)
        return folder

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Read a result that `save` wrote.

        Args:
            path: Its folder.
            verify: Compare every file with the digest in the header.

        Raises:
            ValueError: `path` holds no result, or one of another type or format.
            DamagedError: a file is not what was written; says which. A `ValueError` too.
        """
        folder = Path(path)
        if not files.present(folder, HEADER):
            raise DataError(
                f"No saved result at {str(folder)!r}: expected a folder with result.json, "
                f"as {cls.__name__}.save(path) writes it."
            )

        def known(header: dict[str, Any]) -> None:
            if header.get("type") != cls.__name__ or header.get("format") != FORMAT:
                raise DataError(
                    f"{str(folder)!r} holds a {header.get('type')} (format "
                    f"{header.get('format')}), not a {cls.__name__} (format {FORMAT}); load it "
                    "with its own class, or make it anew."
                )
            old = {field.name for field in fields(cls)} | set(names_of(cls))
            if other := sorted(set(header["fields"]) - old):
                raise DataError(
                    f"{str(folder)!r} was saved by another version of xlens: this one knows no "
                    f"{', '.join(other)} of a {cls.__name__}. {_AGAIN}"
                )

        def read(header: dict[str, Any]) -> Self:
            return cls._read(folder, header)

        return files.unsealed(folder, HEADER, read, known=known, again=_AGAIN, verify=verify)

    @classmethod
    def _read(cls, folder: Path, header: dict[str, Any]) -> Self:
        now = names_of(cls)
        values: dict[str, Any] = {now.get(k, k): v for k, v in header["fields"].items()}
        if (folder / _ARRAYS).is_file():
            from safetensors.numpy import load_file

            values.update(load_file(folder / _ARRAYS))
        for field in fields(cls):
            table = folder / f"{field.name}.parquet"
            if field.name not in values and table.is_file():
                values[field.name] = pd.read_parquet(table)
            if isinstance(values.get(field.name), list):
                # JSON knows no tuples, and fields of a result are such.
                values[field.name] = tuple(values[field.name])
        return cls(**values)


def load(path: str | Path, *, verify: bool = True) -> Result:
    """Read a saved result of any kind, as what it is.

    Args:
        path: Its folder.
        verify: Compare every file with the digest in the header.

    Raises:
        ValueError: no result there, or of a kind that isn't known here: one of another package,
            whose module is to be imported first.
        DamagedError: a file is not what was written; says which. A `ValueError` too.
    """
    header = Path(path) / HEADER
    try:
        said: Any = json.loads(strict.read_bytes(header), object_pairs_hook=strict.once)
        name, module = str(said["type"]), str(said.get("module", ""))
    except FileNotFoundError:
        return Result.load(path)  # which says what was expected
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise files.damaged(header, "it can't be read", _AGAIN) from None
    # Of a file one doesn't import what it likes: only what is ours.
    if module.split(".")[0] == __package__:
        with suppress(ImportError):
            importlib.import_module(module)
    found = [kind for key, kind in Result.KINDS.items() if key == (module, name)]
    if not found:
        # A module of ours may have moved since, and results of an older xlens name none.
        found = [kind for (_, called), kind in Result.KINDS.items() if called == name]
    if len(found) != 1:
        raise DataError(
            f"{str(path)!r} holds a {name}, a kind of result that isn't known: import the module "
            f"that defines it first{module and f' ({module})'}."
        )
    return found[0].load(path, verify=verify)


def by_group(parts: Mapping[str, Result]) -> dict[str, dict[str, Result]]:
    """Parts called `GROUP/PART` by group, then by their names in it; the others under no name."""
    found: dict[str, dict[str, Result]] = {}
    for name, part in parts.items():
        group, _, own = name.rpartition("/")
        found.setdefault(group, {})[own] = part
    return found


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def analysed(origin: Mapping[str, Any], analysis: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of an analysis: its options in a room of their own, beside what its origin knows.

    An option may be called as something of the model is (`weights`, `seed`), and the versions that
    analyse need not be those that ran the model; side by side, one would overwrite the other.

    Args:
        origin: Of what is analysed.
        analysis: Name of the room.
        how: Its options; the versions of now are added.

    Raises:
        ValueError: the origin holds that analysis already.
    """
    if analysis in origin:
        raise DataError(f"The provenance holds {analysis!r} already; name the analysis otherwise.")
    return {**origin, analysis: {**how, "versions": versions()}}


def spreadsheet_safe(table: pd.DataFrame) -> pd.DataFrame:
    """`table` for a CSV that people open: no cell of text or name of a column is a formula.

    What begins with = + - @, a tab or a line break gets an apostrophe before it, with which
    spreadsheets mark text.
    """

    def safe(cell: Any) -> Any:
        formula = isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULAS)
        return f"'{cell}" if formula else cell

    texts = table.select_dtypes(exclude=["number", "bool"])
    quoted = {str(name): texts[name].astype(object).map(safe) for name in texts}
    return table.assign(**quoted).rename(columns=safe)


def jsonable(value: Any) -> Any:
    """`value` as plain JSON values; tuples become lists, NumPy scalars Python numbers."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}  # type: ignore[misc]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import torch

    # The distribution's version lacks the build (+cu130), by which numbers differ.
    found["torch"] = torch.__version__
    return found
