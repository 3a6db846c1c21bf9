"""`xlens process`: is there a shared space, do answers agree, does steering back help?

The questions of arXiv 2505.13141, asked of any parallel multiple-choice items: answers, states,
options inside, and steering, each with its controls.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.studies.asking import LATENT, LATENT_SUMMARY, LatentStudy
from xlens.studies.steering import (
    OUTPUTS,
    STEERING,
    SteeredStudy,
    questions_of,
    sentences_of,
    unused,
)
from xlens.studies.study import Kept, Step
from xlens.studies.subspace import SubspaceStudy
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.studies.steering import Asked
    from xlens.tasks.choices import Choices

Pooling = Literal["last", "mean", "mean_without_first", "mean_weighted"]
PARTS = (
    *("consistency", "similarity", "probe", "map", LATENT, LATENT_SUMMARY, "dissociation"),
    STEERING,
)
FEWEST_LANGUAGES = 4
"""For the test whether similarity and consistency go together, which is over pairs of them."""


@dataclass(frozen=True, kw_only=True)
class ProcessStudy(LatentStudy, SteeredStudy):
    """Do languages share a space inside, do their answers agree, and does steering help?

    ```
    xlens process gemma-3-270m --languages en de ru sw
    xlens process atlas --languages en de ru --lens jacobian=fit-lens-atlas
    xlens process gemma-3-270m --languages en de sw --steer mean_difference --layers 4 8 12-14
    xlens process gemma-3-270m --items xcopa:data/xcopa mine.jsonl --pivot it
    xlens process gemma-3-270m --sentences data/sib200 --sentence-layout sib200 --n-items 500
    ```

    With --sentences: is it language or is it script (as `xlens subspace`, with what is usual
    there), on the same page.

    Attributes:
        incomplete: Items that some language lacks, or that differ between languages (some of
            XCOPA's do): left out, or an error.
        pivot: The language suspected inside, and steered to; where the items lack it, options
            inside are left out, and steering is refused.
        pooling: How a prompt becomes one state: last, mean, mean_without_first, mean_weighted.
    """

    COMMAND: ClassVar[str] = "process"
    FREE: ClassVar[tuple[str, ...]] = ()

    incomplete: Literal["error", "drop"] = "drop"
    pooling: Pooling = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_items=5)
        if not self.steer and (given := unused(self)):
            shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{shown} without --steer: say which methods to try.")

    def check(self, data: "Asked", model: Any = None) -> None:
        """As `Study.check`."""
        super().check(questions_of(data), model)
        texts = sentences_of(data)
        SteeredStudy.check(self, texts, model)
        for sentences in texts.values():
            self.of_scripts.check(sentences, model)

    @property
    def of_scripts(self) -> SubspaceStudy:
        """What is asked of sentences, as a study of its own."""
        return SubspaceStudy(
            sentences=self.sentences,
            layout=self.sentence_layout,
            languages=self.languages,
            n_items=self.n_items,
            draws=self.draws,
            confidence=self.confidence,
            clusters=self.clusters,
            seed=self.seed,
        )

    def parts(self, data: "Asked") -> tuple[str, ...]:
        """As `Study.parts`: what the items of each set allow."""
        questions = questions_of(data).items()
        found = [f"{name}/{part}" for name, c in questions for part in self.parts_of(c)]
        for name, sentences in sentences_of(data).items():
            found += [f"{name}/{part}" for part in self.of_scripts.parts(sentences)]
            found += [f"{name}/{OUTPUTS}"] if self.steer else []
        return tuple(found)

    def parts_of(self, choices: "Choices") -> tuple[str, ...]:
        """What can be asked of these items."""
        without = {*self.without(choices), *(() if self.steer else (STEERING,))}
        without |= {LATENT_SUMMARY} if LATENT in without else set()
        return tuple(part for part in PARTS if part not in without)

    def without(self, choices: "Choices") -> dict[str, str]:
        """Parts that these items don't allow, with the reason."""
        tags, found = choices.languages, dict[str, str]()
        if self.pivot not in tags:
            found[LATENT] = f"the items have no {self.pivot}, only {', '.join(tags)}"
        if len(tags) < FEWEST_LANGUAGES:
            found["dissociation"] = (
                f"it needs {FEWEST_LANGUAGES} languages or more, and there are {len(tags)}"
            )
        return found

    def described(self, data: "Asked") -> dict[str, Any]:
        """As `Study.described`, with the parts that the items don't allow."""
        without = {name: self.without(choices) for name, choices in questions_of(data).items()}
        texts = {n: self.of_scripts.described(s) for n, s in sentences_of(data).items()}
        more = {"texts": texts} if texts else {}
        return {**super().described(data), "without": without, **more}

    def work(self, data: "Asked", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import process_work
        from xlens.studies.steps.steering_outputs import outputs_work

        work = {
            f"{name}/{part}": work
            for name, choices in questions_of(data).items()
            for part, work in process_work(choices, self, model).items()
        }
        for name, sentences in sentences_of(data).items():
            inside = self.of_scripts.work(sentences, model)
            work |= {f"{name}/{part}": each for part, each in inside.items()}
            if self.steer:
                work[f"{name}/{OUTPUTS}"] = outputs_work(sentences, self, model)
        return work

    def steps(self, data: "Asked", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.latent_process import process_steps

        for name, choices in questions_of(data).items():
            yield from process_steps(name, choices, model, self, kept)
        for name, sentences in sentences_of(data).items():
            for step in self.of_scripts.steps(sentences, model, kept):
                yield step.within(name)
            if self.steer:
                yield self.outputs_step(name, sentences, model, kept)
