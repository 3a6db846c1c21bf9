"""The models that come inside xlens: `atlas`, its twin, and checkpoints of its training.

They are read as data, by path: what trained them (`xlens.testbed.atlas`) is never imported here.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from xlens.errors import ModelError
from xlens.files import unsealed_json

_TRAIN = "python -m xlens.testbed.atlas train --out FOLDER"


@dataclass(frozen=True)
class Shipped:
    """A checkpoint in the package.

    Attributes:
        name: What `xlens.load` takes.
        revision: Of the training: `step512`; the last one by default.
        folder: Where it lies.
        licence: Its terms.
    """

    name: str
    revision: str
    folder: Path
    licence: str


def shipped_names() -> tuple[str, ...]:
    """The names of the models that come with xlens."""
    return tuple(_index()["models"])


def shipped_revisions(name: str) -> tuple[str, ...]:
    """Revisions of one of them that the package holds, the default first."""
    return tuple(_index()["models"][name])


def find_shipped(name: str, revision: str | None = None) -> Shipped | None:
    """The model of that name, in any case; None if xlens brings none.

    Raises:
        ValueError: a revision that is not in the package; says which are, and how the others are
            made.
    """
    index = _index()
    models: dict[str, dict[str, str]] = index["models"]
    known = models.get(name.casefold())
    if known is None:
        return None
    wanted = revision or next(iter(known))
    if wanted not in known:
        raise ModelError(
            f"The model {name!r} has no revision {revision!r} in this package; it has "
            f"{', '.join(known)}. The training makes more ({', '.join(index['made'])}): run "
            f"`{_TRAIN}`, then load FOLDER/{index['series']}/STEP by its path."
        )
    return Shipped(name.casefold(), wanted, _data() / known[wanted], index["licence"])


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    path = _data() / "index.json"
    if not path.is_file():
        return {"models": {}}
    again = "Install xlens again: pip install --force-reinstall --no-deps xlens-interp."
    return unsealed_json(path, path.read_bytes(), again)


def _data() -> Path:
    return Path(str(files("xlens"))) / "testbed" / "atlas" / "data"
