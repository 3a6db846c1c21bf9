"""Few-shot prompts that ask for one word: translation, repetition, cloze.

The first two are those of Wendler et al. 2024 (arXiv 2402.10588; demonstrations and query one per
line, endonyms, the query cut after its opening quote):

    Français: "mars" - Deutsch: "März"
    Français: "lundi" - Deutsch: "
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.headers import HEADERS, Headers, check_headers
from xlens.languages import endonym, standardize
from xlens.prompts import Prompt, Prompts, TooFewItems
from xlens.tasks.cldr import world
from xlens.tasks.words.demonstrations import (
    Item,
    default_pool,
    demonstrations,
    says,
    surfaces,
)
from xlens.tasks.words.wordlist import WordList, kind_of, shown
from xlens.text import folded


class WordPrompts(Prompts):
    """Prompts that ask for a word.

    Attributes:
        dropped: Items that are not asked for, where no ids were named, with the reason: `missing
            word`, or `named by a label`. Selections of these prompts are plain `Prompts`.
    """

    def __init__(self, prompts: Iterable[Prompt], dropped: Mapping[str, str]) -> None:
        super().__init__(prompts)
        self.dropped = dict(dropped)


@typed
def translation_prompts(
    words: WordList,
    source: str,
    target: str,
    *,
    ids: Iterable[str] | None = None,
    shots: int = 4,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Iterable[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> WordPrompts:
    """Prompts that ask for the translation of a word (Wendler et al. 2024, arXiv 2402.10588).

    An item is preceded by the same demonstrations in every pair of languages: one of `headers`
    that all items share, cut from `pool` and dealt by ids and `seed` alone, of the item's kind
    where the pool holds enough of it, else of any. What many prompts begin with is run once;
    intervals draw headers whole. No demonstration holds a word of the query, in any language of
    `words` and whatever its case; so build all pairs of a study from one word list. Nor is an item
    asked for, unless `ids` names it, that the prompt's own labels give away (`русский` after
    `Русский:`).

    Spans: `demonstrations`, `query` (the last line), `word` (the word asked about). Meta: task,
    source, target, kind, answer (the item asked for: here the prompt's own id), demonstrations
    (their ids, joined by `|`), header (their name, where they are shared). The prompt's id is the
    item's, its language `source`.

    Args:
        words: The word list.
        source: Language of the word given.
        target: Language of the word asked for.
        ids: Items to ask for; None: all that have a word in both languages, and none in a label.
        shots: Demonstrations before the query.
        seed: Varies the choice of demonstrations.
        headers: About how many headers of `shots` demonstrations all items share, split among
            kinds by their size; `item`: demonstrations of each item's own.
        pool: Items to demonstrate with; None: those with a word in every language of `words` (of
            the query's kind: in every language that has the kind at all).
        names: What the prompt calls its languages, by tag, where not by endonym.

    Raises:
        ValueError: source and target are the same, a language without a column, an id that is
            unknown or lacks a word, too few items to demonstrate with, a word with a double quote.
    """
    source, target = _pair(words, source, target)
    labels = _labels((source, target), names)
    return _prompts(
        words,
        "translation",
        (source, target),
        labels,
        [Item(id, id, id, kind_of(id)) for id in words.ids],
        ids=ids,
        shots=shots,
        seed=seed,
        headers=headers,
        pool=pool,
    )


@typed
def repetition_prompts(
    words: WordList,
    language: str,
    *,
    ids: Iterable[str] | None = None,
    shots: int = 4,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Iterable[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> WordPrompts:
    """Prompts that ask for the given word again, in the same language (arXiv 2402.10588).

    The control for translation: everything as in `translation_prompts`, demonstrations included,
    with one language on both sides.

    Raises:
        ValueError: as `translation_prompts`.
    """
    (tag,) = words.require([language])
    return _prompts(
        words,
        "repetition",
        (tag, tag),
        _labels((tag,), names) * 2,
        [Item(id, id, id, kind_of(id)) for id in words.ids],
        ids=ids,
        shots=shots,
        seed=seed,
        headers=headers,
        pool=pool,
    )


@typed
def cloze_prompts(
    words: WordList,
    language: str,
    *,
    relations: Sequence[str] | None = None,
    ids: Iterable[str] | None = None,
    shots: int = 2,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Iterable[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> WordPrompts:
    """Prompts in one language that ask for a word that follows from another.

    Our reading of the paper's cloze task (arXiv 2402.10588), whose sentences were written by a
    language model and are not redistributed. Here a relation, shown by two demonstrations, takes
    the place of the definition; it is the same in every language and needs no sentence:

        Français: "mars" - "avril"
        Français: "mai" - "

    Relations, of CLDR's items (`cldr_words`): `next-month` and `next-weekday`, after December and
    Sunday from the start; `territory-currency` and `territory-language`, from a territory with
    exactly one legal tender or official language to it; of the territories that share an answer
    the largest asks. So every answer is asked for once, and its item id is the prompt's id.

    Spans as in `translation_prompts` (`word` is the cue); meta also has relation and cue (an item
    id). Source and target are both `language`. Demonstrations show the query's relation, and
    neither the query's cue nor its answer.

    Raises:
        ValueError: an unknown relation, one whose items `words` lacks, and as
            `translation_prompts`.
    """
    (tag,) = words.require([language])
    wanted = world.RELATIONS if relations is None else relations
    if isinstance(wanted, str) or not wanted or not set(wanted) <= set(world.RELATIONS):
        raise InputError(
            f"relations={relations!r}: accepted are one or more of {', '.join(world.RELATIONS)}."
        )
    known = set(words.ids)
    linked = {
        relation: [
            Item(answer, cue, answer, relation)
            for cue, answer in world.links(relation)
            if cue in known and answer in known
        ]
        for relation in wanted
    }
    absent = [relation for relation, items in linked.items() if not items]
    if absent and (relations is not None or len(absent) == len(linked)):
        raise InputError(
            f"The list from {words.source} has no items for {', '.join(map(repr, absent))}; get "
            "them with cldr_words(languages), or leave the relation out of relations=."
        )
    items = [item for found in linked.values() for item in found]
    return _prompts(
        words,
        "cloze",
        (tag, tag),
        _labels((tag,), names),
        items,
        ids=ids,
        shots=shots,
        seed=seed,
        headers=headers,
        pool=pool,
    )


@typed
def answers(words: WordList, prompts: Prompts, languages: Iterable[str]) -> pd.DataFrame:
    """The word that each prompt asks for, in several languages.

    Returns:
        Index `id`: the prompts' ids, each once, in their order. Columns: `languages`. A word, or
        NA where the list has none.

    Raises:
        ValueError: a language without a column, or prompts of another word list.
    """
    columns = words.require(languages)
    asked = {prompt.id: str(prompt.meta.get("answer", prompt.id)) for prompt in prompts}
    if unknown := sorted(set(asked.values()) - set(words.ids)):
        raise InputError(
            f"The prompts ask for {shown(unknown)}, which the list from {words.source} lacks; "
            "give the word list that they were built from."
        )
    frame = words.frame.loc[list(asked.values()), list(columns)]
    return frame.set_axis(pd.Index(list(asked), name="id"), axis="index")


def _pair(words: WordList, source: str, target: str) -> tuple[str, str]:
    (one,), (other,) = words.require([source]), words.require([target])
    if one == other:
        raise InputError(
            f"source and target are both {one!r}: nothing to translate. Use two languages, or "
            "repetition_prompts(words, language)."
        )
    return one, other


def _labels(languages: Sequence[str], names: Mapping[str, str] | None) -> tuple[str, ...]:
    """What a prompt calls its languages; scripts told apart where the plain names are the same."""
    own = {standardize(tag): name for tag, name in (names or {}).items()}
    plain = tuple(own.get(tag) or endonym(tag) for tag in languages)
    # Two scripts of one language have one endonym: then each is called by its variant's.
    if len(set(plain)) == len(plain):
        return plain
    return tuple(own.get(tag) or endonym(tag, variant=True) for tag in languages)


def _prompts(
    words: WordList,
    task: str,
    languages: tuple[str, str],
    labels: tuple[str, ...],
    items: Sequence[Item],
    *,
    ids: Iterable[str] | None,
    shots: int,
    seed: int,
    headers: Headers,
    pool: Iterable[str] | None,
) -> WordPrompts:
    """Queries for `ids`, demonstrations from `pool`, both among `items`."""
    check_headers(headers, shots)
    given, asked = (words.words(tag) for tag in languages)
    by_id = {item.id: item for item in items}
    ready = [item.id for item in items if item.cue in given and item.answer in asked]
    said = surfaces(words, items)
    dropped: dict[str, str] = {}
    if ids is None:
        shown_labels = "\n".join(map(folded, labels))
        whole = set(ready)
        for id in by_id:
            if id not in whole:
                dropped[id] = "missing word"
            elif says(shown_labels, said[id]):
                dropped[id] = "named by a label"
        ids = [id for id in ready if id not in dropped]
        if not ids:
            raise TooFewItems(
                f"No item of {words.source} can be asked for in "
                f"{' and '.join(dict.fromkeys(languages))}: of {len(items)}, "
                f"{_counted(dropped, languages, given, asked, items)}. Give a list with words in "
                "both, or ask for other languages or kinds."
            )
    queries = _chosen("ids", ids, ready, by_id, languages)
    if pool is None:
        chosen_from, anywhere = default_pool(words, items)
    else:
        chosen_from = [by_id[id] for id in _chosen("pool", pool, ready, by_id, languages)]
        anywhere = chosen_from
    demonstrated = demonstrations(
        [by_id[id] for id in queries],
        items,
        chosen_from,
        # A cloze shows what relation is meant: items of another one would mislead.
        anywhere if task != "cloze" else (),
        shots,
        seed,
        headers,
        said,
    )

    opening = f'{labels[0]}: "'
    between = '" - ' + "".join(f"{label}: " for label in labels[1:]) + '"'
    prompts: list[Prompt] = []
    for id in queries:
        item, shown_ids = by_id[id], demonstrated.ids[id]
        cue, _ = _words(item, given, asked)
        lines = [
            f'{opening}{before}{between}{after}"'
            for before, after in (_words(by_id[other], given, asked) for other in shown_ids)
        ]
        meta: dict[str, str] = {
            "task": task,
            "source": languages[0],
            "target": languages[1],
            "kind": kind_of(item.answer),
            "answer": item.answer,
            **demonstrated.meta(id),
        }
        if task == "cloze":
            meta |= {"relation": item.group, "cue": item.cue}
        prompts.append(
            Prompt.from_parts(
                [
                    *([("demonstrations", "\n".join(lines)), "\n"] if lines else []),
                    ("query", [opening, ("word", cue), between]),
                ],
                language=languages[0],
                id=id,
                meta=meta,
            )
        )
    return WordPrompts(prompts, dropped)


def _counted(
    dropped: Mapping[str, str],
    languages: Sequence[str],
    given: Mapping[str, str],
    asked: Mapping[str, str],
    items: Sequence[Item],
) -> str:
    """Why no item is left, in numbers."""
    have = {languages[0]: sum(item.cue in given for item in items)}
    have[languages[1]] = sum(item.answer in asked for item in items)
    reasons = [f"{reason} {n}" for reason, n in Counter(dropped.values()).items()]
    return ", ".join([*(f"{n} have a word in {tag}" for tag, n in have.items()), *reasons])


def _words(item: Item, given: Mapping[str, str], asked: Mapping[str, str]) -> tuple[str, str]:
    """An item's cue and answer."""
    cue, answer = given[item.cue], asked[item.answer]
    if '"' in cue + answer:
        raise InputError(
            f"Item {item.id!r} ({cue!r}, {answer!r}) holds a double quote, which ends a word in "
            "these prompts. Replace it in the word list, or leave the item out."
        )
    return cue, answer


def _chosen(
    option: str,
    asked: Iterable[str] | None,
    ready: Sequence[str],
    known: Collection[str],
    languages: Sequence[str],
) -> list[str]:
    """The item ids that `asked` names (None: all that are ready), checked."""
    pair = " and ".join(dict.fromkeys(languages))
    if isinstance(asked, str):
        raise InputError(f"{option}={asked!r}: expected a sequence of ids; write [{asked!r}].")
    chosen = list(ready if asked is None else asked)
    if not chosen:
        raise TooFewItems(f"No item to choose from: none has its words in {pair}.")
    if unknown := sorted(set(chosen) - set(known)):
        raise InputError(
            f"{option}: no item {shown(unknown)}; these prompts know {shown(list(known))}."
        )
    if lacking := sorted(set(chosen) - set(ready)):
        raise InputError(
            f"{option}: {shown(lacking)} has no word in {pair}. Choose among the items of "
            f"words.complete({list(dict.fromkeys(languages))})."
        )
    return chosen
