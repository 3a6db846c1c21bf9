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
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.results import Result
    from xlens.tasks.choices import Choices

Method = Literal["mean_difference", "pca", "pca_centred", "lda", "lsar"]
REMOVALS = {"lsar": "the subspace of the languages' means (LSAR) taken out"}
STEERING = "steering"
MOST_CONTROLS = 1_000  # of each kind, for every method; each is asked all that is reported on


@dataclass(frozen=True, kw_only=True)
class SteeredStudy(AskingStudy):
    """Studies in which the stream can be pushed.

    Attributes:
        pivot: The language suspected inside, and steered to.
        steer: Methods of steering to try.
        steer_languages: Languages that are steered; default all but the pivot.
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
            12 or more.
    """

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

    def check(self, data: "Mapping[str, Choices]", model: Any = None) -> None:
        """As `Study.check`: languages and numbers of items, and layers."""
        from xlens.studies.steps.steering import check_steering

        super().check(data, model)
        for choices in data.values():
            if self.steer:
                check_steering(choices, self, model)

    def steering_step(
        self, name: str, choices: "Choices", model: "HookedModel", kept: Kept
    ) -> Step:
        """Of one set of questions."""
        from xlens.steering import SteeringResult

        return Step.one(
            f"{name}/{STEERING}", SteeringResult, partial(self._steered, choices, model, kept)
        )

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
    ```
    """

    COMMAND: ClassVar[str] = "steer"
    FREE: ClassVar[tuple[str, ...]] = ()

    steer: tuple[Method, ...] = ("mean_difference",)
    shots: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steer:
            raise InputError("steer is empty: name a method of steering, mean_difference, say.")

    def parts(self, data: "Mapping[str, Choices]") -> tuple[str, ...]:
        """As `Study.parts`."""
        return tuple(f"{name}/{STEERING}" for name in data)

    def work(
        self, data: "Mapping[str, Choices]", model: "Outline | HookedModel"
    ) -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.asking_work import steering_work

        return {f"{name}/{STEERING}": steering_work(c, self, model) for name, c in data.items()}

    def steps(
        self, data: "Mapping[str, Choices]", model: "HookedModel", kept: Kept
    ) -> Iterable[Step]:
        """As `Study.steps`."""
        for name, choices in data.items():
            yield self.steering_step(name, choices, model, kept)


def unused(study: SteeredStudy) -> list[str]:
    """Options of steering that were given though nothing is steered."""
    own = {f.name: f.default for f in fields(SteeredStudy)}
    asked = set(SteeredStudy.__annotations__) - {"pivot", "steer"}
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
