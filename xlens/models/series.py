"""A model in training, as a series of checkpoints: on a hub, in folders, or from a list of yours.

Hubs have no convention of their own: branches are called `step1000`, `step1000-tokens4B`,
`stage1-step150-tokens1B`, `global_step1000`. They are listed and read, never assumed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from xlens.checks import typed
from xlens.errors import InputError, ModelError
from xlens.models import hub
from xlens.models.adapters import SEAL, base_of
from xlens.models.shipped import find_shipped, shipped_names, shipped_revisions
from xlens.models.sources import CONFIGS, is_model
from xlens.records import DELIMITERS, JSON, Record, read_records

ALL = "all"
_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[_-]?(\d+)", re.IGNORECASE)
_TOKENS = re.compile(r"tokens?[_-]?(\d+(?:\.\d+)?)([KMBT])|(\d+(?:\.\d+)?)([KMBT])[_-]?tokens?")
_STAGE = re.compile(r"stage[_-]?(\d+)", re.IGNORECASE)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_COLUMNS = ("model", "revision", "name", "step", "tokens")


@dataclass(frozen=True)
class Checkpoint:
    """A model at one moment of its training.

    Attributes:
        model: What `xlens.load` takes.
        revision: Branch, tag or commit of a hub id; step of a model that comes with xlens.
        name: What it is called beside others of its series.
        step: Steps of training; None: not known, as of a `main` or `final`.
        tokens: Tokens it was trained on; None: not known.
        adapter: Folder of the adapter that is on the model then.
    """

    model: str
    revision: str | None
    name: str
    step: int | None = None
    tokens: int | None = None
    adapter: str | None = None

    @classmethod
    def named(cls, model: str, revision: str | None, name: str | None = None) -> "Checkpoint":
        """With what its name tells of step and tokens."""
        called = name or revision or Path(model).name
        return cls(model, revision, called, *told_by(called))

    @classmethod
    def lying(cls, folder: Path) -> "Checkpoint":
        """The one in a folder: a model, or an adapter on the base that it names.

        Raises:
            ValueError: an adapter that doesn't say what its base is.
        """
        base = base_of(folder)
        if base is None:
            return cls.named(str(folder), None, folder.name)
        return replace(cls.named(base.name, base.revision, folder.name), adapter=str(folder))


def told_by(name: str) -> tuple[int | None, int | None]:
    """Step and tokens that a checkpoint's name tells, or None.

    >>> told_by("stage1-step150-tokens1B")
    (150, 1000000000)
    """
    step, tokens = _STEP.search(name), _TOKENS.search(name)
    number = None if step is None else int(step[1])
    if number is None and name.isdecimal():
        number = int(name)
    if tokens is None:
        return number, None
    amount, unit = (tokens[1], tokens[2]) if tokens[1] else (tokens[3], tokens[4])
    return number, round(float(amount) * _UNITS[unit])


def in_order(series: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """By stage and step, then tokens; those of which neither is known, as `main`, last."""

    def place(point: Checkpoint) -> tuple[float, float, float, str]:
        known = point.step is not None or point.tokens is not None
        stage = _STAGE.search(point.name)
        first = float(stage[1]) if stage else 1.0 if known else float("inf")
        return first, float(point.step or 0), float(point.tokens or 0), point.name

    return tuple(sorted(series, key=place))


@typed
def find_series(model: str, wanted: Sequence[str]) -> tuple[Checkpoint, ...]:
    """Checkpoints of a model, looked for where it lies.

    Args:
        model: A hub id, a model that comes with xlens, or a folder with a checkpoint in each of
            its folders, as training writes them; adapters too.
        wanted: Names; `all`; or patterns such as `step*000`. A name by itself isn't looked for
            here: loading it tells whether it is there.

    Returns:
        Names in the order given; what a pattern finds, in the order of training.

    Raises:
        ValueError: a pattern that nothing has, or a hub that can't be reached; says what there is.
    """
    found: dict[Checkpoint, None] = {}
    for text in wanted:
        if text != ALL and not set(text) & set("*?["):
            found[_inside(model, text) or Checkpoint.named(model, text)] = None
            continue
        there = _there(model)
        fitting = in_order(c for c in there if text == ALL or fnmatchcase(c.name, text))
        if not fitting:
            names = [point.name for point in there]
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            raise ModelError(
                f"No checkpoint of {model!r} is called like {text!r}; there are "
                f"{', '.join(names[:12]) or 'none'}{more}."
            )
        found |= dict.fromkeys(fitting)
    return tuple(found)


def _there(model: str) -> tuple[Checkpoint, ...]:
    if Path(model).is_dir():
        inside = (Path(model).glob(f"*/{name}") for name in CONFIGS)
        folders = sorted({path.parent for found in inside for path in found})
        _require_configs(Path(model), folders)
        return in_order(map(Checkpoint.lying, folders))
    name = model.casefold()
    if name in shipped_names():
        return _shipped(name)
    return in_order(Checkpoint.named(model, each) for each in hub.revisions(model))


def _require_configs(series: Path, whole: Sequence[Path]) -> None:
    """Refuse a checkpoint whose config is gone: the series would have one fewer, without a word.

    Raises:
        ValueError: a folder that has weights, or what xlens keeps of its adapter, and no config.
    """
    parts = (SEAL, "*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
    with_parts = {path.parent for part in parts for path in series.glob(f"*/{part}")}
    if torn := sorted(with_parts - set(whole)):
        raise ModelError(
            f"{str(torn[0])!r} has weights of a checkpoint, and neither {' nor '.join(CONFIGS)}: "
            "copy or train it again, or take the folder out of the series."
        )


def _shipped(name: str) -> tuple[Checkpoint, ...]:
    """Each once: the last step is called `final`, too."""
    found: dict[Path, Checkpoint] = {}
    for point in in_order(Checkpoint.named(name, each) for each in shipped_revisions(name)):
        place = find_shipped(name, point.revision)
        assert place is not None
        found.setdefault(place.folder, point)
    return tuple(found.values())


def _inside(model: str, name: str) -> Checkpoint | None:
    """The folder of that name in a folder of checkpoints."""
    folder = Path(model) / name
    if is_model(Path(model)) or not is_model(folder):
        return None
    return Checkpoint.lying(folder)


@typed
def read_series(path: str | Path) -> tuple[Checkpoint, ...]:
    """Read a list of checkpoints.

    Args:
        path: TSV, CSV, JSON Lines, JSON or Parquet with `model`, and where needed `revision`,
            `name`, `step`, `tokens` (whole numbers). Folders are relative to the file's own.

    Raises:
        ValueError: another column, a row without a model, or two of one name; says which row.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(f"No file {str(place)!r}: give a list of checkpoints.")
    kinds = (*JSON, *DELIMITERS, ".parquet")
    found: dict[str, Checkpoint] = {}
    for row in read_records(place, kinds, what="a list of checkpoints"):
        point = _checkpoint(row, place.parent)
        if point.name in found:
            row.refuse(f"a second checkpoint is called {point.name!r}; give each a name.")
        found[point.name] = point
    return tuple(found.values())


def _checkpoint(row: Record, beside: Path) -> Checkpoint:
    row.require(("model",), f"A list of checkpoints has {', '.join(_COLUMNS)}.")
    if unknown := sorted(set(row) - set(_COLUMNS)):
        row.refuse(f"unknown columns {unknown}; accepted are {list(_COLUMNS)}.")
    given = {name for name in _COLUMNS if row.get(name) not in (None, "")}
    model = row.text("model")
    if (beside / model / "config.json").is_file():
        model = str(beside / model)
    revision = row.name("revision") if "revision" in given else None
    point = Checkpoint.named(model, revision, row.name("name") if "name" in given else None)
    known = {name: row.whole(name) for name in ("step", "tokens") if name in given}
    for name, value in known.items():
        if value < 0:
            row.wrong(name, "0 or more")
    return replace(point, **known)
