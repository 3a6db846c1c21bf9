"""Beginnings of sentences continued under a push to another language, judged by what comes out.

Vectors are estimated on some sentences, layer and strength chosen by what is said after others,
and only what is said after a third part is reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from xlens.checks import typed
from xlens.engine import harvest, tally
from xlens.engine.interventions import Intervention
from xlens.errors import DataError, InputError
from xlens.languages import known_to_identifier
from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.neurons import language_neurons
from xlens.neurons.push import NeuronPush, neuron_push
from xlens.prompts import Prompts
from xlens.results import analysed
from xlens.steering import (
    OutputSteering,
    SteeringVectors,
    layer_balance,
    predicted_layer,
    steering_vectors,
)
from xlens.steering.judging import harmonic
from xlens.steering.outputs import (
    ASKED,
    PLAIN,
    RULE,
    SWEEP,
    WRITTEN,
    languages_of,
    output_rates,
    pick_cells,
)
from xlens.store import Store
from xlens.studies.steering import NEURONS, REMOVALS, SteeredStudy, SteeringStudy
from xlens.studies.steps.continuations import ROOM, Continuations, n_others
from xlens.studies.steps.steering import SPLITS, check_layers, divided
from xlens.studies.work import NOTHING, Work, passes
from xlens.tasks.sentences import Sentences, halved, long_enough

_WHOLE = "sentence:mean"
Push = SteeringVectors | NeuronPush


def steered_to(sentences: Sentences, study: SteeredStudy) -> tuple[str, ...]:
    """Varieties that are steered to: those asked for, or all but the pivot and made twins."""
    if study.steer_languages:
        return sentences.require(study.steer_languages)
    return tuple(t for t in sentences.languages if t != study.pivot and t not in sentences.made)


@typed
def check_outputs(
    sentences: Sentences, study: SteeredStudy, model: HookedModel | Outline | None = None
) -> dict[str, str]:
    """Which sentence serves for what; what can't be asked shows before a model is loaded.

    Raises:
        ValueError: no sentences in the language that is left, a target that the identifier can't
            name, too few sentences, a subspace's removal, or layers that the model lacks.
    """
    check_layers(study, model)
    if study.pivot not in sentences.languages:
        raise InputError(
            f"Sentences are steered from {study.pivot!r}, but {sentences.source} has "
            f"{', '.join(sentences.languages)}: add that variety, or name another one (pivot)."
        )
    targets = steered_to(sentences, study)
    if not targets or study.pivot in targets:
        raise InputError(
            f"Steering sentences from {study.pivot!r} to {', '.join(targets) or 'nothing'}: give "
            "one language or more, and others than that (steer_languages)."
        )
    if strange := [tag for tag in (study.pivot, *targets) if not known_to_identifier(tag)]:
        raise InputError(
            f"The identifier (py3langid) can't name {', '.join(strange)}, so nobody could say "
            "whether a text is in it: leave it out with steer_languages (--steer-languages)."
        )
    if taken := [method for method in study.steer if method in REMOVALS]:
        raise InputError(
            f"steer holds {', '.join(taken)}, which leads to no language: sentences are steered by "
            f"vectors or {NEURONS}."
        )
    kept = [tag for tag in sentences.languages if tag in (study.pivot, *targets)]
    ids = long_enough(sentences.select(languages=kept))
    if len(ids) < study.n_steered:
        raise DataError(
            f"{len(ids)} of the {len(sentences)} sentences are long enough to be cut in half in "
            f"every language, but {study.n_steered} are needed: {study.n_estimate} to estimate "
            f"vectors, {study.n_dev} to choose layer and strength, {study.n_test} to test. Give "
            "more, or smaller numbers (--n-estimate, --n-dev, --n-test)."
        )
    table = sentences.frame.drop_duplicates("id")
    documents = dict(zip(table["id"], table["document"], strict=True))
    drawn = sentences.select(ids=ids).sample(study.n_steered, seed=study.seed).ids
    return divided(drawn, documents, study)


@typed
def steer_outputs(
    model: HookedModel,
    sentences: Sentences,
    *,
    study: SteeredStudy | None = None,
    store: Store | None = None,
    progress: bool = True,
) -> OutputSteering:
    """Push continuations from one language to others, and judge them by language and relevance.

    A continuation is relevant where the model, unsteered, finds it likelier after its own prompt
    in the target language, which it has not seen, than after three others (our reading: no other
    model judges). The same is done with what was written there, which shows how far the judges can
    be right about other people's text.

    Args:
        model: From `xlens.load`.
        sentences: In the language of the prompts (`study.pivot`) and those steered to.
        study: What is tried.
        store: Where states, texts and scores are kept: a stopped study goes on where it was.
        progress: Show bars.

    Raises:
        ValueError: what `check_outputs` refuses, before the model runs.
    """
    study = study or SteeringStudy()
    parts = check_outputs(sentences, study, model)
    targets = steered_to(sentences, study)
    texts = sentences.select(languages=[study.pivot, *targets])
    split = {part: [id for id, p in parts.items() if p == part] for part in SPLITS}
    room = study.max_new_tokens or ROOM
    spoken = Continuations(model, texts, room, study.seed, store, progress)
    steered = _Steered(spoken, study, targets, split)
    dev = steered.choosing()
    chosen = pick_cells(dev, steered.rule)
    outputs = steered.testing(chosen)
    test, swept = output_rates(outputs, resampling=study.resampling)
    return OutputSteering(
        provenance=analysed(
            model.provenance(),
            "steering_outputs",
            {
                "sentences": sentences.source,
                "licence": sentences.licence,
                "study": study.options(),
                "targets": list(targets),
                **study.resampling.provenance(),
            },
        ),
        dev=dev,
        chosen=chosen,
        test=test,
        swept=swept,
        said=languages_of(outputs),
        outputs=outputs,
        balance=steered.balance,
        split=pd.DataFrame({"id": list(parts), "part": list(parts.values())}),
        source=study.pivot,
        chance=1 / (1 + n_others(split["test"])),
    )


@dataclass(frozen=True)
class _Steered:
    spoken: Continuations
    study: SteeredStudy
    targets: tuple[str, ...]
    split: Mapping[str, list[str]]

    @property
    def model(self) -> HookedModel:
        return self.spoken.model

    # Pushes

    @cached_property
    def estimates(self) -> Prompts:
        return self.spoken.texts.select(ids=self.split["estimate"]).prompts()

    @cached_property
    def methods(self) -> tuple[str, ...]:
        return tuple(method for method in self.study.steer if method != NEURONS)

    @cached_property
    def pushes(self) -> dict[tuple[str, str], Push]:
        """By target and method."""
        found: dict[tuple[str, str], Push] = {}
        for target in self.targets:
            for method in self.study.steer:
                push = self.neurons.get(target) if method == NEURONS else self._vectors(
                    target, method, None
                )  # fmt: skip
                if push is not None:
                    found[target, method] = push
        return found

    @cached_property
    def _states(self):
        layers = range(1, self.model.n_layers + 1)
        return harvest(self.model, self.estimates, layers=layers, slots=_WHOLE, **self.spoken.how)

    def _vectors(self, target: str, method: str, shuffled: int | None) -> SteeringVectors:
        return steering_vectors(
            self._states, self.study.pivot, target, method=method, shuffled=shuffled
        )

    @cached_property
    def neurons(self) -> dict[str, NeuronPush | None]:
        counted = tally(self.model, self.estimates, **self.spoken.how)
        mine = language_neurons(counted, least_tokens=1)
        return {t: neuron_push(counted, mine, self.study.pivot, t) for t in self.targets}

    @cached_property
    def balance(self) -> pd.DataFrame:
        if len(self.targets) < 2 or not self.methods:
            return pd.DataFrame(columns=["layer", "alignment", "separability"])
        every = {t: self._vectors(t, "mean_difference", None) for t in self.targets}
        return layer_balance(every)

    @cached_property
    def rule(self) -> int | None:
        """The layer that is predicted, among those that are swept one by one."""
        return predicted_layer(self.balance, [at for at in self._bands if isinstance(at, int)])

    @property
    def _bands(self) -> Sequence[int | tuple[int, ...]]:
        return self.study.bands or range(1, self.model.n_layers + 1)

    def cells(self, push: Push) -> Iterable[tuple[str, float]]:
        """Bands and strengths that are tried; neurons are changed in all blocks at once."""
        names = ["-".join(map(str, [at] if isinstance(at, int) else at)) for at in self._bands]
        if isinstance(push, NeuronPush):
            names = ["-".join(map(str, push.layers))]
        strengths = [s for s in self.study.strengths if s > 0 or not isinstance(push, NeuronPush)]
        return [(name, s) for name in names for s in strengths if s != 0]

    def _edits(self, push: Push, band: str, strength: float) -> list[Intervention]:
        layers = [int(n) for n in band.split("-")]
        return push.interventions(
            self.model, strength=strength, layers=layers, slot=self.study.slot
        )

    # What is said

    @cached_property
    def unsteered(self) -> dict[str, pd.DataFrame]:
        """What is said where nothing is pushed, by part: the same whatever language is meant."""
        pivot = self.study.pivot
        return {part: self.spoken.said(pivot, self.split[part], []) for part in ("dev", "test")}

    # The study

    def choosing(self) -> pd.DataFrame:
        """Every cell on the development prompts."""
        ids, rows = self.split["dev"], list[dict[str, object]]()
        for target in self.targets:
            plain = (PLAIN, "", 0.0)
            tried: dict[tuple[str, str, float], list[Intervention]] = {}
            for method in self.study.steer:
                if (push := self.pushes.get((target, method))) is None:
                    continue
                for band, strength in self.cells(push):
                    tried[method, band, strength] = self._edits(push, band, strength)
            said = [self.unsteered["dev"]]
            said += [self.spoken.said(self.study.pivot, ids, edits) for edits in tried.values()]
            texts = pd.concat([table.assign(cell=n) for n, table in enumerate(said)])
            judged = self.spoken.judged(target, ids, texts)
            means = judged.groupby("cell")[["forcing", "relevance"]].mean()
            for (method, band, strength), (forcing, relevance) in zip(
                (plain, *tried), means.to_numpy(float), strict=True
            ):
                rows.append(
                    {
                        "target": target,
                        "method": method,
                        "band": band,
                        "strength": strength,
                        "score": float(harmonic(np.array([forcing, relevance]))),
                        "forcing": forcing,
                        "relevance": relevance,
                        "n": len(ids),
                    }
                )
        return pd.DataFrame(rows)

    def testing(self, chosen: pd.DataFrame) -> pd.DataFrame:
        """Every condition on the test prompts."""
        ids = self.split["test"]
        tables: list[pd.DataFrame] = []
        for target in self.targets:
            written = pd.DataFrame(
                {"id": ids, "text": [self.spoken.halves[target].rest[id] for id in ids]}
            ).assign(truncated=False)
            said = {
                PLAIN: self.unsteered["test"],
                ASKED: self.spoken.said(target, ids, []),
                WRITTEN: written,
            }
            mine = chosen[chosen["target"] == target]
            for method, cells in mine.groupby("method", sort=False):
                said |= self._pushed(target, str(method), cells, ids)
            every = pd.concat([t.assign(condition=name) for name, t in said.items()])
            tables.append(self.spoken.judged(target, ids, every))
        found = pd.concat(tables, ignore_index=True)
        documents = self.spoken.texts.frame.drop_duplicates("id").set_index("id")["document"]
        return found.assign(paragraph=documents.loc[found["id"]].to_numpy())

    def _pushed(
        self, target: str, method: str, cells: pd.DataFrame, ids: list[str]
    ) -> dict[str, pd.DataFrame]:
        """The chosen cell, the rule's, and the controls of the first."""
        picked = {
            str(row["picked"]): (str(row["band"]), float(row["strength"]))
            for row in cells.to_dict("records")
        }
        push, at, pivot = self.pushes[target, method], picked[SWEEP], self.study.pivot
        said = {method: self.spoken.said(pivot, ids, self._edits(push, *at))}
        if RULE in picked:
            same = picked[RULE] == at
            other = [] if same else self._edits(push, *picked[RULE])
            said[f"{method}, {RULE}"] = (
                said[method] if same else self.spoken.said(pivot, ids, other)
            )
        for n in range(self.study.n_controls):
            seed = self.study.seed + n
            edits = self._edits(push.random(seed=seed), *at)
            said[f"{method}, random {n}"] = self.spoken.said(pivot, ids, edits)
            if method != NEURONS:
                shuffled = self._vectors(target, method, seed)
                edits = self._edits(shuffled, *at)
                said[f"{method}, shuffled {n}"] = self.spoken.said(pivot, ids, edits)
        return said


