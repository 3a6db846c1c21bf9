"""`xlens choices`: the same questions in many languages; do the answers agree?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from xlens.studies.asking import SampledStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.results import Result
    from xlens.tasks.choices import Choices

SCORES, PANEL = "scores", "consistency"


@dataclass(frozen=True, kw_only=True)
class ChoicesStudy(SampledStudy):
    """Ask the same multiple-choice questions in several languages: do the answers agree?

    ```
    xlens choices gemma-3-270m --languages en de sw
    xlens choices gemma-3-270m --languages en de --kinds code-territory --shots 0
    xlens choices gemma-3-270m --items mine.jsonl --out runs/mine
    xlens choices gemma-3-270m --items data/xcopa --layout xcopa --incomplete drop
    ```
    """

    COMMAND: ClassVar[str] = "choices"
    FREE: ClassVar[tuple[str, ...]] = (*SampledStudy.FREE, "by")

    def parts(self, data: "Mapping[str, Choices]") -> tuple[str, ...]:
        """As `Study.parts`."""
        return tuple(f"{name}/{part}" for name in data for part in (SCORES, PANEL))

    def work(
        self, data: "Mapping[str, Choices]", model: "Outline | HookedModel"
    ) -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import scoring_work

        return {f"{name}/{SCORES}": scoring_work(c, self, model) for name, c in data.items()}

    def steps(
        self, data: "Mapping[str, Choices]", model: "HookedModel", kept: Kept
    ) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.consistency import ConsistencyResult
        from xlens.engine import Scores

        for name, choices in data.items():
            scores, panel = f"{name}/{SCORES}", f"{name}/{PANEL}"
            yield Step.one(scores, Scores, partial(self._scores, model, choices, kept))
            yield Step.one(
                panel, ConsistencyResult, partial(self._panel, choices, scores), derived=True
            )

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
