"""What xlens writes to be read back, in small: how it is saved, how it is read."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from xlens.activations import Activations, SlotValues
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.steps.latent_language import Survival
from xlens.subspace import LSAR, LayerWise

PAIR = "en_de"


@dataclass(frozen=True, kw_only=True)
class Found(Result):
    table: pd.DataFrame
    more: pd.DataFrame
    array: np.ndarray
    names: tuple[str, ...]
    n: int


def result(n: int) -> Found:
    dice = np.random.default_rng(n)
    return Found(
        provenance={"model": "tiny", "n": n},
        table=pd.DataFrame({"id": list("abcd"), "prob": dice.random(4)}),
        more=pd.DataFrame({"label": ["中文", None, "ไทย"]}),
        array=dice.random((8, 3)),
        names=("en", "zh-Hans"),
        n=n,
    )


def activations(n: int) -> Activations:
    dice = torch.Generator().manual_seed(n)
    values = torch.randn(3, 8, 6, generator=dice)
    slot = SlotValues(
        values=values, offsets=torch.arange(9), positions=torch.full((8,), n % 7, dtype=torch.long)
    )
    languages = ["de", "en"] * 4
    ids = [str(i // 2) for i in range(8)]
    meta = pd.DataFrame({"id": ids, "language": languages, "n_tokens": [5] * 8})
    return Activations(
        slots={"last": slot},
        layers=(0, 1, 2),
        meta=meta,
        fingerprint="f" * 64,
        provenance={"model": "tiny", "n": n},
    )


def same_result(one: Found, other: Found) -> bool:
    return (
        (one.n, one.names, one.provenance) == (other.n, other.names, other.provenance)
        and one.table.equals(other.table)
        and one.more.equals(other.more)
        and np.array_equal(one.array, other.array)
    )


def same_activations(one: Activations, other: Activations) -> bool:
    a, b = one.slots["last"], other.slots["last"]
    return (
        (one.layers, one.provenance, one.fingerprint, one.basis)
        == (other.layers, other.provenance, other.fingerprint, other.basis)
        and list(one.slots) == list(other.slots)
        and one.meta.equals(other.meta)
        and all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("values", "offsets"))
        and torch.equal(a.positions, b.positions)
    )


def save_subspace(n: int, folder: Path) -> None:
    LayerWise(LSAR(), pooling="last").fit(activations(n)).save(folder)


def same_subspace(found: LayerWise, n: int) -> bool:
    wanted = LayerWise(LSAR(), pooling="last").fit(activations(n))
    return found.fingerprint_ == wanted.fingerprint_ and all(
        np.array_equal(getattr(fitted, name), getattr(wanted.estimators_[layer], name))
        for layer, fitted in found.estimators_.items()
        for name in vars(fitted)
        if name.endswith("_") and isinstance(getattr(fitted, name), np.ndarray)
    )


def save_run(n: int, folder: Path) -> None:
    """A run and what is in it; a run of something else gives way to it."""
    config = {"lens": {"n_items": n, "model": "tiny"}}
    run = RunDirectory.create(folder, config, {"started": "now", "n": n}, overwrite=True)
    table = pd.DataFrame({"pair": PAIR, "reason": ["kept", "short"], "n": [n, 3]})
    Survival(provenance={}, table=table).save(run.result_folder("tiny", f"{PAIR}/survival"))
    result(n).save(run.result_folder("tiny", f"{PAIR}/translation"))


def read_run(folder: Path) -> Any:
    run = RunDirectory.open(folder)
    conditions = run.results()
    parts = run.parts("tiny")
    survival, found = parts[f"{PAIR}/survival"].to_frame(), parts[f"{PAIR}/translation"]
    return run.config, run.provenance["n"], conditions, survival, found


def same_run(read: Any, n: int) -> bool:
    config, made, conditions, survival, found = read
    return (
        config == {"lens": {"n_items": n, "model": "tiny"}}
        and made == n
        and conditions == {"tiny": (f"{PAIR}/survival", f"{PAIR}/translation")}
        and survival is not None
        and survival["n"].tolist() == [n, 3]
        and survival["reason"].tolist() == ["kept", "short"]
        and same_result(found, result(n))
    )


@dataclass(frozen=True)
class Writer:
    """A kind of saved thing.

    Attributes:
        save: Writes number n to a folder, over what is there.
        read: Reads it.
        right: Whether what was read is number n.
    """

    save: Callable[[int, Path], Any]
    read: Callable[[Path], Any]
    right: Callable[[Any, int], bool]

    def one_or_two(self, place: Path) -> bool:
        """Whether number 1 is there, or number 2: whole, and not some of each."""
        found = self.read(place)
        return self.right(found, 1) or self.right(found, 2)

    def saved_alone(self, place: Path) -> bool:
        """Whether a last save is right, and nothing is left beside it; the folder goes."""
        self.save(3, place)
        right = self.right(self.read(place), 3) and len(list(place.parent.iterdir())) == 1
        shutil.rmtree(place.parent)
        return right


WRITERS = {
    "result": Writer(
        lambda n, folder: result(n).save(folder),
        Found.load,
        lambda found, n: same_result(found, result(n)),
    ),
    "activations": Writer(
        lambda n, folder: activations(n).save(folder),
        Activations.load,
        lambda found, n: same_activations(found, activations(n)),
    ),
    "subspace": Writer(save_subspace, LayerWise.load, same_subspace),
    "run": Writer(save_run, read_run, same_run),
}
FOLDERS = ("result", "activations", "subspace")
"""Those that are one folder, replaced as a whole."""