def outputs_work(sentences: Sentences, study: SteeredStudy, model: HookedModel | Outline) -> Work:
    """States of sentences, continuations in every cell, and what judges them."""
    parts = check_outputs(sentences, study)
    targets = steered_to(sentences, study)
    texts = sentences.select(languages=[study.pivot, *targets])
    split = {part: [id for id, p in parts.items() if p == part] for part in SPLITS}
    work = passes(model.tokenizer, list(texts.select(ids=split["estimate"]).prompts()))
    bands, room = len(study.bands or range(model.size.n_layers)), study.max_new_tokens or ROOM
    edited = NEURONS in study.steer
    vectors = len(study.steer) - edited
    cells = vectors * bands * sum(s != 0 for s in study.strengths)
    cells += edited * sum(s > 0 for s in study.strengths)
    # Neurons are no direction: there is no layer that a rule predicts, and nothing to shuffle.
    pushes = vectors * (2 + 2 * study.n_controls) + edited * (1 + study.n_controls)
    halves = {tag: list(halved(texts, tag).prompts) for tag in texts.languages}
    # Conditions without a push: nothing done, which is run once for all targets; the target's own
    # prompts; and what was written, which nothing says.
    for part, pushed, more in (("dev", cells, 1), ("test", pushes, 3)):
        n = len(split[part])
        mine = {tag: [p for p in halves[tag] if p.id in split[part]] for tag in halves}
        work += passes(model.tokenizer, mine[study.pivot]) + Work(said=n * room)
        for target in targets:
            asked = more > 1
            work += passes(model.tokenizer, mine[study.pivot], [1.0] * pushed)
            work += passes(model.tokenizer, mine[target], [1.0] * (1 + asked))
            # Each text is held against its own prompt and others.
            held = (1 + n_others(split[part])) * n * (pushed + more)
            work += Work(held, held * room, held * room, n * (pushed + asked) * room)
    return work + NOTHING
