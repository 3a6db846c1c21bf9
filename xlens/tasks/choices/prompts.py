"""Prompts of multiple-choice items, and the options as texts to score after them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any

from xlens.checks import typed
from xlens.headers import HEADERS, Headers, check_headers
from xlens.prompts import Prompt, Prompts, TooFewItems
from xlens.prompts.fewshot import Shown, cut_headers, deal_headers, seeded_rank
from xlens.prompts.prompt import Part
from xlens.tasks.chat import in_chat
from xlens.tasks.choices.data import Choice, Choices
from xlens.tasks.choices.text import folded, gap

POOL = 64  # items of a kind to demonstrate with, at most: a large data set has thousands


@typed
def choice_prompts(
    choices: Choices,
    language: str,
    *,
    shots: int = 0,
    seed: int = 0,
    headers: Headers = HEADERS,
    pool: Choices | None = None,
    show_options: bool = False,
    chat: Any = None,
) -> tuple[Prompts, list[tuple[str, ...]]]:
    """Prompts in one language, and each one's options as the texts that would follow.

    For `xlens.score(model, *choice_prompts(choices, "de"))`. Nothing is added in any language: a
    prompt is context, question and mark as the item has them, on a line; demonstrations are such
    lines with their right answers.

        mars → avril
        mai →

    An option begins with a space where the language puts one between words; in Chinese, Japanese
    and Thai it doesn't, nor in a chat. Options are scored as text, never by a letter.

    Demonstrations are the same items in every language: one of `headers` that all items share, cut
    (from at most 64 items of a kind) and dealt by ids and seed alone, to a whole passage where
    there is one; of the query's kind, or of any where these are too few. None holds the query's
    question or right answer in any language of `choices`, or has its context. So build all
    languages of a study from one `Choices`. Where options are classes (every item of the kind has
    the same ones: topics, yes and no), classes are shown in turn instead, in an order that is drawn
    without regard to the right one: kept to the rule, no demonstration would ever be of its class.

    Spans: `question`; `query` (the question with its mark, and the options where shown); `context`,
    `options` and `demonstrations` where there are any. Meta: task, kind, gold, paragraph
    (`Choices.paragraphs`), demonstrations (their ids, joined by `|`), header (their name, where
    they are shared).

    Args:
        choices: The items.
        language: One of theirs.
        shots: Demonstrations before the query.
        seed: Varies the choice of demonstrations.
        headers: About how many headers of `shots` demonstrations items share, split among kinds by
            their size; `item`: demonstrations of each item's own.
        pool: Items to demonstrate with, from another split, in every language of `choices`; None:
            `choices` themselves.
        show_options: Name the options, in brackets, after the question.
        chat: A tokenizer whose chat template makes question and answer turns; None: plain text.

    Raises:
        ValueError: a language that isn't there, too few items to demonstrate with, a tokenizer
            without a chat template.
    """
    (tag,) = choices.require([language])
    shown = demonstrations(choices, pool or choices, shots, seed, headers, show_options)
    return language_prompts(choices, pool or choices, tag, shown, show_options, chat)


def language_prompts(
    choices: Choices,
    pool: Choices,
    language: str,
    shown: Shown,
    show_options: bool,
    chat: Any,
) -> tuple[Prompts, list[tuple[str, ...]]]:
    """`choice_prompts`, with the demonstrations chosen."""
    own, others = choices.items(language), pool.items(language)
    paragraphs = choices.paragraphs
    space = gap(language)
    # An answer begins its turn: nothing stands before it there.
    before = "" if chat else space
    between = "\n\n" if any(item.context for item in own.values()) else "\n"
    made: list[Prompt] = []
    for id, item in own.items():
        turns = [others[other] for other in shown.ids[id]]
        meta: dict[str, str | int] = {
            "task": "choices",
            "kind": item.kind,
            "gold": item.gold,
            "paragraph": paragraphs[id],
            **shown.meta(id),
        }
        query = _query(item, space, show_options)
        if chat:
            alone = Prompt.from_parts(query, language=language, id=id, meta=meta)
            asked = [(_plain(_query(t, space, show_options)), t.options[t.gold]) for t in turns]
            made.append(in_chat(alone, asked, chat))
            continue
        lines = [
            _plain(_query(turn, space, show_options)) + space + turn.options[turn.gold]
            for turn in turns
        ]
        front: list[Part] = [("demonstrations", between.join(lines)), between] if lines else []
        made.append(Prompt.from_parts([*front, *query], language=language, id=id, meta=meta))
    return Prompts(made), [
        tuple(before + option for option in item.options) for item in own.values()
    ]


def demonstrations(
    choices: Choices,
    pool: Choices,
    shots: int,
    seed: int,
    headers: Headers,
    show_options: bool,
) -> Shown:
    """Ids of `pool` to show before each item, by item id.

    Raises:
        ValueError: a negative number of shots, a language that the pool lacks, too few items.
    """
    check_headers(headers, shots)
    if not shots:
        return Shown({id: () for id in choices.ids}, shared=False)
    pool.require(choices.languages)
    kinds = pool.kinds  # each time that it is asked for it is read off the whole table
    of_kind: dict[str, list[str]] = {}
    for id, kind in kinds.items():
        of_kind.setdefault(kind, []).append(id)
    # By ids and seed, so that an item's demonstrations don't hang on how many others were read.
    nearest = {
        kind: sorted(ids, key=lambda id: seeded_rank(id, seed=seed))[:POOL]
        for kind, ids in of_kind.items()
    }
    offered = {id for ids in nearest.values() for id in ids}
    lines = {
        id: "\n".join(line for item in versions for line in _said(item, show_options))
        for id, versions in _versions(pool, offered).items()
    }
    golds, classes = pool.gold, pool.classes()
    secrets = {
        id: _secrets(versions, classes)
        for id, versions in _versions(choices, set(choices.ids)).items()
    }

    def leaks(query: str, other: str) -> bool:
        # Within the line: a secret in a longer word gives itself away too.
        return any(secret in lines[other] for secret in secrets[query])

    def same(query: str, other: str) -> bool:
        return query == other or leaks(query, other)

    chosen: dict[str, tuple[str, ...]] = {}
    if headers != "item":
        # Of one set, all that it has: a sample is shown what the whole would be.
        of_one = pool.source == choices.source
        known = {**choices.kinds, **(kinds if of_one else {})}
        # Too few for headers of their own; without them, classes of another kind would be shown.
        few = {kind for kind in classes if len(nearest.get(kind, ())) <= shots}
        chosen = deal_headers(
            {id: kind for id, kind in known.items() if kind not in few},
            choices.ids,
            nearest,
            shots,
            headers,
            seed=seed,
            leaks=same,
            anywhere=offered,
            together={**choices.paragraphs, **(pool.paragraphs if of_one else {})},
            cut=lambda ids, k, n, seed: (
                _class_headers(ids, golds, k, n, seed)
                if {kinds[id] for id in ids} <= classes
                else cut_headers(ids, k, n, seed=seed)
            ),
        )
    for id, kind in choices.kinds.items():
        if id in chosen:
            continue
        own = nearest.get(kind, [])
        in_turn = kind in classes
        order = _in_turn(id, own, golds, seed) if in_turn else _in_order(id, own, lines, seed)
        # In another split the same id may be another item.
        tells = leaks if pool is not choices else same
        found = [*islice((other for other in order if not tells(id, other)), shots)]
        if len(found) < shots:
            raise TooFewItems(
                f"Item {id!r} needs {shots} demonstrations, but only {len(found)} items hold "
                "neither its question nor its right answer in any language. Ask for fewer shots, "
                "or give more items as pool=."
            )
        chosen[id] = tuple(found)
    return Shown(chosen, shared=headers != "item")


def _secrets(versions: Sequence[Choice], classes: Collection[str]) -> frozenset[str]:
    """What gives an item away, in all languages: question, right answer and context."""
    return frozenset(
        folded(text)
        for item in versions
        for text in (
            item.question,
            "" if item.kind in classes else item.options[item.gold],
            item.context,
        )
        if text
    )


def _class_headers(
    ids: Collection[str], golds: Mapping[str, int], k: int, n: int, seed: int
) -> list[tuple[str, ...]]:
    """Headers that show classes in turn; each class comes first in as many as any other."""
    of_class: dict[int, list[str]] = {}
    for id in sorted(ids, key=lambda id: seeded_rank(id, seed=seed)):
        of_class.setdefault(golds[id], []).append(id)
    order = sorted(of_class, key=lambda gold: seeded_rank(str(gold), seed=seed))
    made: dict[tuple[str, ...], None] = {}
    for turn in range(max(n, 2, len(order)) if len(ids) >= k else 0):
        first = order[turn % len(order)]
        rest = sorted(
            (gold for gold in order if gold != first),
            key=lambda gold: seeded_rank(str(turn), str(gold), seed=seed),
        )
        # Round by round, one of each class; classes of unequal size leave gaps (None).
        rounds = zip_longest(*(of_class[gold] for gold in (first, *rest)))
        header = [*islice((id for each in rounds for id in each if id is not None), k)]
        made[tuple(header)] = None
        for own in of_class.values():  # what was shown goes to the end
            own.sort(key=lambda id: id in header)
    return list(made)


def _in_order(id: str, own: Sequence[str], every: Iterable[str], seed: int) -> Iterable[str]:
    """Items of the query's kind, then all others (there are seven weekdays)."""

    def rank(other: str) -> bytes:
        return seeded_rank(id, other, seed=seed)

    yield from sorted(own, key=rank)
    yield from sorted(set(every) - set(own), key=rank)


