"""How models are loaded: options of every command that has a model, light until one is loaded."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from xlens.checks import check_fields, check_least
from xlens.errors import InputError
from xlens.studies.study import Switch
from xlens.terminal import waiting

if TYPE_CHECKING:
    from xlens.models import HookedModel

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Spread = Literal["auto", "balanced", "balanced_low_0", "sequential"]
_ALWAYS = ("dtype", "revision", "trust_remote_code")
_ELSEWHERE = ("executor", "keep_weights", "absent", "device", "device_map")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a model is loaded, and where it runs.

    Attributes:
        dtype: Of the weights, auto for the checkpoint's own; the readout is fp32 in any case.
        fp32_sample: So many of the run's prompts, drawn with its seed, are also asked of the model
            in fp32: what the dtype changes of states and next tokens. The two are never in memory
            at once.
        device: Where the model runs, such as cpu or cuda:1; default the GPU if there is one.
        device_map: Instead of a device, how the model is spread over several GPUs.
        revision: Branch, tag or commit of a hub id, the step of a model that comes with xlens, or a
            folder in a folder of checkpoints. Several, one after the other, are models of their
            own: names, patterns such as 'step*000', or all.
        series: A list of checkpoints instead of a model: TSV, CSV or JSON Lines with model,
            revision, name, step, tokens.
        absent: Checkpoints of several that aren't there any more: an error, or left out.
        keep_weights: Of weights that a run fetches from the hub, so many finished revisions stay on
            disk; default all. The next one is fetched while one runs.
        trust_remote_code: Run code that comes with the checkpoint.
        attention: What computes attention: eager, sdpa, …; default what suits the model.
        compile: Let torch.compile compile the blocks: minutes at first, for long runs.
        adapter: A LoRA or another adapter of peft on the model: its folder or hub id.
        merge: Fold the adapter into the weights.
        executor: Where it runs: local; ray (a cluster that RAY_ADDRESS names, else this machine) or
            ray://HOST:PORT, also with ?workers=N&cpus=N&gpus=N&shared=yes (the extra `ray`).
    """

    dtype: Dtype = "float32"
    fp32_sample: int | None = None
    device: str | None = None
    device_map: Spread | None = None
    revision: Annotated[tuple[str, ...], Parameter(name=["--revision", "--revisions"])] = ()
    series: Path | None = None
    absent: Literal["error", "drop"] = "error"
    keep_weights: int | None = None
    trust_remote_code: Annotated[bool, Switch] = False
    attention: str | None = None
    compile: Annotated[bool, Switch] = False
    adapter: str | None = None
    merge: Annotated[bool, Switch] = False
    executor: str = "local"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.series is not None and self.revision:
            raise InputError(
                f"revision={list(self.revision)} beside series={str(self.series)!r}: the list "
                "names its revisions itself. Leave one of the two out."
            )
        check_least(self, keep_weights=0, fp32_sample=1)
        if self.fp32_sample is not None and self.dtype == "float32":
            raise InputError(
                f"fp32_sample={self.fp32_sample} with dtype='float32': the run is in fp32 itself, "
                "so there is nothing to compare. Give another dtype (bfloat16, float16, auto), or "
                "leave fp32_sample out."
            )
        if self.device is not None:
            if self.device_map is not None:
                raise InputError(
                    f"device={self.device!r} beside device_map={self.device_map!r}: one device, or "
                    "several by the map. Leave one of the two out."
                )
            from xlens.models.hf import checked_device

            checked_device(self.device)
        if self.executor != Loading.executor:
            from xlens.engine.executors import find

            find(self.executor)

    def in_fp32(self) -> "Loading":
        """The same model in fp32, which the sample is compared with."""
        return replace(self, dtype="float32", fp32_sample=None)

    def of(self, revision: str | None) -> "Loading":
        """The same for one checkpoint of them."""
        one = () if revision is None else (revision,)
        return replace(self, series=None, revision=one, fp32_sample=None)

    @property
    def only_revision(self) -> str | None:
        """The one that is asked for, if any.

        Raises:
            ValueError: several.
        """
        if self.series is not None:
            raise InputError(
                f"One model is asked here, and series={str(self.series)!r} lists several: name one."
            )
        if len(self.revision) > 1:
            raise InputError(
                f"One model is asked here, and revision names {len(self.revision)}: "
                f"{', '.join(self.revision)}. Name one."
            )
        return self.revision[0] if self.revision else None

    def load(self, source: str) -> "HookedModel":
        """`xlens.load` with these options, which also say where it will run.

        Raises:
            ValueError: several revisions, or a sample in fp32, which is of a study's prompts.
        """
        from xlens.engine import executors
        from xlens.models import load

        if self.fp32_sample is not None:
            raise InputError(
                f"fp32_sample={self.fp32_sample}: it is drawn of the prompts of a study (xlens "
                "lens, xlens choices, …), and here is none. Leave it out; other prompts are "
                "compared by read_reference and precision of xlens.precision."
            )
        executors.use(self.executor)
        with waiting(f"loading {source}"):
            return load(
                source,
                dtype=self.dtype,
                device=self.device,
                device_map=self.device_map,
                revision=self.only_revision,
                trust_remote_code=self.trust_remote_code,
                attention=self.attention,
                compile=self.compile,
                adapter=self.adapter,
                merge=self.merge,
            )

    @property
    def main_device(self) -> str:
        """Where it will run, or the first of several."""
        import torch

        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def options(self) -> dict[str, Any]:
        """As a run records it: of what runs began without, only what is given.

        Where it runs, and what stays on that disk, is left out: a run may be taken up elsewhere.
        """
        told: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _ALWAYS or (value != field.default and field.name not in _ELSEWHERE):
                told[field.name] = str(value) if isinstance(value, Path) else value
        return told
