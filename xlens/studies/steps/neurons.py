"""How the parts of `NeuronsStudy` are made."""

from collections.abc import Iterator
from typing import Any

from xlens.engine import Tally, tally
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.neurons import (
    LanguageNeurons,
    NeuronEffects,
    NeuronOverlap,
    language_neurons,
    neuron_effects,
    neuron_overlap,
)
from xlens.prompts import Prompt, Prompts
from xlens.prompts.fewshot import seeded_rank
from xlens.results import Result
from xlens.studies.neurons import EFFECTS, NEURONS, OVERLAP, SCRIPTS, TALLY, NeuronsStudy
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work, passes, scored
from xlens.subspace import RelatedPairs, related_pairs
from xlens.tasks import running_text
from xlens.tasks.alignment import questions_of, read_questions
from xlens.tasks.facts import cldr_facts
from xlens.tasks.sentences import read_sentences, with_twins


def read_texts(study: NeuronsStudy) -> Prompts:
    """Lines of files, or parallel questions.

    Raises:
        ValueError: a file without a language, one language only, or what the readers refuse.
    """
    found = _every_text(study)
    if lacking := sorted(set(study.languages) - set(found.languages)):
        raise InputError(
            f"No text in {', '.join(lacking)}; there is text in {', '.join(found.languages)}."
        )
    if study.languages:
        plain = {text.language: text.language.partition("-x-")[0] for text in found}
        asked = {tag for tag, of in plain.items() if of in study.languages or tag != of}
        found = Prompts(text for text in found if text.language in asked)
    if len(tags := found.languages) < 2:
        raise InputError(
            f"All text is in {', '.join(tags)}: entropy is over languages, two or more."
        )
    return found


def _every_text(study: NeuronsStudy) -> Prompts:
    if study.text:
        return running_text.read_texts(study.text)
    wanted = list(study.languages) or None
    if study.sentences is not None:
        read = read_sentences(study.sentences, layout=study.sentence_layout, languages=wanted)
        return (
            with_twins(read, study.twins, seed=study.seed)[0].prompts()
            if study.twins
            else (read.prompts())
        )
    if study.questions is not None:
        found = read_questions(study.questions, layout=study.layout, languages=wanted)
    elif study.languages:
        found = questions_of(cldr_facts(list(study.languages)))
    else:
        raise InputError(
            "Name texts, --text de=german.txt en=english.txt, or --sentences FOLDER, or "
            "--questions FILE, or the --languages of questions made from CLDR."
        )
    rows = found.frame.itertuples(index=False)
    return Prompts(Prompt(str(row.text), str(row.language), str(row.id)) for row in rows)


def neuron_work(study: NeuronsStudy, data: Prompts, tokenizer: Any) -> dict[str, Work]:
    """Texts are read once to count; some of them are scored, as often as units are changed."""
    work = {TALLY: passes(tokenizer, list(data))}
    if study.effects:
        runs = [1.0] * (1 + 2 * len(data.languages))
        texts = _drawn(study, data)
        work[EFFECTS] = scored(tokenizer, texts, [[text.text] for text in texts], runs=runs)
    return work


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
    if SCRIPTS in study.parts(data):
        yield Step.one(SCRIPTS, RelatedPairs, lambda done: related_pairs(done[OVERLAP], "jaccard"))
    if study.effects:
        yield Step.one(
            EFFECTS, NeuronEffects, lambda done: _effects(study, data, model, chosen(done), kept)
        )


def _drawn(study: NeuronsStudy, data: Prompts) -> Prompts:
    """The texts that effects are measured on."""
    return Prompts(
        text
        for tag in data.languages
        for text in sorted(
            (p for p in data if p.language == tag and len(p.text) > 1),
            key=lambda p: seeded_rank(p.id, seed=study.seed),
        )[: study.n_texts]
    )


def _effects(
    study: NeuronsStudy, data: Prompts, model: HookedModel, neurons: LanguageNeurons, kept: Kept
) -> NeuronEffects:
    """On some texts of every language."""
    texts = _drawn(study, data)
    how, resampling = study.how, study.resampling
    return neuron_effects(
        model, texts, neurons, how=how, seed=study.seed, resampling=resampling, **kept.options
    )