def _in_turn(id: str, own: Sequence[str], golds: Mapping[str, int], seed: int) -> Iterable[str]:
    """Items of the query's kind, one of each class and again."""
    of_class: dict[int, list[str]] = {}
    for other in sorted(own, key=lambda other: seeded_rank(id, other, seed=seed)):
        if other != id:
            of_class.setdefault(golds[other], []).append(other)
    order = sorted(of_class, key=lambda gold: seeded_rank(id, str(gold), seed=seed))
    # As in `_class_headers`, in an order of the query's own.
    turns = zip_longest(*(of_class[gold] for gold in order))
    return (other for turn in turns for other in turn if other is not None)


def _versions(choices: Choices, ids: set[str]) -> dict[str, list[Choice]]:
    """The items of these ids in every language."""
    found: dict[str, list[Choice]] = {}
    for tag in choices.languages:
        for id, item in choices.items(tag).items():
            if id in ids:
                found.setdefault(id, []).append(item)
    return found


def _said(item: Choice, show_options: bool) -> Iterable[str]:
    """What a demonstration puts before the reader's eyes, folded."""
    shown = item.options if show_options else (item.options[item.gold],)
    return map(folded, (item.context, item.question, *shown))


def _query(item: Choice, space: str, show_options: bool) -> list[Part]:
    asked: list[Part] = [("question", item.question)]
    if show_options:
        asked += [space, "(", ("options", " / ".join(item.options)), ")"]
    if item.mark:
        asked += [space, item.mark]
    return [*([("context", item.context), "\n"] if item.context else []), ("query", asked)]


def _plain(parts: Sequence[Part]) -> str:
    return Prompt.from_parts(parts, language="und", id="of no item").text
