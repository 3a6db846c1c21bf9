"""`Sentences`: the same sentences in several varieties, by id, with the document each is of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import pandas as pd

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import standardize
from xlens.prompts import Prompt, Prompts
from xlens.tasks.items import item_id, item_texts, refuse_twice
from xlens.tasks.parallel import (
    DROPPED,
    Fault,
    Parallel,
    first_faults,
    nothing_dropped,
    refusal,
)

REQUIRED = ("id", "language", "text")
OPTIONAL = ("document", "topic", "pos", "made")
_ADVICE = (
    "A sentence needs a text in every variety. Mend the files, name fewer languages, or leave such "
    "sentences out with incomplete='drop'."
)


@dataclass(frozen=True, eq=False)
class Sentences(Parallel):
    """Sentences by id and variety.

    Attributes:
        frame: `id language text document topic pos made`, one row per sentence and variety. The
            language is a BCP-47 tag with the script where it isn't the usual one; `document` is
            what hangs together (the id where nobody says), `pos` parts of speech, a word each;
            `made` says how a twin was made and is empty for what was published.
        source: Where they come from.
        licence: Of them, in a line; empty where nobody says.
        dropped: Sentences that were left out: `id language reason detail`.

    Raises:
        ValueError: a sentence that a variety lacks or has twice, an empty text, an unknown tag, or
            fewer than two varieties.
    """

    CALLED: ClassVar[tuple[str, str]] = ("sentence", "sentences")
    REASONS: ClassVar[tuple[str, ...]] = ("missing language", "empty text")

    frame: pd.DataFrame
    source: str
    licence: str = ""
    dropped: pd.DataFrame = field(default_factory=nothing_dropped)

    def __post_init__(self) -> None:
        frame = _tidy(self.frame, self.source)
        if faults := _faults(frame):
            raise InputError(refusal(faults, self.source, self.CALLED, _ADVICE))
        object.__setattr__(self, "frame", frame)

    def __repr__(self) -> str:
        return f"Sentences({len(self)} in {', '.join(self.languages)}; {self.source})"

    @property
    def made(self) -> dict[str, str]:
        """How each made variety was made, by tag: twins, which nobody published."""
        mine = self.frame[self.frame["made"] != ""].drop_duplicates("language")
        return dict(zip(mine["language"], mine["made"], strict=True))

    def texts(self, language: str) -> dict[str, str]:
        """The texts of one variety by id."""
        (tag,) = self.require([language])
        mine = self.frame[self.frame["language"] == tag]
        return dict(zip(mine["id"], mine["text"], strict=True))

    @typed
    def select(
        self,
        *,
        ids: Iterable[str] | None = None,
        languages: Iterable[str] | None = None,
        topics: Iterable[str] | None = None,
    ) -> Self:
        """The sentences of these ids, varieties and topics, in their order here.

        Raises:
            ValueError: something that doesn't occur, or nothing left.
        """
        frame = self.among("topic", topics, ids, languages, called="of topic")
        return type(self)(frame, self.source, self.licence, self.dropped)

    @typed
    def prompts(self) -> Prompts:
        """Every text as it is: one span, `sentence`; its document is its `paragraph`."""
        columns = (self.frame[name] for name in ("text", "language", "id", "document"))
        return Prompts(
            Prompt(
                text,
                tag,
                id,
                spans={"sentence": (0, len(text))},
                meta={"paragraph": document, "characters": len(text)},
            )
            for text, tag, id, document in zip(*columns, strict=True)
        )


@typed
def whole_sentences(
    frame: pd.DataFrame,
    source: str,
    *,
    licence: str = "",
    incomplete: Literal["error", "drop"] = "error",
) -> Sentences:
    """`Sentences` of a frame; what some variety lacks is an error, or left out and counted.

    Raises:
        ValueError: nothing left, and what `Sentences` refuses.
    """
    tidied = _tidy(frame, source)
    faults: Sequence[Fault] = _faults(tidied) if incomplete == "drop" else ()
    kept = tidied[~tidied["id"].isin({fault[0] for fault in faults})]
    if kept.empty:
        raise InputError(f"No sentence is left. {refusal(faults, source, Sentences.CALLED, '')}")
    return Sentences(kept, source, licence, pd.DataFrame([*faults], columns=list(DROPPED)))


def _tidy(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    if lacking := [c for c in REQUIRED if c not in frame]:
        raise DataError(
            f"{source} lacks the columns {lacking}; a sentence has {list(REQUIRED)} and optionally "
            f"{list(OPTIONAL)}."
        )
    tags = {str(tag): standardize(str(tag)) for tag in frame["language"].unique()}
    if len(set(tags.values())) < 2:
        there = ", ".join(tags.values()) or "nothing"
        raise DataError(
            f"{source} has sentences in {there} only; parallel sentences are in two varieties or "
            "more."
        )
    ids = [item_id(id, source) for id in frame["id"]]
    out = pd.DataFrame(
        {
            "id": ids,
            "language": frame["language"].astype(str).map(tags).to_numpy(),
            "text": item_texts(frame, "text", source, "sentence"),
            **{
                name: item_texts(frame, name, source, "sentence") if name in frame else ""
                for name in OPTIONAL
            },
        }
    )
    out["document"] = out["document"].where(out["document"] != "", out["id"])
    refuse_twice(out, source, "sentence", of="variety")
    return out


def _faults(frame: pd.DataFrame) -> list[Fault]:
    def of_row(row: Any, first: Any) -> list[tuple[str, str]]:
        found = [] if row.text else [("empty text", "")]
        if row.document != first.document:
            other = f"{row.document}, but {first.document} in {first.language}"
            found.append(("document differs", other))
        return found

    return first_faults(frame, of_row)
