"""How the parts of `FactsStudy` are made, and what they take."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from xlens.acquisition import FactRecall, FrequencyResponse, frequency_response, recall
from xlens.consistency import ConsistencyResult
from xlens.engine import Scores
from xlens.errors import InputError
from xlens.models import HookedModel
from xlens.prompts import Prompt
from xlens.results import Result, analysed
from xlens.studies.steps.latent_process import panel_of
from xlens.studies.study import Kept, Parts, Step
from xlens.studies.work import Work, passes, scored
from xlens.tasks.facts import FactAnswers, Facts, ask_facts, demonstrations, rank_facts
from xlens.tasks.facts.asking import room_of
from xlens.tasks.facts.prompts import language_prompts

if TYPE_CHECKING:
    from xlens.models.sources import Outline
    from xlens.studies.facts import FactsStudy

TEXTS = ("exact", "word", "prefix", "first_token")


def facts_steps(data: Facts, study: "FactsStudy", model: HookedModel, kept: Kept) -> Iterator[Step]:
    """Ask, rank, and what these come to."""
    from xlens.studies.facts import ANSWERS, CANDIDATES, PANEL, RECALL, RESPONSE

    asked = study.sampled(data)
    shown: dict[str, Any] = {**study.how, "pool": data, **kept.options}

    how: dict[str, Any] = {
        "rule": study.rule,
        "pivot": study.pivot,
        "resampling": study.resampling,
    }

    def recalled(done: Parts) -> Result:
        answers, table = judged(done, data, study)
        rules = [name for name in (*TEXTS, "ranked") if name in table]
        found = recall(table, rules=rules, **how)
        known = analysed(answers.provenance, "recall", found.provenance)
        return replace(found, provenance=known)

    def responded(done: Parts) -> Result:
        answers, table = judged(done, data, study)
        flags = asked.flags(study.pivot).set_index(["id", "language"])
        pair = flags["identical_object"] & flags["identical_subject"]
        keys = list(zip(table["id"], table["language"], strict=True))
        own: dict[str, Any] = {
            "identical": pair.loc[keys].to_numpy(),
            "identical_object": flags["identical_object"].loc[keys].to_numpy(),
            "approx": [key in asked.estimates for key in keys],
        }
        found = frequency_response(table.assign(**own), **how)
        known = analysed(answers.provenance, "frequency", found.provenance)
        return replace(found, provenance=known)

    def panel(done: Parts) -> Result:
        gold = study.offered(data).gold
        return panel_of(_ranks(done), gold, by="logprob", resampling=study.resampling)

    yield Step.one(ANSWERS, FactAnswers, lambda _: ask_facts(model, asked, **shown))
    if study.n_candidates:
        offered = study.offered(data)
        yield Step.one(CANDIDATES, Scores, lambda _: rank_facts(model, asked, offered, **shown))
    yield Step.one(RECALL, FactRecall, recalled, derived=True)
    if study.n_candidates:
        yield Step.one(PANEL, ConsistencyResult, panel, derived=True)
    if data.frequencies:
        yield Step.one(RESPONSE, FrequencyResponse, responded, derived=True)


def judged(done: Parts, data: Facts, study: "FactsStudy") -> tuple[FactAnswers, pd.DataFrame]:
    """The answers, and their table with every rule that was asked for."""
    from xlens.studies.facts import ANSWERS

    answers = done[ANSWERS]
    assert isinstance(answers, FactAnswers)
    if not study.n_candidates:
        return answers, answers.table
    return answers, ranked(answers.table, _ranks(done), study.offered(data).gold)


def _ranks(done: Parts) -> Scores:
    from xlens.studies.facts import CANDIDATES

    found = done[CANDIDATES]
    assert isinstance(found, Scores)
    return found


def ranked(answers: pd.DataFrame, scores: Scores, gold: Mapping[str, int]) -> pd.DataFrame:
    """Answers with the rule `ranked`: whether a fact's own object is the most probable of those.

    A fact whose relation has one object only isn't ranked: it is wrong, and leaves all others
    comparable.
    """
    table = scores.table
    best = table.loc[table.groupby(["id", "language"])["logprob"].idxmax()]
    keys = zip(best["id"], best["language"], strict=True)
    said = dict(zip(keys, best["candidate"], strict=True))
    right = [
        said.get((id, tag), -1) == gold.get(id, -2)
        for id, tag in zip(answers["id"], answers["language"], strict=True)
    ]
    return answers.assign(ranked=right)


def facts_work(data: Facts, study: "FactsStudy", model: "HookedModel | Outline") -> dict[str, Work]:
    """Every fact in every language, and its candidates."""
    from xlens.studies.facts import ANSWERS, CANDIDATES, LIKENESS

    asked = study.sampled(data)
    prompts = _prompts(asked, data, study)
    room = room_of(asked, model.tokenizer)
    read = passes(model.tokenizer, prompts)
    work = {ANSWERS: read + Work(said=room * len(prompts))}
    if study.n_candidates:
        offered = study.offered(data)
        some = [prompt for prompt in prompts if prompt.id in offered.ids]
        texts = [
            tuple(" " + data.facts(p.language)[id].objects[0] for id in offered.ids[p.id])
            for p in some
        ]
        work[CANDIDATES] = scored(model.tokenizer, some, texts)
    if study.states:
        work[LIKENESS] = read
    return work


def check_room(asked: Facts, data: Facts, study: "FactsStudy", model: "Outline") -> None:
    """Refuse prompts that a model can't hold with their answers.

    Raises:
        ValueError: one is too long.
    """
    if model.n_ctx is None:
        return
    prompts = _prompts(asked, data, study)
    ids = model.tokenizer([prompt.text for prompt in prompts])["input_ids"]
    room = room_of(asked, model.tokenizer)
    longest = max(range(len(ids)), key=lambda n: len(ids[n]))
    if len(ids[longest]) + room > model.n_ctx:
        prompt = prompts[longest]
        raise InputError(
            f"The prompt of fact {prompt.id!r} ({prompt.language}) has {len(ids[longest])} tokens "
            f"and its answer up to {room}, but the context holds {model.n_ctx}; ask with fewer "
            "demonstrations (--shots)."
        )


def _prompts(asked: Facts, data: Facts, study: "FactsStudy") -> list[Prompt]:
    shown = demonstrations(asked, pool=data, **study.how)
    return [p for tag in asked.languages for p in language_prompts(asked, data, tag, shown)]
