"""Two questions about each context, in every language: what a phase detector reads."""

from collections.abc import Sequence

from xlens.prompts import Prompt, Prompts
from xlens.stats import generator
from xlens.testbed.atlas.manifest import Manifest
from xlens.testbed.atlas.wordings import fact_wording, fact_wordings, suppose
from xlens.testbed.atlas.world import HIDEABLE, LANGUAGES, PIVOT, World


def paired_readings(
    world: World,
    manifest: Manifest,
    *,
    n: int = 24,
    languages: Sequence[str] = LANGUAGES,
    context: str = PIVOT,
    seed: int = 0,
) -> tuple[Prompts, list[str]]:
    """Contexts about held-out territories, and two questions about each in every language.

    A context says something false of one territory in each of four relations, so that recall can't
    answer; the two questions ask for two of them. Everything but the question's language is the
    same for an id.

    Args:
        world: Words and facts.
        manifest: Says which territories no context of the training text mentions.
        n: Contexts.
        languages: Of the questions, and of their answers.
        context: Language of the contexts.
        seed: Of the draws.

    Returns:
        Prompts with the spans `context` and `question` (without its last sign) and `paragraph` in
        their meta; the right answer of each, in the question's language, as it follows.
    """
    rng = generator(manifest.design.seed, 31, seed)
    table = manifest.reading_subjects
    subjects = table.subject[table.held_out].tolist()
    truths = {(fact.subject, fact.relation): fact.object for fact in world.facts}
    pools = {r: sorted({f.object for f in world.facts if f.relation == r}) for r in HIDEABLE}
    prompts: list[Prompt] = []
    answers: list[str] = []
    for number in range(n):
        subject = subjects[int(rng.integers(len(subjects)))]
        said = {
            relation: pool[int(rng.choice(_others(pool, truths.get((subject, relation)))))]
            for relation, pool in pools.items()
        }
        told = [list(said)[int(i)] for i in rng.permutation(len(said))]
        gap = "" if context == "zh-Hans" else " "
        lines = gap.join(_stated(world, subject, r, said[r], context) for r in told)
        first, second = (list(said)[int(i)] for i in rng.permutation(len(said))[:2])
        for relation in (first, second):
            for language in languages:
                wording = fact_wording(relation, language, "question")
                asked = wording.before.replace("{s}", world.text(subject, language))
                kept = asked.rstrip(" ?？")
                prompts.append(
                    Prompt.from_parts(
                        [
                            ("context", suppose(context) + lines),
                            gap,
                            ("question", kept),
                            asked[len(kept) :],
                        ],
                        language=language,
                        id=f"{number}/{relation}",
                        meta={"paragraph": str(number), "relation": relation},
                    )
                )
                answers.append(world.text(said[relation], language))
    return Prompts(prompts), answers


def _others(pool: Sequence[str], true: str | None) -> list[int]:
    return [i for i, name in enumerate(pool) if name != true]


def _stated(world: World, subject: str, relation: str, object: str, language: str) -> str:
    wording = fact_wordings(relation, language)[0]
    before = wording.before.replace("{s}", world.text(subject, language))
    return f"{before}{world.text(object, language)}{wording.after}".rstrip()
