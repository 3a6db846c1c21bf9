"""How many units two languages, or two models in a language, have in common; and by chance."""

from dataclasses import dataclass

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.neurons.lape import LanguageNeurons
from xlens.results import Result


@dataclass(frozen=True, kw_only=True)
class NeuronOverlap(Result):
    """Units in common.

    Attributes:
        table: `first second n_first n_second shared by_chance jaccard`: two languages of a model,
            or a language and itself in two models. `by_chance` is how many two draws of as many
            units would share, layer by layer.
        twins: Whether two models are compared.
    """

    table: pd.DataFrame
    twins: bool

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def closest(self, n: int = 10) -> pd.DataFrame:
        """The `n` rows with most of their units in common."""
        return self.table.sort_values("jaccard", ascending=False, kind="stable").head(n)


@typed
def neuron_overlap(first: LanguageNeurons, second: LanguageNeurons | None = None) -> NeuronOverlap:
    """Units that every two languages share; or, with a second model, each language with itself.

    Args:
        first: One model's.
        second: Another's of the same shape; None: compare the languages of the first.

    Raises:
        ValueError: models of other layers or widths, or no language in common.
    """
    other = first if second is None else second
    if (first.layers, first.width) != (other.layers, other.width):
        raise InputError(
            f"Layers or widths differ ({len(first.layers)} × {first.width} and "
            f"{len(other.layers)} × {other.width}): their units are not the same units."
        )
    if second is None:
        tags = first.languages
        pairs = [(a, b) for n, a in enumerate(tags) for b in tags[n + 1 :]]
    else:
        pairs = [(tag, tag) for tag in first.languages if tag in second.languages]
    if not pairs:
        raise InputError("No language is in both: count the same languages in both models.")
    rows: list[dict[str, str | int | float]] = []
    for a, b in pairs:
        one, two = first.units(a), other.units(b)
        shared = sum(len({*one.get(n, ())} & {*two.get(n, ())}) for n in first.layers)
        # The mean of a hypergeometric number, layer by layer:
        # layers hold very unequal numbers of units.
        chance = sum(len(one.get(n, ())) * len(two.get(n, ())) / first.width for n in first.layers)
        sizes = [sum(map(len, each.values())) for each in (one, two)]
        union = sum(sizes) - shared
        rows.append(
            {
                "first": a,
                "second": b,
                "n_first": sizes[0],
                "n_second": sizes[1],
                "shared": shared,
                "by_chance": chance,
                "jaccard": shared / union if union else float("nan"),
            }
        )
    provenance = {"first": first.provenance, "second": other.provenance}
    return NeuronOverlap(
        provenance=first.provenance if second is None else provenance,
        table=pd.DataFrame(rows),
        twins=second is not None,
    )
