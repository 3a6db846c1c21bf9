"""Does steering towards another language help? Chosen on some items, reported on others.

The design after arXiv 2505.13141 (steering towards English at inference time; its layers,
strengths and items are not confirmed, so all are options here).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine import generate, harvest, room_for, score
from xlens.errors import InputError
from xlens.lens import identify_tokens
from xlens.models import HookedModel
from xlens.models.size import check_room
from xlens.models.sources import Outline
from xlens.prompts import Prompt, Prompts
from xlens.results import analysed
from xlens.stats import generator
from xlens.steering import (
    METHODS,
    Steering,
    SteeringResult,
    SteeringVectors,
    SubspaceRemoval,
    steering_vectors,
    sweep,
)
from xlens.store import Store
from xlens.studies.steering import NEURONS, SteeredStudy, SteeringStudy
from xlens.studies.steps.steering_effects import choose, effects, items_table, summarised
from xlens.subspace import LSAR, LayerWise
from xlens.subspace.controls import shuffled_languages
from xlens.tasks.choices import Choices, choice_prompts
from xlens.tasks.choices.prompts import demonstrations
from xlens.tasks.choices.text import gap

SPLITS = ("estimate", "dev", "test")
_LEAST = 12  # tokens of a free continuation


@typed
def check_steering(
    choices: Choices, study: SteeredStudy, model: HookedModel | Outline | None = None
) -> dict[str, str]:
    """Which item serves for what; what is wrong with the request shows before a model is loaded.

    Raises:
        ValueError: a target that the items lack, or too few items, also to demonstrate with; with
            a model also layers that it lacks, or no room for what is to be generated.
    """
    check_layers(study, model)
    if NEURONS in study.steer:
        raise InputError(
            f"steer holds {NEURONS}, which are found in running text: give --sentences, and no "
            "--items."
        )
    if study.pivot not in choices.languages:
        raise InputError(
            f"Steering is to {study.pivot!r}, but {choices.source} has "
            f"{', '.join(choices.languages)}: add that language, steer to one that is there "
            "(pivot), or leave steering out."
        )
    tags = choices.require([study.pivot, *study.steer_languages])
    if study.pivot in tags[1:] or len(choices.languages) < 2:
        raise InputError(
            f"steer_languages={study.steer_languages!r} are steered to {study.pivot!r}: give at "
            "least one, and others than that."
        )
    if len(choices) < study.n_steered:
        raise InputError(
            f"{len(choices)} items, but {study.n_steered} are needed: {study.n_estimate} to "
            f"estimate vectors, {study.n_dev} to choose layer and strength, {study.n_test} to "
            "test. Give more items or smaller numbers."
        )
    ids = choices.sample(study.n_steered, seed=study.seed).ids
    parts = divided(ids, choices.paragraphs, study)
    if study.shots:
        named = choices.select(languages=tags) if study.steer_languages else choices
        pool = named.select(ids=[id for id, part in parts.items() if part == SPLITS[0]])
        demonstrations(named.select(ids=ids), pool, study.shots, study.seed, study.headers, False)
    return parts


def check_layers(study: SteeredStudy, model: HookedModel | Outline | None) -> None:
    """Refuse layers that a model lacks, or more to generate than it has room for."""
    if model is not None and study.bands:
        every = (at if isinstance(at, tuple) else (at,) for at in study.bands)
        model.size.check_layers([*chain(*every)], fewest=1)
    if model is not None and study.max_new_tokens:
        check_room(study.max_new_tokens, model.n_ctx)


def divided(
    ids: tuple[str, ...], belongs: Mapping[str, str], study: SteeredStudy
) -> dict[str, str]:
    """Which of the items serves for what: in parts that share none."""
    order = generator(study.seed).permutation(len(ids))
    # Items about one passage stay together, but for those where one part ends.
    place: dict[str, int] = {}
    ranks = [place.setdefault(belongs[ids[i]], len(place)) for i in order]
    order = order[np.argsort(ranks, kind="stable")]
    parts = np.repeat(SPLITS, [study.n_estimate, study.n_dev, study.n_test])
    return {ids[i]: str(part) for i, part in zip(order, parts, strict=True)}


@typed
def steer_choices(
    model: HookedModel,
    choices: Choices,
    *,
    study: SteeredStudy | None = None,
    store: Store | None = None,
    progress: bool = True,
) -> SteeringResult:
    """Estimate vectors, choose where and how hard to push, and report on items not seen before.

    Three sets of items that share none: vectors are estimated on the first, the cell with the best
    mean accuracy over languages is chosen on the second, and everything said of steering is of the
    third, beside random vectors of the same length, vectors of shuffled languages, and what the
    push does to the target language itself.

    Args:
        model: From `xlens.load`.
        choices: Parallel items in the target language and others.
        study: What is tried.
        store: Where scores and states are kept: a stopped study goes on where it was.
        progress: Show bars, and how long each sweep will take before it runs.

    Raises:
        ValueError: what `check_steering` refuses, before the model runs.
    """
    study = study or SteeringStudy()
    parts = check_steering(choices, study, model)
    if study.steer_languages:
        choices = choices.select(languages=[study.pivot, *study.steer_languages])
    split = {part: [id for id, p in parts.items() if p == part] for part in SPLITS}
    asking = _Asking(model, choices, study, split["estimate"], store, progress)
    states = asking.states(split["estimate"])
    sources = [tag for tag in choices.languages if tag != study.pivot]
    plan = {
        tag: {m: _steering(states, m, tag, study, None) for m in study.steer} for tag in sources
    }
    dev = _choosing(asking, plan, split["dev"])
    chosen = choose(dev)
    items = _testing(asking, states, plan, chosen, split["test"])
    outputs = _saying(asking, plan, chosen, split["test"][: study.n_outputs])
    return SteeringResult(
        provenance=analysed(
            model.provenance(),
            "steering",
            {
                "choices": choices.source,
                "study": study.options(),
                "languages": list(choices.languages),
                "chance": _guessing(choices, split["test"]),
                **study.resampling.provenance(),
            },
        ),
        dev=dev,
        chosen=chosen,
        test=summarised(items, resampling=study.resampling),
        items=items,
        outputs=outputs,
        split=pd.DataFrame({"id": list(parts), "part": list(parts.values())}),
        target=study.pivot,
    )


def steered_prompts(
    choices: Choices, study: SteeredStudy, language: str, ids: Sequence[str], pool: Sequence[str]
) -> tuple[Prompts, list[tuple[str, ...]]]:
    """Prompts of these items with their options, demonstrated with those of `pool`."""
    return choice_prompts(
        choices.select(ids=ids),
        language,
        **study.shown(choices.select(ids=pool) if study.shots else None),
    )


@dataclass(frozen=True)
class _Asking:
    """Prompts and scores of some of the items."""

    model: HookedModel
    choices: Choices
    study: SteeredStudy
    pool: Sequence[str]
    store: Store | None
    progress: bool

    def prompts(self, language: str, ids: Sequence[str]) -> tuple[Prompts, list[tuple[str, ...]]]:
        """Prompts of these items, demonstrated with items for estimation."""
        return steered_prompts(self.choices, self.study, language, ids, self.pool)

    def states(self, ids: Sequence[str]) -> Activations:
        """States at the prompts' ends, in every language and at every layer above the embedding."""
        every: list[Prompt] = [
            p for tag in self.choices.languages for p in self.prompts(tag, ids)[0]
        ]
        return harvest(
            self.model,
            Prompts(every),
            layers=range(1, self.model.n_layers + 1),
            slots="last",
            store=self.store,
            progress=self.progress,
        )

    def scores(
        self,
        language: str,
        ids: Sequence[str],
        steerings: Mapping[str, Steering],
        bands: Sequence[int | Sequence[int]] | None,
        strengths: Sequence[float] | Mapping[str, Sequence[float]],
    ) -> pd.DataFrame:
        """The table of a sweep over these cells, no steering first."""
        prompts, options = self.prompts(language, ids)
        return sweep(
            self.model,
            prompts,
            options,
            steerings,
            bands=bands,
            strengths=strengths,
            slot=self.study.slot,
            store=self.store,
            progress=self.progress,
        ).table

    def plain(self, language: str, ids: Sequence[str]) -> pd.DataFrame:
        """Without steering, as a row of `scores`."""
        prompts, options = self.prompts(language, ids)
        found = score(self.model, prompts, options, store=self.store, progress=self.progress).table
        return found.assign(method="none", band="", strength=0.0)


