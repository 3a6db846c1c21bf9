"""How models are loaded: options of every command that has a model, light until one is loaded."""

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from xlens.checks import check_fields
from xlens.studies.study import Switch

if TYPE_CHECKING:
    from xlens.models import HookedModel

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a model is loaded, and where it runs.

    Attributes:
        dtype: Of the weights; the readout is fp32 in any case.
        revision: Branch, tag or commit of a hub id, or the step of a model that comes with xlens.
            Several, one after the other, are models of their own.
        trust_remote_code: Run code that comes with the checkpoint.
        attention: What computes attention: eager, sdpa, …; default what suits the model.
        adapter: A LoRA or another adapter of peft on the model: its folder or hub id.
        merge: Fold the adapter into the weights.
        executor: Where it runs: local; ray (a cluster that RAY_ADDRESS names, else this machine) or
            ray://HOST:PORT, also with ?workers=N&cpus=N&gpus=N&shared=yes (the extra `ray`).
    """

    dtype: Dtype = "float32"
    revision: tuple[str, ...] = ()
    trust_remote_code: Annotated[bool, Switch] = False
    attention: str | None = None
    adapter: str | None = None
    merge: Annotated[bool, Switch] = False
    executor: str = "local"

    def __post_init__(self) -> None:
        check_fields(self)

    def each(self) -> "list[tuple[str | None, Loading]]":
        """Every revision by itself, with its name; None where none was asked for."""
        return [(name, replace(self, revision=(name,))) for name in self.revision] or [(None, self)]

    @property
    def only_revision(self) -> str | None:
        """The one that is asked for, if any.

        Raises:
            ValueError: several.
        """
        if len(self.revision) > 1:
            raise ValueError(
                f"One model is asked here, and revision names {len(self.revision)}: "
                f"{', '.join(self.revision)}. Name one."
            )
        return self.revision[0] if self.revision else None

    def load(self, source: str) -> "HookedModel":
        """`xlens.load` with these options, which also say where it will run."""
        import torch

        from xlens.engine import executors
        from xlens.models import load

        executors.use(self.executor)
        return load(
            source,
            dtype=getattr(torch, self.dtype),
            revision=self.only_revision,
            trust_remote_code=self.trust_remote_code,
            attention=self.attention,
            adapter=self.adapter,
            merge=self.merge,
        )

    def options(self) -> dict[str, Any]:
        """As a run records it: of what runs began without, only what is given.

        Where it runs is left out: a run may be taken up again elsewhere.
        """
        kept = ("dtype", "revision", "trust_remote_code")
        given = {name: value for name, value in asdict(self).items() if name in kept or value}
        return {name: value for name, value in given.items() if name != "executor"}
