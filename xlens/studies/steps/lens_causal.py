"""The causal test of a pair of languages: words → pairing → exchanges, and verdicts over pairs."""

from collections.abc import Iterator
from functools import partial

from xlens.engine import harvest
from xlens.lens import for_causal_test, target_sets
from xlens.lens.causal import CausalResult, causal_test
from xlens.lens.readings import trusted
from xlens.lens.verdict import CausalSummary, CausalVerdicts, causal_summary, causal_verdicts
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.studies.lens import (
    CAUSAL,
    CAUSAL_SUMMARY,
    EFFECTS,
    VERDICTS,
    LensStudy,
    group_name,
)
from xlens.studies.steps.pairing import Pairing, Through, settled
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work
from xlens.tasks.words import WordList, answers

_WAYS = 8
"""Exchanges and ablations at a point, each a run of the blocks above it."""
_AFTER = 4


def causal_steps(
    model: HookedModel,
    words: tuple[WordList, WordList],
    source: str,
    target: str,
    study: LensStudy,
    kept: Kept,
    through: Through,
) -> Iterator[Step]:
    """The effects of exchanging what a lens reads, and their summary.

    Args:
        model: Whose words are exchanged.
        words: Those that are asked, and the same ones in further languages.
        source: Language of the word shown.
        target: Language asked for.
        study: What is asked.
        kept: Where states are kept.
        through: By which lens words are read.
    """
    group = group_name(source, target, through.asked) + CAUSAL
    source, target = settled(source, target, study)
    asked, every = words

    def test(_: Parts) -> CausalResult:
        pairing = Pairing(model, asked, source, target, study, study.task, store=kept.store)
        others = study.others_of(source, target, every.languages)
        targets = target_sets(
            model,
            answers(every, pairing.candidates, [target, study.pivot, source, *others]),
            languages=(target, study.pivot),
            extra=(source, *others),
            match="first" if study.match == "first" else "prefixes",
            collisions=study.collisions,
        )
        there = for_causal_test(targets, pairing.candidates.ids)
        ids = [id for id in pairing.prompts(len(pairing.targets.ids)).ids if id in there.ids]
        prompts = pairing.candidates.select(ids=ids[: study.n_causal])
        lens = trusted(model, through.find(), partial(harvest, model, prompts, **kept.options))
        return causal_test(
            model,
            prompts,
            there,
            pivot=study.pivot,
            lens=lens,
            layers=list(study.layers) or "all",
            n_donors=study.donors,
            seed=study.seed,
            **kept.options,
        )

    yield Step.one(f"{group}/{EFFECTS}", CausalResult, test)
    summed = partial(_summary, f"{group}/{EFFECTS}", study)
    yield Step.one(f"{group}/{CAUSAL_SUMMARY}", CausalSummary, summed, derived=True)


def _summary(name: str, study: LensStudy, done: Parts) -> CausalSummary:
    found = done[name]
    assert isinstance(found, CausalResult)
    return causal_summary(found, resampling=study.resampling)


def verdict_step(study: LensStudy) -> Step:
    """What all tests come to, corrected for how many there are."""

    def judge(done: Parts) -> CausalVerdicts:
        tests = {
            name.removesuffix(f"{CAUSAL}/{CAUSAL_SUMMARY}"): part
            for name, part in done.items()
            if isinstance(part, CausalSummary)
        }
        return causal_verdicts(tests, resampling=study.resampling)

    return Step.one(VERDICTS, CausalVerdicts, judge, derived=True)


def causal_work(asked: Work, study: LensStudy, model: HookedModel | Outline) -> Work:
    """What a pair's test takes, from what asking it once takes.

    Changes at the last position run that position alone through the blocks above; those at all
    positions after the word run about a fifth of a prompt.
    """
    n_layers = model.size.n_layers
    points = len(study.layers) or n_layers
    share = min(1.0, study.n_causal / max(1, asked.prompts))
    rows = int(asked.prompts * share) * study.donors
    above = points / 2
    tokens = share * asked.tokens * (1 + study.donors * above * _AFTER / 5)
    return Work(int(rows * points * (_WAYS + _AFTER)), int(tokens + rows * above * _WAYS), 0)