def _steering(
    states: Activations, method: str, source: str, study: SteeredStudy, shuffled: int | None
) -> SteeringVectors | SubspaceRemoval:
    if method in METHODS:
        return steering_vectors(states, source, study.pivot, method=method, shuffled=shuffled)
    fitted_on = states
    if shuffled is not None:
        rng = generator(shuffled)
        meta = states.meta.copy()
        meta["language"] = shuffled_languages(
            meta["language"].to_numpy(str), meta["id"].to_numpy(str), rng
        )
        fitted_on = replace(states, meta=meta)
    fitted = LayerWise(LSAR()).fit(fitted_on)
    return SubspaceRemoval.of(
        {layer: fitted[layer].components_ for layer in states.layers},
        fingerprint=states.fingerprint,
        method=method if shuffled is None else f"{method}, languages shuffled",
    )


def _choosing(
    asking: _Asking, plan: Mapping[str, Mapping[str, Steering]], ids: Sequence[str]
) -> pd.DataFrame:
    """Every cell on the development items."""
    study = asking.study
    gold = asking.choices.gold
    pivot = items_table(asking.plain(study.pivot, ids), gold, by=study.by)
    tables: list[pd.DataFrame] = []
    for tag, steerings in plan.items():
        tried = {method: study.tried(method) for method in steerings}
        scores = asking.scores(tag, ids, steerings, study.bands, tried)
        found = effects(items_table(scores, gold, by=study.by), pivot)
        metrics = [c for c in found.columns if c not in ("method", "band", "strength", "id")]
        means = found.groupby(["method", "band", "strength"], sort=False)[metrics]
        long = means.mean().melt(ignore_index=False, var_name="metric").reset_index()
        long["n"] = means.count().melt(ignore_index=False, value_name="n")["n"].to_numpy()
        long.insert(0, "language", tag)
        tables.append(long)
    return pd.concat(tables, ignore_index=True)


