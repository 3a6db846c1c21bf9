"""What a language's units do: text of every language predicted without them, beside random ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.checks import typed
from xlens.engine import score
from xlens.engine.interventions import Intervention
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.neurons.lape import LanguageNeurons
from xlens.neurons.units import How, neuron_edits, random_neurons
from xlens.prompts import Prompt, Prompts
from xlens.results import Result, analysed
from xlens.stats import ClusterSums, Resampling, adjusted_flips, bootstrap, random_signs

NEURONS, RANDOM, BEYOND = "neurons", "random", "beyond"
KINDS = (NEURONS, RANDOM, BEYOND)
_FLIPS = 4000


@dataclass(frozen=True, kw_only=True)
class NeuronEffects(Result):
    """How text is predicted when a language's units are changed.

    Attributes:
        table: `neurons language kind difference low high p n`: mean loss a token, in nats, in texts
            of `language` with the units of `neurons` changed, less that without; `kind` is
            `neurons`, `random` for as many other units in the same layers, or `beyond` for the
            first less the second, paired by text. Intervals over texts. `p` is of `beyond` alone,
            by random signs of the texts, adjusted over every cell.
        how: What was done to the units.
        languages: In the order of the texts.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    how: str
    languages: tuple[str, ...]
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def of(self, kind: str) -> pd.DataFrame:
        """The rows of a kind.

        Raises:
            ValueError: another kind.
        """
        if kind not in KINDS:
            raise InputError(f"Kind {kind!r}; accepted are {', '.join(KINDS)}.")
        return self.table[self.table["kind"] == kind]

    def own(self, kind: str = NEURONS) -> pd.DataFrame:
        """The rows in which a language lacks its own units."""
        table = self.of(kind)
        return table[table["neurons"] == table["language"]]

    def others(self, kind: str = NEURONS) -> pd.DataFrame:
        """`neurons difference`: the mean over the other languages' texts, by whose units lack."""
        table = self.of(kind)
        other = table[table["neurons"] != table["language"]]
        return other.groupby("neurons", sort=False)["difference"].mean().reset_index()


@typed
def neuron_effects(
    model: HookedModel,
    texts: Prompts,
    neurons: LanguageNeurons,
    *,
    how: How = "off",
    seed: int = 0,
    resampling: Resampling = Resampling(),
    **options: Any,
) -> NeuronEffects:
    """Change each language's units in turn, and as many random ones, in texts of all languages.

    A language without units has no row. With `how="mean"` the random units are switched off, as
    none of them has a mean in that language.

    Args:
        model: Whose units they are.
        texts: Two or more of each language, of two tokens or more.
        neurons: From `language_neurons`.
        how: As `neuron_edits`.
        seed: Of the random units.
        resampling: Of the intervals.
        **options: As for `xlens.score`.

    Raises:
        InputError: a text of a single token.
    """
    plain = _loss(model, texts, [], options)
    lost: dict[tuple[str, str], np.ndarray] = {}
    for kind, mine in ((NEURONS, neurons), (RANDOM, random_neurons(neurons, seed=seed))):
        # `random_neurons` knows no means: its units were drawn, not counted.
        done: How = "off" if kind == RANDOM and how == "mean" else how
        for tag in neurons.languages:
            if mine.units(tag):
                edits = neuron_edits(mine, tag, how=done)
                lost[kind, tag] = _loss(model, texts, edits, options) - plain
    # The same texts twice: what they differ in is taken out by pairs.
    beyond = {
        (BEYOND, tag): own - lost[RANDOM, tag] for (kind, tag), own in lost.items()
        if kind == NEURONS
    }  # fmt: skip
    head = ["neurons", "language", "kind", "difference", "low", "high", "p", "n"]
    rows = [
        _means(values, texts, resampling).assign(neurons=tag, kind=kind)
        for (kind, tag), values in {**lost, **beyond}.items()
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=head)
    table["p"] = np.nan
    if beyond:
        # Rows and p values are in one order: whose units, then the texts' language.
        table.loc[table["kind"] == BEYOND, "p"] = _adjusted(list(beyond.values()), texts, seed)
    return NeuronEffects(
        provenance=analysed(
            neurons.provenance,
            "effects",
            {"how": how, "n_texts": len(texts), "flips": _FLIPS, **resampling.provenance()},
        ),
        table=table[head],
        how=how,
        languages=texts.languages,
        confidence=resampling.confidence,
    )


def _loss(
    model: HookedModel, texts: Sequence[Prompt], edits: list[Intervention], options: dict[str, Any]
) -> Float[np.ndarray, " text"]:
    """Nats a token of each text, after its first token, which nothing need predict."""
    firsts = [
        # What the tokenizer adds (BOS) has no characters: the first token with some is the text's.
        next(stop for start, stop in tokens.offsets if stop > start)
        for tokens in model.tokenize(texts, spans=frozenset())
    ]
    asked = [
        Prompt(text.text[:first], text.language, text.id)
        for text, first in zip(texts, firsts, strict=True)
    ]
    # One candidate a text: all of it but its first token.
    rest = [[text.text[first:]] for text, first in zip(texts, firsts, strict=True)]
    if short := [text for text, (left,) in zip(texts, rest, strict=True) if not left]:
        raise InputError(
            f"Text {short[0].id!r} ({short[0].language}) is a single token of this model, and so "
            f"are {len(short) - 1} others: its loss is counted after the first token. Give texts "
            "of two tokens or more."
        )
    scores = score(model, Prompts(asked), rest, interventions=edits, **options)
    return -scores.table["mean_logprob"].to_numpy(float)


def _means(values: np.ndarray, texts: Prompts, resampling: Resampling) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for tag in texts.languages:
        own = values[[text.language == tag for text in texts]]
        found = bootstrap(own[:, None], clusters=np.arange(len(own)), resampling=resampling)
        low, high = found.interval()
        rows.append(
            {
                "language": tag,
                "difference": float(own.mean()),
                "low": float(low[0]),
                "high": float(high[0]),
                "n": len(own),
            }
        )
    return pd.DataFrame(rows)


def _adjusted(values: Sequence[np.ndarray], texts: Prompts, seed: int) -> list[float]:
    """P of the mean of every language's texts, for all units in turn: adjusted over all of it."""
    tags = np.array([text.language for text in texts])
    # [text] by whose units and texts' language; other languages' texts are NaN there.
    columns = [np.where(tags == tag, own, np.nan) for own in values for tag in texts.languages]
    # Parallel texts have one id: what they have in common flips together.
    ids = np.unique([text.id for text in texts], return_inverse=True)[1]
    sums = ClusterSums.of(np.column_stack(columns), ids)
    signs = random_signs(len(sums.sums), _FLIPS, seed)
    return adjusted_flips([sums.flipped(signs)])[0].tolist()
