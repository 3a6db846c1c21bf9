"""How the parts of `NeuronsStudy` are made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xlens.engine import Tally, score, tally
from xlens.models import HookedModel
from xlens.neurons import (
    LanguageNeurons,
    NeuronOverlap,
    language_neurons,
    neuron_edits,
    neuron_overlap,
    random_neurons,
)
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import seeded_rank
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap
from xlens.studies.neurons import EFFECTS, NEURONS, OVERLAP, TALLY, NeuronsStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.tasks import running_text
from xlens.tasks.alignment import questions_of, read_questions
from xlens.tasks.facts import cldr_facts

RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class NeuronEffects(Result):
    """How text is predicted when a language's units are changed.

    Attributes:
        table: `neurons language kind difference low high n`: mean loss a token, in nats, in texts
            of `language` with the units of `neurons` changed, less that without; `kind` is
            `neurons`, or `random` for as many other units in the same layers. Intervals over texts.
        how: What was done to the units.
        confidence: Of the intervals.
    """

    table: pd.DataFrame
    how: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def own(self, kind: str = "neurons") -> pd.DataFrame:
        """The rows in which a language lacks its own units."""
        table = self.table[self.table["kind"] == kind]
        return table[table["neurons"] == table["language"]]


def read_texts(study: NeuronsStudy) -> Prompts:
    """Lines of files, or parallel questions.

    Raises:
        ValueError: a file without a language, one language only, or what the readers refuse.
    """
    found = _every_text(study)
    if lacking := sorted(set(study.languages) - set(found.languages)):
        raise ValueError(
            f"No text in {', '.join(lacking)}; there is text in {', '.join(found.languages)}."
        )
    if study.languages:
        found = Prompts(text for text in found if text.language in study.languages)
    if len(tags := found.languages) < 2:
        raise ValueError(
            f"All text is in {', '.join(tags)}: entropy is over languages, two or more."
        )
    return found


def _every_text(study: NeuronsStudy) -> Prompts:
    if study.text:
        return running_text.read_texts(study.text)
    if study.questions is not None:
        wanted = list(study.languages) or None
        found = read_questions(study.questions, layout=study.layout, languages=wanted)
    elif study.languages:
        found = questions_of(cldr_facts(list(study.languages)))
    else:
        raise ValueError(
            "Name texts, --text de=german.txt en=english.txt, or --questions FILE, or the "
            "--languages of questions made from CLDR."
        )
    rows = found.frame.itertuples(index=False)
    return Prompts(Prompt(str(row.text), str(row.language), str(row.id)) for row in rows)


def neuron_steps(
    study: NeuronsStudy, data: Prompts, model: HookedModel, kept: Kept
) -> Iterator[Step]:
    """Count, choose, compare languages, switch off."""

    def choose(done: Parts) -> Result:
        counted = done[TALLY]
        assert isinstance(counted, Tally)
        return language_neurons(
            counted,
            top=study.top,
            filter_rate=study.filter_rate,
            least_tokens=study.least_tokens,
        )

    def chosen(done: Parts) -> LanguageNeurons:
        found = done[NEURONS]
        assert isinstance(found, LanguageNeurons)
        return found

    yield Step.one(TALLY, Tally, lambda _: tally(model, data, **kept.options))
    yield Step.one(NEURONS, LanguageNeurons, choose)
    yield Step.one(OVERLAP, NeuronOverlap, lambda done: neuron_overlap(chosen(done)))
    if study.effects:
        yield Step.one(
            EFFECTS, NeuronEffects, lambda done: _effects(study, data, model, chosen(done), kept)
        )


def _effects(
    study: NeuronsStudy, data: Prompts, model: HookedModel, neurons: LanguageNeurons, kept: Kept
) -> NeuronEffects:
    """Each language's units changed in turn, and as many random ones, on texts of all languages."""
    texts = [
        text
        for tag in data.languages
        for text in sorted(
            (p for p in data if p.language == tag and len(p.text) > 1),
            key=lambda p: seeded_rank(p.id, seed=study.seed),
        )[: study.n_texts]
    ]
    plain = _loss(model, texts, [], kept)
    rows: list[pd.DataFrame] = []
    for kind, mine in (
        ("neurons", neurons),
        (RANDOM, random_neurons(neurons, seed=study.seed)),
    ):
        for tag in neurons.languages:
            if not mine.units(tag):
                continue  # a language of which no unit was kept stays in the counts
            edits = neuron_edits(
                mine, tag, how="off" if kind == RANDOM and study.how == "mean" else study.how
            )
            changed = _loss(model, texts, edits, kept) - plain
            rows.append(_means(changed, texts, study.resampling).assign(neurons=tag, kind=kind))
    head = ["neurons", "language", "kind", "difference", "low", "high", "n"]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=head)
    return NeuronEffects(
        provenance=analysed(
            neurons.provenance,
            "effects",
            {"how": study.how, "n_texts": study.n_texts, **study.resampling.provenance()},
        ),
        table=table[head],
        how=study.how,
        confidence=study.confidence,
    )


def _loss(model: HookedModel, texts: Sequence[Prompt], edits: list, kept: Kept) -> np.ndarray:  # type: ignore[type-arg]
    """Nats a token of each text, after its first token, which nothing need predict."""
    firsts = [
        next(stop for start, stop in tokens.offsets if stop > start)
        for tokens in model.tokenize(texts, spans=frozenset())
    ]
    asked = [
        Prompt(text.text[:first], text.language, text.id)
        for text, first in zip(texts, firsts, strict=True)
    ]
    rest = [[text.text[first:]] for text, first in zip(texts, firsts, strict=True)]
    scores = score(model, Prompts(asked), rest, interventions=edits, **kept.options)
    return -scores.table["mean_logprob"].to_numpy(float)


def _means(values: np.ndarray, texts: Sequence[Prompt], resampling: Resampling) -> pd.DataFrame:
    tags = list(dict.fromkeys(text.language for text in texts))
    rows: list[dict[str, object]] = []
    for tag in tags:
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
