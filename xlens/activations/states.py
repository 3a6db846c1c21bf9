"""`Activations`: cached states with named axes, and nothing about models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from xlens.activations import disk
from xlens.activations.cache import cached, uncached
from xlens.activations.slots import SlotValues
from xlens.checks import refuse_text
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.sites import RESID


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
            raise InputError(f"Heads lie side by side at site 'z'; this is {self.site!r}.")
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
            raise InputError(
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
            raise InputError(
                f"Slot {slot!r} has several rows per prompt; use rows(slot, prompt) or "
                "slot(name).values with its offsets."
            )
        if layer is None:
            return kept.values.transpose(0, 1)
        return kept.values[self.layer_index(layer)]

    def to_numpy(
        self, slot: str | None = None, *, layer: int | None = None
    ) -> Float[np.ndarray, "*prompt_layer d_model"]:
        """`get` as a NumPy array, half precision as fp32: NumPy has no bfloat16."""
        return self.get(slot, layer=layer).float().numpy()

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
            raise InputError(
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
                raise InputError(f"No prompt with {column} {missing} in these activations.")
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
            raise InputError(f"No parallel id is shared by {first!r} and {second!r}.")

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
            raise InputError(
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
        return cached(self.rows("all", prompt), self.layers, self.site, self.n_heads)

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
        kept, layers, n_heads = uncached(cache, meta["n_tokens"].tolist(), site)
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
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return disk.write(Path(path), **values)

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
        return cls(**disk.read(Path(path), layers=layers, verify=verify))
