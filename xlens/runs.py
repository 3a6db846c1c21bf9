"""Run directories: config, provenance, results, figures and report of one command.

run/
  config.yaml        the resolved config
  provenance.json    command, versions, platform, device, dates
  results/<model>/<part>/        saved results; parts of a group as <model>/<group>/<part>
  results/all-models/<part>/     results about several models
  figures/<name>.html, .json     and pictures on request
  plotly.min.js      one copy for all pages
  report.html
"""

import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import yaml

from xlens import files, strict
from xlens._lazy import listed
from xlens.checks import typed
from xlens.errors import DataError, StoreError
from xlens.records.plain_yaml import read_dumped
from xlens.results import HEADER, Result, jsonable, load, versions
from xlens.stats import Resampling

__all__ = [
    "ACROSS",
    "OldRunError",
    "RunDirectory",
    "check_writable",
    "describe_run",
    "differences",
]
__dir__ = listed(__all__)


_MARK = "xlens_run"
_FORMAT = 3  # 1: without digests; 2: parts not by model
ACROSS = "all-models"
"""In place of a model's name, for results about several."""
_OWN = (
    "config.yaml",
    "results",
    "adapters",
    "figures",
    "plotly.min.js",
    "report.html",
    "provenance.json",
)
_DRAFT = ".xlens-"


