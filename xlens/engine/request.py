"""`Request`: what is asked of a model, whole; `Execution`: how it is run.

A request holds everything that decides the numbers but the model: it is compared by that, hashed,
pickled, and its parts are computed wherever the model can be had. An execution decides nothing but
where, and in which portions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor

from xlens.engine.interventions import Edits
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.computation import computation
from xlens.models.sites import Place, Point
from xlens.prompts import TokenizedPrompt
from xlens.sites import RESID
from xlens.store import EPOCH, Parts, Store, digest
from xlens.store.keys import canonical, plain

# A shard: its tensors, and a table of rows.
Shard = tuple[Mapping[str, Tensor], pd.DataFrame]


@dataclass(frozen=True)
class Subject:
    """The model that a request is about, without its weights.

    Attributes:
        provenance: What results say of it and of the prompts.
        loading: What `xlens.load` was asked for; None for a model object.
        epoch: Of the engine.
        model: The model, in the process that has it: a pickle leaves it out.
    """

    provenance: dict[str, Any]
    loading: dict[str, Any] | None
    epoch: int
    model: HookedModel | None = field(repr=False)

    @classmethod
    def of(cls, model: HookedModel, tokens: Sequence[TokenizedPrompt]) -> Self:
        """The model as it is now, at a glance: a store asks for more (`look`)."""
        return cls(model.provenance(tokens, glance=True), model.loading, EPOCH, model)

    def look(self) -> None:
        """See all weights, before something is looked up or kept by their hash."""
        if self.model is not None:
            self.provenance["fingerprint"] = self.model.fingerprint

    @cached_property
    def computation(self) -> dict[str, Any]:
        """What decides its numbers besides weights, config and prompts.

        A walk over all modules: only where a key is asked for, or a pickle.
        """
        assert self.model is not None
        return computation(self.model.hf_model)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "computation": self.computation, "model": None}

    @property
    def name(self) -> str:
        """What results call it."""
        return str(self.provenance["model"])

    @property
    def fingerprint(self) -> str:
        """Of its weights and config."""
        return str(self.provenance["fingerprint"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Request(ABC):
    """What is asked of a model. Two are equal where their keys are.

    Attributes:
        subject: The model.
        tokens: The prompts as tokens.
        points: Residual points, or places of a site inside blocks; what is read there.
        slots: Positions.
        edits: Interventions, bound to the tokens.
        split: Prompts of shard i are `split[i]:split[i+1]`.
    """

    subject: Subject
    tokens: tuple[TokenizedPrompt, ...]
    points: tuple[Point, ...] = ()
    slots: tuple[str, ...] = ()
    edits: Edits
    split: tuple[int, ...]

    kind: ClassVar[str]

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.json)

    @property
    def site(self) -> str:
        """Where it reads: one of `xlens.sites.SITES`."""
        first = next(iter(self.points), None)
        return first.site if isinstance(first, Place) else RESID

    @property
    def layers(self) -> tuple[int, ...]:
        """Points as numbers: of the stream, or of blocks."""
        return tuple(int(point) for point in self.points)

    @property
    def shards(self) -> int:
        """Into how many it is split."""
        return len(self.split) - 1

    @property
    def about(self) -> dict[str, Any]:
        """What a list of the store shows beside the key."""
        languages = sorted({t.prompt.language for t in self.tokens})
        return {"model": self.subject.name, "prompts": len(self), "languages": languages}

    @cached_property
    def key(self) -> dict[str, Any]:
        """All that decides the bytes, as plain JSON values; digests of what is long.

        Weights, config, tokenizer's ids, dtype, attention, buffers and attributes of the modules,
        versions of the code, interventions, those around included, and what else is asked.
        """
        known = self.subject.provenance
        return plain(
            {
                "kind": self.kind,
                "epoch": self.subject.epoch,
                **{name: known.get(name) for name in ("fingerprint", "dtype", "attention")},
                **({"compiled": known["compiled"]} if "compiled" in known else {}),
                "tokens": digest([list(t.ids) for t in self.tokens]),
                "prompts": digest([[t.prompt.id, t.prompt.language] for t in self.tokens]),
                "computation": self.subject.computation,
                "interventions": self.edits.key,
                "split": self.split,
                **self.decided(),
            }
        )

    @property
    def json(self) -> str:
        """The key as the one JSON text that a store's id follows from."""
        return canonical(self.key)

    @abstractmethod
    def decided(self) -> dict[str, Any]:
        """What else decides the values, by names of the key."""

    @abstractmethod
    def compute(self, model: HookedModel, how: "Execution", parts: Parts | None = None) -> Shard:
        """All prompts' values, as one shard of the store holds them.

        Args:
            model: The subject.
            how: With which budget, and so on.
            parts: Keeps what is done meanwhile, and has what was done before; not every kind does.
        """

    def part(self, start: int, stop: int) -> Self:
        """The request for prompts `start:stop`, in one shard."""
        return replace(
            self,
            tokens=self.tokens[start:stop],
            edits=self.edits.take(range(start, stop)),
            split=(0, stop - start),
        )

    def shard(self, number: int) -> Self:
        """The request for one shard."""
        return self.part(self.split[number], self.split[number + 1])

    def sent(self) -> Self:
        """The same with no more than is needed elsewhere."""
        return replace(self, edits=self.edits.sent())

    def on(self, device: torch.device) -> Self:
        """The same for a model on that device."""
        return replace(self, edits=self.edits.on(device))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a request is run.

    Attributes:
        token_budget: Most tokens in a pass; None for what suits the device.
        share_prefixes: Run common beginnings once, where the family's cache can be trusted.
        store: Where shards are kept.
        progress: Show bars.
        executor: Where shards are computed: `local`, `ray`, `ray://HOST:PORT`, or an executor; None
            for the one in use (`xlens.engine.executors.use`).
    """

    token_budget: int | None = None
    share_prefixes: bool = True
    store: Store | str | Path | None = None
    progress: bool = True
    executor: Any = None

    def __post_init__(self) -> None:
        if self.token_budget is not None and self.token_budget < 1:
            raise InputError(f"token_budget is {self.token_budget}; it must be at least 1 token.")


def split(n: int, step: int) -> tuple[int, ...]:
    """`n` prompts in shards of `step`."""
    return (*range(0, n, step), n)
