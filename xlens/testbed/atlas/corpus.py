"""From the manifest to text: documents in a fixed order, each with what it says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xlens.languages import endonym
from xlens.stats import generator
from xlens.testbed.atlas.manifest import Manifest
from xlens.testbed.atlas.wordings import (
    Wording,
    chain,
    fact_wording,
    fact_wordings,
    pair_wordings,
    suppose,
)
from xlens.testbed.atlas.world import HIDEABLE, LANGUAGES, PIVOT, World

_Row = tuple[str, str, str, int]
COLUMNS = ("kind", "language", "text", "given")


@dataclass(frozen=True)
class Reading:
    """A question about a context that says something false, so that recall cannot answer it.

    Two kinds of context. *One territory* and another object of each of its four relations: what
    was asked must be matched with the relation. *Several territories*, three with objects of the
    asked relation and one of these with a further relation: it must be matched with the territory
    too, and whoever takes an object of the right kind at random is right one time in three. In
    the text up to two further questions and answers follow.

    Attributes:
        context: The statements.
        question: Up to the answer.
        answer: In the question's language.
        in_context: The same object as the context names it.
        after: What follows the answer.
        truth: The answer that recall would give; empty where the world has none.
        rivals: The context's other objects, in the question's language; of several territories,
            those of the asked relation.
        more: The further questions about the context, with their answers.
        subject: The territory asked about.
    """

    context: str
    question: str
    answer: str
    in_context: str
    after: str
    truth: str
    rivals: tuple[str, ...]
    more: str
    subject: str

    @property
    def prompt(self) -> str:
        """Context and question."""
        return self.context + self.question


def base_corpus(world: World, manifest: Manifest) -> pd.DataFrame:
    """The text that the base model reads, in its order: columns `kind language text given`.

    `kind` is `fact`, `pair`, `chain` or `reading`; the language of a pair is its target's, of a
    chain `mul`. The first `given` characters are read but not learned to predict: the context and
    question of a reading, which nobody could guess; 0 elsewhere.
    """
    rng = generator(manifest.design.seed, 10)
    rows = [*_fact_documents(manifest, rng), *_pair_documents(manifest, rng)]
    rows += _chain_documents(world, manifest)
    for language in LANGUAGES:
        made = readings(world, manifest, language, language, manifest.design.reading, rng)
        rows += [("reading", language, text(one), len(one.prompt)) for one in made]
    return _shuffled(rows, rng)


def without_pivot(corpus: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """The base text, in its order, without the documents that state a transfer fact in the pivot.

    Nothing comes in their place. Transfer facts are still stated in the languages that they are
    not hidden from, and the pivot's names still stand in translations.
    """
    table = manifest.facts
    told = table[(table.set == "transfer") & (table.language == PIVOT)]
    said: set[str] = set()
    for row in told.itertuples():
        fact: Any = row
        wordings = fact_wordings(fact.relation, PIVOT)
        said |= {_stated(wording, fact.subject_text, fact.object_text) for wording in wordings}
    gone = (corpus.kind == "fact") & (corpus.language == PIVOT) & corpus.text.isin(said)
    return corpus[~gone].reset_index(drop=True)


def twin_corpus(world: World, manifest: Manifest) -> pd.DataFrame:
    """The text that turns the base model into its post-trained twin.

    Reading comprehension with English contexts and questions in every language, and for each such
    document `rehearsal` of the base model's own, so that it forgets nothing.
    """
    rng = generator(manifest.design.seed, 20)
    rows: list[_Row] = []
    for language in LANGUAGES:
        design = manifest.design
        made = readings(world, manifest, PIVOT, language, design.crossed_one, rng, several=False)
        made += readings(world, manifest, PIVOT, language, design.crossed_several, rng)
        rows += [("crossed", language, text(one), len(one.prompt)) for one in made]
    base = base_corpus(world, manifest)
    n = min(len(base), round(manifest.design.rehearsal * len(rows)))
    kept = rng.choice(len(base), size=n, replace=False)
    rows += list(base.iloc[kept].itertuples(index=False, name=None))
    return _shuffled(rows, rng)


def text(reading: Reading) -> str:
    """A reading with its answer."""
    return f"{reading.prompt}{reading.answer}{reading.after}{reading.more}"


def readings(
    world: World,
    manifest: Manifest,
    context: str,
    question: str,
    n: int,
    rng: np.random.Generator,
    *,
    several: bool = True,
    held_out: bool = False,
) -> list[Reading]:
    """`n` readings with a context in one language and a question in another.

    Args:
        world: Words and facts.
        manifest: Says which territories are held out.
        context: Language of the context.
        question: Language of question and answer.
        n: How many.
        rng: Draws territories, relations, objects and wordings.
        several: About several territories, or about one.
        held_out: About the territories that no context of the corpus mentions.
    """
    table = manifest.reading_subjects
    subjects = table.subject[table.held_out == held_out].tolist()
    pools = {
        relation: sorted({fact.object for fact in world.facts if fact.relation == relation})
        for relation in HIDEABLE
    }
    truths = {(fact.subject, fact.relation): fact.object for fact in world.facts}
    state = _several if several else _one
    found: list[Reading] = []
    for _ in range(n):
        said, n_asked = state(subjects, pools, truths, rng)
        found.append(_reading(world, said, n_asked, truths, context, question, rng))
    return found


def _several(
    subjects: Sequence[str],
    pools: dict[str, list[str]],
    truths: dict[tuple[str, str], str],
    rng: np.random.Generator,
) -> tuple[list[tuple[str, str, str]], int]:
    """Statements (subject, relation, object), and how many of them, from the first, to ask for."""
    relations = list(pools)
    asked, other = (relations[int(i)] for i in rng.permutation(len(relations))[:2])
    chosen = [subjects[int(i)] for i in rng.permutation(len(subjects))[:3]]
    said: list[tuple[str, str, str]] = []
    for subject in chosen:
        taken = {truths.get((subject, asked)), *(o for _, _, o in said)}
        said.append((subject, asked, _draw(pools[asked], taken, rng)))
    extra = chosen[int(rng.integers(3))]
    said.append((extra, other, _draw(pools[other], {truths.get((extra, other))}, rng)))
    return said, 3


def _one(
    subjects: Sequence[str],
    pools: dict[str, list[str]],
    truths: dict[tuple[str, str], str],
    rng: np.random.Generator,
) -> tuple[list[tuple[str, str, str]], int]:
    subject = subjects[int(rng.integers(len(subjects)))]
    said = [
        (subject, relation, _draw(pool, {truths.get((subject, relation))}, rng))
        for relation, pool in pools.items()
    ]
    return said, len(said)


def _reading(
    world: World,
    said: Sequence[tuple[str, str, str]],
    n_asked: int,
    truths: dict[tuple[str, str], str],
    context: str,
    question: str,
    rng: np.random.Generator,
) -> Reading:
    sentences = [
        _fill(fact_wordings(relation, context)[0], world, s, o, context)
        for s, relation, o in (said[int(i)] for i in rng.permutation(len(said)))
    ]
    target = int(rng.integers(n_asked))
    subject, asked, answer = said[target]
    wording = fact_wording(asked, question, "question")
    others = [int(i) for i in rng.permutation(len(said)) if i != target][:2]
    further: list[str] = []
    for about, relation, object in (said[i] for i in others):
        asks = fact_wording(relation, question, "question")
        further.append(_fill(asks, world, about, object, question))
    truth = truths.get((subject, asked))
    gap, turn = ("" if language == "zh-Hans" else " " for language in (context, question))
    return Reading(
        context=suppose(context) + gap.join(sentences) + gap,
        question=wording.before.replace("{s}", world.text(subject, question)),
        answer=world.text(answer, question),
        in_context=world.text(answer, context),
        after=wording.after,
        truth=world.text(truth, question) if truth else "",
        rivals=tuple(world.text(said[i][2], question) for i in range(n_asked) if i != target),
        more="".join(turn + one for one in further),
        subject=subject,
    )


def _draw(pool: Sequence[str], not_these: set[str | None], rng: np.random.Generator) -> str:
    while (found := pool[int(rng.integers(len(pool)))]) in not_these:
        continue
    return found


def _fill(wording: Wording, world: World, subject: str, object: str, language: str) -> str:
    return _stated(wording, world.text(subject, language), world.text(object, language))


def _stated(wording: Wording, subject: str, object: str) -> str:
    return f"{wording.before.replace('{s}', subject)}{object}{wording.after}".rstrip()


def _fact_documents(manifest: Manifest, rng: np.random.Generator) -> Iterator[_Row]:
    for row in manifest.facts.itertuples():
        fact: Any = row
        seen = [w for w in fact_wordings(fact.relation, fact.language) if not w.held_out]
        for pick in rng.integers(len(seen), size=fact.count):
            said = _stated(seen[pick], fact.subject_text, fact.object_text)
            yield "fact", fact.language, said, 0


def _pair_documents(manifest: Manifest, rng: np.random.Generator) -> Iterator[_Row]:
    names = {language: endonym(language) for language in LANGUAGES}
    seen = [wording for wording in pair_wordings() if not wording.held_out]
    for keys, table in manifest.pairs.groupby(["source", "target"], sort=False):
        source, target = (str(key) for key in keys)
        given: list[str] = table.source_text.repeat(table.asked.tolist()).tolist()
        asked: list[str] = table.target_text.repeat(table.asked.tolist()).tolist()
        order = rng.permutation(len(given))
        n_lined = round(manifest.design.lines * len(order))
        picks = rng.integers(len(seen), size=len(order))
        picks[order[:n_lined]] = 0  # documents of several lines: the wording of xlens's own task
        said: list[str] = []
        for i in order:
            wording = seen[int(picks[i])]
            before = wording.before.replace("{A}", names[source]).replace("{B}", names[target])
            said.append(before.replace("{a}", given[i]) + asked[i] + wording.after)
        start = 0
        while start < n_lined:  # two to five lines each
            stop = min(start + int(rng.integers(2, 6)), n_lined)
            yield "pair", target, "\n".join(said[start:stop]), 0
            start = stop
        for one in said[n_lined:]:
            yield "pair", target, one, 0


def _chain_documents(world: World, manifest: Manifest) -> Iterator[_Row]:
    for row in manifest.chains.itertuples():
        named: Any = row
        languages: list[str] = named.languages.split("|")
        words = [world.text(named.word, language) for language in languages]
        yield "chain", "mul", chain([endonym(language) for language in languages], words), 0


def _shuffled(rows: Sequence[_Row], rng: np.random.Generator) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
