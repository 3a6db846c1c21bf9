"""What a study of reading takes of a model, counted from its prompts."""

from collections.abc import Sequence

from xlens.models import HookedModel
from xlens.models.sources import Outline
from xlens.phases import KINDS
from xlens.prompts import Prompt
from xlens.studies.phases import RANDOM_INIT, TWIN, InsideStudy
from xlens.studies.reading import ORACLE, ReadingStudy
from xlens.studies.steps.context_retrieval import ReadingPlan
from xlens.studies.steps.reading_phases import PAIRED, PhasePrompts
from xlens.studies.work import BACKWARD, NOTHING, Work, from_layers, passes, scored
from xlens.tasks.xmrc import gold_targets
from xlens.tasks.xmrc.oracle import shortened

Model = HookedModel | Outline


def reading_work(plan: ReadingPlan, study: ReadingStudy, model: Model) -> dict[str, Work]:
    """By part. Answers count as if all were as long as they may be."""
    prompts = [p for group in (*plan.prompts, *plan.exchanged) for p in group]
    asked = passes(model.tokenizer, prompts)
    work = {"predictions": asked + Work(said=len(prompts) * plan.manner.longest)}
    if study.oracle:
        work[ORACLE] = _oracle(plan, study, model)
    if study.phases:
        inside = plan.inside(study)
        assert inside is not None
        work |= inside_work(inside, study, model)
    return work


def _oracle(plan: ReadingPlan, study: ReadingStudy, model: Model) -> Work:
    """Texts without each sentence in turn, with the right answer and one as long beside it."""
    work = NOTHING
    for group in plan.beside(study):
        made = [shortened(prompt, n) for n, prompt in enumerate(group)]
        texts = [some if len(some) > 2 else [] for some in made]  # of one sentence: left out
        said = [
            [gold, gold + "."]  # the model's own answer isn't known yet
            for gold, some in zip(gold_targets(group), texts, strict=True)
            for _ in some
        ]
        work += scored(model.tokenizer, [text for some in texts for text in some], said)
    return work


def inside_work(prompts: PhasePrompts, study: InsideStudy, model: Model) -> dict[str, Work]:
    """Of the parts about the inside."""
    own = list(prompts.own.prompts)
    layers = list(study.phase_layers) or list(range(model.size.n_layers + 1))
    kinds = list(study.kinds or KINDS)
    work = {
        "relevance": passes(model.tokenizer, own, [BACKWARD]),
        "curves": _curves(own, kinds, layers, model),
    }
    if RANDOM_INIT in study.controls:
        pivot = study.pivot if study.pivot in prompts.own.prompts.languages else own[0].language
        causal = [kind for kind in kinds if KINDS[kind].basis == "causal"] if study.kinds else []
        some = [prompt for prompt in own if prompt.language == pivot]
        work[TWIN] = _curves(some, causal or list(PAIRED), layers, model)
    return work


def _curves(
    prompts: Sequence[Prompt], kinds: Sequence[str], layers: Sequence[int], model: Model
) -> Work:
    """A plain run and one for each changed layer of every causal kind; one or two of others."""
    changed = from_layers(model.size.n_layers, layers)
    runs: list[float] = []
    for kind in kinds:
        if KINDS[kind].basis == "causal":
            runs += [1.0, 1.0, *changed]  # states to put in, the plain run, the changed ones
    runs += [1.0] * ("readable" in kinds)
    runs += [1.0, 1.0] * any(kind.startswith("aligned") for kind in kinds)
    runs += [BACKWARD] * any(kind.startswith(("relevance", "depth")) for kind in kinds)
    return passes(model.tokenizer, prompts, runs)
