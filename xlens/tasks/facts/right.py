"""When an answer is right: four rules, from the loosest to the strictest, and where they differ."""

from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Any, Literal

import pandas as pd
import regex

from xlens.checks import typed
from xlens.errors import InputError
from xlens.tasks.choices.text import folded
from xlens.tasks.facts.data import Facts

Rule = Literal["exact", "word", "prefix", "first_token", "ranked"]
RULES: Mapping[Rule, str] = {
    "exact": "the answer is a right object, case and final punctuation aside",
    "word": "the answer begins with a right object, at the end of a word",
    "prefix": "the answer begins with a right object, or a right object with the answer",
    "first_token": "the first token is that of a right object",
    "ranked": "a right object is the most probable of the candidates",
}
TEXTUAL: tuple[Rule, ...] = ("exact", "word", "prefix")
# Unicode's word boundaries (UAX #29): each Han character is a word, "Niger" ends none in "Nigeria".
_BOUNDARY = regex.compile(r"(?w)\b")
_END = regex.compile(r"[\s\p{P}]+$")


@typed
def is_right(answer: str, golds: Iterable[str], rule: Rule = "word") -> bool:
    """Whether an answer is right by a rule that looks at texts.

    `prefix` is the rule of arXiv 2505.14824's code: lower case, stripped, either begins with the
    other. It credits `Niger` for `Nigeria` and `A` for `Argentina`; `false_credits` counts that.

    Args:
        answer: What a model wrote; its first line counts.
        golds: Right objects.
        rule: One of `TEXTUAL`.

    Raises:
        ValueError: a rule that needs more than texts.
    """
    if rule not in _SAME:
        raise InputError(f"rule={rule!r}: accepted are {', '.join(map(repr, TEXTUAL))}.")
    line = first_line(answer)
    return any(_SAME[rule](line, gold) for gold in golds)


def first_line(answer: str) -> str:
    """What of an answer counts."""
    return answer.strip().partition("\n")[0]


def _exact(answer: str, gold: str) -> bool:
    return _bare(answer) == _bare(gold)


def _word(answer: str, gold: str) -> bool:
    return begins(folded(answer), folded(gold))


def begins(said: str, wanted: str) -> bool:
    """Whether a folded text begins with another, which ends where a word does."""
    if not said.startswith(wanted):
        return False
    # `match` at that place, not `search`: only there may the word end.
    return len(said) == len(wanted) or _BOUNDARY.match(said, len(wanted)) is not None


def _prefix(answer: str, gold: str) -> bool:
    said, wanted = answer.lower().strip(), gold.lower().strip()
    return bool(said) and (wanted.startswith(said) or said.startswith(wanted))


_SAME: Mapping[str, Callable[[str, str], bool]] = {
    "exact": _exact,
    "word": _word,
    "prefix": _prefix,
}


def _bare(text: str) -> str:
    """Folded, without punctuation at its end, unless it is nothing else."""
    whole = folded(text)
    return _END.sub("", whole) or whole


@typed
def collisions(facts: Facts) -> pd.DataFrame:
    """Objects of a relation that the prefix rule takes for one another.

    Returns:
        One row per language and pair: `language relation short long word`; `word` says that the
        rule `word` is deceived as well (`Congo` and `Congo - Kinshasa`).
    """
    rows: list[tuple[Any, ...]] = []
    for tag in facts.languages:
        by_relation: dict[str, dict[str, str]] = {}
        for fact in facts.facts(tag).values():
            mine = by_relation.setdefault(fact.relation, {})
            mine |= {folded(text): text for text in fact.objects}
        for relation, golds in by_relation.items():
            rows += [
                (tag, relation, golds[short], golds[long], begins(long, short))
                for short, long in permutations(golds, 2)
                if long.startswith(short)
            ]
    return pd.DataFrame(rows, columns=["language", "relation", "short", "long", "word"])
