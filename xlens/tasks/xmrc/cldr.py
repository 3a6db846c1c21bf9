"""A small reading set that needs no data set: lists of what CLDR knows about countries."""

from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from xlens.checks import typed
from xlens.languages import standardize_all, written
from xlens.prompts.fewshot import seeded_rank
from xlens.tasks.facts import cldr_facts
from xlens.tasks.facts.data import Facts
from xlens.tasks.facts.template import SUBJECT
from xlens.tasks.facts.wordings import LANGUAGES, question
from xlens.tasks.xmrc.data import ReadingSet

_RELATIONS = ("capital", "currency", "language")
_COUNTRIES = 4
# The splitter of sentences takes a full stop for one only in scripts that write it.
_STOPS = {"zh": "。", "ja": "。"}


@typed
def cldr_reading(languages: Iterable[str] = LANGUAGES, *, seed: int = 0) -> ReadingSet:
    """Paragraphs that list four countries each, and questions on them, the same in 16 languages.

        Peru: Lima, Peruvian Sol, Spanish. Japan: Tokyo, Japanese Yen, Japanese. …
        What is the capital of Japan?

    The lists hold no sentence, and the questions are those of `cldr_facts`: nothing that can be
    written badly. To try a model and a pipeline: a model can know the answers without the text, and
    a currency often names its country. What reading takes is shown by a published set.

    Args:
        languages: Of these: en, fr, es, de, pt, it, ca, ru, uk, zh, ja, ko, ar, tr, el, hi. Items
            are the same whichever are asked for.
        seed: Of which countries stand together.

    Raises:
        ValueError: a language that isn't among them.
    """
    asked = standardize_all(languages)
    as_asked = {written(tag): tag for tag in asked}  # zh-Hans is the zh of the templates
    # Of all languages, whichever are asked: a fact that one of them lacks is in none.
    facts = cldr_facts([as_asked.get(written(tag), tag) for tag in LANGUAGES], _RELATIONS)
    rows = [row for tag in facts.languages for row in _rows(facts, tag, seed)]
    columns = ["id", "language", "question", "context", "answers", "starts", "paragraph"]
    whole = ReadingSet(pd.DataFrame(rows, columns=columns), f"lists from {facts.source}")
    return whole.select(languages=asked)


def _rows(facts: Facts, tag: str, seed: int) -> list[tuple[object, ...]]:
    """Questions of a language, with the list in which the answer stands."""
    found = facts.facts(tag)
    known: dict[str, list[str]] = defaultdict(list)
    for id in found:
        known[id.partition("/")[2]].append(id)
    whole = [country for country, ids in known.items() if len(ids) == len(_RELATIONS)]
    whole.sort(key=lambda country: seeded_rank(country, seed=seed))
    rows: list[tuple[object, ...]] = []
    for n in range(len(whole) // _COUNTRIES):
        text, starts = "", dict[str, int]()
        for country in whole[n * _COUNTRIES : (n + 1) * _COUNTRIES]:
            named = [f"{relation}/{country}" for relation in _RELATIONS]
            text += f"{found[named[0]].subject}: "
            for id in named:
                starts[id] = len(text)
                text += f"{found[id].objects[0]}, "
            # After the last of three, the comma gives way to a stop; places before it stay.
            text = text.removesuffix(", ") + _STOPS.get(tag.partition("-")[0], ".") + " "
        for id, start in starts.items():
            fact = found[id]
            asked = question(tag, fact.relation).replace(SUBJECT, fact.subject)
            rows.append((id, tag, asked, text.strip(), fact.objects[:1], (start,), f"{n}/0"))
    return rows
