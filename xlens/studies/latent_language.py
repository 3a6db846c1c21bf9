"""Which language does the model think in? Word tasks → core → lens, with the controls beside.

The design of arXiv 2402.10588: few-shot word translation (or repetition, or cloze) between two
languages that are not the pivot, read through the logit lens for the pivot's word.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.engine import Store, harvest
from xlens.languages import standardize
from xlens.lens import (
    LensResult,
    TargetSets,
    logit_lenses,
    shuffled_pairs,
    target_sets,
    whole_word_lens,
)
from xlens.models import HookedModel
from xlens.prompts import Prompts, TooFewItems
from xlens.results import jsonable
from xlens.stats import generator
from xlens.studies.options import DRAWN, LensStudy, Task
from xlens.studies.parts import identity, keep_part, load_part
from xlens.tasks.items import content
from xlens.tasks.words import (
    WordList,
    answers,
    cloze_prompts,
    repetition_prompts,
    translation_prompts,
)


@dataclass(frozen=True, kw_only=True)
class PairStudy:
    """One language pair with its controls.

    Attributes:
        source: Language of the word shown.
        target: Language asked for.
        conditions: Result by condition: the task's own name, then the controls.
        survival: How many items were offered and kept, and why others were left out: `pair reason
            n`.
    """

    source: str
    target: str
    conditions: dict[str, LensResult]
    survival: pd.DataFrame


@typed
def study_pair(
    model: HookedModel,
    words: WordList,
    source: str,
    target: str,
    *,
    study: LensStudy | None = None,
    twin: HookedModel | None = None,
    folder: Path | None = None,
    store: Store | None = None,
    progress: bool = True,
) -> PairStudy:
    """Run one language pair and its controls.

    Args:
        model: From `xlens.load`.
        words: With columns for source, target and pivot.
        source: Language of the word shown.
        target: Language asked for; not the pivot.
        study: What is asked; see `LensStudy`.
        twin: The randomly initialised twin, to share it between pairs; made here if needed.
        folder: Save each condition here as soon as it is done, and load what is already there
            instead of running it again: a stopped study goes on where it was.
        store: Keep the states there, for the next study of the same prompts.
        progress: Show bars.

    Raises:
        TooFewItems: too few are left.
        ValueError: what `check_pair` refuses; a folder that holds results of
            another model, other words or another study.
    """
    study = study or LensStudy()
    source, target = _languages(source, target, study)
    pairing = _Pairing(model, words, source, target, study, study.task, store=store)
    prompts = pairing.prompts(study.n_items)
    few = prompts.ids[: study.n_controls]

    def run_main() -> dict[str, LensResult]:
        return pairing.read(model, prompts, progress, shuffled="shuffled" in study.controls)

    def run_random() -> dict[str, LensResult]:
        other = twin or model.random_twin(study.seed)
        # The fingerprint is another, the vocabulary is not: the same target sets hold.
        read = pairing.read(other, prompts.select(ids=few), progress)
        return {"random-init": read[study.task]}

    def run_repetition() -> dict[str, LensResult]:
        # The same items where the task's ids are items; cloze asks for its own.
        within = prompts.ids if study.task == "translation" else None
        other = _Pairing(
            model, words, target, target, study, "repetition", within=within, store=store
        )
        return {
            "repetition": other.read(model, other.prompts(study.n_controls), progress)["repetition"]
        }

    main = (study.task, *(c for c in ("shuffled",) if c in study.controls))
    steps: list[tuple[tuple[str, ...], Callable[[], dict[str, LensResult]]]] = [(main, run_main)]
    if "random-init" in study.controls:
        steps.append((("random-init",), run_random))
    if "repetition" in study.controls and study.task != "repetition":
        steps.append((("repetition",), run_repetition))
    # What is saved holds no interval: these are drawn anew for each report.
    asked = {name: value for name, value in asdict(study).items() if name not in DRAWN}
    made_from = {"model": identity(model), "words": content(words.frame), **jsonable(asked)}
    conditions: dict[str, LensResult] = {}
    for names, run in steps:
        conditions |= _done(folder, names, made_from) or _saved(folder, run(), made_from)
    survival = pairing.survival()
    survival.insert(0, "pair", f"{source} → {target}")
    return PairStudy(source=source, target=target, conditions=conditions, survival=survival)


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
        self, model: HookedModel, prompts: Prompts, progress: bool, *, shuffled: bool = False
    ) -> dict[str, LensResult]:
        """The task's result and, if asked, its shuffled control."""
        study = self.study
        options: dict[str, Any] = {
            "pivot": study.pivot,
            "top_k": study.top_k,
            "progress": progress,
        }
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
        states = harvest(model, prompts, store=self.store, progress=progress)
        return logit_lenses(states, model, readings, **options)


def _done(
    folder: Path | None, names: tuple[str, ...], made_from: dict[str, Any]
) -> dict[str, LensResult] | None:
    """The saved results, if all are there and made from the same model, words and study."""
    if folder is None or not all((folder / name / "result.json").is_file() for name in names):
        return None
    return {name: load_part(folder / name, LensResult, made_from) for name in names}


def _saved(
    folder: Path | None, results: dict[str, LensResult], made_from: dict[str, Any]
) -> dict[str, LensResult]:
    return {
        name: keep_part(result, folder and folder / name, made_from)
        for name, result in results.items()
    }
