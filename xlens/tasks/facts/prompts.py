"""Few-shot prompts about facts: the same demonstrations in every language, and none that leaks."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import comb
from typing import Any

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts import Prompt, Prompts, choose_demonstrations
from xlens.prompts.prompt import Part
from xlens.tasks.choices.text import folded
from xlens.tasks.facts.data import Fact, Facts

Shown = Mapping[str, tuple[str, ...]]
BETWEEN = "\n"


@typed
def fact_prompts(
    facts: Facts,
    language: str,
    *,
    shots: int = 3,
    seed: int = 0,
    pool: Facts | None = None,
    leaks: bool = False,
) -> Prompts:
    """Prompts in one language: a line for every demonstration and one that stops at the object.

        What is the capital of Norway? The answer is: Oslo
        What is the capital of Japan? The answer is:

    Demonstrations are of the query's relation, chosen by fact id and seed alone: the same in every
    language, checkpoint and run (the code of arXiv 2505.14824 draws new ones for each). None holds
    the query's subject or one of its objects, in any language of `facts`. Where a relation has few
    objects this tells what the answer is not; `leaks` takes any other fact, as the paper does, and
    `relation_table` says how often the answer then stands in the prompt.

    Spans: `subject`, `question` (the last line), `demonstrations` where there are any. Meta:
    `relation`, `demonstrations` (their ids, joined by `|`), `shown` (1 where the answer is among
    theirs).

    Args:
        facts: What is asked.
        language: One of theirs.
        shots: Demonstrations before the question.
        seed: Varies the choice of demonstrations.
        pool: Facts to demonstrate with; None: `facts` themselves.
        leaks: Take demonstrations that hold the query's subject or object, too.

    Raises:
        ValueError: a language that isn't there, a negative number of shots, too few facts of a
            relation to demonstrate with.
    """
    shown = demonstrations(facts, shots=shots, seed=seed, pool=pool, leaks=leaks)
    return language_prompts(facts, pool or facts, language, shown)


def language_prompts(facts: Facts, pool: Facts, language: str, shown: Shown) -> Prompts:
    """`fact_prompts`, with the demonstrations chosen."""
    own, others = facts.facts(language), pool.facts(language)
    made: list[Prompt] = []
    for id, fact in own.items():
        turns = [others[other] for other in shown[id]]
        lines = [turn.asked.text.rstrip() + turn.asked.gap + turn.objects[0] for turn in turns]
        front: list[Part] = [("demonstrations", BETWEEN.join(lines)), BETWEEN] if lines else []
        meta: dict[str, str | int] = {
            "task": "facts",
            "relation": fact.relation,
            "demonstrations": "|".join(shown[id]),
            "shown": int(_among(fact, turns)),
        }
        parts = [*front, ("question", fact.asked.parts)]
        made.append(Prompt.from_parts(parts, language=language, id=id, meta=meta))
    return Prompts(made)


@typed
def demonstrations(
    facts: Facts,
    *,
    shots: int = 3,
    seed: int = 0,
    pool: Facts | None = None,
    leaks: bool = False,
) -> dict[str, tuple[str, ...]]:
    """Ids of facts to show before each fact, by id; the same for every language.

    Raises:
        ValueError: as `fact_prompts`.
    """
    if shots < 0:
        raise InputError(f"shots={shots}: give the number of demonstrations, 0 or more.")
    if not shots:
        return {id: () for id in facts.ids}
    offered = pool or facts
    offered.require(facts.languages)
    secrets = {} if leaks else _texts(facts, every=True)
    lines = {id: "\n".join(said) for id, said in _texts(offered, every=False).items()}
    by_relation: dict[str, list[str]] = {}
    for id, relation in offered.relations.items():
        by_relation.setdefault(relation, []).append(id)
    chosen: dict[str, tuple[str, ...]] = {}
    for id, relation in facts.relations.items():
        own = by_relation.get(relation, [])
        hidden = secrets.get(id, frozenset[str]())
        # What a demonstration shows is its first object; what it
        # could give away is any of the query's.
        told = [other for other in own if any(secret in lines[other] for secret in hidden)]
        try:
            chosen[id] = choose_demonstrations(own, id, shots, seed=seed, exclude=told)
        except ValueError as error:
            raise type(error)(f"Relation {relation!r}: {error}") from error
    return chosen


@typed
def relation_table(
    facts: Facts, *, shots: int = 3, shown: Shown | None = None, pool: Facts | None = None
) -> pd.DataFrame:
    """What can be right in a relation without knowing anything, by language.

    Args:
        facts: What is asked.
        shots: Demonstrations.
        shown: Those that are taken, from `demonstrations`.
        pool: The facts that these are of; None: `facts` themselves.

    Returns:
        One row per language and relation: `language relation n objects majority leakage shown`.
        `majority` is the share of its most frequent object, `leakage` how often an answer would
        stand among demonstrations drawn blindly (exact), `shown` how often it does among `shown`
        (NaN where these aren't given).
    """
    rows: list[dict[str, Any]] = []
    for tag in facts.languages:
        own, others = facts.facts(tag), (pool or facts).facts(tag)
        for relation in dict.fromkeys(facts.relations.values()):
            ids = [id for id, fact in own.items() if fact.relation == relation]
            golds = Counter(folded(own[id].objects[0]) for id in ids)
            n = len(ids)
            turns = {id: fact for id, fact in others.items() if fact.relation == relation}
            held = Counter(folded(fact.objects[0]) for fact in turns.values())
            missed = sum(_missed(own[id], turns.get(id), held, shots) for id in ids)
            among = (
                [_among(own[id], [others[other] for other in shown[id]]) for id in ids]
                if shown is not None
                else [float("nan")]
            )
            rows.append(
                {
                    "language": tag,
                    "relation": relation,
                    "n": n,
                    "objects": len(golds),
                    "majority": max(golds.values()) / n,
                    "leakage": 1 - missed / n,
                    "shown": sum(among) / len(among),
                }
            )
    return pd.DataFrame(rows)


def _missed(fact: Fact, itself: Fact | None, held: Counter[str], shots: int) -> float:
    """How often no answer of a fact stands among demonstrations drawn blindly from others.

    Args:
        fact: The one that is asked about.
        itself: It, where it is one of those that demonstrations are drawn from: never its own.
        held: How many of those hold each object.
        shots: Demonstrations.
    """
    golds = {*map(folded, fact.objects)}
    n, k = held.total(), sum(held[gold] for gold in golds)
    if itself is not None:
        n, k = n - 1, k - (folded(itself.objects[0]) in golds)
    # Of n others k hold an answer: none of them is drawn in C(n - k, drawn) of C(n, drawn) draws.
    drawn = min(shots, n)
    return comb(n - k, drawn) / comb(n, drawn)


def _among(fact: Fact, turns: Iterable[Fact]) -> bool:
    golds = {*map(folded, fact.objects)}
    return any(folded(turn.objects[0]) in golds for turn in turns)


def _texts(facts: Facts, *, every: bool) -> dict[str, frozenset[str]]:
    """Subject and objects (`every` right one, or the shown) of each fact in all languages."""
    found: dict[str, set[str]] = {id: set() for id in facts.ids}
    for tag in facts.languages:
        for id, fact in facts.facts(tag).items():
            objects = fact.objects if every else fact.objects[:1]
            found[id] |= {folded(text) for text in (fact.subject, *objects)}
    return {id: frozenset(said) for id, said in found.items()}
