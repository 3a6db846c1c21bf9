"""Activations as a folder: a header, tensors by slot and layer, a table of prompts. No pickle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xlens import files
from xlens.activations.slots import SlotValues
from xlens.errors import InputError
from xlens.sites import RESID

HEADER = "activations.json"
FORMAT = 1  # of what holds the residual stream; other sites came with 2
_STATES, _PROMPTS = "activations.safetensors", "prompts.parquet"
_AGAIN = (
    "Make them anew: save the activations again, or delete the folder and run `xlens harvest` "
    "again; verify=False reads them as they are."
)


def write(
    folder: Path,
    *,
    slots: Mapping[str, SlotValues],
    layers: Sequence[int],
    meta: pd.DataFrame,
    site: str,
    n_heads: int | None,
    **told: Any,
) -> Path:
    """Write a folder; what was there stays until this is whole, on the disk.

    Args:
        folder: To be filled.
        slots: States by slot.
        layers: Their layers.
        meta: One row per prompt.
        site: Where they were kept.
        n_heads: At site `z`.
        **told: What else the header says: fingerprint, basis, provenance.

    Raises:
        ValueError: the folder holds files of somebody else.
        OSError: they can't be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, kept in slots.items():
        tensors[f"{name}/offsets"] = kept.offsets.contiguous()
        tensors[f"{name}/positions"] = kept.positions.contiguous()
        for i, layer in enumerate(layers):
            # A key per layer: reading one layer reads nothing else.
            tensors[f"{name}/{layer}"] = kept.values[i].contiguous()
    header = {
        "format": FORMAT if site == RESID else 2,
        **({} if site == RESID else {"site": site, "n_heads": n_heads}),
        "slots": list(slots),
        "layers": list(layers),
        **{name: told[name] for name in ("fingerprint", "basis", "provenance")},
    }
    with files.saving(folder, HEADER, [_STATES, _PROMPTS], "activations") as draft:
        save_file(tensors, draft / _STATES)
        meta.to_parquet(draft / _PROMPTS)
        files.seal(draft, HEADER, header)
    return folder


def read(folder: Path, *, layers: Sequence[int] | None, verify: bool) -> dict[str, Any]:
    """What `write` was given; with `layers`, only these.

    Raises:
        ValueError: no activations there, another format, or a layer that was not kept.
        DamagedError: a file is not what was written; says which. A `ValueError` too.
    """
    if not files.present(folder, HEADER):
        raise InputError(
            f"No activations at {str(folder)!r}: expected a folder with activations.json, as "
            "Activations.save(path) or `xlens harvest` writes it."
        )

    def known(header: dict[str, Any]) -> None:
        if header.get("format") not in (FORMAT, 2):
            raise InputError(
                f"{str(folder)!r} has format {header.get('format')}; this xlens reads 1 and 2."
                " Read it with the xlens that wrote it, or harvest again."
            )

    def told(header: dict[str, Any]) -> dict[str, Any]:
        return _read(folder, header, layers)

    return files.unsealed(folder, HEADER, told, known=known, again=_AGAIN, verify=verify)


def _read(folder: Path, header: dict[str, Any], layers: Sequence[int] | None) -> dict[str, Any]:
    from safetensors import safe_open

    points = tuple(header["layers"]) if layers is None else tuple(layers)
    if missing := sorted(set(points) - set(header["layers"])):
        raise InputError(f"Layers {missing} are not in {str(folder)!r}: {header['layers']}.")
    slots: dict[str, SlotValues] = {}
    with safe_open(folder / _STATES, framework="pt") as file:
        for name in header["slots"]:
            slots[name] = SlotValues(
                values=torch.stack([file.get_tensor(f"{name}/{n}") for n in points]),
                offsets=file.get_tensor(f"{name}/offsets"),
                positions=file.get_tensor(f"{name}/positions"),
            )
    return {
        "slots": slots,
        "layers": points,
        "meta": pd.read_parquet(folder / _PROMPTS),
        "fingerprint": header["fingerprint"],
        "provenance": header["provenance"],
        "basis": header["basis"],
        "site": header.get("site", RESID),
        "n_heads": header.get("n_heads"),
    }
