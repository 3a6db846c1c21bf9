"""`xlens steer`: does pushing the stream towards another language help?"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all
from xlens.studies.asking import AskingStudy
from xlens.studies.sentences import SentenceLayout
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.results import Result
    from xlens.tasks.choices import Choices
    from xlens.tasks.sentences import Sentences

    Asked = Mapping[str, Choices | Sentences]

Method = Literal["mean_difference", "pca", "pca_centred", "lda", "lsar", "neurons"]
REMOVALS = {"lsar": "the subspace of the languages' means (LSAR) taken out"}
NEURONS = "neurons"
STEERING, OUTPUTS = "steering", "outputs"
SENTENCES = "sentences"
"""What parallel sentences are called among the sets of questions."""
MOST_CONTROLS = 1_000  # of each kind, for every method; each is asked all that is reported on


@dataclass(frozen=True, kw_only=True)
class SteeredStudy(AskingStudy):
    """Studies in which the stream can be pushed.

    Attributes:
        sentences: Parallel sentences, a folder or a file for the layout tsv: continued under a push
            from the pivot to the other languages, and judged by what comes out. Without --items
            nothing else is asked.
        sentence_layout: Of --sentences: sib200, ntrex, pud, udhr, aligned (a text file per
            variety, by line) or tsv.
        pivot: The language suspected inside, and steered to; sentences are steered from it.
        steer: Methods of steering to try; neurons (LAPE, with --sentences only) sets the target's
            units to their mean in it and switches the pivot's off, in all blocks at once.
        steer_languages: Languages that are steered, or steered to in sentences; default all but
            the pivot.
        layers: Of steering: layers, or bands such as 7-9 that are changed together; default each
            by itself.
        strengths: Of steering with vectors; no steering is always there.
        removal_strengths: Of what is taken out (λ of arXiv 2505.15257; below 0, put in).
        slot: Of steering: all, last or generated.
        n_estimate: Items that vectors are estimated on.
        n_dev: Items that layer and strength are chosen on.
        n_test: Items that steering is reported on.
        n_controls: Random and shuffled vectors, of each this many.
        n_outputs: Of the items that steering is reported on, prompts continued freely, for the
            language of what comes.
        max_new_tokens: Of these; default what the longest option needs in the model's own tokens,
            12 or more; of sentences 32.
    """

    sentences: str | None = None
    sentence_layout: SentenceLayout = "aligned"
    pivot: str = "en"
    steer: tuple[Method, ...] = ()
    steer_languages: tuple[str, ...] = ()
    layers: tuple[int | str, ...] = ()
    strengths: tuple[float, ...] = (-1.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    removal_strengths: tuple[float, ...] = (-0.2, 0.1, 0.2, 0.3, 0.4, 1.0)
    slot: Literal["all", "last", "generated"] = "all"
    n_estimate: int = 100
    n_dev: int = 50
    n_test: int = 50
    n_controls: int = 3
    n_outputs: int = 20
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        if self.steer_languages:
            tags = tuple(standardize_all(self.steer_languages))
            object.__setattr__(self, "steer_languages", tags)
        check_least(self, n_estimate=5, n_dev=2, n_test=2, n_controls=1, n_outputs=0)
        check_least(self, max_new_tokens=1)
        if self.n_controls > MOST_CONTROLS:
            raise InputError(f"n_controls is {self.n_controls}; accepted are 1 to {MOST_CONTROLS}.")
        if self.sentences is None and self.sentence_layout != "aligned":
            raise InputError(
                f"sentence_layout={self.sentence_layout!r} is of sentences: name their folder with "
                "--sentences."
            )
        for name in ("strengths", "removal_strengths"):
            if not any(given := getattr(self, name)) or not all(map(math.isfinite, given)):
                raise InputError(f"{name}={given!r}; give numbers, at least one other than 0.")
        _ = self.bands

    @property
    def bands(self) -> tuple[int | tuple[int, ...], ...] | None:
        """`layers` as numbers, and bands as tuples of them; None: every layer by itself."""
        found = tuple(map(_band, self.layers))
        if len(set(found)) < len(found):
            raise InputError(f"--layers {' '.join(map(str, self.layers))}: give each once.")
        return found or None

    def tried(self, method: str) -> tuple[float, ...]:
        """Strengths of a method."""
        return self.removal_strengths if method in REMOVALS else self.strengths

    @property
    def n_steered(self) -> int:
        """Items that steering needs in all."""
        return self.n_estimate + self.n_dev + self.n_test

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: it may lack layers, or the room for what is generated."""
        return bool(self.layers) or self.max_new_tokens is not None

    def read(self) -> "dict[str, Choices | Sentences]":  # type: ignore[override]
        """As `Study.read`: the sets of questions by name, and the sentences."""
        from xlens.tasks.sentences import read_sentences

        found: dict[str, Choices | Sentences] = {}
        if self.items or self.sentences is None:
            found.update(self.sets())
        if self.sentences is not None:
            found[SENTENCES] = read_sentences(
                self.sentences,
                layout=self.sentence_layout,
                languages=list(self.languages) or None,
                incomplete=self.incomplete,
            )
        return found

    def check(self, data: "Asked", model: Any = None) -> None:
        """As `Study.check`: languages and numbers of items, and layers."""
        from xlens.studies.steps.steering import check_steering
        from xlens.studies.steps.steering_outputs import check_outputs

        super().check(questions_of(data), model)
        for choices in questions_of(data).values() if self.steer else ():
            check_steering(choices, self, model)
        for sentences in sentences_of(data).values() if self.steer else ():
            check_outputs(sentences, self, model)

    def taken(self, data: Any) -> "Asked":  # type: ignore[override]
        """As `Study.taken`: questions, sentences, or several of them by name."""
        from xlens.tasks.sentences import Sentences

        sets: Any = {SENTENCES: data} if isinstance(data, Sentences) else data
        if not isinstance(sets, Mapping) or not sentences_of(sets):
            return super().taken(data)
        rest = questions_of(sets)
        texts = {
            str(name): each.select(languages=self.languages) if self.languages else each
            for name, each in sentences_of(sets).items()
        }
        return {**(super().taken(rest) if rest else {}), **texts}

    def steering_step(
        self, name: str, choices: "Choices", model: "HookedModel", kept: Kept
    ) -> Step:
        """Of one set of questions."""
        from xlens.steering import SteeringResult

        return Step.one(
            f"{name}/{STEERING}", SteeringResult, partial(self._steered, choices, model, kept)
        )

    def outputs_step(
        self, name: str, sentences: "Sentences", model: "HookedModel", kept: Kept
    ) -> Step:
        """Of sentences."""
        from xlens.steering import OutputSteering

        return Step.one(
            f"{name}/{OUTPUTS}", OutputSteering, partial(self._said, sentences, model, kept)
        )

    def _said(self, sentences: "Sentences", model: "HookedModel", kept: Kept, _: Parts) -> "Result":
        from xlens.studies.steps.steering_outputs import steer_outputs

        return steer_outputs(model, sentences, study=self, **kept.options)

    def _steered(self, choices: "Choices", model: "HookedModel", kept: Kept, _: Parts) -> "Result":
        from xlens.studies.steps.steering import steer_choices

        return steer_choices(model, choices, study=self, **kept.options)


