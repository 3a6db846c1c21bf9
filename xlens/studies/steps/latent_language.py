"""Which language does the model think in? Word tasks → core → lens, with the controls beside.

The design of arXiv 2402.10588: few-shot word translation (or repetition, or cloze) between two
languages that are not the pivot, read through the logit lens for the pivot's word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import pandas as pd

from xlens.checks import typed
from xlens.lens import (
    LensResult,
    LensSummary,
)
from xlens.lens.places import find_lens
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.prompts import Prompt, Prompts, TooFewItems
from xlens.results import Result, by_group
from xlens.stats import Resampling
from xlens.studies.lens import NULLS, SUMMARY, SURVIVAL, LensStudy, Task, group_name
from xlens.studies.steps.lens_causal import causal_steps, verdict_step
from xlens.studies.steps.pairing import Pairing, Through, candidates, settled
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work, passes, scored
from xlens.tasks.words import (
    WordList,
    answers,
)


@dataclass(frozen=True, kw_only=True)
class Survival(Result):
    """How many items were offered and kept, and why others were left out.

    Attributes:
        table: `pair reason n`.
    """

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def pair_steps(model: HookedModel, words: WordList, study: LensStudy, kept: Kept) -> Iterator[Step]:
    """Every pair with its controls, and what they come to.

    Raises:
        TooFewItems: from a pair's first step: too few are left.
    """
    twin = cache(lambda: model.random_twin(study.seed))  # one for all pairs
    lenses = cache(lambda asked: find_lens(asked, model))
    for asked in study.lens:
        lenses(asked)  # one of another model is refused before anything is read through the others
    every = words
    if study.causal:
        # Demonstrations depend on the languages of a list: they stay those of the plain study.
        words = words.select(languages=study.pair_languages)
    for source, target in study.each_pair:
        for n, asked in enumerate(study.lens):
            through = Through(asked, partial(lenses, asked), counted=n == 0)
            yield from _steps(model, twin, words, source, target, study, kept, through)
            if study.causal:
                yield from causal_steps(model, (words, every), source, target, study, kept, through)
    if study.causal:
        yield verdict_step(study)


def _steps(
    model: HookedModel,
    twin: Callable[[], HookedModel],
    words: WordList,
    source: str,
    target: str,
    study: LensStudy,
    kept: Kept,
    through: Through,
) -> Iterator[Step]:
    group = group_name(source, target, through.asked)
    conditions = study.conditions_of(through.asked)
    source, target = settled(source, target, study)

    @cache
    def pairing() -> Pairing:
        return Pairing(model, words, source, target, study, study.task, store=kept.store)

    @cache
    def prompts() -> Prompts:
        return pairing().prompts(study.n_items)

    def named(found: Mapping[str, Result]) -> dict[str, Result]:
        return {f"{group}/{name}": part for name, part in found.items()}

    def ask(_: Parts) -> Parts:
        shuffled = "shuffled" in study.controls
        found = pairing().read(
            model, prompts(), kept.progress, shuffled=shuffled, lens=through.find()
        )
        if not through.counted:
            return named(found)
        table = pairing().survival()
        table.insert(0, "pair", f"{source} → {target}")
        return named({**found, SURVIVAL: Survival(provenance=model.provenance(), table=table)})

    def ask_twin(_: Parts) -> Parts:
        # The fingerprint is another, the vocabulary is not: the same target sets hold.
        few = prompts().select(ids=prompts().ids[: study.n_controls])
        return named({"random-init": pairing().read(twin(), few, kept.progress)[study.task]})

    def repeat(_: Parts) -> Parts:
        # The same items where the task's ids are items; cloze asks for its own.
        within = prompts().ids if study.task == "translation" else None
        other = Pairing(
            model, words, target, target, study, "repetition", within=within, store=kept.store
        )
        few = other.prompts(study.n_controls)
        return named(other.read(model, few, kept.progress, lens=through.find()))

    made = {"random-init": ask_twin, "repetition": repeat}
    first = [name for name in conditions if name not in made or name == study.task]
    kinds: dict[str, type[Result]] = {f"{group}/{name}": LensResult for name in first}
    if through.counted:
        kinds[f"{group}/{SURVIVAL}"] = Survival
    yield Step(kinds, ask)
    for name in conditions:
        if name not in first:
            yield Step({f"{group}/{name}": LensResult}, made[name])
    for name in conditions:
        made = partial(_summary, group, name, study.resampling)
        yield Step.one(f"{group}/{SUMMARY}{name}", LensSummary, made, derived=True)


def _summary(group: str, name: str, resampling: Resampling, done: Parts) -> LensSummary:
    return summarised(name, by_group(done)[group], resampling)


def summarised(
    name: str, results: Mapping[str, Result], resampling: Resampling = Resampling()
) -> LensSummary:
    """The summary of a condition; of a result with what it has over its shuffled words."""
    result, null = results[name], results.get("shuffled")
    assert isinstance(result, LensResult)
    ids = set(result.rows["id"])
    if name in NULLS or not isinstance(null, LensResult) or not ids <= set(null.rows["id"]):
        null = None
    return result.summary(shuffled=null, resampling=resampling)


def pair_prompts(words: WordList, study: LensStudy, model: HookedModel | Outline) -> list[Prompt]:
    """What all pairs' conditions ask; none where only the tokenizer is known."""
    if isinstance(model, Outline):
        return []
    if study.causal:
        words = words.select(languages=study.pair_languages)
    return [p for pair in study.each_pair for p in _asked(words, *pair, study, model)]


