"""Language neurons as interventions: switched off, boosted, and as many others drawn at random."""

from dataclasses import replace
from typing import Literal

import numpy as np

from xlens.checks import typed
from xlens.engine.interventions import Intervention, scale, set_to
from xlens.errors import InputError
from xlens.neurons.lape import LanguageNeurons
from xlens.results import analysed
from xlens.stats import generator

How = Literal["off", "mean", "boost"]


@typed
def neuron_edits(
    neurons: LanguageNeurons, language: str, *, how: How = "off", factor: float = 2.0
) -> list[Intervention]:
    """What changes a language's units, for `interventions=` of anything that runs a model.

    Args:
        neurons: From `language_neurons`.
        language: Whose units.
        how: `off` sets the activation to 0, as the paper does; `mean` to what it is on average in
            that language; `boost` multiplies it.
        factor: Of `boost`.

    Raises:
        ValueError: a language that was not counted, or one without units.
    """
    found = neurons.units(language)
    if not found:
        raise InputError(
            f"{language!r} has no unit among the {neurons.kept} kept: count more text, or keep a "
            "larger share (top)."
        )
    if how == "mean":
        mine = neurons.table[neurons.table["language"] == language]
        rows = zip(mine["layer"], mine["unit"], mine["mean"], strict=True)
        means = {(layer, unit): float(mean) for layer, unit, mean in rows}
        return [
            set_to(units, [means[layer, u] for u in units], site=neurons.site, layers=layer)
            for layer, units in found.items()
        ]
    times = 0.0 if how == "off" else factor
    return [scale(units, times, site=neurons.site, layers=layer) for layer, units in found.items()]


@typed
def random_neurons(neurons: LanguageNeurons, *, seed: int = 0) -> LanguageNeurons:
    """The control: as many units of each language in each layer, drawn among all others there."""
    table = neurons.table.copy()
    for k, language in enumerate(neurons.languages):
        for layer, units in neurons.units(language).items():
            own = (table["language"] == language) & (table["layer"] == layer)
            rest = np.setdiff1d(np.arange(neurons.width), units)
            drawn = generator(seed, k, layer).choice(rest, size=len(units), replace=False)
            table.loc[own, "unit"] = np.sort(drawn)
    # They are those of the units that stood here before.
    table[["probability", "mean", "entropy"]] = np.nan
    return replace(
        neurons, table=table, provenance=analysed(neurons.provenance, "random", {"seed": seed})
    )
