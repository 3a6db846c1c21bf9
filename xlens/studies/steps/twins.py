"""Two models of one architecture, looked at inside with the same prompts: a base and its heir.

Every part that is made of both in turn is one of a room's own results, once for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.activations import Activations
from xlens.engine import harvest
from xlens.errors import InputError
from xlens.gain import Gain, gain
from xlens.lens import LensTokens, TwinCurves, logit_lens, twin_curves
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result
from xlens.stats import Resampling
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.twins import ANSWERS, GAIN, TwinsStudy
from xlens.subspace import (
    LanguagePairs,
    PooledStates,
    ScoreCorrelation,
    TwinStates,
    pooled_states,
    score_correlation,
    subspace_distances,
    twin_states,
)
from xlens.tasks.choices import ChoiceAnswers, Choices, LatentSummary, latent_options


@dataclass(frozen=True, kw_only=True)
class TwinSummary(Result):
    """What two models' insides come to, by layer.

    Attributes:
        table: `layer measure first second control_first control_second`, means over languages or
            pairs of them: `separation` (share of the states' variance between languages; no
            control), `pearson` (of the first component's scores; control: other items of the same
            length), `angle` (degrees between the languages' subspaces; control: languages
            shuffled).
        names: What the two are called.
    """

    table: pd.DataFrame
    names: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


OWN_PARTS: Mapping[str, type[Result]] = {
    "states": PooledStates,
    "pc1": ScoreCorrelation,
    "angles": LanguagePairs,
    "read": LensTokens,
    "latent": LatentSummary,
}
"""Of one model alone."""
TWIN_PARTS: Mapping[str, type[Result]] = {
    "states": TwinStates,
    "pc1-first": ScoreCorrelation,
    "pc1-second": ScoreCorrelation,
    "angles-first": LanguagePairs,
    "angles-second": LanguagePairs,
    "summary": TwinSummary,
    "curves": TwinCurves,
    "latent-first": LatentSummary,
    "latent-second": LatentSummary,
}
TWIN_RUNS = (1.0, 1.0)
"""How often a model reads the prompts: for its states, and for what the lens reads of the last."""


def own_parts(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    pivot: str,
    choices: Choices | None,
    how: Mapping[str, Any],
    pooling: str,
    resampling: Resampling,
    kept: Kept,
) -> dict[str, Result]:
    """States, first component, subspaces, how sure each layer is, and options inside, of a model.

    Args:
        model: Who is looked at.
        prompts: Parallel ones, in several languages.
        pivot: The language suspected inside.
        choices: Items whose options are read inside, where the pivot has them; None: none.
        how: How they are asked.
        pooling: How a prompt becomes one state.
        resampling: Of the intervals.
        kept: Where states and scores are kept.
    """
    states = _states(model, prompts, pooling if pooling == "last" else "all", kept)
    last = harvest(model, Prompts(prompts), slots="last", **kept.options)
    found: dict[str, Result] = {
        "states": pooled_states(states, pooling=pooling),
        "pc1": score_correlation(states, pooling=pooling, resampling=resampling, n_controls=20),
        "angles": subspace_distances(
            states,
            measures=["mean_angle", "mean_shift"],
            pooling=pooling,
            n_controls=5,
            seed=resampling.seed,
        ),
        "read": logit_lens(last, model, top_k=1, progress=kept.progress),
    }
    if choices is not None and pivot in choices.languages:
        options = latent_options(model, choices, pivot=pivot, **how, **kept.options)
        found["latent"] = options.summary(resampling=resampling)
    return found


def twin_parts(
    first: Mapping[str, Result],
    second: Mapping[str, Result],
    *,
    names: tuple[str, str],
    pooling: str,
    resampling: Resampling,
) -> dict[str, Result]:
    """What two models' own parts come to, side by side.

    Args:
        first: `own_parts` of one model.
        second: Of another of as many layers and of its width, with the same tokenizer.
        names: What the two are called.
        pooling: How a prompt became one state.
        resampling: Of the intervals.

    Raises:
        ValueError: models of other layers or widths, or that were asked other prompts.
    """
    one, two = first["states"], second["states"]
    assert isinstance(one, PooledStates) and isinstance(two, PooledStates)
    if one.values.shape != two.values.shape:
        shapes = [
            f"{name}: {part.values.shape}" for name, part in zip(names, (one, two), strict=True)
        ]
        raise InputError(
            "States of two models are compared on common axes, so both need the same layers and "
            f"width (layers × prompts × width here: {'; '.join(shapes)})."
        )
    found: dict[str, Result] = {
        "states": twin_states(
            one.activations(),
            two.activations(),
            names=names,
            pooling=pooling,
            resampling=resampling,
        )
    }
    for name, parts in (("first", first), ("second", second)):
        found[f"pc1-{name}"], found[f"angles-{name}"] = parts["pc1"], parts["angles"]
    found["summary"] = _summary(found, names)
    here, there = first["read"], second["read"]
    assert isinstance(here, LensTokens) and isinstance(there, LensTokens)
    found["curves"] = twin_curves(here, there, one.items, names=names, resampling=resampling)
    for name, parts in (("first", first), ("second", second)):
        if "latent" in parts:
            found[f"latent-{name}"] = parts["latent"]
    return found


def _states(model: HookedModel, prompts: Sequence[Prompt], slots: str, kept: Kept) -> Activations:
    # Not the embedding: at the last position it is often the same token in every prompt.
    layers = list(range(1, model.n_layers + 1))
    return harvest(model, Prompts(prompts), layers=layers, slots=slots, **kept.options)


def _summary(parts: Mapping[str, Result], names: tuple[str, str]) -> TwinSummary:
    states = parts["states"]
    assert isinstance(states, TwinStates)
    apart = states.separation.pivot(index="layer", columns="model", values="space")
    none = pd.Series(np.nan, index=apart.index)
    columns = {"separation": (apart[names[0]], apart[names[1]], none, none)}
    for name, part, measure, control in (
        ("pearson", "pc1", "pearson_1", "same_length"),
        ("angle", "angles", "mean_angle", "shuffled"),
    ):
        means: list[pd.Series] = []
        for kind in ("value", control):
            for which in ("first", "second"):
                pairs = parts[f"{part}-{which}"]
                assert isinstance(pairs, LanguagePairs)
                means.append(pairs.pick(measure, kind).groupby("layer")["mean"].mean())
        columns[name] = (means[0], means[1], means[2], means[3])
    head = ("first", "second", "control_first", "control_second")
    frames = [
        pd.DataFrame(dict(zip(head, mine, strict=True))).rename_axis("layer").reset_index()
        .assign(measure=measure)
        for measure, mine in columns.items()
    ]  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    return TwinSummary(
        provenance=states.provenance, table=table[["layer", "measure", *head]], names=names
    )


def across_twins(study: TwinsStudy, models: Mapping[str, Parts]) -> Iterator[Step]:
    """The first model beside each of the others, for each set of questions.

    Args:
        study: What was asked.
        models: The parts of each, by folder, which is what each is called: short, and its own.
    """
    base, *others = models
    sets = [name.rpartition("/")[0] for name in models[base] if name.endswith(f"/{ANSWERS}")]
    for one in sets:
        own = {
            folder: {part: found[f"{one}/{part}"] for part in (*OWN_PARTS, ANSWERS)
                     if f"{one}/{part}" in found}
            for folder, found in models.items()
        }  # fmt: skip

        def compare(_: Parts, one: str = one, own: Any = own) -> dict[str, Result]:
            found: dict[str, Result] = {f"{one}/{GAIN}": _gained(study, own, base)}
            for other in others:
                pair = twin_parts(
                    own[base],
                    own[other],
                    names=(base, other),
                    pooling=study.pooling,
                    resampling=study.resampling,
                )
                found |= {f"{one}/{other}/{part}": result for part, result in pair.items()}
            return found

        kinds: dict[str, type[Result]] = {f"{one}/{GAIN}": Gain}
        for other in others:
            kinds |= {
                f"{one}/{other}/{part}": kind
                for part, kind in TWIN_PARTS.items()
                if not part.startswith("latent") or "latent" in own[base]
            }
        yield Step(kinds, compare)


def _gained(
    study: TwinsStudy,
    own: Mapping[str, Mapping[str, Result]],
    base: str,
) -> Gain:
    """Right answers of every model against the first one's, by language."""
    tables: dict[str, pd.DataFrame] = {}
    for folder, parts in own.items():
        answers = parts[ANSWERS]
        assert isinstance(answers, ChoiceAnswers)
        tables[folder] = answers.table
    return gain(
        tables[base],
        {folder: [table] for folder, table in tables.items() if folder != base},
        trained=(),
        bound=study.bound,
        provenance={folder: parts[ANSWERS].provenance for folder, parts in own.items()},
        resampling=study.resampling,
    )