class OldRunError(DataError):
    """A run directory of an older form."""


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
        marked = run._marked(config, overwrite, free)
        # The config is written last and deleted first: without it there is nothing to go on with.
        if marked is not None and (overwrite or not run.config_file.is_file()):
            for name in _OWN:
                _remove(run.path / name)
        elif marked:
            provenance = _continued(marked, _plain(provenance))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        with _explained(run.path):
            mark = {**_plain(provenance), _MARK: _FORMAT}
            files.write(run.provenance_file, files.sealed_json(mark))
            files.write(run.config_file, files.sealed_text(text))
        return run

    @classmethod
    def check(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        free: Collection[str] = (),
    ) -> None:
        """Refuse what `create` would, and leave nothing behind: no folder of a run that can't be.

        Raises:
            ValueError: as from `create`.
        """
        run = cls(Path(path))
        if run.path.exists():
            check_writable(run.path)
            run._marked(_plain(config), overwrite, free)
        else:
            # The nearest there is: in it the folder will be made.
            nearest = next(each for each in run.path.absolute().parents if each.exists())
            check_writable(nearest, for_=run.path)

    def asked_otherwise(self, config: Mapping[str, Any], *, free: Collection[str] = ()) -> bool:
        """Whether a run is here that another config made, or whose config can't be read.

        Args:
            config: As for `create`.
            free: As for `create`.
        """
        if not self.config_file.is_file():
            return False
        try:
            return not {*differences(self.config, _plain(config))} <= {*free}
        except (files.DamagedError, OldRunError):
            return True

    def _marked(
        self, config: Mapping[str, Any], overwrite: bool, free: Collection[str]
    ) -> dict[str, Any] | None:
        """The provenance of the run that is there; None if there is none."""
        shown = str(self.path)
        others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith(_DRAFT))
        try:
            marked = _read_mark(self.path)
        except (files.DamagedError, OldRunError):
            if not overwrite:
                raise
            return {}  # of a run, which is to be deleted
        if others and marked is None:
            raise DataError(
                f"{shown!r} holds other files ({', '.join(others[:4])}) and is no run "
                "directory: give a new or an empty folder."
            )
        goes_on = marked and not overwrite and self.config_file.is_file()
        changed = sorted(differences(self.config, config)) if goes_on else []
        if changed := [name for name in changed if name not in free]:
            raise DataError(
                f"{shown!r} holds a run with another config: it differs in "
                f"{', '.join(changed)}. Give another folder, the same config to go on with "
                "that run, or delete it first: --overwrite, in Python overwrite=True."
            )
        return marked

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
            raise DataError(
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
        try:
            found = read_dumped(self.config_text)
        except yaml.YAMLError as error:
            said = " ".join(str(error).split())
            wrong = f"it is no YAML of ours ({said:.300})"
            raise files.damaged(self.config_file, wrong, _again(self.path)) from None
        return found if isinstance(found, dict) else {}

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

    @property
    def command(self) -> str:
        """The study's name, as on the command line."""
        return next(iter(self.config), "")

    @property
    def again(self) -> str:
        """The line that goes on with it: as it was given, without what would delete it first."""
        given = self.provenance.get("command") or f"xlens {self.command} --out {self.path}"
        return _unforced(str(given))

    @property
    def adapters_folder(self) -> Path:
        """Folder of what was trained, one below for each model; not every study trains."""
        return self.path / "adapters"

    @property
    def results_folder(self) -> Path:
        """Folder of the parts, one below for each model."""
        return self.path / "results"

    def result_folder(self, model: str, part: str) -> Path:
        """Where a model's part is saved: `translation`, or `fr_zh-Hans/translation` of a group."""
        return self.results_folder / model / part

    def results(self) -> dict[str, tuple[str, ...]]:
        """Names of the saved parts by model, in order; of several models under `ACROSS`."""
        found: dict[str, list[str]] = {}
        for folder, names in self._folders(self.results_folder):
            model, *part = folder.relative_to(self.results_folder).parts or ("",)
            if part and HEADER in names:
                found.setdefault(model, []).append("/".join(part))
        return {model: tuple(parts) for model, parts in found.items()}

    @staticmethod
    def _folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
        """The folders below `top`, sorted, with the names of their files; no drafts.

        Of a run that is being written: what goes away meanwhile is no error, as it is with `glob`.
        """
        for folder, below, names in os.walk(top):
            kept = (name for name in below if not files.is_draft(Path(name)))
            below[:] = sorted(kept, key=_natural)
            yield Path(folder), names

    def parts(self, model: str) -> dict[str, Result]:
        """The saved parts of a model, or those `ACROSS` models, each as what it is.

        Raises:
            DamagedError: one is not what was written. A `ValueError` too.
        """
        names = self.results().get(model, ())
        top = self.results_folder / model
        for folder, found in self._folders(top):
            # Saving swaps whole folders: what lies in one without a header was whole before.
            if folder != top and found and HEADER not in found:
                raise files.damaged(folder / HEADER, "it is missing", _again(self.path))
        return {name: load(self.results_folder / model / name) for name in names}

    @property
    def models(self) -> tuple[str, ...]:
        """Folders of the models that have parts, sorted; numbers in their names as numbers."""
        return tuple(model for model in self.results() if model != ACROSS)


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name sort as numbers: checkpoints in the order of training."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]


@typed
def check_writable(folder: Path, *, for_: Path | None = None) -> None:
    """Make `folder`, or say before any work why it can't be written.

    Args:
        folder: A folder.
        for_: What is to be made in it, for the error; None: itself.

    Raises:
        ValueError: it is a file, or not writable.
    """
    shown = str(for_ or folder)
    try:
        files.make(folder)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=_DRAFT):
            pass
    except (FileExistsError, NotADirectoryError):
        raise DataError(
            f"{shown!r} is, or lies below, a file: give the name of a folder."
        ) from None
    except OSError as error:
        raise DataError(
            f"Can't write to {shown!r} ({error.strerror}): give a folder that you may "
            "write to, on a disk with space left."
        ) from None


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """The provenance of the run in `folder`; None if it holds none.

    Raises:
        DamagedError: it is not what was written.
    """
    path = folder / "provenance.json"
    try:
        raw = strict.read_bytes(path)
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
    if found.get(_MARK, _FORMAT) < _FORMAT:
        command = _unforced(str(found.get("command") or "the same command"))
        raise OldRunError(
            f"{str(folder)!r} was written by an older xlens, whose parts lie elsewhere. Make the "
            f"run anew: {command} --overwrite"
        )
    return found if _MARK in found else None


def _unforced(command: str) -> str:
    return command.replace(" --overwrite", "")


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
        raise StoreError(
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


@typed
def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Pairs of what differs in two sets of plain values, by name: `lens.n_items`, of a command."""
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys([*one, *other]):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= {f"{key}.{name}": pair for name, pair in differences(a, b).items()}
        elif a != b:
            found[key] = [a, b]
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as they come back from the file."""
    return json.loads(json.dumps(jsonable(values), ensure_ascii=False))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
