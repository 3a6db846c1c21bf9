"""Which items a word prompt shows before its query, without giving the answer away."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xlens.headers import Headers
from xlens.prompts.fewshot import Shown, choose_demonstrations, deal_headers
from xlens.tasks.words.wordlist import WordList
from xlens.text import folded


@dataclass(frozen=True)
class Item:
    """What a prompt can ask: word list ids of cue and answer; items of a group go together."""

    id: str
    cue: str
    answer: str
    group: str


def default_pool(words: WordList, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Items that are there in every language that has their group, and those in every language.

    The first are shown before queries of their group, the second before any (Japanese months are
    missing from CLDR's plain names: they can't be shown to a currency, but French ones can be
    shown to a French month).
    """
    tables = {tag: words.words(tag) for tag in words.languages}
    having = {
        item.id: frozenset(t for t, w in tables.items() if item.cue in w and item.answer in w)
        for item in items
    }
    of_group: dict[str, frozenset[str]] = {}
    for item in items:
        of_group[item.group] = of_group.get(item.group, frozenset[str]()) | having[item.id]
    # In every language that has some of its group: there it can always be shown.
    related = [
        item for item in items if having[item.id] and having[item.id] == of_group[item.group]
    ]
    return related, [item for item in items if len(having[item.id]) == len(tables)]


def demonstrations(
    queries: Sequence[Item],
    known: Sequence[Item],
    pool: Sequence[Item],
    anywhere: Sequence[Item],
    shots: int,
    seed: int,
    headers: Headers,
    surfaces: Mapping[str, frozenset[str]],
) -> Shown:
    """What is shown before each query: items of its group, or `anywhere` where these are few.

    An item that holds a word of the query in any language, alone or within a longer one (一月 in
    十一月), is never shown: so nothing leaks, and what is left is the same whichever languages the
    prompt is in. Headers are dealt to all `known` items, whoever is asked for.
    """
    groups: dict[str, set[str]] = {}
    for item in pool:
        groups.setdefault(item.group, set()).add(item.id)
    lines = {item.id: "\n".join(surfaces[item.id]) for item in (*pool, *anywhere)}

    def leaks(query: str, other: str) -> bool:
        return query == other or says(lines[other], surfaces[query])

    chosen: dict[str, tuple[str, ...]] = {}
    if headers != "item" and shots:
        chosen = deal_headers(
            {item.id: item.group for item in known},
            [query.id for query in queries],
            groups,
            shots,
            headers,
            seed=seed,
            leaks=leaks,
            anywhere={item.id for item in anywhere},
        )
    for query in queries:
        if query.id in chosen:
            continue
        # The query too, which isn't among the lines if it is in no pool.
        leaking = {id for id in lines if leaks(query.id, id)} | {query.id}
        candidates = groups.get(query.group, set[str]()) - leaking
        if anywhere and len(candidates) < shots:
            candidates = {item.id for item in anywhere} - leaking
        chosen[query.id] = choose_demonstrations(
            sorted(candidates), query.id, shots, seed=seed, exclude=leaking
        )
    return Shown(chosen, shared=headers != "item")


def says(text: str, words: Iterable[str]) -> bool:
    """Whether a folded text holds one of these folded words."""
    return any(word in text for word in words)


def surfaces(words: WordList, items: Iterable[Item]) -> dict[str, frozenset[str]]:
    """Every word, in any language and folded to one case, that an item would put on a line."""
    said: dict[str, set[str]] = {}
    for tag in words.languages:
        for id, word in words.words(tag).items():
            said.setdefault(id, set()).add(folded(word))
    return {
        item.id: frozenset(said.get(item.cue, set()) | said.get(item.answer, set()))
        for item in items
    }
