"""`Facts`: the same facts in several languages, by fact id: subject, relation, objects."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import pandas as pd

from xlens.checks import typed, wrong_type
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.tasks.choices.text import folded
from xlens.tasks.facts.frequencies import Frequencies
from xlens.tasks.facts.template import MASK, SUBJECT, Asked, asked_as
from xlens.tasks.items import item_id, item_text, item_texts, refuse_twice
from xlens.tasks.parallel import DROPPED, Fault, Parallel, first_faults, nothing_dropped, refusal

REQUIRED = ("id", "language", "relation", "subject", "objects", "template")
OPTIONAL = ("frequency", "approx", "group")
REASONS = (
    "missing name",
    "missing language",
    "no template",
    "template without subject",
    "template without mask",
    "text after the object",
    "empty text",
    "relation differs",
    "duplicate",
    "identical object",
)
_MEND = (
    "Facts are paired by id, and each needs subject, object and template in every language: mend "
    "them, or leave them out (incomplete='drop', --incomplete drop)."
)
_FEWEST = 2


@dataclass(frozen=True)
class Fact:
    """One fact in one language.

    Attributes:
        relation: What is said of the subject.
        subject: Whom it is about.
        objects: Right answers, the first the one that is shown; those of other facts about the
            same subject and relation are among them.
        asked: The question, ready to be put.
    """

    relation: str
    subject: str
    objects: tuple[str, ...]
    asked: Asked


@dataclass(frozen=True, eq=False)
class Facts(Parallel):
    """Parallel facts: every fact in every language.

    Attributes:
        frame: One row per fact and language: `id language relation subject objects template`. A
            template holds `<subject>` once or more and `<mask>` where the object follows. May have
            `frequency` (documents that state it in that language; -1: not counted), `approx` (that
            is an estimate) and `group` (a set that the fact is part of).
        source: Where they come from.
        dropped: What was left out when they were made: `id language reason detail`.

    Raises:
        ValueError: a missing column, an unknown tag, fewer than two languages, an id twice in a
            language or absent from one, a template that is missing or lacks `<subject>` or
            `<mask>`, words after the `<mask>` (a model that reads from left to right can't be
            asked then), an empty text, a relation that differs between languages, the same fact
            under two ids.
    """

    CALLED: ClassVar[tuple[str, str]] = ("fact", "facts")
    REASONS: ClassVar[tuple[str, ...]] = REASONS

    frame: pd.DataFrame
    source: str
    dropped: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        frame = tidy(self.frame, self.source)
        if faults := find_faults(frame):
            raise InputError(refusal(faults, self.source, self.CALLED, _MEND))
        object.__setattr__(self, "frame", frame)

    def __repr__(self) -> str:
        kinds = dict(Counter(self.relations.values()))
        return f"Facts({kinds}, languages={list(self.languages)}, source={self.source!r})"

    @cached_property
    def relations(self) -> dict[str, str]:
        """Relation of each fact, by id."""
        return dict(zip(self.frame["id"], self.frame["relation"], strict=True))

    @cached_property
    def groups(self) -> dict[tuple[str, str], str]:
        """What a fact is part of, by id and language; empty where nothing was said of it."""
        return self._column("group") if "group" in self.frame else {}

    @cached_property
    def frequencies(self) -> dict[tuple[str, str], int]:
        """Documents that state a fact in a language, by both; only those that were counted."""
        if "frequency" not in self.frame:
            return {}
        return {key: int(n) for key, n in self._column("frequency").items() if n >= 0}

    @cached_property
    def estimates(self) -> frozenset[tuple[str, str]]:
        """Of which facts the frequency is an estimate, by id and language."""
        if "approx" not in self.frame:
            return frozenset()
        return frozenset(key for key, is_one in self._column("approx").items() if is_one)

    def facts(self, language: str) -> dict[str, Fact]:
        """The facts in one language, by id.

        Raises:
            ValueError: a language that isn't here.
        """
        (tag,) = self.require([language])
        return self._facts[tag]

    @cached_property
    def _facts(self) -> dict[str, dict[str, Fact]]:
        golds = self._golds
        found: dict[str, dict[str, Fact]] = {tag: {} for tag in self.languages}
        for row in self.frame.itertuples(index=False):
            fact: Any = row
            key = (fact.language, fact.relation, folded(fact.subject))
            # Its own first, as that is shown; each once.
            objects = tuple(dict.fromkeys([*fact.objects, *golds[key]]))
            asked = asked_as(fact.template, fact.subject, fact.language)
            found[fact.language][fact.id] = Fact(fact.relation, fact.subject, objects, asked)
        return found

    @cached_property
    def _golds(self) -> dict[tuple[str, str, str], list[str]]:
        """Objects by language, relation and subject: a question has one set of right answers."""
        found: dict[tuple[str, str, str], list[str]] = {}
        columns = ("language", "relation", "subject", "objects")
        for language, relation, subject, objects in zip(
            *(self.frame[name] for name in columns), strict=True
        ):
            found.setdefault((language, relation, folded(subject)), []).extend(objects)
        return found

    def _column(self, name: str) -> dict[tuple[str, str], Any]:
        keys = zip(self.frame["id"], self.frame["language"], strict=True)
        return dict(zip(keys, self.frame[name], strict=True))

    @typed
    def select(
        self,
        *,
        languages: Iterable[str] | None = None,
        ids: Iterable[str] | None = None,
        relations: Iterable[str] | None = None,
    ) -> Self:
        """The facts of these ids and relations, in these languages, in their order here.

        Raises:
            ValueError: a language, id or relation that doesn't occur, nothing left, one language.
        """
        frame = self.among("relation", relations, ids, languages, called="of a relation")
        return type(self)(frame, self.source, self.dropped)

    def with_frequencies(self, frequencies: Mapping[tuple[str, str], int]) -> Self:
        """The same facts with counts by (id, language); those without one are not counted (-1).

        Raises:
            ValueError: a negative count, counts of none of these facts, or of another subject than
                a fact's.
        """
        if bad := next((key for key, n in frequencies.items() if n < 0), None):
            raise InputError(f"{bad} has the frequency {frequencies[bad]}; accepted is 0 or more.")
        keys = list(zip(self.frame["id"], self.frame["language"], strict=True))
        if not any(key in frequencies for key in keys):
            shown = ", ".join(f"{id} ({tag})" for id, tag in list(frequencies)[:3]) or "nothing"
            raise InputError(
                f"None of the frequencies is of a fact of {self.source}: there are those of "
                f"{shown}, and facts such as {keys[0][0]} ({keys[0][1]}). Give the counts of these "
                "facts, by the same ids."
            )
        columns: dict[str, Any] = {"frequency": [frequencies.get(key, -1) for key in keys]}
        if isinstance(frequencies, Frequencies):
            self._check_counted(frequencies, keys)
            if not frequencies.estimates.isdisjoint(keys):
                columns["approx"] = [key in frequencies.estimates for key in keys]
        frame = self.frame.drop(columns="approx", errors="ignore").assign(**columns)
        return type(self)(frame, self.source, self.dropped)

    def _check_counted(self, frequencies: Frequencies, keys: Sequence[tuple[str, str]]) -> None:
        """Refuse counts of other phrases, as those of another set of facts with the same ids."""
        for (id, tag), subject in zip(keys, self.frame["subject"], strict=True):
            counted = frequencies.subjects.get((id, tag), subject)
            if folded(counted) != folded(subject):
                raise InputError(
                    f"The frequencies are of other facts: {id!r} ({tag}) was counted with the "
                    f"subject {counted!r}, and is of {subject!r} in {self.source}. Give the counts "
                    "of these facts."
                )

    def flags(self, pivot: str) -> pd.DataFrame:
        """What makes a fact easy or odd, by fact and language.

        Args:
            pivot: The language to compare strings with.

        Returns:
            `id language relation identical_object identical_subject subject_is_object n_golds`;
            the first two say that the string is the pivot's, case aside (False in the pivot).

        Raises:
            ValueError: a pivot that isn't here.
        """
        (pivot,) = self.require([pivot])
        home = self._facts[pivot]
        rows: list[tuple[Any, ...]] = []
        for tag, facts in self._facts.items():
            for id, fact in facts.items():
                own, other = map(folded, (fact.subject, home[id].subject))
                golds, others = ({*map(folded, f.objects)} for f in (fact, home[id]))
                abroad = tag != pivot
                same = (abroad and bool(golds & others), abroad and own == other)
                rows.append((id, tag, fact.relation, *same, own in golds, len(golds)))
        columns = ["id", "language", "relation", "identical_object", "identical_subject"]
        return pd.DataFrame(rows, columns=[*columns, "subject_is_object", "n_golds"])

    def without_identical(self, pivot: str) -> Self:
        """The facts whose object is in no language the pivot's own string.

        Raises:
            ValueError: a pivot that isn't here, or nothing left.
        """
        flags = self.flags(pivot)
        found = flags[flags["identical_object"]].drop_duplicates("id")
        if len(found) == len(self):
            raise InputError(
                f"No fact of {self.source} is left: the object of each of {len(self)} is written "
                f"as in {pivot} in another language. Ask for other languages, or keep them."
            )
        reasons = {"reason": "identical object", "detail": f"as in {pivot}"}
        gone = found[["id", "language"]].assign(**reasons)
        parts = [part for part in (self.dropped, gone) if len(part)]
        left_out = pd.concat(parts, ignore_index=True) if parts else self.dropped
        kept = self.frame[~self.frame["id"].isin(found["id"])]
        return type(self)(kept, self.source, left_out)


def whole_facts(
    frame: pd.DataFrame,
    source: str,
    *,
    incomplete: Literal["error", "drop"],
    dropped: Iterable[Fault] = (),
) -> Facts:
    """`Facts` of a frame; those with a fault are an error, or left out and counted.

    Raises:
        ValueError: an unknown policy, nothing left, and with `error` any fault.
    """
    if incomplete not in ("error", "drop"):
        raise InputError(f"incomplete={incomplete!r}: accepted are 'error', 'drop'.")
    tidied = tidy(frame, source)
    faults = find_faults(tidied) if incomplete == "drop" else []
    left_out = pd.DataFrame([*dropped, *faults], columns=list(DROPPED))
    kept = tidied[~tidied["id"].isin({fault[0] for fault in faults})]
    if kept.empty:
        counts = Counter(fault[2] for fault in faults).most_common()
        shown = ", ".join(f"{n} {reason}" for reason, n in counts)
        raise DataError(
            f"No fact of {source} is left of {len(faults)}: {shown}. "
            "Leave a language out, or mend the templates."
        )
    return Facts(kept, source, left_out)


def tidy(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """A frame's columns in their types and order, tags standardised.

    Raises:
        ValueError: what no policy mends: missing columns, unknown tags, an id twice.
    """
    if lacking := [c for c in REQUIRED if c not in frame.columns]:
        raise DataError(
            f"{source} lacks the columns {lacking}; a fact has {list(REQUIRED)} and optionally "
            f"{list(OPTIONAL)}."
        )
    if frame.empty:
        raise DataError(f"No fact is left of {source}; ask for others, or other languages.")
    tags = {str(tag): standardize(str(tag)) for tag in frame["language"].unique()}
    if len(set(tags.values())) < _FEWEST:
        raise DataError(
            f"{source} has facts in {', '.join(set(tags.values()))} only; parallel facts need two "
            "languages or more."
        )
    columns: dict[str, Any] = {
        "id": [item_id(id, source) for id in frame["id"]],
        "language": frame["language"].astype(str).map(tags).to_list(),
        "relation": item_texts(frame, "relation", source, "fact"),
        "subject": item_texts(frame, "subject", source, "fact"),
        "objects": [
            _objects(value, source, id)
            for value, id in zip(frame["objects"], frame["id"], strict=True)
        ],
        "template": item_texts(frame, "template", source, "fact"),
    }
    if "frequency" in frame.columns:
        columns["frequency"] = [
            _count(value, source, id)
            for value, id in zip(frame["frequency"], frame["id"], strict=True)
        ]
    if "approx" in frame.columns:
        columns["approx"] = frame["approx"].astype(bool).to_list()
    if "group" in frame.columns:
        columns["group"] = item_texts(frame, "group", source, "fact")
    out = pd.DataFrame(columns)
    refuse_twice(out, source, "fact", also=", and several right objects as one list")
    return out


def find_faults(frame: pd.DataFrame) -> list[Fault]:
    """`id language reason detail` of every fact that can't be asked everywhere, or twice."""
    faults = first_faults(frame, _row_faults)
    gone = {fault[0] for fault in faults}
    return faults + [fault for fault in _duplicates(frame) if fault[0] not in gone]