def _asked(
    words: WordList, source: str, target: str, study: LensStudy, model: HookedModel
) -> list[Prompt]:
    source, target = settled(source, target, study)
    try:
        asked = Pairing(model, words, source, target, study, study.task).prompts(study.n_items)
        if "repetition" not in study.conditions or study.task == "repetition":
            return list(asked)
        within = asked.ids if study.task == "translation" else None
        other = Pairing(model, words, target, target, study, "repetition", within=within)
        return [*asked, *other.prompts(study.n_controls)]
    except TooFewItems:
        return []  # the pair is left out


def pair_work(
    words: WordList, source: str, target: str, study: LensStudy, model: HookedModel | Outline
) -> dict[str, Work]:
    """What a pair's conditions take; fewer words may be left where sets of tokens collide."""
    source, target = settled(source, target, study)

    def reading(task: Task, n: int, within: Sequence[str] | None = None) -> Work:
        prompts, columns = candidates(words, source, target, study, task, {}, within)
        few = list(prompts[:n])
        layers = model.size.n_layers + 1
        work = passes(model.tokenizer, few) + Work(read=len(few) * layers)
        if study.match != "whole":
            return work
        said = answers(words, prompts[:n], columns)
        for tag in said.columns:
            mine = [[str(word)] for word in said[tag]]
            work += scored(model.tokenizer, few, mine, layers=layers)
        return work

    try:
        work = {study.task: reading(study.task, study.n_items)}
    except TooFewItems:
        return {}  # the pair is left out
    if "random-init" in study.conditions:
        work["random-init"] = reading(study.task, min(study.n_items, study.n_controls))
    if "repetition" in study.conditions and study.task != "repetition":
        work["repetition"] = reading("repetition", study.n_controls)
    return work


@typed
def check_pair(
    words: WordList, source: str, target: str, *, study: LensStudy | None = None
) -> None:
    """Build a pair's prompts, which takes no model: what is wrong with them shows at once.

    Raises:
        TooFewItems: no item has words in both, or too few to demonstrate with.
        ValueError: a language that the words lack, source equal to target, target equal to pivot.
    """
    study = study or LensStudy()
    source, target = settled(source, target, study)
    candidates(words, source, target, study, study.task, {})
