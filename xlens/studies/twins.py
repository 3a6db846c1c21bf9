"""`xlens twins`: the same questions to two models, a base and what training made of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.studies.asking import SampledStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.results import Result
    from xlens.served import ServedModel
    from xlens.tasks.choices import Choices

ANSWERS, GAIN = "answers", "gain"


@dataclass(frozen=True, kw_only=True)
class TwinsStudy(SampledStudy):
    """Ask two models the same questions and look inside both: what did training change?

    ```
    xlens twins gemma-3-270m runs/aligned/final --languages en de es sw
    xlens twins base-model its-instruct-version --items mine.jsonl
    xlens twins atlas --revisions step512 step2048 --languages en de ru
    ```

    The first model is what the others are compared with; all have the same layers and width. Right
    answers and their change by language; states (CKA, maps on common axes, subspaces, the first
    component); how sure each layer is; and which language's options it favours.

    Attributes:
        pivot: Whose options are looked for inside.
        pooling: How each prompt becomes one state of a layer.
        bound: Differences in right answers that count as none: of the test of equivalence.
    """

    COMMAND: ClassVar[str] = "twins"

    pivot: str = "en"
    pooling: Literal["last", "mean", "mean_without_first", "mean_weighted"] = "mean_without_first"
    bound: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        check_least(self, n_items=8)
        if not 0 < self.bound < 1:
            raise InputError(f"bound is {self.bound}; accepted is a difference between 0 and 1.")

    def check_models(self, folders: Mapping[str, str]) -> None:
        """As `Study.check_models`: two or more."""
        if len(folders) < 2:
            raise InputError(
                f"xlens twins compares models, and {next(iter(folders))!r} is one: name another "
                "of the same layers and width, or several revisions (--revisions)."
            )

    def check_together(
        self, outlines: "Mapping[str, Callable[[], Outline | HookedModel | ServedModel | None]]"
    ) -> None:
        """As `Study.check_together`: all of the same layers and width."""
        from xlens.models import HookedModel
        from xlens.models.sources import Outline

        known = {name: outline() for name, outline in outlines.items()}
        sizes = {n: one.size for n, one in known.items() if isinstance(one, Outline | HookedModel)}
        if len({(size.n_layers, size.d_model) for size in sizes.values()}) > 1:
            told = "; ".join(f"{n}: {size.n_layers} × {size.d_model}" for n, size in sizes.items())
            raise InputError(
                "xlens twins compares states of models on common axes, so that all need the same "
                f"layers and width (layers × width here: {told}). Give a base and what training "
                "made of it."
            )

    def parts(self, data: "Mapping[str, Choices]") -> tuple[str, ...]:
        """As `Study.parts`: of each model by itself."""
        from xlens.studies.steps.twins import OWN_PARTS

        return tuple(
            f"{name}/{part}"
            for name, choices in data.items()
            for part in (ANSWERS, *OWN_PARTS)
            if part != "latent" or self.pivot in choices.languages
        )

    def work(
        self, data: "Mapping[str, Choices]", model: "Outline | HookedModel"
    ) -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import scoring_work
        from xlens.studies.steps.twins import TWIN_RUNS
        from xlens.studies.work import passes

        found: dict[str, Work] = {}
        for name, choices in data.items():
            found[f"{name}/{ANSWERS}"] = scoring_work(choices, self, model)
            prompts = self._prompts(choices)
            found[f"{name}/states"] = passes(model.tokenizer, prompts, TWIN_RUNS)
        return found

    def steps(
        self, data: "Mapping[str, Choices]", model: "HookedModel", kept: Kept
    ) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.twins import OWN_PARTS
        from xlens.tasks.choices import ChoiceAnswers

        for name, choices in data.items():
            ask = partial(self._answers, model, choices, kept)
            yield Step.one(f"{name}/{ANSWERS}", ChoiceAnswers, ask)
            wanted = {
                f"{name}/{part}": kind
                for part, kind in OWN_PARTS.items()
                if part != "latent" or self.pivot in choices.languages
            }
            yield Step(wanted, partial(self._inside, name, model, choices, kept))

    def across(
        self,
        models: "Mapping[str, Parts]",
        folders: Mapping[str, str],
        series: "Mapping[str, Checkpoint]",
    ) -> Iterable[Step]:
        """As `Study.across`: the first model beside each of the others."""
        from xlens.studies.steps.twins import across_twins

        yield from across_twins(self, models)

    def _prompts(self, choices: "Choices") -> list[Any]:
        from xlens.tasks.choices import choice_prompts

        asked = self.sampled(choices)
        how = self.shown(choices)
        return [p for tag in asked.languages for p in choice_prompts(asked, tag, **how)[0]]

    def _answers(self, model: "HookedModel", choices: "Choices", kept: Kept, _: Parts) -> "Result":
        from xlens.tasks.choices import answer_choices

        how = {**self.shown(choices), **kept.options}
        return answer_choices(model, self.sampled(choices), by=self.by, **how)

    def _inside(
        self, name: str, model: "HookedModel", choices: "Choices", kept: Kept, _: Parts
    ) -> "dict[str, Result]":
        from xlens.studies.steps.twins import own_parts

        found = own_parts(
            model,
            self._prompts(choices),
            pivot=self.pivot,
            choices=self.sampled(choices),
            how=self.shown(choices),
            pooling=self.pooling,
            resampling=self.resampling,
            kept=kept,
        )
        return {f"{name}/{part}": result for part, result in found.items()}
