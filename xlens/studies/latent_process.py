"""Is there a shared space, does leaving it go with inconsistency, does steering back help?

The questions of arXiv 2505.13141, asked of any parallel multiple-choice items: answers, states,
options inside, and steering, each with its controls, and saved as soon as it is done.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from xlens.checks import typed
from xlens.consistency import (
    ConsistencyResult,
    Dissociation,
    consistency,
    dissociation,
    option_scores,
)
from xlens.consistency.dissociation import FEWEST
from xlens.engine import Scores, Store, harvest
from xlens.languages import standardize
from xlens.lengths import By
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed, jsonable
from xlens.stats import Resampling
from xlens.steering import SteeringResult
from xlens.studies.options import Intervals
from xlens.studies.parts import identity, run_parts
from xlens.studies.steering import SteeringStudy, check_steering, steer_choices
from xlens.subspace import (
    LSAR,
    LanguageMap,
    LanguagePairs,
    LanguageProbe,
    language_map,
    language_probe,
    language_similarity,
)
from xlens.tasks.choices import (
    Choices,
    LatentOptions,
    choice_prompts,
    latent_options,
    score_choices,
)
from xlens.tasks.items import content

PARTS: dict[str, type[Result]] = {
    "consistency": ConsistencyResult,
    "similarity": LanguagePairs,
    "probe": LanguageProbe,
    "map": LanguageMap,
    "latent": LatentOptions,
    "dissociation": Dissociation,
    "steering": SteeringResult,
}


@dataclass(frozen=True, kw_only=True)
class ProcessStudy(Intervals):
    """What is asked of a set of items.

    Attributes:
        pivot: The language suspected inside, and steered to; where the items lack it, options
            inside are left out, and steering is refused.
        n_items: Most items asked, drawn with `seed`.
        n_latent: Of these, items whose options are read inside.
        shots: Demonstrations.
        by: Options compared by summed log-probability, or that per token, byte or character.
        pooling: How a prompt becomes one state.
        steering: None leaves steering out; its shots, `by`, seed and intervals are the study's.
    """

    pivot: str = "en"
    n_items: int = 100
    n_latent: int = 30
    shots: int = 2
    by: By = "logprob"
    pooling: str = "last"
    steering: SteeringStudy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        if min(self.n_items, self.n_latent) < 5:
            raise ValueError(
                f"n_items is {self.n_items} and n_latent {self.n_latent}; an analysis over items "
                "needs at least 5 of each."
            )
        if self.steering is not None:
            names = ("shots", "by", *(field.name for field in fields(Intervals)))
            shared = {name: getattr(self, name) for name in names}
            mine = replace(self.steering, target=self.pivot, **shared)
            object.__setattr__(self, "steering", mine)


def panel_of(
    scores: Scores, gold: Mapping[str, int], *, by: By, resampling: Resampling
) -> ConsistencyResult:
    """Accuracy and agreement of scored options, with the provenance of their scores."""
    found = consistency(option_scores(scores, gold, by=by), resampling=resampling)
    return replace(found, provenance=analysed(scores.provenance, "consistency", found.provenance))


@typed
def planned_parts(choices: Choices, study: ProcessStudy) -> tuple[str, ...]:
    """What can be asked of these items; wrong requests show before a model is loaded.

    Raises:
        ValueError: steering to a language that the items lack, or too few items for it.
    """
    if study.steering is not None:
        check_steering(choices, study.steering)
    without = {"steering"} if study.steering is None else set[str]()
    without |= set(left_out_parts(choices, study))
    return tuple(name for name in PARTS if name not in without)


def left_out_parts(choices: Choices, study: ProcessStudy) -> dict[str, str]:
    """Parts that these items don't allow, with the reason."""
    tags = choices.languages
    without: dict[str, str] = {}
    if study.pivot not in tags:
        without["latent"] = f"the items have no {study.pivot}, only {', '.join(tags)}"
    if len(tags) < FEWEST:
        without["dissociation"] = f"it needs {FEWEST} languages or more, and there are {len(tags)}"
    return without


@typed
def study_process(
    model: HookedModel,
    choices: Choices,
    *,
    study: ProcessStudy | None = None,
    folder: Path | None = None,
    store: Store | None = None,
    progress: bool = True,
) -> dict[str, Result]:
    """Ask, look inside, correlate, steer.

    Args:
        model: From `xlens.load`.
        choices: Parallel items in several languages.
        study: What is asked.
        folder: Each part is saved there as soon as it is done, and read from there when it is: a
            stopped study goes on where it was.
        store: Where states and scores are kept.
        progress: Show bars.

    Returns:
        By name, those of `PARTS` that these items allow.

    Raises:
        ValueError: what the parts refuse; a folder with results of another model, items or study.
    """
    study = study or ProcessStudy()
    asked = choices.sample(min(study.n_items, len(choices)), seed=study.seed)
    names = planned_parts(choices, study)
    done: dict[str, Result] = {}
    shown: dict[str, Any] = {"shots": study.shots, "seed": study.seed, "pool": choices}
    kept: dict[str, Any] = {"store": store, "progress": progress}

    def ask() -> Result:
        scores = score_choices(model, asked, **shown, **kept)
        return panel_of(scores, asked.gold, by=study.by, resampling=study.resampling)

    def states() -> Any:
        prompts: list[Prompt] = [
            p for tag in asked.languages for p in choice_prompts(asked, tag, **shown)[0]
        ]
        slots = study.pooling if study.pooling == "last" else "all"
        # Not the embedding: at the last position it is often the same token in every prompt.
        layers = range(1, model.n_layers + 1)
        return harvest(model, Prompts(prompts), layers=layers, slots=slots, **kept)

    held: list[Any] = []

    def activations() -> Any:
        if not held:
            held.append(states())
        return held[0]

    def latent() -> Result:
        few = asked.sample(min(study.n_latent, len(asked)), seed=study.seed)
        return latent_options(model, few, pivot=study.pivot, by=study.by, **shown, **kept)

    def correlate() -> Result:
        panel = done["consistency"]
        assert isinstance(panel, ConsistencyResult)
        return dissociation(done["similarity"].to_frame(), panel, seed=study.seed)

    run: dict[str, Callable[[], Result]] = {
        "consistency": ask,
        "similarity": lambda: language_similarity(
            activations(), pooling=study.pooling, resampling=study.resampling
        ),
        "probe": lambda: language_probe(
            activations(), LSAR(), pooling=study.pooling, resampling=study.resampling
        ),
        "map": lambda: language_map(activations(), pooling=study.pooling),
        "latent": latent,
        "dissociation": correlate,
        "steering": lambda: steer_choices(model, choices, study=study.steering, **kept),
    }
    made_from = {
        "model": identity(model),
        "choices": choices.source,
        "items": content(choices.frame),
        "languages": list(choices.languages),
        "n_all": len(choices),
        **jsonable(asdict(study)),
    }
    return run_parts(
        {name: run[name] for name in names}, PARTS, done, folder=folder, made_from=made_from
    )
