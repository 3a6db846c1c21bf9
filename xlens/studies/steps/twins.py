"""Two models of one architecture, looked at inside with the same prompts: a base and its heir.

Every part that is made of both in turn is one of a room's own results, once for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.activations import Activations
from xlens.engine import harvest
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import Result
from xlens.stats import Resampling
from xlens.studies.study import Kept
from xlens.subspace import (
    LanguagePairs,
    ScoreCorrelation,
    TwinStates,
    score_correlation,
    subspace_distances,
    twin_states,
)
from xlens.tasks.choices import Choices, LatentSummary, latent_options


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


TWIN_PARTS: Mapping[str, type[Result]] = {
    "states": TwinStates,
    "pc1-first": ScoreCorrelation,
    "pc1-second": ScoreCorrelation,
    "angles-first": LanguagePairs,
    "angles-second": LanguagePairs,
    "summary": TwinSummary,
    "latent-first": LatentSummary,
    "latent-second": LatentSummary,
}


def twin_parts(
    first: HookedModel,
    second: HookedModel,
    prompts: Sequence[Prompt],
    *,
    names: tuple[str, str],
    pivot: str,
    choices: Choices | None,
    how: Mapping[str, Any],
    pooling: str,
    resampling: Resampling,
    kept: Kept,
) -> dict[str, Result]:
    """States, the first component's correlations, subspaces, and options inside, of both.

    Args:
        first: One model.
        second: Another of as many layers, with the same tokenizer.
        prompts: Parallel ones, in several languages.
        names: What the two are called.
        pivot: The language suspected inside.
        choices: Items whose options are read inside, where the pivot has them; None: none.
        how: How they are asked.
        pooling: How a prompt becomes one state.
        resampling: Of the intervals.
        kept: Where states and scores are kept.
    """
    slots = pooling if pooling == "last" else "all"
    both = [_states(model, prompts, slots, kept) for model in (first, second)]
    found: dict[str, Result] = {
        "states": twin_states(*both, names=names, pooling=pooling, resampling=resampling)
    }
    for name, states in zip(("first", "second"), both, strict=True):
        found[f"pc1-{name}"] = score_correlation(
            states, pooling=pooling, resampling=resampling, n_controls=20
        )
        found[f"angles-{name}"] = subspace_distances(
            states,
            measures=["mean_angle", "mean_shift"],
            pooling=pooling,
            n_controls=5,
            seed=resampling.seed,
        )
    found["summary"] = _summary(found, names)
    if choices is not None and pivot in choices.languages:
        for name, model in (("first", first), ("second", second)):
            options = latent_options(model, choices, pivot=pivot, **how, **kept.options)
            found[f"latent-{name}"] = options.summary(resampling=resampling)
    return found


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


def _states(model: HookedModel, prompts: Sequence[Prompt], slots: str, kept: Kept) -> Activations:
    # Not the embedding: at the last position it is often the same token in every prompt.
    layers = list(range(1, model.n_layers + 1))
    return harvest(model, Prompts(prompts), layers=layers, slots=slots, **kept.options)
