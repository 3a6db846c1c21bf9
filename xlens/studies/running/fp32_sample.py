"""The sample of a run's prompts that is asked of the model in fp32, too."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.precision import (
    PrecisionResult,
    Reference,
    precision,
    read_reference,
    require_plain,
    sample_prompts,
)
from xlens.prompts import Prompts
from xlens.results import HEADER, Result, load
from xlens.served import ServedModel
from xlens.studies.running.kept import MadeFrom
from xlens.studies.running.places import Place
from xlens.studies.study import Step, Study
from xlens.studies.work import Plan, passes

FP32_SAMPLE = "fp32-sample"
OPTION = "fp32_sample"


@dataclass(frozen=True)
class Sampled:
    """What is asked of each model in fp32.

    Attributes:
        study: Whose prompts they are.
        data: What is asked about.
        n: Prompts of each model; None: nothing is asked.
        drawn: Those of each model whose part isn't there yet, as far as is known without its
            weights; by folder.
    """

    study: Study
    data: Any
    n: int | None
    drawn: Mapping[str, Prompts]

    @classmethod
    def of(
        cls, study: Study, data: Any, chosen: Sequence[Place], n: int | None, results: Path | None
    ) -> Self:
        """Refuse what can't be compared, before any model is loaded.

        Args:
            study: Whose prompts they are.
            data: What is asked about.
            chosen: The models.
            n: Prompts of each; None: it isn't asked.
            results: Where parts are that count; None: none do.

        Raises:
            ValueError: a model that is served, given as an object, or quantised; fewer prompts than
                are asked for.
        """
        if n is None:
            return cls(study, data, None, {})
        new = [place for place in chosen if not _made(results and results / place.folder, n)]
        return cls(study, data, n, {place.folder: _checked(study, data, place, n) for place in new})

    def planned(self, plan: Plan, place: Place) -> Plan:
        """What is made of a model that isn't loaded, with this part: read in fp32 and as it is."""
        if not self.due(place):
            return plan
        outline = place.outline()
        assert isinstance(outline, Outline)  # as when its prompts were drawn
        read = passes(outline.tokenizer, self.drawn[place.folder], (1.0, 1.0))
        work = {**(plan.work or {}), FP32_SAMPLE: read}
        return replace(plan, parts=(*plan.parts, FP32_SAMPLE), work=work)

    def due(self, place: Place) -> bool:
        """Whether the model is still to be compared."""
        return place.folder in self.drawn

    def reference(self, place: Place, *, progress: bool) -> Reference | None:
        """What the model in fp32 says, which is let go; None where nothing is due.

        Raises:
            ValueError: fewer prompts than are asked for are left, now that its vocabulary is known.
        """
        if self.n is None or not self.due(place):
            return None
        assert place.in_fp32 is not None
        found = self._read(place.in_fp32(), self.n, place, progress)
        gc.collect()  # hooked modules refer to each other: two models may not fit
        return found

    def _read(self, model: HookedModel, n: int, place: Place, progress: bool) -> Reference:
        asked = self.study.prepared(self.data, model)[0]
        return read_reference(model, _drawn(self.study, asked, model, n, place), progress=progress)

    def part(
        self, model: Any, base: Reference | None, made_from: MadeFrom, *, progress: bool
    ) -> Mapping[str, Result]:
        """The part, made or as it was saved; none where it isn't asked.

        Args:
            model: In the dtype of the run.
            base: What it says in fp32; None where the part is there.
            made_from: What decides the model's parts.
            progress: Show bars.
        """
        if self.n is None:
            return {}

        def make(_: Any) -> PrecisionResult:
            assert base is not None and isinstance(model, HookedModel)
            return precision(model, base, progress=progress)

        # Nothing that only shapes intervals decides it; another number of prompts makes it anew.
        known = {name: v for name, v in made_from.known.items() if name not in made_from.free}
        own = MadeFrom({**known, OPTION: self.n}, (OPTION,), made_from.folder)
        return own.take(Step.one(FP32_SAMPLE, PrecisionResult, make, derived=True), {})


def _made(at: Path | None, n: int) -> bool:
    """Whether a model's part is there, of as many prompts."""
    if at is None or not (at / FP32_SAMPLE / HEADER).is_file():
        return False
    return (load(at / FP32_SAMPLE).provenance.get("made_from") or {}).get(OPTION) == n


def _checked(study: Study, data: Any, place: Place, n: int) -> Prompts:
    if isinstance(place.there, ServedModel):
        raise InputError(
            f"{OPTION}={n}: {place.name} is served, and gives text only. Leave {OPTION} out, or "
            "load the model here."
        )
    if place.in_fp32 is None:
        raise InputError(
            f"{OPTION}={n}: {place.name} is there already, and how to load it in fp32 isn't known. "
            "Name the model, or compare by read_reference and precision of xlens.precision."
        )
    outline = place.outline()
    assert isinstance(outline, Outline)  # it is loaded by a name
    require_plain(outline.config, place.name)
    return _drawn(study, study.prepared(data, outline)[0], outline, n, place)


def _drawn(study: Study, asked: Any, model: HookedModel | Outline, n: int, place: Place) -> Prompts:
    prompts = study.prompts(asked, model)
    if not prompts:
        raise InputError(
            f"{OPTION}={n}: {type(study).__name__} doesn't say what it reads. Leave {OPTION} out, "
            "or let its `work` count its prompts (or `prompts` give them)."
        )
    try:
        return sample_prompts(prompts, n, seed=study.seed)
    except ValueError as error:
        raise InputError(f"{OPTION}={n}, {place.name}: {error}") from error
