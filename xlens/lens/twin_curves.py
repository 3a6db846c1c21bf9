"""Two models read by one lens: how sure is each layer of them, in each language?"""

from dataclasses import dataclass

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.lens.result import LensTokens
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap

QUANTITIES = ("entropy", "kl")
DIFFERENCE = "difference"


@dataclass(frozen=True, kw_only=True)
class TwinCurves(Result):
    """What the lens reads of two models' states of the same prompts.

    Attributes:
        table: `model language quantity layer mean low high n`, in bits: `entropy` of what is read,
            and `kl`, its divergence from the model's own output. `model` is one of `names`, or
            `difference`: the second less the first, prompt by prompt. Intervals over clusters.
        names: What the two are called.
        languages: In the order of the prompts.
        n_layers: Of both.
        confidence: Of the intervals, each of a layer and language by itself.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    languages: tuple[str, ...]
    n_layers: int
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def of(self, quantity: str, model: str) -> pd.DataFrame:
        """The rows of a quantity and model.

        Raises:
            ValueError: another quantity or model.
        """
        models = (*self.names, DIFFERENCE)
        if quantity not in QUANTITIES or model not in models:
            raise InputError(
                f"{quantity!r} of {model!r}: there are {', '.join(QUANTITIES)} of "
                f"{', '.join(models)}."
            )
        table = self.table
        return table[(table["quantity"] == quantity) & (table["model"] == model)]


@typed
def twin_curves(
    first: LensTokens,
    second: LensTokens,
    items: pd.DataFrame,
    *,
    names: tuple[str, str],
    resampling: Resampling = Resampling(),
) -> TwinCurves:
    """Compare two models' readings of the same prompts, layer by layer and language by language.

    Args:
        first: From `logit_lens` without targets, of one model.
        second: Of another with as many layers, of the same prompts in the same order.
        items: One row per prompt: `language`, `id`, and what clusters are named by.
        names: What the two are called.
        resampling: Of the intervals.

    Raises:
        ValueError: other prompts, layers or lenses.
    """
    keys = ["prompt", "id", "layer"]
    if not first.states[keys].equals(second.states[keys]) or first.lens != second.lens:
        raise InputError(
            "The two models were read at other prompts or layers, or through other lenses: "
            "harvest the same prompts at the same layers of both."
        )
    layers = sorted(set(map(int, first.states["layer"])))
    rows: list[pd.DataFrame] = []
    for quantity in QUANTITIES:
        one, two = (
            of.states.pivot(index="prompt", columns="layer", values=quantity).to_numpy(float)
            for of in (first, second)
        )
        for model, values in zip((*names, DIFFERENCE), (one, two, two - one), strict=True):
            for tag in dict.fromkeys(items["language"]):
                mine = (items["language"] == tag).to_numpy()
                codes = resampling.codes(items[mine].reset_index(drop=True))
                found = bootstrap(values[mine], clusters=codes, resampling=resampling)
                low, high = found.interval()
                columns = {"layer": layers, "mean": found.mean, "low": low, "high": high}
                table = pd.DataFrame({**columns, "n": found.n})
                rows.append(table.assign(model=model, language=tag, quantity=quantity))
    head = ["model", "language", "quantity", "layer", "mean", "low", "high", "n"]
    return TwinCurves(
        provenance=analysed(
            {"first": first.provenance, "second": second.provenance},
            "twin_curves",
            resampling.provenance(),
        ),
        table=pd.concat(rows, ignore_index=True)[head],
        names=names,
        languages=tuple(dict.fromkeys(map(str, items["language"]))),
        n_layers=first.n_layers,
        confidence=resampling.confidence,
    )