def _testing(
    asking: _Asking,
    states: Activations,
    plan: Mapping[str, Mapping[str, SteeringVectors | SubspaceRemoval]],
    chosen: pd.DataFrame,
    ids: Sequence[str],
) -> pd.DataFrame:
    """Item by item: no steering, the chosen cells, and their controls; and the target's prompts."""
    study = asking.study
    gold = asking.choices.gold
    pivot = items_table(asking.plain(study.pivot, ids), gold, by=study.by)
    rows: list[pd.DataFrame] = []
    for tag, steerings in plan.items():
        for method, band, strength in _cells(chosen):
            real = steerings[method]
            tried: dict[str, Steering] = {method: real}
            for n in range(study.n_controls):
                seed = study.seed + n
                tried[f"{method}, random {n}"] = real.random(seed=seed)
                shuffled = _steering(states, method, tag, study, seed)
                tried[f"{method}, shuffled {n}"] = shuffled
            scores = asking.scores(tag, ids, tried, [band], [strength])
            own = effects(items_table(scores, gold, by=study.by), pivot)
            harm = asking.scores(study.pivot, ids, {method: real}, [band], [strength])
            other = effects(items_table(harm, gold, by=study.by), pivot)
            rows.append(own.assign(language=tag, vector=tag))
            rows.append(other.assign(language=study.pivot, vector=tag))
    found = pd.concat(rows, ignore_index=True)
    found["condition"] = found.pop("method")
    found["paragraph"] = found["id"].map(asking.choices.paragraphs)
    asked, _ = asking.prompts(study.pivot, ids)
    if headers := {p.id: p.meta["header"] for p in asked if "header" in p.meta}:
        found["header"] = found["id"].map(headers)
    # No steering is in every run of a language: once is enough.
    return found.drop_duplicates(["language", "vector", "condition", "id"], ignore_index=True)


def _saying(
    asking: _Asking,
    plan: Mapping[str, Mapping[str, Steering]],
    chosen: pd.DataFrame,
    ids: Sequence[str],
) -> pd.DataFrame:
    """Free continuations without and with the chosen pushes, and their languages."""
    study = asking.study
    columns = ["language", "condition", "id", "text", "identified", "truncated"]
    longest = longest_output(asking.choices, study, asking.model.tokenizer)
    tables: list[pd.DataFrame] = []
    for tag, steerings in plan.items() if ids else ():
        prompts, _ = asking.prompts(tag, ids)
        pushes = {"none": ()} | {
            method: steerings[method].interventions(
                asking.model, strength=strength, layers=band, slot=study.slot
            )
            for method, band, strength in _cells(chosen)
        }
        for name, push in pushes.items():
            said = generate(
                asking.model,
                prompts,
                max_new_tokens=longest,
                stop=["\n"],
                interventions=push,
                store=asking.store,
                progress=asking.progress,
            ).to_frame()
            texts = [str(text) for text in said["text"]]
            tables.append(
                pd.DataFrame(
                    {
                        "language": tag,
                        "condition": name,
                        "id": list(said["id"]),
                        "text": texts,
                        "identified": identify_tokens(texts, [tag, study.pivot]),
                        "truncated": said["reason"].eq("length").to_numpy(),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def longest_output(choices: Choices, study: SteeredStudy, tokenizer: Any) -> int:
    """Most tokens of a continuation: of all items, the same for every language and sample."""
    options = (
        gap(tag) + option
        for tag in choices.languages
        for item in choices.items(tag).values()
        for option in item.options
    )
    return study.max_new_tokens or room_for(options, tokenizer, least=_LEAST)


def _guessing(choices: Choices, ids: Sequence[str]) -> float:
    """How often guessing is right: one over the options, mean over items."""
    items = choices.select(ids=ids).items(choices.languages[0])
    return float(np.mean([1 / len(item.options) for item in items.values()]))


def _cells(chosen: pd.DataFrame) -> list[tuple[str, tuple[int, ...], float]]:
    rows = chosen[["method", "band", "strength"]].itertuples(index=False, name=None)
    return [(str(m), tuple(int(n) for n in str(b).split("-")), float(s)) for m, b, s in rows]