def _row_faults(row: Any, first: Any) -> list[tuple[str, str]]:
    template: str = row.template
    # Up to the line's end: an answer ends there, whatever follows.
    after = template.partition(MASK)[2].partition("\n")[0]
    tests: Mapping[str, tuple[bool, str]] = {
        "no template": (not template, row.relation),
        "template without subject": (SUBJECT not in template, template),
        "template without mask": (MASK not in template, template),
        "text after the object": (any(map(str.isalnum, after)), template),
        "empty text": (not row.subject or not row.objects or not all(row.objects), ""),
        "relation differs": (
            row.relation != first.relation,
            f"{row.relation}, but {first.relation} in {first.language}",
        ),
    }
    return [(why, detail) for why, (bad, detail) in tests.items() if bad]


def _duplicates(frame: pd.DataFrame) -> list[Fault]:
    """Facts that say in the first language what an earlier one says."""
    seen: dict[tuple[Any, ...], str] = {}
    faults: list[Fault] = []
    # One language is enough to tell: facts are the same in all.
    tag = frame["language"].iloc[0]
    for row in frame[frame["language"] == tag].itertuples(index=False):
        fact: Any = row
        golds = tuple(sorted({*map(folded, fact.objects)}))
        first = seen.setdefault((fact.relation, folded(fact.subject), golds), fact.id)
        if first != fact.id:
            faults.append((fact.id, tag, "duplicate", f"of {first}"))
    return faults


def _objects(value: Any, source: str, id: Any) -> tuple[str, ...]:
    what = f"{source}: object of fact {id!r}"
    if isinstance(value, str) or value is None or isinstance(value, float):
        one = item_text(value, what)
        return (one,) if one else ()
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise wrong_type(what, value, "a text, or a list of texts")
    return tuple(dict.fromkeys(item_text(text, what) for text in value))


def _count(value: Any, source: str, id: Any) -> int:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return -1
    if isinstance(value, bool) or not hasattr(value, "__int__") or int(value) != value:
        raise wrong_type(f"{source}: frequency of fact {id!r}", value, "a whole number")
    return int(value)
