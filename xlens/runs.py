"""Run directories: config, provenance, results, figures and report of one command.

run/
  config.yaml        the resolved config
  provenance.json    command, versions, platform, device, dates
  results/<pair>/<condition>/    saved results; results/<pair>/survival.parquet
  results/left-out.json          pairs that could not be asked, and why
  figures/<name>.html, .json     and pictures on request
  plotly.min.js      one copy for all pages
  report.html
"""

import json
import logging
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pandas as pd
import yaml

from xlens import files
from xlens.checks import typed
from xlens.results import jsonable, versions
from xlens.stats import Resampling

_MARK = "xlens_run"
_SEAL = b"xlens_sha256"
_log = logging.getLogger(__name__)
_FORMAT = 2  # 1: without digests
_OWN = ("config.yaml", "results", "figures", "plotly.min.js", "report.html", "provenance.json")
_DRAFT = ".xlens-"


def describe_run(**known: Any) -> dict[str, Any]:
    """Provenance of the running command: its line, package versions, platform, start (UTC).

    Args:
        known: What only the caller knows, such as `device`, `model`, `weights_note`.
    """
    program, *arguments = sys.argv
    name = Path(program).name
    shown = ["python", "-m", "xlens"] if name == "__main__.py" else [name]
    return {
        "command": shlex.join([*shown, *arguments]),
        "versions": versions(),
        "platform": platform.platform(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **known,
    }


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run; made with `create`, read with `open`."""

    path: Path

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        *,
        overwrite: bool = False,
        free: Collection[str] = (),
    ) -> Self:
        """Make a run directory, or take up again the one that the same config made.

        Everything that can fail is tried here, before any work. A run taken up again keeps its
        provenance; what has changed since (a package's version, say) is added under `resumed`.

        Args:
            path: The folder: new, empty or an earlier run.
            config: Plain values, as they are written to `config.yaml`.
            provenance: As `describe_run` gives it.
            overwrite: Delete an earlier run's files first; never those of anybody else.
            free: Options that shape no result, as `xmrc.concurrency`: they may differ from those of
                an earlier run, and the newest value is kept.

        Raises:
            ValueError: `path` is a file, can't be written to, holds something else than a run, or
                a run with another config.
            DamagedError: its config or provenance is not what was written. A `ValueError` too.
        """
        run = cls(Path(path))
        config = _plain(config)
        check_writable(run.path)
        others = sorted(p.name for p in run.path.iterdir() if not p.name.startswith(_DRAFT))
        try:
            marked = _read_mark(run.path)
        except files.DamagedError:
            if not overwrite:
                raise
            marked = {}  # of a run, which is to be deleted
        if others and marked is None:
            raise ValueError(
                f"{str(path)!r} holds other files ({', '.join(others[:4])}) and is no run "
                "directory: give a new or an empty folder."
            )
        # The config is written last and deleted first: without it there is nothing to go on with.
        if marked is not None and (overwrite or not run.config_file.is_file()):
            for name in _OWN:
                _remove(run.path / name)
        elif marked:
            if changed := [n for n in _differences(run.config, config) if n not in free]:
                raise ValueError(
                    f"{str(path)!r} holds a run with another config: it differs in "
                    f"{', '.join(changed)}. Give another folder, the same config to go on with "
                    "that run, or delete it first: --overwrite, in Python overwrite=True."
                )
            provenance = _continued(marked, _plain(provenance))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        with _explained(run.path):
            mark = {**_plain(provenance), _MARK: _FORMAT}
            files.write(run.provenance_file, files.sealed_json(mark))
            files.write(run.config_file, files.sealed_text(text))
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run, to read its results.

        Raises:
            ValueError: no run directory at `path`.
            DamagedError: its config or provenance is not what was written. A `ValueError` too.
        """
        run = cls(Path(path))
        if _read_mark(run.path) is None or not run.config_file.is_file():
            found = (
                "no such folder" if not run.path.is_dir() else "it lacks config.yaml or its mark"
            )
            raise ValueError(
                f"{str(path)!r} is no run directory ({found}). Give the folder that a run was "
                "written to: it holds config.yaml and provenance.json."
            )
        return run

    @property
    def config_file(self) -> Path:
        """`config.yaml`."""
        return self.path / "config.yaml"

    @property
    def provenance_file(self) -> Path:
        """`provenance.json`; its mark makes a folder a run directory."""
        return self.path / "provenance.json"

    @property
    def figures(self) -> Path:
        """Folder of the figures; the shared plotly.js is in its parent."""
        return self.path / "figures"

    @property
    def report_file(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, as read from `config.yaml`."""
        return yaml.safe_load(self.config_text) or {}

    @property
    def config_text(self) -> str:
        """The text of `config.yaml`, less its digest."""
        text = files.unsealed_text(self.config_file, _again(self.path))
        if self.provenance.get(_MARK) == _FORMAT and not _configured(self.path):
            raise files.damaged(self.config_file, "its digest is gone", _again(self.path))
        return text

    @property
    def resampling(self) -> Resampling:
        """How the run's intervals are drawn, by its config."""
        options: dict[str, Any] = next(iter(self.config.values()), None) or {}
        names = [field.name for field in fields(Resampling)]
        return Resampling(**{name: options[name] for name in names if name in options})

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the run, as read from `provenance.json`."""
        return _read_mark(self.path) or {}

    def result_folder(self, pair: str, condition: str) -> Path:
        """Where the result of a pair (`fr_zh-Hans`) and condition (`translation`) is saved."""
        return self.path / "results" / pair / condition

    def survival_file(self, pair: str) -> Path:
        """Parquet table `pair reason n`: how many words each filter kept or dropped."""
        return self.path / "results" / pair / "survival.parquet"

    @property
    def left_out_file(self) -> Path:
        """Pairs that could not be asked, and why."""
        return self.path / "results" / "left-out.json"

    def save_survival(self, pair: str, survival: pd.DataFrame) -> None:
        """Write `survival_file`, with its digest.

        Raises:
            OSError: it can't be written.
        """
        import pyarrow as pa
        from pyarrow import parquet

        place, buffer = self.survival_file(pair), pa.BufferOutputStream()
        columns = pa.Table.from_pandas(survival)
        seal = {**(columns.schema.metadata or {}), _SEAL: _digest(columns).encode()}
        parquet.write_table(columns.replace_schema_metadata(seal), buffer)
        with _explained(self.path):
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write(place, buffer.getvalue().to_pybytes())

    def survival(self, pair: str) -> pd.DataFrame | None:
        """What is in `survival_file`; None if it was not kept.

        Raises:
            DamagedError: it is not what was written. A `ValueError` too.
        """
        from pyarrow import parquet

        place = self.survival_file(pair)
        if not place.is_file():
            if pair in self.results():
                _log.warning(
                    "%s is missing: the report goes without it until the same command is run again",
                    place,
                )
            return None
        try:
            columns = parquet.read_table(place)
            seal = (columns.schema.metadata or {}).get(_SEAL)
            found = columns.to_pandas()
            own = _digest(columns).encode()
        except Exception as error:  # pyarrow has many words for damage
            raise files.damaged(place, f"it can't be read ({error})", _again(self.path)) from None
        if seal is None:
            _log.warning("%s was written by an older xlens, without digests: not checked", place)
        elif seal != own:
            raise files.damaged(place, "it is not what was written", _again(self.path))
        return found

    def save_left_out(self, reasons: Mapping[str, str]) -> None:
        """Note which pairs could not be asked, and why; none removes the note.

        Raises:
            OSError: it can't be written.
        """
        with _explained(self.path):
            if reasons:
                self.left_out_file.parent.mkdir(parents=True, exist_ok=True)
                files.write(self.left_out_file, files.sealed_json(reasons, sort=False))
            else:
                self.left_out_file.unlink(missing_ok=True)

    def left_out(self) -> dict[str, str]:
        """Why pairs could not be asked, by pair.

        Raises:
            DamagedError: it is not what was written. A `ValueError` too.
        """
        path = self.left_out_file
        if not path.is_file():
            return {}
        return files.unsealed_json(path, path.read_bytes(), _again(self.path))

    def has_result(self, pair: str, condition: str) -> bool:
        """Whether this result was saved to its end."""
        return (self.result_folder(pair, condition) / "result.json").is_file()

    def results(self) -> dict[str, tuple[str, ...]]:
        """Names of the saved conditions by pair, both sorted."""
        found: dict[str, list[str]] = {}
        for header in sorted(self.path.glob("results/*/*/result.json")):
            if files.is_draft(header.parent):  # of a process that was killed
                continue
            found.setdefault(header.parent.parent.name, []).append(header.parent.name)
        return {pair: tuple(conditions) for pair, conditions in found.items()}


@typed
def pair_name(source: str, target: str) -> str:
    """Name of a language pair's folder: `fr_zh-Hans`."""
    return f"{source}_{target}"


@typed
def check_writable(folder: Path) -> None:
    """Make `folder`, or say before any work why it can't be written.

    Raises:
        ValueError: it is a file, or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_DRAFT):
            pass
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"{str(folder)!r} is, or lies below, a file: give the name of a folder."
        ) from None
    except OSError as error:
        raise ValueError(
            f"Can't write to {str(folder)!r} ({error.strerror}): give a folder that you may "
            "write to, on a disk with space left."
        ) from None


def _digest(columns: Any) -> str:
    """The digest of a table's values."""
    return sha256(json.dumps(columns.to_pydict()).encode()).hexdigest()


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """The provenance of the run in `folder`; None if it holds none.

    Raises:
        DamagedError: it is not what was written.
    """
    path = folder / "provenance.json"
    try:
        raw = path.read_bytes()
    except OSError:
        if _configured(folder):
            raise files.damaged(path, "it is missing", _again(folder)) from None
        return None
    if not _configured(folder) and _MARK.encode() not in raw:
        return None  # somebody else's
    found = files.unsealed_json(path, raw, _again(folder))
    unsealed = found.get(_MARK) == _FORMAT and b'"sha256": ' not in raw
    if unsealed or (_MARK not in found and _configured(folder)):
        raise files.damaged(path, "its mark or its digest is gone", _again(folder))
    return found if _MARK in found else None


def _configured(folder: Path) -> bool:
    """Whether there is the config of a run, by its last line."""
    try:
        return b"\n# sha256: " in (folder / "config.yaml").read_bytes()
    except OSError:
        return False


def _again(folder: Path) -> str:
    return (
        "Make the run anew: give the same command --overwrite (in Python overwrite=True), or "
        f"delete {str(folder)!r} and run it again."
    )


@contextmanager
def _explained(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The run's files can't be written to {str(folder)!r}: {error}. Make room, or give a "
            "folder that you may write to, and run the command again."
        ) from error


def _continued(first: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The first provenance; with what is different now, if the change could shape results."""
    quiet = {"command", "started", "finished"}
    history: list[dict[str, Any]] = list(first.get("resumed", []))
    latest = {**first, **(history[-1] if history else {})}
    changed = {k: v for k, v in now.items() if k not in quiet and latest.get(k) != v}
    if changed:
        history.append({"started": now.get("started"), **changed})
    return {**first, "resumed": history} if history else first


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the options that differ, those of a command as `lens.n_items`."""
    found: list[str] = []
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{name}" for name in _differences(a, b)]
        elif a != b:
            found.append(key)
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as they come back from the file."""
    return json.loads(json.dumps(jsonable(values), ensure_ascii=False))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
