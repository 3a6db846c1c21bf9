"""Where a lens is to be had: a run of `xlens fit-lens`, a saved lens, a file, a published name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlens import files
from xlens.checks import typed
from xlens.errors import InputError
from xlens.lens.jacobian import read_jacobian_lens
from xlens.lens.lenses import LOGIT, FittedLens, Lens
from xlens.lens.tuned import read_tuned_lens
from xlens.models import HookedModel
from xlens.results import HEADER, load

KINDS = ("logit", "jacobian", "tuned")


@typed
def lens_kind(asked: str) -> tuple[str, str]:
    """Kind and place of `KIND` or `KIND=PLACE`.

    Raises:
        ValueError: another kind, a place for the logit lens, none for a tuned one.
    """
    kind, _, place = asked.partition("=")
    if kind not in KINDS:
        raise InputError(f"{asked!r} is no lens; write one of {', '.join(KINDS)}, or KIND=PLACE.")
    if kind == "logit" and place:
        raise InputError(f"{asked!r}: the logit lens has nothing to be read from; write logit.")
    if kind == "tuned" and not place:
        raise InputError(
            "A tuned lens is read from a place: tuned=FOLDER, the run of `xlens fit-lens` or the "
            "folder of a lens."
        )
    return kind, place


@typed
def lens_files(kind: str, place: str) -> list[Path]:
    """The files that say what a lens is; none where it is a published name.

    Raises:
        ValueError: a path that isn't there, or a folder without a lens of that kind.
    """
    path = Path(place)
    if path.is_file():
        return [path]
    if not path.is_dir():
        if kind == "jacobian" and not _only_a_file(place):
            return []
        raise InputError(f"No {kind} lens at {place!r}: no such file or folder.")
    for found in (
        [path / HEADER],
        sorted(path.glob(f"results/*/{kind}/all/{HEADER}")),
        # A run of one language has no lens of all.
        sorted(path.glob(f"results/*/{kind}/*/{HEADER}")),
        [path / ("params.pt" if kind == "tuned" else "lens.pt")],
    ):
        if found and all(file.is_file() for file in found):
            return found
    raise InputError(
        f"No {kind} lens in {place!r}: expected a run of `xlens fit-lens`, the folder of a saved "
        f"lens, or one with {'params.pt' if kind == 'tuned' else 'lens.pt'}."
    )


def _only_a_file(place: str) -> bool:
    """Whether a place can be no name of the registry or the hub."""
    return place.startswith((".", "/", "~")) or "\\" in place or place.endswith((".pt", ".json"))


@typed
def lens_digest(asked: str) -> str:
    """Of the files of a lens, by what is in them; of a published name, the name."""
    kind, place = lens_kind(asked)
    found = lens_files(kind, place) if place else []
    return "; ".join(files.digest(file) for file in found) or asked


@typed
def lens_layers(asked: str) -> tuple[int, ...] | None:
    """The layers below the last that a lens has, as far as that is known without its model.

    Returns:
        Of lenses of several models all that any has; None: only the model can tell.

    Raises:
        ValueError: as `lens_files`.
    """
    kind, place = lens_kind(asked)
    found = lens_files(kind, place) if place else []
    saved = [load(file.parent) for file in found if file.name == HEADER]
    layers = {n for lens in saved if isinstance(lens, FittedLens) for n in lens.layers}
    return tuple(sorted(layers)) or None


@typed
def find_lens(asked: str, model: HookedModel) -> Lens:
    """The lens that is asked for, for this model.

    Args:
        asked: `logit`; `jacobian` (TransformerLens's registry, by the model's name), or
            `jacobian=PLACE` and `tuned=PLACE`: a run of `xlens fit-lens`, the folder of a lens that
            was saved, a published file, or the hub's name of a Jacobian lens.
        model: Whose.

    Raises:
        ValueError: nothing there, or a lens of another model.
        OSError: the hub can't be reached.
    """
    kind, place = lens_kind(asked)
    if kind == "logit":
        return LOGIT
    found = lens_files(kind, place) if place else []
    saved = [file.parent for file in found if file.name == HEADER]
    if not saved:
        read: Any = read_tuned_lens if kind == "tuned" else read_jacobian_lens
        return read(str(found[0]) if found else place or model.name, model)
    return _own(kind, saved, model)


def _own(kind: str, folders: Sequence[Path], model: HookedModel) -> FittedLens:
    """The one of these lenses that is this model's."""
    lenses = [lens for folder in folders if isinstance(lens := load(folder), FittedLens)]
    mine = [lens for lens in lenses if lens.kind == kind]
    if not mine:
        held = ", ".join(lens.kind for lens in lenses) or "no lens"
        raise InputError(f"{str(folders[0])!r} holds {held}, where a {kind} lens is asked for.")
    exact = [lens for lens in mine if lens.fingerprint == model.fingerprint]
    lens = (exact or mine)[0]
    lens.require(model)
    return lens
