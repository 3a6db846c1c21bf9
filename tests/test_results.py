"""Frozen results: saved without pickle, loaded as they were."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xlens.results import Result, jsonable, spreadsheet_safe, versions


@dataclass(frozen=True, kw_only=True)
class Found(Result):
    table: pd.DataFrame
    array: np.ndarray
    names: tuple[str, ...]
    n: int
    note: str | None = None

    def to_frame(self) -> pd.DataFrame:
        return self.table


@dataclass(frozen=True, kw_only=True)
class Other(Result):
    n: int
    settings: dict[str, Any]


def found():
    return Found(
        provenance={"model": "tiny", "seed": np.int64(3), "where": Path("a") / "b", "pair": (1, 2)},
        table=pd.DataFrame(
            {"id": ["a", "b"], "label": ["␣中文", None], "prob": [0.25, np.nan], "n": [1, 2]}
        ),
        array=np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        names=("en", "zh-Hans"),
        n=7,
    )


def test_saved_is_loaded(tmp_path):
    mine = found()
    folder = mine.save(tmp_path / "new" / "folder")
    assert sorted(p.name for p in folder.iterdir()) == [
        "arrays.safetensors",
        "result.json",
        "table.parquet",
    ]
    back = Found.load(folder)
    pd.testing.assert_frame_equal(back.table, mine.table)
    assert np.array_equal(back.array, mine.array) and back.array.dtype == mine.array.dtype
    assert back.names == mine.names and back.n == 7 and back.note is None
    assert back.provenance == {"model": "tiny", "seed": 3, "where": "a/b", "pair": [1, 2]}
    assert back.to_frame() is back.table
    # And once more: nothing is lost on the way.
    again = Found.load(back.save(tmp_path / "again"))
    assert (tmp_path / "again" / "result.json").read_bytes() == (
        folder / "result.json"
    ).read_bytes()
    assert again.provenance == back.provenance


def test_the_file_is_plain_and_readable(tmp_path):
    folder = dataclasses.replace(found(), note="中文").save(tmp_path / "a")
    text = (folder / "result.json").read_text(encoding="utf-8")
    assert "中文" in text
    assert json.loads(text)["type"] == "Found"


def test_saving_over_another_result_leaves_nothing_of_it(tmp_path):
    found().save(tmp_path / "a")
    Other(provenance={}, n=1, settings={"x": None}).save(tmp_path / "a")
    other = Other.load(tmp_path / "a")
    assert other.n == 1 and other.settings == {"x": None}
    with pytest.raises(ValueError, match=r"holds a Other \(format 1\), not a Found"):
        Found.load(tmp_path / "a")


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    folder = found().save(tmp_path / "a")
    broken = dataclasses.replace(found(), provenance={"score": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        broken.save(folder)
    assert Found.load(folder).n == 7
    with pytest.raises(ValueError, match="JSON"):
        broken.save(tmp_path / "new")
    with pytest.raises(ValueError, match=r"No saved result at .*Found\.save\(path\)"):
        Found.load(tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_not_a_result(tmp_path):
    with pytest.raises(ValueError, match=r"No saved result at .*nowhere.*result\.json"):
        Found.load(tmp_path / "nowhere")
    folder = found().save(tmp_path / "a")
    header = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(header | {"format": 0}))
    with pytest.raises(ValueError, match=r"Found \(format 0\), not a Found \(format 1\)"):
        Found.load(folder)
    older = header | {"fields": header["fields"] | {"normalised": True}}
    (folder / "result.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"another version of xlens: .* no normalised of a Found"):
        Found.load(folder)


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        found().n = 8
    with pytest.raises(NotImplementedError, match="Other has no main table"):
        Other(provenance={}, n=1, settings={}).to_frame()


def test_jsonable():
    given = {1: (np.float64(0.5), {"x"}), "p": Path("a"), "b": np.bool_(True), "n": None}
    assert jsonable(given) == {"1": [0.5, ["x"]], "p": "a", "b": True, "n": None}


def test_versions_name_what_shapes_a_result():
    known = versions()
    assert {"python", "torch", "transformers", "transformer-lens", "numpy"} <= set(known)
    assert all(isinstance(v, str) and v for v in known.values())


def test_no_cell_for_people_is_a_formula():
    texts = ["=1+1", "+49", "-x", "@SUM(A1)", " =1", "\t=1", "a=b", "", None]
    table = pd.DataFrame({"=cmd": texts, "n": range(-4, 5)})
    safe = spreadsheet_safe(table)
    assert safe.columns.tolist() == ["'=cmd", "n"] and safe["n"].tolist() == list(range(-4, 5))
    cells = safe["'=cmd"].tolist()
    assert cells[:-1] == ["'=1+1", "'+49", "'-x", "'@SUM(A1)", "' =1", "'\t=1", "a=b", ""]
    assert pd.isna(cells[-1])
    assert table["=cmd"].tolist()[:-1] == texts[:-1]
