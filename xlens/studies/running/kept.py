"""Parts of a study: each made once, saved as soon as it is there, and read again afterwards."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.results import HEADER, Result, load
from xlens.served import ServedModel
from xlens.store import EPOCH
from xlens.studies.study import Step

_DECIDING = (
    *("fingerprint", "tokenizer", "prepends_bos", "left_off", "attention", "precision"),
    *("around", "changed_by", "adapter_state"),
)


@dataclass(frozen=True, kw_only=True)
class LeftOut(Result):
    """What was asked for and can't be asked.

    Attributes:
        table: `what why`: a group of parts, such as a pair of languages, and the reason.
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


@dataclass(frozen=True)
class MadeFrom:
    """All that decides the parts of one model.

    Attributes:
        known: Plain JSON values by name.
        free: Names of those that decide derived parts only.
        folder: Where each part has a folder of its own; None keeps nothing.
    """

    known: Mapping[str, Any]
    free: Collection[str]
    folder: Path | None

    def of(self, *, derived: bool) -> dict[str, Any]:
        """What decides a part; the code's epoch too: numbers of other code are other numbers."""
        known = {n: v for n, v in self.known.items() if derived or n not in self.free}
        return {"epoch": EPOCH, **known}

    def take(self, step: Step, done: Mapping[str, Result]) -> Mapping[str, Result]:
        """The parts of a step: those that are saved, or else made and saved.

        Raises:
            ValueError: they were made from something else.
        """
        now = self.of(derived=step.derived)
        saved = {name: place for name in step.kinds if (place := self._saved(name))}
        found = {name: load(place) for name, place in saved.items()}
        changed = {n for part in found.values() for n in differing(part, now)}
        if changed and not (step.derived and changed <= {*self.free}):
            raise other(next(iter(saved.values())), changed)
        if not changed and len(found) == len(step.kinds):
            return found
        made = step.make(done)
        # What a kill left of a step stays as it was saved; the others come to it.
        kept: dict[str, Result] = {}
        for name, part in made.items():
            if name in found and not changed:
                kept[name] = found[name]
                continue
            kept[name] = replace(part, provenance={**part.provenance, "made_from": now})
            if self.folder is not None:
                kept[name].save(self.folder / name)
        return kept

    def _saved(self, name: str) -> Path | None:
        """Where a part is, if it was saved to its end."""
        if self.folder is None or not (self.folder / name / HEADER).is_file():
            return None
        return self.folder / name


def identity(model: HookedModel | ServedModel) -> dict[str, Any]:
    """What of a model decides the numbers of a study: not its name, nor where it runs or prices."""
    known = model.provenance()
    if isinstance(model, ServedModel):
        return {name: value for name, value in known.items() if name != "prices"}
    return {name: known[name] for name in _DECIDING if name in known}


def differing(part: Result, now: Mapping[str, Any], *, but: Collection[str] = ()) -> list[str]:
    """Names of what a part was made from that is another now; `but` these, which aren't known."""
    was: dict[str, Any] = part.provenance.get("made_from") or {}
    return [name for name in sorted({*was, *now} - {*but}) if was.get(name) != now.get(name)]


def other(place: Path | None, changed: Collection[str]) -> ValueError:
    """The error for parts that were made from something else."""
    return InputError(
        f"{str(place)!r} holds a result of another model, other items or another study "
        f"({', '.join(sorted(changed))} changed since): give another folder, or delete it first "
        "(--overwrite, in Python overwrite=True)."
    )
