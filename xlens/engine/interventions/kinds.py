"""What can be done to a site: `add`, `project_out`, `patch`, `scale`, `set_to`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xlens.activations import Activations
from xlens.errors import InputError
from xlens.prompts import parse_slot
from xlens.sites import RESID, known_site

Layers = str | int | Sequence[int]

GENERATED = "generated"
_MIN_RANK = 1e-5  # of the singular values of rows of length 1, against the largest


@dataclass(frozen=True, eq=False)
class Add:
    """resid += strength * vector. Made by `add`."""

    values: Tensor | Activations
    layers: Layers
    slot: str
    strength: float
    source: str | None
    site: str = RESID

    def change(self, rows: Tensor, values: Tensor) -> Tensor:
        """`rows` with `values` added."""
        return rows + self.strength * values


@dataclass(frozen=True, eq=False)
class ProjectOut:
    """resid -= strength * its component in a subspace. Made by `project_out`."""

    basis: Tensor
    layers: Layers
    slot: str
    strength: float
    center: Tensor | None
    site: str = RESID

    def change(self, rows: Tensor, values: Tensor) -> Tensor:
        """`rows` less their component in the span; `values` are the center, then the basis."""
        center, basis = values[0], values[1:]
        return rows - self.strength * (((rows - center) @ basis.T) @ basis)


@dataclass(frozen=True, eq=False)
class Patch:
    """resid = values. Made by `patch`."""

    values: Tensor | Activations
    layers: Layers
    slot: str
    broadcast: bool
    source: str | None
    site: str = RESID

    def change(self, rows: Tensor, values: Tensor) -> Tensor:
        """`values` in place of `rows`."""
        return values.expand_as(rows)


@dataclass(frozen=True, eq=False)
class Units:
    """Some units of a site multiplied or set, the others as they are. Made by `scale`, `set_to`."""

    units: tuple[int, ...]
    numbers: Tensor
    layers: Layers
    slot: str
    how: Literal["scale", "set"]
    site: str

    def spread(self, width: int) -> Tensor:
        """`[2, width]`: which units, and their numbers."""
        out = torch.zeros(2, width, dtype=torch.float64)
        out[0, list(self.units)] = 1
        out[1, list(self.units)] = self.numbers.double()
        return out

    def change(self, rows: Tensor, values: Tensor) -> Tensor:
        """`rows` with its units changed; `values` are what `spread` gives."""
        changed = rows * values[1] if self.how == "scale" else values[1].expand_as(rows)
        return torch.where(values[0] > 0, changed, rows)


Intervention = Add | ProjectOut | Patch | Units
Interventions = Intervention | Sequence[Intervention]


def add(
    vector: Tensor | np.ndarray | Activations,
    *,
    layers: Layers,
    slot: str = "all",
    strength: float = 1.0,
    source: str | None = None,
    site: str = RESID,
) -> Add:
    """Add `strength * vector` to the residual stream.

    Args:
        vector: `[d_model]`; `[prompt, d_model]` or `[layer, d_model]`, one per prompt or per listed
            layer; `[prompt, layer, d_model]`, either of length 1 for all alike. Or `Activations`,
            which go to the prompts of the same id (and language, where they hold several).
        layers: Residual points: "all", one, or several.
        slot: Where: `all` (every token, generated ones too), `generated` (only those), `last`,
            `NAME:first|last|each|predict`; `NAME:mean` is each of the span's tokens.
        strength: Factor; 0 changes nothing, bit for bit.
        source: Which slot of the activations; None for the one of the same name.
        site: What to change there: the residual stream, or another of `xlens.sites.SITES`,
            whose width then stands for `d_model` and whose layers are blocks.

    Raises:
        ValueError: a slot that does not exist, a vector that is not finite or has a wrong shape.
    """
    given = vector if isinstance(vector, Activations) else _finite("vector", vector, (1, 2, 3))
    return Add(given, layers, _known_slot(slot), _finite_number(strength), source, known_site(site))


def project_out(
    basis: Tensor | np.ndarray,
    *,
    layers: Layers,
    slot: str = "all",
    strength: float = 1.0,
    center: Tensor | np.ndarray | None = None,
    site: str = RESID,
) -> ProjectOut:
    """Remove `strength` times the component in the span of `basis`.

    Args:
        basis: `[rank, d_model]`, linearly independent rows; they need not be orthonormal.
        layers: Residual points: "all", one, or several.
        slot: Where, as for `add`.
        strength: 1 removes the component, 2 reflects it, 0 changes nothing, bit for bit.
        center: `[d_model]`: the component is that of `resid - center`; None for the origin.
        site: What to change there: the residual stream, or another of `xlens.sites.SITES`,
            whose width then stands for `d_model` and whose layers are blocks.

    Raises:
        ValueError: rows that are dependent, not finite or of a wrong shape, or an unknown slot.
    """
    rows = _finite("basis", basis, (2,))
    middle = None if center is None else _finite("center", center, (1,))
    if middle is not None and middle.shape[-1] != rows.shape[-1]:
        raise InputError(
            f"center has {middle.shape[-1]} dimensions, basis {rows.shape[-1]}; both live in the "
            "residual stream and need d_model."
        )
    size = rows.double().norm(dim=-1, keepdim=True)
    singular = torch.linalg.svdvals(rows.double() / size.clamp_min(1e-300))
    rank = int((singular > _MIN_RANK * singular[0].clamp_min(1e-300)).sum())
    if rank < len(rows):
        raise InputError(
            f"The {len(rows)} rows of basis (d_model {rows.shape[1]}) span only {rank} dimensions. "
            "Leave out rows that are sums of others, or take the leading rows of "
            "torch.linalg.svd(basis, full_matrices=False).Vh. (Rows centered on their own mean "
            "span one dimension less than they are.)"
        )
    return ProjectOut(
        rows, layers, _known_slot(slot), _finite_number(strength), middle, known_site(site)
    )


def patch(
    values: Tensor | np.ndarray | Activations,
    *,
    layers: Layers,
    slot: str = "last",
    broadcast: bool = False,
    source: str | None = None,
    site: str = RESID,
) -> Patch:
    """Replace the states at layers × slot.

    Args:
        values: States, raw basis: shapes as for `add`. `Activations` go to the prompts of the same
            id (and language, where they hold several), layer by layer, position by position.
        layers: Residual points: "all", one, or several.
        slot: Where, as for `add`.
        broadcast: Write one state to every position of a slot that has several.
        source: Which slot of the activations; None for the one of the same name.
        site: What to change there: the residual stream, or another of `xlens.sites.SITES`,
            whose width then stands for `d_model` and whose layers are blocks.

    Raises:
        ValueError: a slot that does not exist or has several positions for one value, values that
            are not finite or have a wrong shape.
    """
    given = values if isinstance(values, Activations) else _finite("values", values, (1, 2, 3))
    many = _known_slot(slot) == GENERATED or not parse_slot(slot).single
    if many and not broadcast and (slot == GENERATED or not isinstance(given, Activations)):
        raise InputError(
            f"Slot {slot!r} has several positions and there is one value for them. Give "
            "Activations harvested at the same slot, or broadcast=True to write the value to each."
        )
    if not broadcast and slot != GENERATED and parse_slot(slot).reduced:
        raise InputError(
            f"Slot {slot!r} is an average, which has no place to be written to. Take one position "
            "('NAME:last'), or broadcast=True to write the value to every token of the span."
        )
    return Patch(given, layers, slot, broadcast, source, known_site(site))


def scale(
    units: Sequence[int],
    factor: float | Sequence[float] | Tensor | np.ndarray,
    *,
    site: str,
    layers: Layers,
    slot: str = "all",
) -> Units:
    """Multiply some units of a site: 0 ablates them, 1 changes nothing.

    Args:
        units: Their numbers; those of heads at `z` are given by `xlens.models.sites.head_units`.
        factor: One for all, or one each.
        site: One of `xlens.sites.SITES`.
        layers: Blocks (residual points at `resid`): "all", one, or several.
        slot: Where, as for `add`.

    Raises:
        ValueError: no units, or one twice; numbers that are not finite or are not as many.
    """
    return _units(units, factor, "factor", layers, slot, "scale", site)


def set_to(
    units: Sequence[int],
    value: float | Sequence[float] | Tensor | np.ndarray,
    *,
    site: str,
    layers: Layers,
    slot: str = "all",
) -> Units:
    """Set some units of a site to numbers: to their mean elsewhere, say.

    Args:
        units: Their numbers, as for `scale`.
        value: One for all, or one each.
        site: One of `xlens.sites.SITES`.
        layers: Blocks (residual points at `resid`): "all", one, or several.
        slot: Where, as for `add`.

    Raises:
        ValueError: as for `scale`.
    """
    return _units(units, value, "value", layers, slot, "set", site)


def _units(
    units: Sequence[int],
    numbers: float | Sequence[float] | Tensor | np.ndarray,
    name: str,
    layers: Layers,
    slot: str,
    how: Literal["scale", "set"],
    site: str,
) -> Units:
    chosen = tuple(int(unit) for unit in units)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise InputError(f"units is {list(chosen)[:8]}; give at least one, each once, from 0 up.")
    each = torch.as_tensor(numbers).cpu().double().reshape(-1)
    if len(each) not in (1, len(chosen)) or not each.isfinite().all():
        raise InputError(
            f"{name} holds {len(each)} numbers for {len(chosen)} units; give one finite number for "
            "all, or one each."
        )
    values = each.expand(len(chosen)).clone()
    return Units(chosen, values, layers, _known_slot(slot), how, known_site(site))


def listed(interventions: Interventions) -> list[Intervention]:
    """One intervention, or several, as a list."""
    if isinstance(interventions, Intervention):
        return [interventions]
    return list(interventions)


def spans(interventions: Interventions) -> frozenset[str]:
    """Names of the spans that the slots speak of: tokenisation must map them."""
    named = [parse_slot(x.slot).span for x in listed(interventions) if x.slot != GENERATED]
    return frozenset(name for name in named if name is not None)


def _finite(name: str, given: Tensor | np.ndarray, dims: tuple[int, ...]) -> Tensor:
    tensor = torch.as_tensor(given).detach().cpu().clone()  # what is changed later stays outside
    if not tensor.is_floating_point():
        tensor = tensor.float()
    if tensor.dim() not in dims or not tensor.numel():
        raise InputError(
            f"{name} has the shape {list(tensor.shape)}; accepted are "
            + " or ".join(
                {1: "[d_model]", 2: "[n, d_model]", 3: "[prompt, layer, d_model]"}[d] for d in dims
            )
            + "."
        )
    if not tensor.isfinite().all():
        raise InputError(f"{name} holds {int((~tensor.isfinite()).sum())} NaN or infinite numbers.")
    return tensor


def _finite_number(strength: float) -> float:
    if not np.isfinite(strength):
        raise InputError(f"strength is {strength}; it must be a finite number.")
    return float(strength)


def _known_slot(slot: str) -> str:
    if slot != GENERATED and not parse_slot(slot).kind.writable:
        raise InputError(f"Slot {slot!r} is a sum, which has no place to be changed at.")
    return slot
