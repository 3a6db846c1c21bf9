"""How two varieties are related: by language, by script, or as a text and its twin.

Read off their tags alone (`written`), so it holds for any table of pairs: similarities, distances,
steering vectors, neurons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from langcodes import Language

from xlens.checks import typed
from xlens.languages import written
from xlens.results import Result
from xlens.stats import generator
from xlens.subspace.pairs import language_pairs

LANGUAGE, SCRIPT, NEITHER = "language", "script", "neither"
MADE, WORDS, LETTERS = "made", "words", "letters"
RELATIONS: Mapping[str, str] = {
    LANGUAGE: "same language, other script",
    SCRIPT: "other language, same script",
    NEITHER: "other language, other script",
    MADE: "same text, transliterated",
    WORDS: "shuffled twin (words)",
    LETTERS: "shuffled twin (characters)",
}
"""In words. The last three are of a text and what was made from it."""
PUBLISHED = (LANGUAGE, SCRIPT, NEITHER)
Pair = tuple[int, int]


@dataclass(frozen=True)
class Variety:
    """What a tag says.

    Attributes:
        language: Macrolanguage; `ar` of `arb`.
        script: ISO 15924.
        twin: `words`, `letters`, or the script it was made from (`cyrl`); empty if published.
        plain: The tag without what was made of it.
    """

    language: str
    script: str
    twin: str
    plain: str

    @classmethod
    def of(cls, tag: str) -> "Variety":
        """Of a tag such as `ace-Arab`, `de-x-words` or `ru-Latn-x-cyrl`."""
        private = Language.get(tag).private or ""
        return cls(*written(tag), private.removeprefix("x-").lower(), tag.partition("-x-")[0])


@typed
def relation(a: str, b: str) -> str:
    """One of `RELATIONS`; empty for two tags that differ in neither, and for twins of others."""
    one, other = Variety.of(a), Variety.of(b)
    # Two made texts share what was done to them, too: no relation says that.
    if one.twin and other.twin:
        return ""
    if one.twin or other.twin:
        twin, text = (one, other) if one.twin else (other, one)
        if twin.twin in (WORDS, LETTERS):
            return twin.twin if twin.plain == text.plain else ""
        # `ru-Latn-x-cyrl` names the script that it was made from: that is its text's.
        same = (twin.language, twin.twin) == (text.language, text.script.lower())
        return MADE if same else ""
    if one.language == other.language:
        return LANGUAGE if one.script != other.script else ""
    return SCRIPT if one.script == other.script else NEITHER


def chosen_pairs(languages: Sequence[str], *, most: int, seed: int) -> dict[str, list[Pair]]:
    """The pairs of each relation, by number.

    Where a language is there in two scripts, pairs of other languages are those with such a
    variety: like is compared with like. More than `most` are drawn by seed.
    """
    found: dict[str, list[Pair]] = {name: [] for name in RELATIONS}
    for a, b in language_pairs(len(languages)):
        if name := relation(languages[a], languages[b]):
            found[name].append((a, b))
    both = {i for pair in found[LANGUAGE] for i in pair}
    for n, name in enumerate(PUBLISHED):
        mine = found[name]
        if both:
            mine = [pair for pair in mine if both & {*pair}]
        if len(mine) > most:
            # A path for each relation, so that one's number of
            # pairs doesn't change another's draw.
            at = sorted(generator(seed, n).permutation(len(mine))[:most])
            mine = [mine[i] for i in at]
        found[name] = mine
    return found


@typed
def in_two_scripts(languages: Sequence[str]) -> list[str]:
    """Varieties of languages that are there in two scripts, and the twins of their texts."""
    found = [Variety.of(tag) for tag in languages]
    scripts: dict[str, set[str]] = {}
    for one in found:
        if not one.twin:
            scripts.setdefault(one.language, set()).add(one.script)
    both = {name for name, there in scripts.items() if len(there) > 1}
    return [tag for tag, one in zip(languages, found, strict=True) if one.language in both]


@typed
def missing_relations(languages: Sequence[str]) -> list[str]:
    """Why columns of the script control can't be had with these varieties, in sentences."""
    found = chosen_pairs(languages, most=1, seed=0)
    scripts = {Variety.of(tag).script for tag in languages if not Variety.of(tag).twin}
    why: list[str] = []
    if len(scripts) == 1:
        why.append(
            f"All varieties are in one script ({', '.join(scripts)}): what is language and what is "
            "script can't be told apart."
        )
    elif not found[LANGUAGE]:
        why.append(
            "No language is there in two scripts, so which share of language survives a change of "
            "script can't be had: give both varieties of one (SIB-200 has ace, arb, bjn, kas, knc, "
            "min, taq and zho so)."
        )
    elif not found[SCRIPT]:
        why.append("No other language shares a script with one that is there in two.")
    return why


@typed
def by_relation(pairs: pd.DataFrame, value: str = "mean") -> pd.DataFrame:
    """Any table of pairs by relation: `relation mean least most n`, and what else it is grouped by.

    Args:
        pairs: With the tags `a` and `b`, or `first` and `second`; also `layer`, `measure` or
            `kind`, which are kept apart.
        value: The column that is averaged.
    """
    by = [name for name in ("layer", "measure", "kind") if name in pairs]
    one, other = ("a", "b") if "a" in pairs else ("first", "second")
    tags = list(zip(pairs[one].astype(str), pairs[other].astype(str), strict=True))
    known = {pair: relation(*pair) for pair in set(tags)}  # of layers and measures, many rows
    table = pairs.assign(relation=[known[pair] for pair in tags])
    table = table[table["relation"] != ""]
    grouped = table.groupby([*by, "relation"], sort=False)[value]
    return grouped.agg(mean="mean", least="min", most="max", n="count").reset_index()


@dataclass(frozen=True, kw_only=True)
class RelatedPairs(Result):
    """A table of pairs by what two varieties share; made by `related_pairs`.

    Attributes:
        table: As `by_relation`: means over all pairs of a relation, with the least and the most of
            them; no intervals, as nothing was drawn.
        value: What is averaged.
        languages: Whose pairs they are.
    """

    table: pd.DataFrame
    value: str
    languages: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table

    def missing(self) -> list[str]:
        """Why some relations can't be had, in sentences."""
        return missing_relations(self.languages)


@typed
def related_pairs(pairs: Result, value: str = "mean") -> RelatedPairs:
    """Any result whose main table is of pairs, by relation.

    Args:
        pairs: With a table as `by_relation` takes it.
        value: The column that is averaged.
    """
    table = pairs.main_table()
    one, other = ("a", "b") if "a" in table else ("first", "second")
    tags = dict.fromkeys([*table[one].astype(str), *table[other].astype(str)])
    return RelatedPairs(
        provenance=pairs.provenance,
        table=by_relation(table, value),
        value=value,
        languages=tuple(tags),
    )
