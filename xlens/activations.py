"""`Activations`: cached residual-stream states with named axes, and nothing about models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from xlens import files
from xlens.checks import refuse_text
from xlens.languages import standardize
from xlens.sites import RESID, has_heads, hook_name

HEADER = "activations.json"
FORMAT = 1  # of what holds the residual stream; other sites came with 2
_STATES, _PROMPTS = "activations.safetensors", "prompts.parquet"
_AGAIN = (
    "Make them anew: save the activations again, or delete the folder and run `xlens harvest` "
    "again; verify=False reads them as they are."
)

_MOST_LAYERS = 1_000  # more than any model has


@dataclass(frozen=True, kw_only=True)
class SlotValues:
    """One slot's states.

    Attributes:
        values: `[layer, row, d_model]`, raw basis.
        offsets: Rows of prompt i are `offsets[i]:offsets[i+1]`.
        positions: Token position of each row; -1 for means.
    """

    values: Float[Tensor, "layer row d_model"]
    offsets: Int[Tensor, " prompts_1"]
    positions: Int[Tensor, " row"]

    @property
    def dense(self) -> bool:
        """Whether every prompt has exactly one row."""
        return bool((self.offsets.diff() == 1).all())


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What `harvest` kept at a site, by default of the residual stream.

    Axes are prompt × layer × slot × d_model (or the site's own width). Layers are residual points:
    0 is the input of the first block, l the output of block l-1; at other sites they are blocks.
    The basis is raw: no folded norms, before `ln_final`.

    Attributes:
        slots: States by slot name (`last`, `word:mean`, `all`, ...).
        layers: Residual points kept, ascending; blocks, at other sites.
        meta: One row per prompt: `id`, `language`, `n_tokens`, `tokens` and the prompts' meta.
        fingerprint: Of the model that made them.
        provenance: Model, tokenizer, dtype, attention, versions.
        site: Where: one of `xlens.sites.SITES`.
        n_heads: At site `z`, how many heads lie side by side in the last axis.
    """

    slots: Mapping[str, SlotValues]
    layers: tuple[int, ...]
    meta: pd.DataFrame
    fingerprint: str
    provenance: dict[str, Any]
    basis: str = "raw"
    site: str = RESID
    n_heads: int | None = None

    def __repr__(self) -> str:
        slots = ", ".join(f"{k}[{v.values.shape[1]}]" for k, v in self.slots.items())
        return (
            f"Activations({len(self.meta)} prompts, {len(self.layers)} layers, {slots}, "
            f"{'d_model' if self.site == RESID else self.site}={self.d_model}, "
            f"{self.provenance.get('model')})"
        )

    def __len__(self) -> int:
        return len(self.meta)

    @property
    def d_model(self) -> int:
        """Width of the last axis: of the residual stream, or of another site."""
        return next(iter(self.slots.values())).values.shape[-1]

    def heads(self, slot: str | None = None) -> Float[Tensor, "layer row head d_head"]:
        """A slot of site `z` with an axis of heads.

        Raises:
            ValueError: another site, or an unknown slot.
        """
        if self.n_heads is None:
            raise ValueError(f"Heads lie side by side at site 'z'; this is {self.site!r}.")
        values = self.slot(slot).values
        return rearrange(values, "layer row (head d) -> layer row head d", head=self.n_heads)

    @property
    def languages(self) -> tuple[str, ...]:
        """Language tags in order of first appearance."""
        return tuple(self.meta["language"].unique())

    def slot(self, name: str | None = None) -> SlotValues:
        """The states of one slot; the only one if no name is given.

        Raises:
            ValueError: no such slot, or no name where there are several.
        """
        if name is None and len(self.slots) == 1:
            name = next(iter(self.slots))
        if name is None or name not in self.slots:
            raise ValueError(
                f"No slot {name!r} in these activations; they hold {list(self.slots)}. "
                "Name one of them, or harvest again with the slot you need."
            )
        return self.slots[name]

    def get(
        self, slot: str | None = None, *, layer: int | None = None
    ) -> Float[Tensor, "*prompt_layer d_model"]:
        """States of a slot with one row per prompt: `[prompt, layer, d_model]`.

        With `layer`, that residual point alone: `[prompt, d_model]`.

        Raises:
            ValueError: unknown slot or layer, or a ragged slot (use `rows`).
        """
        kept = self.slot(slot)
        if not kept.dense:
            raise ValueError(
                f"Slot {slot!r} has several rows per prompt; use rows(slot, prompt) or "
                "slot(name).values with its offsets."
            )
        if layer is None:
            return kept.values.transpose(0, 1)
        return kept.values[self.layer_index(layer)]

    def rows(self, slot: str, prompt: int) -> Float[Tensor, "layer row d_model"]:
        """The rows of one prompt in any slot."""
        kept = self.slot(slot)
        start, stop = kept.offsets[prompt : prompt + 2].tolist()
        return kept.values[:, start:stop]

    def layer_index(self, layer: int) -> int:
        """Where residual point `layer` stands on the layer axis.

        Raises:
            ValueError: it was not kept.
        """
        if layer not in self.layers:
            raise ValueError(
                f"Layer {layer} is not in these activations; they hold {list(self.layers)}."
            )
        return self.layers.index(layer)

    def select(
        self,
        *,
        languages: Iterable[str] | None = None,
        ids: Iterable[str] | None = None,
        layers: Sequence[int] | None = None,
        slots: Iterable[str] | None = None,
    ) -> Self:
        """A part of the activations; what is asked for must be there.

        Raises:
            ValueError: a language, id, layer or slot that does not occur.
        """
        for what, texts in (("languages", languages), ("ids", ids), ("slots", slots)):
            refuse_text(what, texts)
        keep = np.ones(len(self.meta), dtype=bool)
        wanted = {"language": languages and [standardize(x) for x in languages], "id": ids}
        for column, values in wanted.items():
            if values is None:
                continue
            asked = list(values)
            if missing := sorted(set(asked) - set(self.meta[column])):
                raise ValueError(f"No prompt with {column} {missing} in these activations.")
            keep &= self.meta[column].isin(asked).to_numpy()
        return self.take(np.flatnonzero(keep), layers=layers, slots=slots)

    def take(
        self,
        prompts: Sequence[int] | np.ndarray,
        *,
        layers: Sequence[int] | None = None,
        slots: Iterable[str] | None = None,
    ) -> Self:
        """These prompts by position, in this order."""
        chosen = [int(i) for i in prompts]
        points = tuple(self.layers) if layers is None else tuple(layers)
        at = [self.layer_index(layer) for layer in points]
        kept: dict[str, SlotValues] = {}
        for name in self.slots if slots is None else slots:
            old = self.slot(name)
            spans = [old.offsets[i : i + 2].tolist() for i in chosen]
            rows = torch.tensor([r for a, b in spans for r in range(a, b)], dtype=torch.long)
            counts = torch.tensor([0] + [b - a for a, b in spans])
            kept[name] = SlotValues(
                values=old.values[at][:, rows],
                offsets=counts.cumsum(0),
                positions=old.positions[rows],
            )
        meta = self.meta.iloc[chosen].reset_index(drop=True)
        return replace(self, slots=kept, layers=points, meta=meta)

    def pair(self, first: str, second: str) -> tuple[Self, Self]:
        """The items that exist in both languages, row i of one parallel to row i of the other.

        Raises:
            ValueError: no shared id.
        """
        a, b = self.select(languages=[first]), self.select(languages=[second])
        there = set(b.meta["id"])
        shared = [i for i in a.meta["id"] if i in there]
        if not shared:
            raise ValueError(f"No parallel id is shared by {first!r} and {second!r}.")

        def in_order(part: Self) -> Self:
            where = {i: n for n, i in enumerate(part.meta["id"])}
            return part.take([where[i] for i in shared])

        return in_order(a), in_order(b)

    def require(self, fingerprint: str, *, what: str) -> None:
        """Refuse a readout or subspace that belongs to another model.

        Raises:
            ValueError: the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"{what} belongs to another model (fingerprint {fingerprint[:12]}…) than these "
                f"activations ({self.fingerprint[:12]}…, {self.provenance.get('model')}). Harvest "
                f"again with that model, or use the {what.lower()} of this one."
            )

    def to_cache(self, prompt: int) -> Any:
        """One prompt's `all` slot as a `transformer_lens.ActivationCache` (batch of one).

        Keys are TransformerLens hook names: `blocks.0.hook_resid_pre` for point 0,
        `blocks.{l-1}.hook_resid_post` for point l; `z` has its axis of heads there.

        Raises:
            ValueError: no slot `all`, or a site that has no name there.
        """
        from transformer_lens import ActivationCache

        rows = self.rows("all", prompt).unsqueeze(1)
        if self.n_heads is not None:
            rows = rearrange(rows, "l b pos (head d) -> l b pos head d", head=self.n_heads)
        named = {hook_name(self.site, n): rows[i] for i, n in enumerate(self.layers)}
        return ActivationCache(named, model=None)

    @classmethod
    def from_cache(
        cls,
        cache: Mapping[str, Tensor],
        meta: pd.DataFrame,
        *,
        fingerprint: str,
        site: str = RESID,
        provenance: dict[str, Any] | None = None,
    ) -> Self:
        """What a `TransformerBridge` cached, as the slot `all`.

        Args:
            cache: Tensors by hook name, `[prompt, pos, ...]`, padded on the right.
            meta: One row per prompt: `id`, `language`, `n_tokens` at least.
            fingerprint: Of the model.
            site: Which of its hooks to take; every layer that is there.
            provenance: Whatever is known.

        Raises:
            ValueError: nothing of that site there, or another number of prompts.
        """
        names = {hook_name(site, layer): layer for layer in range(_MOST_LAYERS)}
        layers = tuple(sorted(names[name] for name in cache if name in names))
        if not layers:
            raise ValueError(f"The cache holds nothing of site {site!r}: {sorted(cache)[:5]} ...")
        states = torch.stack([cache[hook_name(site, layer)] for layer in layers])
        n_heads = states.shape[3] if has_heads(site) else None
        if n_heads is not None:
            states = rearrange(states, "l b pos head d -> l b pos (head d)")
        lengths = meta["n_tokens"].tolist()
        if states.shape[1] != len(lengths) or max(lengths) > states.shape[2]:
            raise ValueError(
                f"The cache holds {states.shape[1]} prompts of {states.shape[2]} places; meta has "
                f"{len(lengths)} of up to {max(lengths)} tokens."
            )
        kept = SlotValues(
            values=torch.cat([states[:, i, :n] for i, n in enumerate(lengths)], dim=1),
            offsets=torch.tensor([0, *lengths]).cumsum(0),
            positions=torch.cat([torch.arange(n) for n in lengths]),
        )
        return cls(
            slots={"all": kept},
            layers=layers,
            meta=meta.reset_index(drop=True),
            fingerprint=fingerprint,
            provenance=provenance or {},
            site=site,
            n_heads=n_heads,
        )

    def save(self, path: str | Path) -> Path:
        """Write to a folder: `activations.safetensors`, `prompts.parquet`, `activations.json`.

        Activations that were there stay until these are whole, on the disk.

        Raises:
            ValueError: the folder holds files of somebody else.
            OSError: they can't be written.
        """
        from safetensors.torch import save_file

        folder = Path(path)
        tensors: dict[str, Tensor] = {}
        for name, kept in self.slots.items():
            tensors[f"{name}/offsets"] = kept.offsets.contiguous()
            tensors[f"{name}/positions"] = kept.positions.contiguous()
            for i, layer in enumerate(self.layers):
                # A key per layer: reading one layer reads nothing else.
                tensors[f"{name}/{layer}"] = kept.values[i].contiguous()
        header = {
            "format": FORMAT if self.site == RESID else 2,
            **({} if self.site == RESID else {"site": self.site, "n_heads": self.n_heads}),
            "slots": list(self.slots),
            "layers": list(self.layers),
            "fingerprint": self.fingerprint,
            "basis": self.basis,
            "provenance": self.provenance,
        }
        with files.saving(folder, HEADER, [_STATES, _PROMPTS], "activations") as draft:
            save_file(tensors, draft / _STATES)
            self.meta.to_parquet(draft / _PROMPTS)
            files.seal(draft, HEADER, header)
        return folder

    @classmethod
    def load(
        cls, path: str | Path, *, layers: Sequence[int] | None = None, verify: bool = True
    ) -> Self:
        """Read what `save` wrote; with `layers`, only these.

        Args:
            path: The folder.
            layers: Residual points to read; default: all.
            verify: Compare every file with the digest in the header. That reads them whole, also
                where few layers are asked for.

        Raises:
            ValueError: no activations there, another format, or a layer that was not kept.
            DamagedError: a file is not what was written; says which. A `ValueError` too.
        """
        folder = Path(path)
        if not files.present(folder, HEADER):
            raise ValueError(
                f"No activations at {str(folder)!r}: expected a folder with activations.json, as "
                "Activations.save(path) or `xlens harvest` writes it."
            )

        def known(header: dict[str, Any]) -> None:
            if header.get("format") not in (FORMAT, 2):
                raise ValueError(
                    f"{str(folder)!r} has format {header.get('format')}; this xlens reads 1 and 2."
                    " Read it with the xlens that wrote it, or harvest again."
                )

        def read(header: dict[str, Any]) -> Self:
            return cls._read(folder, header, layers)

        return files.unsealed(folder, HEADER, read, known=known, again=_AGAIN, verify=verify)

    @classmethod
    def _read(cls, folder: Path, header: dict[str, Any], layers: Sequence[int] | None) -> Self:
        from safetensors import safe_open

        points = tuple(header["layers"]) if layers is None else tuple(layers)
        if missing := sorted(set(points) - set(header["layers"])):
            raise ValueError(f"Layers {missing} are not in {str(folder)!r}: {header['layers']}.")
        slots: dict[str, SlotValues] = {}
        with safe_open(folder / _STATES, framework="pt") as file:
            for name in header["slots"]:
                slots[name] = SlotValues(
                    values=torch.stack([file.get_tensor(f"{name}/{n}") for n in points]),
                    offsets=file.get_tensor(f"{name}/offsets"),
                    positions=file.get_tensor(f"{name}/positions"),
                )
        return cls(
            slots=slots,
            layers=points,
            meta=pd.read_parquet(folder / _PROMPTS),
            fingerprint=header["fingerprint"],
            provenance=header["provenance"],
            basis=header["basis"],
            site=header.get("site", RESID),
            n_heads=header.get("n_heads"),
        )
