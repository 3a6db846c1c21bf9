"""Parts of a study: each made once, saved as soon as it is there, and read again afterwards."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from xlens.engine.store import EPOCH
from xlens.models import HookedModel
from xlens.results import Result

R = TypeVar("R", bound=Result)
_DECIDING = (
    *("fingerprint", "tokenizer", "prepends_bos", "left_off", "attention", "precision"),
    *("around", "changed_by", "adapter_state"),
)


def run_parts(
    steps: Mapping[str, Callable[[], Result]],
    kinds: Mapping[str, type[Result]],
    done: dict[str, Result],
    *,
    folder: Path | None,
    made_from: Mapping[str, Any],
    after: Callable[[str], None] = lambda _: None,
) -> dict[str, Result]:
    """Make what isn't there yet, in order; later steps may read earlier parts from `done`.

    Args:
        steps: What makes each part.
        kinds: The type of each.
        done: Filled with the parts.
        folder: Where each has a folder of its own; None keeps nothing.
        made_from: What decides the parts: plain JSON values, kept in each one's provenance.
        after: Called with the name of each part that is there.

    Raises:
        ValueError: a part that was made from something else.
    """
    for name, make in steps.items():
        place = None if folder is None else folder / name
        if place is not None and (place / "result.json").is_file():
            found = load_part(place, kinds[name], made_from)
        else:
            found = keep_part(make(), place, made_from)
        done[name] = found
        after(name)
    return done


def identity(model: HookedModel) -> dict[str, Any]:
    """What of a model decides the numbers of a study: not its name, nor where it runs."""
    known = model.provenance()
    return {name: known[name] for name in _DECIDING if name in known}


def keep_part(made: R, place: Path | None, made_from: Mapping[str, Any]) -> R:
    """A part that says what it was made from, saved where there is a place for it."""
    found = replace(made, provenance={**made.provenance, "made_from": _whole(made_from)})
    if place is not None:
        found.save(place)
    return found


def load_part(
    place: Path, kind: type[R], made_from: Mapping[str, Any], *, but: Collection[str] = ()
) -> R:
    """A part that was saved, if it is of the same.

    Args:
        place: Its folder.
        kind: Its type.
        made_from: What it must have been made from.
        but: What of that is not compared, as it is not known here.

    Raises:
        ValueError: it was made from something else.
    """
    found = kind.load(place)
    was: dict[str, Any] = found.provenance.get("made_from") or {}
    now = _whole(made_from)
    names = sorted({*was, *now} - {*but})
    if changed := [name for name in names if was.get(name) != now.get(name)]:
        raise ValueError(
            f"{str(place)!r} holds a result of another model, other items or another study "
            f"({', '.join(changed)} changed since): give another folder, or delete it first "
            "(--overwrite)."
        )
    return found


def _whole(made_from: Mapping[str, Any]) -> dict[str, Any]:
    """With the code's epoch: numbers of other code are other numbers."""
    return {"epoch": EPOCH, **made_from}
