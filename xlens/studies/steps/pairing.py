"""A pair of languages and a task: who can be asked, and what counts as their words."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd

from xlens.engine import harvest
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.lens import (
    LOGIT,
    Lens,
    LensResult,
    TargetSets,
    logit_lenses,
    shuffled_pairs,
    target_sets,
    whole_word_lens,
)
from xlens.lens.readings import trusted
from xlens.models import HookedModel
from xlens.prompts import Prompts, TooFewItems
from xlens.stats import generator
from xlens.store import Store
from xlens.studies.lens import LensStudy, Task
from xlens.tasks.words import (
    WordList,
    answers,
    cloze_prompts,
    repetition_prompts,
    translation_prompts,
)


@dataclass(frozen=True)
class Through:
    """The lens that a pair is read through, and whether its words are counted there."""

    asked: str
    find: Callable[[], Lens]
    counted: bool


def settled(source: str, target: str, study: LensStudy) -> tuple[str, str]:
    """Both languages standardised; tasks within one language have the target for a source."""
    source, target = standardize(source), standardize(target)
    if target == study.pivot:
        raise InputError(
            f"The target language {target!r} is also the pivot: its word and the pivot's are the "
            "same, so nothing can be told apart. Choose another target or pivot."
        )
    return (source if study.task == "translation" else target), target


def candidates(
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
    options: dict[str, Any] = {
        "seed": study.seed,
        "headers": study.headers,
        "names": study.names,
    }
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


class Pairing:
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
        self.candidates, columns = candidates(
            words, source, target, study, task, self.dropped, within
        )
        self.answers = answers(words, self.candidates, columns)
        self.targets: TargetSets = target_sets(
            model,
            self.answers,
            languages=(target, study.pivot),
            extra=columns[2:],
            match="first" if study.match == "first" else "prefixes",
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
                "or use collisions='subtract' or match='first'."
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
        states = cache(partial(harvest, model, prompts, store=self.store, progress=progress))
        trusted(model, lens, states)
        if study.match == "whole":
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
