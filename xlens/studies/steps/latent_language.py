"""Which language does the model think in? Word tasks → core → lens, with the controls beside.

The design of arXiv 2402.10588: few-shot word translation (or repetition, or cloze) between two
languages that are not the pivot, read through the logit lens for the pivot's word.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.engine import harvest
from xlens.languages import standardize
from xlens.lens import (
    LOGIT,
    FittedLens,
    Lens,
    LensResult,
    LensSummary,
    TargetSets,
    logit_lenses,
    shuffled_pairs,
    target_sets,
    whole_word_lens,
)
from xlens.lens.places import find_lens
from xlens.lens.readings import require_agreement
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.prompts import Prompts, TooFewItems
from xlens.results import Result, by_group
from xlens.stats import Resampling, generator
from xlens.store import Store
from xlens.studies.lens import NULLS, SUMMARY, SURVIVAL, LensStudy, Task, group_name
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work, passes, scored
from xlens.tasks.words import (
    WordList,
    answers,
    cloze_prompts,
    repetition_prompts,
    translation_prompts,
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
    for source, target in study.each_pair:
        for n, asked in enumerate(study.lens):
            through = _Through(asked, partial(lenses, asked), counted=n == 0)
            yield from _steps(model, twin, words, source, target, study, kept, through)


@dataclass(frozen=True)
class _Through:
    """The lens that a pair is read through, and whether its words are counted there."""

    asked: str
    find: Callable[[], Lens]
    counted: bool


def _steps(
    model: HookedModel,
    twin: Callable[[], HookedModel],
    words: WordList,
    source: str,
    target: str,
    study: LensStudy,
    kept: Kept,
    through: _Through,
) -> Iterator[Step]:
    group = group_name(source, target, through.asked)
    conditions = study.conditions_of(through.asked)
    source, target = _languages(source, target, study)

    @cache
    def pairing() -> _Pairing:
        return _Pairing(model, words, source, target, study, study.task, store=kept.store)

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
        other = _Pairing(
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


def pair_work(
    words: WordList, source: str, target: str, study: LensStudy, model: HookedModel | Outline
) -> dict[str, Work]:
    """What a pair's conditions take; fewer words may be left where sets of tokens collide."""
    source, target = _languages(source, target, study)

    def reading(task: Task, n: int, within: Sequence[str] | None = None) -> Work:
        prompts, columns = _candidates(words, source, target, study, task, {}, within)
        few = list(prompts[:n])
        layers = model.size.n_layers + 1
        work = passes(model.tokenizer, few) + Work(read=len(few) * layers)
        if study.reading != "whole":
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
    source, target = _languages(source, target, study)
    _candidates(words, source, target, study, study.task, {})


def _languages(source: str, target: str, study: LensStudy) -> tuple[str, str]:
    """Both languages standardised; tasks within one language have the target for a source."""
    source, target = standardize(source), standardize(target)
    if target == study.pivot:
        raise ValueError(
            f"The target language {target!r} is also the pivot: its word and the pivot's are the "
            "same, so nothing can be told apart. Choose another target or pivot."
        )
    return (source if study.task == "translation" else target), target


def _candidates(
    words: WordList,
    source: str,
    target: str,
    study: LensStudy,
    task: Task,
    dropped: dict[str, str],
    within: Sequence[str] | None = None,
) -> tuple[Prompts, list[str]]:
    """The prompts of all items that have their words, and the languages of these.

    Why others are not asked for goes to `dropped`, by id.
    """
    columns = list(dict.fromkeys([target, study.pivot, source]))
    options: dict[str, Any] = {"seed": study.seed, "names": study.names}
    if study.shots is not None:
        options["shots"] = study.shots
    if task == "translation":
        asked = translation_prompts(words, source, target, **options)
    elif task == "repetition":
        asked = repetition_prompts(words, target, ids=within, **options)
    else:
        asked = cloze_prompts(words, target, **options)
        dropped |= asked.dropped
        return asked, columns
    dropped |= asked.dropped
    complete = set(words.complete(columns).ids)
    dropped |= {id: "missing word" for id in asked.ids if id not in complete}
    if not complete.intersection(asked.ids):
        counts = dict(Counter(dropped.values()))
        raise TooFewItems(
            f"No item of {words.source} has a word in all of {', '.join(columns)}, pivot included: "
            f"{counts}. Give a list with words in all of them, or another pivot."
        )
    return asked.select(ids=[id for id in asked.ids if id in complete]), columns


class _Pairing:
    """The candidate prompts of one pair and task, and the target sets of their answers."""

    def __init__(
        self,
        model: HookedModel,
        words: WordList,
        source: str,
        target: str,
        study: LensStudy,
        task: Task,
        *,
        within: Sequence[str] | None = None,
        store: Store | None = None,
    ) -> None:
        self.study, self.task, self.store = study, task, store
        self.dropped: dict[str, str] = {}
        self.candidates, columns = _candidates(
            words, source, target, study, task, self.dropped, within
        )
        self.answers = answers(words, self.candidates, columns)
        self.targets: TargetSets = target_sets(
            model,
            self.answers,
            languages=(target, study.pivot),
            extra=columns[2:],
            reading="first" if study.reading == "first" else "prefixes",
            collisions=study.collisions,
        )

    def survival(self) -> pd.DataFrame:
        """`reason n`: what was offered and kept, and why the rest was left out."""
        counts = self.targets.survival().set_index("reason")["n"].to_dict()
        counts["offered"] += len(self.dropped)
        for reason, n in Counter(self.dropped.values()).items():
            counts[reason] = counts.get(reason, 0) + n
        return pd.DataFrame({"reason": list(counts), "n": list(counts.values())})

    def prompts(self, n: int) -> Prompts:
        """At most `n` of the prompts that have target sets, in a seeded order."""
        ids = sorted(self.targets.ids)
        if len(ids) < 2:
            raise TooFewItems(
                f"Only {len(ids)} items are left for {' → '.join(self.targets.all_languages)}: "
                f"{self.survival().set_index('reason')['n'].to_dict()}. Offer more words, "
                "or use collisions='subtract' or reading='first'."
            )
        order = generator(self.study.seed).permutation(len(ids))[:n]
        by_id = {p.id: p for p in self.candidates}
        return Prompts(by_id[ids[i]] for i in order)

    def read(
        self,
        model: HookedModel,
        prompts: Prompts,
        progress: bool,
        *,
        shuffled: bool = False,
        lens: Lens = LOGIT,
    ) -> dict[str, LensResult]:
        """The task's result and, if asked, its shuffled control."""
        study = self.study
        options: dict[str, Any] = {
            "pivot": study.pivot,
            "top_k": study.top_k,
            "lens": lens,
            "progress": progress,
        }
        unknown = isinstance(lens, FittedLens) and not lens.fingerprint
        states = cache(partial(harvest, model, prompts, store=self.store, progress=progress))
        if unknown:
            require_agreement(model, states(), lens)
        if study.reading == "whole":
            words = self.answers.loc[list(prompts.ids), list(self.targets.all_languages)]
            sets = {self.task: words}
            if shuffled:
                sets["shuffled"] = shuffled_pairs(words, seed=study.seed)
            return {k: whole_word_lens(model, prompts, w, **options) for k, w in sets.items()}
        readings = {self.task: self.targets}
        if shuffled:
            mine = self.targets.sets.loc[list(prompts.ids)]
            readings["shuffled"] = replace(self.targets, sets=shuffled_pairs(mine, seed=study.seed))
        return logit_lenses(states(), model, readings, **options)
