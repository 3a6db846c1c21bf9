"""Does steering towards another language help? Chosen on some items, reported on others.

The design after arXiv 2505.13141 (steering towards English at inference time; its layers,
strengths and items are not confirmed, so all are options here).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from xlens.activations import Activations
from xlens.checks import typed
from xlens.engine import Store, generate, harvest, room_for, score
from xlens.languages import standardize, standardize_all
from xlens.lengths import By
from xlens.lens import identify_tokens
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.results import analysed, jsonable
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
from xlens.studies.options import Intervals
from xlens.studies.steering_effects import choose, effects, items_table, summarised
from xlens.subspace import LSAR, LayerWise
from xlens.subspace.controls import shuffled_languages
from xlens.tasks.choices import Choices, choice_prompts
from xlens.tasks.choices.text import gap

REMOVALS = {"lsar": "the subspace of the languages' means (LSAR) taken out"}
SPLITS = ("estimate", "dev", "test")
_LEAST = 12  # tokens of a free continuation


@dataclass(frozen=True, kw_only=True)
class SteeringStudy(Intervals):
    """What is tried.

    Attributes:
        target: The language that is steered to.
        languages: The languages that are steered; None: all others.
        methods: Of `METHODS` and `REMOVALS`.
        bands: Layers, or bands of layers changed together; None: every layer above the embedding.
        strengths: Factors of vectors; no steering is always there.
        removal_strengths: Factors of what is taken out (λ of arXiv 2505.15257; below 0, put in).
        slot: Where the stream is changed.
        n_estimate: Items that vectors are estimated on.
        n_dev: Items that layer and strength are chosen on.
        n_test: Items that are reported.
        n_controls: Random and shuffled vectors, of each this many.
        n_outputs: Test prompts continued freely, for the language of what comes.
        max_new_tokens: Of these; None: what the longest option needs in the model's own tokens, 12
            or more.
        shots: Demonstrations, taken from the items for estimation.
        by: Options compared by summed log-probability, or that per token, byte or character.
    """

    target: str = "en"
    languages: tuple[str, ...] | None = None
    methods: tuple[str, ...] = ("mean_difference",)
    bands: tuple[int | tuple[int, ...], ...] | None = None
    strengths: tuple[float, ...] = (-1.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    removal_strengths: tuple[float, ...] = (-0.2, 0.1, 0.2, 0.3, 0.4, 1.0)
    slot: str = "all"
    n_estimate: int = 100
    n_dev: int = 50
    n_test: int = 50
    n_controls: int = 3
    n_outputs: int = 20
    max_new_tokens: int | None = None
    shots: int = 0
    by: By = "logprob"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", standardize(self.target))
        if self.languages is not None:
            object.__setattr__(self, "languages", tuple(standardize_all(self.languages)))
        known = [*METHODS, *REMOVALS]
        if (unknown := [m for m in self.methods if m not in known]) or not self.methods:
            raise ValueError(f"methods={unknown or self.methods!r}; accepted are {known}.")
        least = {"n_estimate": 5, "n_dev": 2, "n_test": 2, "n_controls": 1, "n_outputs": 0}
        for name, n in least.items():
            if (given := getattr(self, name)) < n:
                raise ValueError(f"{name}={given}; it must be at least {n}.")
        for name in ("strengths", "removal_strengths"):
            if not any(given := getattr(self, name)):
                raise ValueError(f"{name}={given!r}; give at least one other than 0.")

    def tried(self, method: str) -> tuple[float, ...]:
        """Strengths of a method."""
        return self.removal_strengths if method in REMOVALS else self.strengths

    @property
    def n_items(self) -> int:
        """Items that are needed in all."""
        return self.n_estimate + self.n_dev + self.n_test


@typed
def check_steering(choices: Choices, study: SteeringStudy) -> dict[str, str]:
    """Which item serves for what; what is wrong with the request shows before a model is loaded.

    Raises:
        ValueError: a target that the items lack, or too few items.
    """
    if study.target not in choices.languages:
        raise ValueError(
            f"Steering is to {study.target!r}, but {choices.source} has "
            f"{', '.join(choices.languages)}: add that language, steer to one that is there "
            "(pivot=, target=), or leave steering out."
        )
    tags = choices.require([study.target, *(study.languages or ())])
    if study.languages is not None and (not study.languages or study.target in tags[1:]):
        raise ValueError(
            f"languages={study.languages!r} are steered to {study.target!r}: give at least one, "
            "and others than that."
        )
    if len(choices) < study.n_items:
        raise ValueError(
            f"{len(choices)} items, but {study.n_items} are needed: {study.n_estimate} to estimate "
            f"vectors, {study.n_dev} to choose layer and strength, {study.n_test} to test. Give "
            "more items or smaller numbers."
        )
    ids = choices.sample(study.n_items, seed=study.seed).ids
    order = generator(study.seed).permutation(len(ids))
    parts = np.repeat(SPLITS, [study.n_estimate, study.n_dev, study.n_test])
    return {ids[i]: str(part) for i, part in zip(order, parts, strict=True)}


@typed
def steer_choices(
    model: HookedModel,
    choices: Choices,
    *,
    study: SteeringStudy | None = None,
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
    parts = check_steering(choices, study)
    if study.languages is not None:
        choices = choices.select(languages=[study.target, *study.languages])
    split = {part: [id for id, p in parts.items() if p == part] for part in SPLITS}
    asking = _Asking(model, choices, study, split["estimate"], store, progress)
    states = asking.states(split["estimate"])
    sources = [tag for tag in choices.languages if tag != study.target]
    plan = {
        tag: {m: _steering(states, m, tag, study, None) for m in study.methods} for tag in sources
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
                "study": jsonable(asdict(study)),
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
        target=study.target,
    )


@dataclass(frozen=True)
class _Asking:
    """Prompts and scores of some of the items."""

    model: HookedModel
    choices: Choices
    study: SteeringStudy
    pool: Sequence[str]
    store: Store | None
    progress: bool

    def prompts(self, language: str, ids: Sequence[str]) -> tuple[Prompts, list[tuple[str, ...]]]:
        """Prompts of these items, demonstrated with items for estimation."""
        return choice_prompts(
            self.choices.select(ids=ids),
            language,
            shots=self.study.shots,
            seed=self.study.seed,
            pool=self.choices.select(ids=self.pool) if self.study.shots else None,
        )

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
    states: Activations, method: str, source: str, study: SteeringStudy, shuffled: int | None
) -> SteeringVectors | SubspaceRemoval:
    if method in METHODS:
        return steering_vectors(states, source, study.target, method=method, shuffled=shuffled)
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
    pivot = items_table(asking.plain(study.target, ids), gold, by=study.by)
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
    pivot = items_table(asking.plain(study.target, ids), gold, by=study.by)
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
            harm = asking.scores(study.target, ids, {method: real}, [band], [strength])
            other = effects(items_table(harm, gold, by=study.by), pivot)
            rows.append(own.assign(language=tag, vector=tag))
            rows.append(other.assign(language=study.target, vector=tag))
    found = pd.concat(rows, ignore_index=True)
    found["condition"] = found.pop("method")
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
    # Of all items, so that every language and sample has the same limit.
    options = (
        gap(tag) + option
        for tag in asking.choices.languages
        for item in asking.choices.items(tag).values()
        for option in item.options
    )
    longest = study.max_new_tokens or room_for(options, asking.model.tokenizer, least=_LEAST)
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
                        "identified": identify_tokens(texts, [tag, study.target]),
                        "truncated": said["reason"].eq("length").to_numpy(),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _guessing(choices: Choices, ids: Sequence[str]) -> float:
    """How often guessing is right: one over the options, mean over items."""
    items = choices.select(ids=ids).items(choices.languages[0])
    return float(np.mean([1 / len(item.options) for item in items.values()]))


def _cells(chosen: pd.DataFrame) -> list[tuple[str, tuple[int, ...], float]]:
    rows = chosen[["method", "band", "strength"]].itertuples(index=False, name=None)
    return [(str(m), tuple(int(n) for n in str(b).split("-")), float(s)) for m, b, s in rows]
