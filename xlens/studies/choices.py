"""`xlens choices`: the same questions in many languages; do the answers agree?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from xlens.errors import InputError
from xlens.studies.asking import LATENT, LATENT_SUMMARY, LatentStudy, SampledStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.through_lens import unasked
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.results import Result
    from xlens.tasks.choices import Choices

SCORES, PANEL = "scores", "consistency"


@dataclass(frozen=True, kw_only=True)
class ChoicesStudy(LatentStudy):
    """Ask the same multiple-choice questions in several languages: do the answers agree?

    ```
    xlens choices gemma-3-270m --languages en de sw
    xlens choices gemma-3-270m --languages en de --kinds code-territory --shots 0
    xlens choices gemma-3-270m --items mine.jsonl --out runs/mine
    xlens choices gemma-3-270m --items data/xcopa --layout xcopa --incomplete drop
    xlens choices atlas --languages en de ru --lens jacobian=fit-lens-atlas
    ```

    Attributes:
        lens: Also read the options' probabilities inside, layer by layer, through this lens: logit,
            jacobian=PLACE or tuned=PLACE, as for `xlens lens`.
    """

    COMMAND: ClassVar[str] = "choices"
    FREE: ClassVar[tuple[str, ...]] = (*SampledStudy.FREE, "by")

    lens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lens:
            unasked(self, "what is read inside", "--lens", ("pivot", "n_latent"))

    def check(self, data: "Mapping[str, Choices]", model: Any = None) -> None:
        """As `Study.check`: also items whose options can't be read inside."""
        super().check(data, model)
        if self.lens:
            from xlens.tasks.choices.latent import offered_options

            for name, choices in data.items():
                if self.pivot not in choices.languages:
                    raise InputError(
                        f"Options are read in each language's words and in the pivot's, and the "
                        f"items of {name} have no {self.pivot}: there are "
                        f"{', '.join(choices.languages)}. Name one of these with --pivot, or "
                        "leave --lens out."
                    )
                how = self.shown(choices)
                offered_options(self.read_inside(choices), pivot=self.pivot, **how)

    def parts(self, data: "Mapping[str, Choices]") -> tuple[str, ...]:
        """As `Study.parts`."""
        return tuple(f"{name}/{part}" for name in data for part in self._kinds)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return (SCORES, PANEL, *((LATENT, LATENT_SUMMARY) if self.lens else ()))

    def work(
        self, data: "Mapping[str, Choices]", model: "Outline | HookedModel"
    ) -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import latent_work, scoring_work

        found: dict[str, Work] = {}
        for name, choices in data.items():
            found[f"{name}/{SCORES}"] = scoring_work(choices, self, model)
            if self.lens:
                found[f"{name}/{LATENT}"] = latent_work(choices, self, model)
        return found

    def steps(
        self, data: "Mapping[str, Choices]", model: "HookedModel", kept: Kept
    ) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.consistency import ConsistencyResult
        from xlens.engine import Scores
        from xlens.studies.steps.latent_process import latent_steps

        for name, choices in data.items():
            scores, panel = f"{name}/{SCORES}", f"{name}/{PANEL}"
            yield Step.one(scores, Scores, partial(self._scores, model, choices, kept))
            yield Step.one(
                panel, ConsistencyResult, partial(self._panel, choices, scores), derived=True
            )
            if self.lens:
                yield from latent_steps(name, choices, model, self, kept)

    def _scores(self, model: "HookedModel", choices: "Choices", kept: Kept, _: Parts) -> "Result":
        from xlens.tasks.choices import score_choices

        asked, shown = self.sampled(choices), self.shown(choices)
        return score_choices(model, asked, **shown, **kept.options)

    def _panel(self, choices: "Choices", scores: str, done: Parts) -> "Result":
        from xlens.engine import Scores
        from xlens.studies.steps.latent_process import panel_of

        found = done[scores]
        assert isinstance(found, Scores)
        gold = self.sampled(choices).gold
        return panel_of(found, gold, by=self.by, resampling=self.resampling)
