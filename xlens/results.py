"""The base of every analysis result: frozen, tabular, saved without pickle.

A result is a frozen dataclass whose fields are tables (`pandas.DataFrame`), arrays
(`numpy.ndarray`) or JSON values. It is saved as a folder: `result.json`, one Parquet file per
table, one `arrays.safetensors`.
"""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from xlens import files

FORMAT = 1
_DISTRIBUTIONS = ("xlens-interp", "torch", "transformers", "transformer-lens", "numpy", "pandas")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of frozen results.

    Attributes:
        provenance: What made this result: model, tokenizer, dtype, seeds, versions, options.
    """

    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """The result's main table."""
        raise NotImplementedError(f"{type(self).__name__} has no main table")

    def save(self, path: str | Path) -> Path:
        """Write the result to the folder `path` (made if missing) and return it."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        for old in ("result.json", "arrays.safetensors"):
            (folder / old).unlink(missing_ok=True)
        plain: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, pd.DataFrame):
                value.to_parquet(folder / f"{field.name}.parquet")
            elif isinstance(value, np.ndarray):
                arrays[field.name] = np.ascontiguousarray(value)
            else:
                plain[field.name] = jsonable(value)
        if arrays:
            from safetensors.numpy import save_file

            save_file(arrays, folder / "arrays.safetensors")
        # Last, and by rename: a folder without result.json is an unfinished one.
        header = {"format": FORMAT, "type": type(self).__name__, "fields": plain}
        write_header(folder / "result.json", header)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a result that `save` wrote.

        Raises:
            ValueError: `path` holds no result, or one of another type or format.
        """
        folder = Path(path)
        if not (folder / "result.json").is_file():
            raise ValueError(
                f"No saved result at {str(folder)!r}: expected a folder with result.json, "
                f"as {cls.__name__}.save(path) writes it."
            )
        header = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if header.get("type") != cls.__name__ or header.get("format") != FORMAT:
            raise ValueError(
                f"{str(folder)!r} holds a {header.get('type')} (format {header.get('format')}), "
                f"not a {cls.__name__} (format {FORMAT}); load it with its own class."
            )
        values: dict[str, Any] = dict(header["fields"])
        if (folder / "arrays.safetensors").is_file():
            from safetensors.numpy import load_file

            values.update(load_file(folder / "arrays.safetensors"))
        for field in fields(cls):
            table = folder / f"{field.name}.parquet"
            if field.name not in values and table.is_file():
                values[field.name] = pd.read_parquet(table)
            if isinstance(values.get(field.name), list):
                values[field.name] = tuple(values[field.name])
        return cls(**values)


def write_header(path: Path, header: Mapping[str, Any]) -> None:
    """Write a folder's JSON file, whole or not at all."""
    text = json.dumps(header, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    files.write(path, text)


def analysed(origin: Mapping[str, Any], analysis: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of an analysis: its options in a room of their own, beside those of its origin.

    An option may be called as something of the model is (`weights`, `seed`); side by side, one
    would overwrite the other.

    Raises:
        ValueError: the origin holds that analysis already.
    """
    if analysis in origin:
        raise ValueError(f"The provenance holds {analysis!r} already; name the analysis otherwise.")
    return {**origin, analysis: dict(how)}


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
    return found
