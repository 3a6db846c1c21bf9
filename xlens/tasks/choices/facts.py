"""Four-choice items that need no data set: what CLDR knows about places, money and the calendar."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.choices.data import Choices, whole_items
from xlens.tasks.choices.text import folded
from xlens.tasks.cldr import world
from xlens.tasks.words import RELATIONS, cldr_words

MARK = "→"
FACTS = (*RELATIONS, "code-territory")
_KINDS = ("territory", "language", "currency", "month", "weekday")


@typed
def cldr_choices(
    languages: Iterable[str],
    kinds: Iterable[str] = FACTS,
    *,
    n_options: int = 4,
    seed: int = 0,
    identical: Literal["keep", "drop"] = "drop",
) -> Choices:
    """Multiple-choice items from CLDR facts, the same in every language.

    | kind | question | right answer |
    |---|---|---|
    | `next-month`, `next-weekday` | a month, a weekday | the one after it |
    | `territory-currency` | a territory with one legal tender | that currency |
    | `territory-language` | a territory with one official language | that language |
    | `code-territory` | an ISO 3166 code (`JP`), the same everywhere | the territory's name |

    A question is one word, followed by `→`: no sentence, so nothing that has to be written, or can
    be written badly, in each language. The other options answer another item of the kind: months
    for a month; none of them is right, and none is the question's own word.

    Options and their order depend on the ids, the seed **and the languages**: an option needs a
    plain name in each, so ask for all languages of a study at once. (Japanese and Korean months
    are written with digits; with these languages there are none.) Right answers are spread evenly
    over the positions, within each kind.

    A currency's name often holds its territory's ("Argentine Peso"), and a language's as well: such
    items can be answered by the look of the words. `code-territory` cannot, or by a letter at most.

    Args:
        languages: Two tags or more, with CLDR data.
        kinds: Which of `FACTS`.
        n_options: Options of each item, 2 or more.
        seed: Of distractors and positions.
        identical: What to do with names that are the same string, case aside, in two of the
            languages: `drop` doesn't use them as options, `keep` does; see `Choices.identical`.

    Raises:
        ValueError: an unknown kind or language, one language only, too few options, nothing left.
    """
    asked = tuple(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
    if not asked or not set(asked) <= set(FACTS):
        raise InputError(
            f"Kinds of CLDR fact {list(asked)}: accepted are one or more of {', '.join(FACTS)}."
        )
    if n_options < 2:
        raise InputError(f"n_options is {n_options}; a choice has 2 options or more.")
    words = cldr_words(languages, _KINDS)
    tables = {tag: words.words(tag) for tag in words.languages}
    rows: list[tuple[str, str, str, tuple[str, ...], int, str, str]] = []
    dropped: list[tuple[str, str, str, str]] = []
    for kind in asked:
        whole: list[tuple[str, str]] = []
        for cue, answer in _links(kind):
            if problem := _problem(cue, answer, tables, identical):
                dropped.append((_id(kind, answer), *problem))
            else:
                whole.append((cue, answer))
        offers = _offers(kind, whole, tables, n_options, seed)
        for place, (cue, answer) in enumerate(_shuffled(kind, whole, seed)):
            others = offers[answer]
            if others is None:
                why = f"fewer than {n_options} answers of the kind"
                dropped.append((_id(kind, answer), words.languages[0], "too few options", why))
                continue
            # Dealt in a seeded order, so each position is right equally often within one.
            gold = place % n_options
            options = (*others[:gold], answer, *others[gold:])
            for tag, names in tables.items():
                texts = tuple(names[option] for option in options)
                question = _cue(cue, names)
                rows.append((_id(kind, answer), tag, question, texts, gold, MARK, kind))
    columns = ["id", "language", "question", "options", "gold", "mark", "kind"]
    frame = pd.DataFrame(rows, columns=columns)
    return whole_items(
        frame, world.source(), incomplete="error", identical=identical, dropped=dropped
    )


def _links(kind: str) -> list[tuple[str, str]]:
    if kind == "code-territory":
        return [(f"code/{code}", f"territory/{code}") for code in world.territories()]
    return world.links(kind)


def _id(kind: str, answer: str) -> str:
    return f"{kind}/{answer.partition('/')[2]}"


def _cue(cue: str, names: Mapping[str, str]) -> str:
    return cue.removeprefix("code/") if cue.startswith("code/") else names[cue]


def _problem(
    cue: str, answer: str, tables: Mapping[str, Mapping[str, str]], identical: str
) -> tuple[str, str, str] | None:
    """Language, reason and detail, where a link can't be asked or answered in every language."""
    for tag, names in tables.items():
        for id in (cue, answer):
            if id not in names and not id.startswith("code/"):
                return tag, "missing word", id
    if identical == "drop":
        seen: dict[str, str] = {}
        for tag, names in tables.items():
            first = seen.setdefault(folded(names[answer]), tag)
            if first != tag:
                return tag, "identical options", f"{names[answer]} also in {first}"
    return None


def _shuffled(kind: str, whole: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    return sorted(whole, key=lambda link: seeded_rank(kind, link[1], seed=seed))


def _offers(
    kind: str,
    whole: Sequence[tuple[str, str]],
    tables: Mapping[str, Mapping[str, str]],
    n_options: int,
    seed: int,
) -> dict[str, list[str] | None]:
    """The wrong options of each answer: ids of other answers, all different in each language."""
    chosen: dict[str, list[str] | None] = {}
    pool = [answer for _, answer in whole]
    by_language = {tag: {id: folded(names[id]) for id in pool} for tag, names in tables.items()}
    for cue, answer in whole:
        others: list[str] = []
        for id in sorted(pool, key=lambda id: seeded_rank(kind, answer, id, seed=seed)):
            if id in (cue, answer):
                continue
            taken = (answer, *others)
            # Two names that are one word in some language would be the same option twice there.
            if any(mine[id] in {mine[t] for t in taken} for mine in by_language.values()):
                continue
            others.append(id)
            if len(others) == n_options - 1:
                break
        chosen[answer] = others if len(others) == n_options - 1 else None
    return chosen