@dataclass(frozen=True, kw_only=True)
class SteeringStudy(SteeredStudy):
    """Does pushing the stream towards another language help? Chosen here, reported there.

    Vectors are estimated on some items, layer and strength chosen on others, and the effect is
    reported on a third part, beside random and shuffled vectors.

    ```
    xlens steer gemma-3-270m --languages en de sw --layers 4 8 12-14
    xlens steer gemma-3-270m --items xcopa:data/xcopa --steer lda lsar --pivot it
    xlens steer gemma-3-270m --sentences data/sib200 --sentence-layout sib200 --languages en de ru
    ```

    With --sentences: beginnings of sentences are continued under a push from the pivot to every
    other language, and what comes out is judged by its language and by what it is about.
    """

    COMMAND: ClassVar[str] = "steer"
    FREE: ClassVar[tuple[str, ...]] = ()

    steer: tuple[Method, ...] = ("mean_difference",)
    shots: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steer:
            raise InputError("steer is empty: name a method of steering, mean_difference, say.")

    def parts(self, data: "Asked") -> tuple[str, ...]:
        """As `Study.parts`."""
        return (
            *(f"{name}/{STEERING}" for name in questions_of(data)),
            *(f"{name}/{OUTPUTS}" for name in sentences_of(data)),
        )

    def work(self, data: "Asked", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import steering_work
        from xlens.studies.steps.steering_outputs import outputs_work

        work = {
            f"{name}/{STEERING}": steering_work(c, self, model)
            for name, c in questions_of(data).items()
        }
        texts = sentences_of(data).items()
        return work | {f"{name}/{OUTPUTS}": outputs_work(s, self, model) for name, s in texts}

    def steps(self, data: "Asked", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        for name, choices in questions_of(data).items():
            yield self.steering_step(name, choices, model, kept)
        for name, sentences in sentences_of(data).items():
            yield self.outputs_step(name, sentences, model, kept)


def questions_of(data: "Mapping[str, Any]") -> "dict[str, Choices]":
    """The sets that are questions."""
    from xlens.tasks.choices import Choices

    return {name: each for name, each in data.items() if isinstance(each, Choices)}


def sentences_of(data: "Mapping[str, Any]") -> "dict[str, Sentences]":
    """The sets that are sentences."""
    from xlens.tasks.sentences import Sentences

    return {name: each for name, each in data.items() if isinstance(each, Sentences)}


def unused(study: SteeredStudy) -> list[str]:
    """Options of steering that were given though nothing is steered."""
    own = {f.name: f.default for f in fields(SteeredStudy)}
    asked = set(SteeredStudy.__annotations__) - {"pivot", "steer", "sentences", "sentence_layout"}
    return [name for name in own if name in asked and getattr(study, name) != own[name]]


def _band(given: int | str) -> int | tuple[int, ...]:
    """`7`, or a band `7-9`."""
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", str(given))
    first, last = map(int, (found[1], found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(
            f"--layers {given!r}: give a layer, from 1 on (7), or a band of them (7-9)."
        )
    return tuple(range(first, last + 1)) if found and found[2] else first
