"""How like are a fact's states in two languages? By fact, layer and place, beside other facts'."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.activations import Activations
from xlens.checks import typed
from xlens.errors import InputError
from xlens.results import Result, analysed

MEASURES = ("cosine", "cosine_centred")
KINDS = ("own", "same_relation", "mismatched")
_NOTHING = 1e-5
"""Of a state's size: what half a word's rounding leaves after the mean is gone has no direction."""
States = Float[np.ndarray, "fact d_model"]


@dataclass(frozen=True, kw_only=True)
class FactLikeness(Result):
    """Cosines of each fact's states in a language with those in the pivot, and with other facts'.

    Attributes:
        cells: One row per language but the pivot, and fact: `id language relation same_object
            same_subject`; the last two say that the string is the pivot's.
        cosines: For each of `cells`, by measure (`MEASURES`), kind, slot and layer. `own` is with
            the same fact in the pivot; `same_relation` the mean over all other facts of its
            relation, `mismatched` over all other facts, both in the pivot. NaN where there is no
            other, or a state is all zero (after the mean of its language is gone, where centred).
        slots: Places: `subject:last` and `last`.
        layers: Residual points.
        pivot: The language that all are compared with.
    """

    cells: pd.DataFrame
    cosines: Float[np.ndarray, "measure kind slot layer cell"]
    slots: tuple[str, ...]
    layers: tuple[int, ...]
    pivot: str

    def to_frame(self) -> pd.DataFrame:
        """`cells`."""
        return self.cells


@typed
def fact_likeness(
    home: Activations, others: Iterable[Activations], flags: pd.DataFrame
) -> FactLikeness:
    """Compare the states of facts in several languages with those in the pivot.

    Two languages' states are in memory at a time. Nothing is drawn: the controls are means over
    all other facts. Those of the same object are among them, as what two facts share that way is
    not about the fact.

    Args:
        home: All facts in the pivot, a state for each slot.
        others: All facts in one further language each; asked for one after the other.
        flags: `Facts.flags(pivot)`.

    Raises:
        ValueError: a language that lacks facts of the pivot, or no other language.
    """
    ids = [str(id) for id in home.meta["id"]]
    (pivot,) = home.languages
    known = flags.set_index(["language", "id"])
    relation = flags[flags["language"] == pivot].set_index("id")["relation"].reindex(ids)
    kinds = pd.factorize(relation)[0]
    sides = {name: _states(home, name, ids) for name in home.slots}
    cells: list[pd.DataFrame] = []
    found: list[np.ndarray] = []
    for other in others:
        (tag,) = other.languages
        mine = known.loc[tag].reindex(ids)
        named = {"same_object": "identical_object", "same_subject": "identical_subject"}
        own = {new: mine[old].to_numpy(bool) for new, old in named.items()}
        cells.append(pd.DataFrame({"id": ids, "language": tag, "relation": list(relation), **own}))
        found.append(
            # [measure, kind, slot, layer, fact], slots put between what `_layers` gives.
            np.stack(
                [_layers(side, _states(other, name, ids), kinds) for name, side in sides.items()],
                axis=2,
            )
        )
    if not cells:
        raise InputError(f"There is no language beside {pivot!r}; facts are compared across two.")
    return FactLikeness(
        provenance=analysed(home.provenance, "likeness", {"pivot": pivot}),
        cells=pd.concat(cells, ignore_index=True),
        cosines=np.concatenate(found, axis=-1),
        slots=tuple(sides),
        layers=home.layers,
        pivot=pivot,
    )


def _states(
    activations: Activations, slot: str, ids: list[str]
) -> Float[np.ndarray, "layer fact d_model"]:
    """The states of these facts, in their order."""
    at = {str(id): n for n, id in enumerate(activations.meta["id"])}
    if lacking := [id for id in ids if id not in at]:
        raise InputError(
            f"{len(lacking)} facts have no states in {', '.join(activations.languages)}, first "
            f"{lacking[0]!r}: harvest the same facts in every language."
        )
    states = activations.get(slot).float().numpy()
    return states[[at[id] for id in ids]].transpose(1, 0, 2)


def _layers(home: Any, other: Any, kinds: np.ndarray) -> Float[np.ndarray, "measure kind layer n"]:
    each = [
        [_cosines(*_sides(a, b, measure), kinds) for a, b in zip(home, other, strict=True)]
        for measure in MEASURES
    ]
    # From [measure, layer, kind, fact].
    return np.array(each, dtype=np.float32).transpose(0, 2, 1, 3)


def _sides(home: States, other: States, measure: str) -> tuple[States, States]:
    """Unit states of both languages; NaN where there is no direction."""
    units: list[np.ndarray] = []
    for states in (home.astype(np.float64), other.astype(np.float64)):
        # Measured before the mean is gone, else what is left would be held against itself.
        least = _NOTHING * np.linalg.norm(states, axis=1, keepdims=True)
        moved = states - states.mean(axis=0) if measure == "cosine_centred" else states
        size = np.linalg.norm(moved, axis=1, keepdims=True)
        units.append(moved / np.where(size > least, size, np.nan))
    return units[0], units[1]


def _cosines(home: States, other: States, kinds: np.ndarray) -> Float[np.ndarray, "kind fact"]:
    """With the own fact, with others of the relation, with all others: of sums, not of pairs."""
    own = (home * other).sum(axis=1)
    everyone = np.zeros(len(own), dtype=int)
    return np.stack([own, _others(home, other, own, kinds), _others(home, other, own, everyone)])


def _others(home: States, other: States, own: np.ndarray, groups: np.ndarray) -> np.ndarray:
    # Cosines of unit states add up: the mean over all others is one product with the group's sum,
    # less the own one. Facts without a direction in the pivot are in no sum and no number.
    there = np.isfinite(home).all(axis=1)
    sums, n = np.zeros((groups.max() + 1, home.shape[1])), np.zeros(groups.max() + 1)
    np.add.at(sums, groups[there], home[there])
    np.add.at(n, groups[there], 1)
    left = n[groups] - there
    whole = (other * sums[groups]).sum(axis=1) - np.where(there, own, 0.0)
    return np.where(left > 0, whole / np.maximum(left, 1), np.nan)
