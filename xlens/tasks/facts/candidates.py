"""Which objects a fact's own is ranked among: the same ones, in the same order, everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.choices.text import folded
from xlens.tasks.facts.data import Facts


@dataclass(frozen=True)
class Offers:
    """Candidates of facts.

    Attributes:
        ids: By fact, the facts whose first objects are offered, in order.
        gold: By fact, the number of its own object among them.
        without: Facts that have none, as their relation has one object only.
    """

    ids: Mapping[str, tuple[str, ...]]
    gold: Mapping[str, int]
    without: tuple[str, ...]


@typed
def offers(facts: Facts, pool: Facts, n: int, *, seed: int = 0) -> Offers:
    """Candidates for every fact: its own object and others of its relation (mLAMA's typed query).

    Objects that are one string in some language are one object everywhere. None of the others is
    right, in any language. Which they are, and where the right one stands, hangs on ids and seed.

    Args:
        facts: What is asked.
        pool: Facts that objects are taken from.
        n: Most candidates of a fact.
        seed: Of the choice.

    Raises:
        ValueError: fewer than two candidates asked for.
    """
    if n < 2:
        raise InputError(f"n_candidates is {n}; to rank takes 2 or more (0: none are ranked).")
    objects = _objects(pool)
    by_relation: dict[str, list[str]] = {}
    for id, first in objects.items():
        if id == first:
            by_relation.setdefault(pool.relations[id], []).append(id)
    golds = {
        id: [{*map(folded, facts.facts(tag)[id].objects)} for tag in facts.languages]
        for id in facts.ids
    }
    texts = {
        id: [folded(pool.facts(tag)[id].objects[0]) for tag in facts.languages]
        for ids in by_relation.values()
        for id in ids
    }
    chosen: dict[str, tuple[str, ...]] = {}
    gold: dict[str, int] = {}
    without: list[str] = []
    for id, relation in facts.relations.items():
        own = objects.get(id, id)
        wrong = [
            other
            for other in by_relation.get(relation, [])
            if other != own
            and not any(text in right for text, right in zip(texts[other], golds[id], strict=True))
        ]
        wrong = sorted(wrong, key=lambda other: seeded_rank(id, other, seed=seed))[: n - 1]
        if not wrong:
            without.append(id)
            continue
        # A place drawn by the id: the same in every language and run.
        at = int.from_bytes(seeded_rank(id, seed=seed)[:4], "big") % (len(wrong) + 1)
        # Its own text is offered, not that of the fact that stands for its object.
        chosen[id] = (*wrong[:at], id, *wrong[at:])
        gold[id] = at
    return Offers(chosen, gold, tuple(without))


def _objects(pool: Facts) -> dict[str, str]:
    """By fact, the first fact whose object is one string with its own in some language."""
    from scipy.cluster.hierarchy import DisjointSet

    same = DisjointSet(pool.ids)
    known: dict[tuple[str, str, str], str] = {}
    for tag in pool.languages:
        for id, fact in pool.facts(tag).items():
            # One string in any language joins two facts, and through
            # them whatever each was joined with.
            same.merge(known.setdefault((tag, fact.relation, folded(fact.objects[0])), id), id)
    first: dict[str, str] = {}
    return {id: first.setdefault(str(same[id]), id) for id in pool.ids}
