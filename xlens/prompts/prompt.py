"""`Prompt` and `Prompts`: what is asked, in which language, and where its parts stand."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self, overload
from unicodedata import normalize

import numpy as np
import pandas as pd

from xlens.checks import refuse_text, typed, wrong_type
from xlens.errors import InputError
from xlens.languages import standardize
from xlens.prompts.fewshot import seeded_rank
from xlens.records import surrogate

MetaValue = str | int | float | bool
Part = str | tuple[str, "str | Sequence[Part]"]
RESERVED_SPANS = frozenset({"last", "all"})
# What a harvest says of every prompt, beside its meta.
RESERVED_META = frozenset({"id", "language", "text", "n_tokens", "tokens"})
UNDETERMINED = "und"  # BCP-47's own tag for "no language named"
ACCEPTED = "a text, a Prompt, or a sequence of these"


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: What the model reads. Not empty.
        language: BCP-47 tag; standardised (`zh_hans` becomes `zh-Hans`). `und` for none.
        id: Parallel id: the same item has the same id in every language.
        spans: Character spans `[start, stop)` into `text`, by name.
        meta: Further columns that travel with the activations.

    Raises:
        ValueError: empty text or id, half a character (a lone surrogate), unknown language tag, a
            span outside the text or named `last` or `all` (these are slots of the whole prompt);
            meta that is called like a column of every harvest.
        WrongType: a text, language or id that is no string, spans that are no ranges of whole
            numbers, meta that are no plain values. It is a ValueError and a TypeError.
    """

    text: str
    language: str
    id: str
    spans: Mapping[str, tuple[int, int]] = field(
        default_factory=dict[str, tuple[int, int]], hash=False
    )
    meta: Mapping[str, MetaValue] = field(default_factory=dict[str, MetaValue], hash=False)

    def __post_init__(self) -> None:
        for name in ("text", "language", "id"):
            if not isinstance(value := getattr(self, name), str):
                raise wrong_type(f"{name} of a prompt", value, "a string", "Write it in quotes.")
        for name in ("spans", "meta"):
            if not isinstance(value := getattr(self, name), Mapping):
                raise wrong_type(f"Prompt {self.id!r}: {name}", value, "a mapping by name")
            if odd := [key for key in value if not isinstance(key, str)]:
                raise wrong_type(f"Prompt {self.id!r}: a name in {name}", odd[0], "a string")
        if not self.id.strip():
            raise InputError("A prompt's id is empty; give it a name, the same in every language.")
        if (half := surrogate(self.text)) is not None:
            raise InputError(
                f"Prompt {self.id!r} ({self.language}) holds half a character, {half} (a lone "
                "surrogate), which no tokenizer reads. Mend the text where it was made."
            )
        if not self.text:
            raise InputError(
                f"Prompt {self.id!r} ({self.language}) has an empty text; give it at least one "
                "character or leave the item out."
            )
        if self.language != UNDETERMINED:
            object.__setattr__(self, "language", standardize(self.language))
        for name, value in self.meta.items():
            if name in RESERVED_META:
                raise InputError(
                    f"Prompt {self.id!r}: meta can't be called {name!r}, which every harvest says "
                    f"of its prompts ({', '.join(sorted(RESERVED_META))}). Choose another name."
                )
            # Types are promises of the caller, which Python does not keep.
            if not isinstance(value, str | int | float | np.generic):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise wrong_type(
                    f"Prompt {self.id!r}: meta {name!r}", value, "a string, number or truth value"
                )
        for name, span in self.spans.items():
            if not isinstance(span, Sequence) or len(span) != 2 or not all(map(_whole, span)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise wrong_type(f"Prompt {self.id!r}: span {name!r}", span, "(start, stop)")
            start, stop = span
            if name in RESERVED_SPANS:
                raise InputError(
                    f"Prompt {self.id!r}: a span can't be called {name!r}; `last` and `all` name "
                    "slots of the whole prompt. Choose another name."
                )
            if not 0 <= start < stop <= len(self.text):
                raise InputError(
                    f"Prompt {self.id!r} ({self.language}): span {name!r} is [{start}, {stop}), "
                    f"but the text has {len(self.text)} characters; spans are non-empty character "
                    "ranges [start, stop) within the text. Prompt.from_parts records them for you."
                )
        # A copy that can't be written to: a frozen class alone
        # would still share the caller's dict.
        object.__setattr__(self, "spans", MappingProxyType(dict(self.spans)))
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Mappings that can't be changed can't be pickled either.
        return type(self), (self.text, self.language, self.id, dict(self.spans), dict(self.meta))

    @classmethod
    def from_parts(
        cls,
        parts: Sequence[Part],
        *,
        language: str,
        id: str,
        meta: Mapping[str, MetaValue] | None = None,
    ) -> Self:
        """Join `parts` and record the named ones as spans.

        A part is a plain string or `(name, part or list of parts)`; names nest:

        >>> p = Prompt.from_parts(["Q: ", ("question", ["Wo ist ", ("word", "Rom"), "?"])],
        ...                       language="de", id="1")
        >>> p.text, dict(p.spans)
        ('Q: Wo ist Rom?', {'word': (10, 13), 'question': (3, 14)})

        Raises:
            ValueError: a name that occurs twice, or what `Prompt` refuses.
        """
        spans: dict[str, tuple[int, int]] = {}
        return cls(_join(parts, 0, spans, id), language, id, spans, meta or {})

    def part(self, name: str) -> str:
        """The text of a span.

        Raises:
            ValueError: no such span.
        """
        if name not in self.spans:
            raise InputError(
                f"Prompt {self.id!r} ({self.language}) has no span {name!r}; it has "
                f"{list(self.spans)}."
            )
        return self.text[slice(*self.spans[name])]


class Prompts(Sequence[Prompt]):
    """An immutable collection of prompts in which (id, language) is unique.

    Raises:
        ValueError: no prompt at all, the same (id, language) twice, an id in two forms of Unicode,
            or a name of meta that is text in one prompt and a number in another: no table could
            hold it.
        WrongType: something else than prompts.
    """

    @classmethod
    def of(cls, prompts: "PromptsLike") -> "Prompts":
        """What `harvest` and its like take, as prompts: a text, texts, prompts, or both mixed.

        A text has no language (`und`), and its place as its id: `"0"`, `"1"`, ….

        Raises:
            ValueError: as the constructor.
            WrongType: something else than texts and prompts.
        """
        if isinstance(prompts, Prompts):
            return prompts
        if isinstance(prompts, str | Prompt):
            prompts = [prompts]
        if not isinstance(prompts, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise wrong_type("prompts", prompts, ACCEPTED)
        made: list[Prompt] = []
        for n, given in enumerate(prompts):
            if not isinstance(given, str | Prompt):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise wrong_type(f"prompts[{n}]", given, "a text or a Prompt")
            made.append(Prompt(given, UNDETERMINED, str(n)) if isinstance(given, str) else given)
        return cls(made)

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        if isinstance(prompts, str | Prompt) or not isinstance(prompts, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise wrong_type("prompts", prompts, "a sequence of Prompt", "Put it into a list.")
        self._prompts = tuple(prompts)
        for n, prompt in enumerate(self._prompts):
            if not isinstance(prompt, Prompt):  # pyright: ignore[reportUnnecessaryIsInstance]
                fix = "Write Prompt(text, language, id)."
                raise wrong_type(f"prompts[{n}]", prompt, "a Prompt", fix)
        if not self._prompts:
            raise InputError("Prompts needs at least one prompt; got none.")
        seen: set[tuple[str, str]] = set()
        spelt: dict[str, str] = {}
        for prompt in self._prompts:
            if (other := spelt.setdefault(normalize("NFC", prompt.id), prompt.id)) != prompt.id:
                raise InputError(
                    f"The ids {prompt.id!a} and {other!a} are the same text to a reader, "
                    "in two forms of Unicode. Write one in one form (NFC), or choose another."
                )
            key = (prompt.id, prompt.language)
            if key in seen:
                raise InputError(
                    f"Two prompts share the id {prompt.id!r} in {prompt.language!r}; within one "
                    "Prompts an id names one item per language. Give them different ids, or keep "
                    "them in separate Prompts."
                )
            seen.add(key)
        _require_columns(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> "Prompts": ...
    def __getitem__(self, index: int | slice) -> "Prompt | Prompts":
        return Prompts(self._prompts[index]) if isinstance(index, slice) else self._prompts[index]

    def __len__(self) -> int:
        return len(self._prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompts) and self._prompts == other._prompts

    def __hash__(self) -> int:
        # Spans and meta are mappings and can't be hashed; equal
        # prompts have equal hashes all the same.
        return hash(tuple((p.id, p.language, p.text) for p in self._prompts))

    def __repr__(self) -> str:
        return f"Prompts({len(self)} prompts, languages={list(self.languages)})"

    @property
    def languages(self) -> tuple[str, ...]:
        """Language tags in order of first appearance."""
        return tuple(dict.fromkeys(p.language for p in self._prompts))

    @property
    def ids(self) -> tuple[str, ...]:
        """Parallel ids in order of first appearance."""
        return tuple(dict.fromkeys(p.id for p in self._prompts))

    @typed
    def select(
        self, *, languages: Iterable[str] | None = None, ids: Iterable[str] | None = None
    ) -> "Prompts":
        """The prompts of these languages and ids, in their order here.

        Raises:
            ValueError: a language or id that does not occur, or nothing left.
        """
        for what, asked in (("languages", languages), ("ids", ids)):
            refuse_text(what, asked)
        wanted_languages = _wanted(map(standardize, languages or ()), self.languages, "language")
        wanted_ids = _wanted(ids or (), self.ids, "id")
        return Prompts(
            p
            for p in self._prompts
            if (languages is None or p.language in wanted_languages)
            and (ids is None or p.id in wanted_ids)
        )

    @typed
    def sample(self, n: int, *, seed: int = 0) -> "Prompts":
        """The prompts of `n` items, in every language, or all where there are no more.

        The choice depends on the ids and the seed only.

        Raises:
            ValueError: `n` below 1.
        """
        if n < 1:
            raise InputError(f"Can't sample {n} items: ask for 1 or more.")
        return self.select(ids=sorted(self.ids, key=lambda id: seeded_rank(id, seed=seed))[:n])

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: `id`, `language`, `text` and the meta columns."""
        rows: list[dict[str, Any]] = [
            {"id": p.id, "language": p.language, "text": p.text, **p.meta} for p in self._prompts
        ]
        return pd.DataFrame(rows)


PromptsLike = Prompts | str | Prompt | Sequence[str | Prompt]
"""What the verbs take for prompts; `Prompts.of` makes them of it."""


def first_prompt(prompts: Iterable[Prompt]) -> dict[str, dict[str, str]]:
    """What provenance keeps of prompts, for people to see how was asked; nothing of none."""
    found = next(iter(prompts), None)
    if found is None:
        return {}
    return {"first_prompt": {"id": found.id, "language": found.language, "text": found.text}}


def _join(
    parts: Sequence[Part], start: int, spans: dict[str, tuple[int, int]], prompt_id: str
) -> str:
    """The text of parts that begin at `start`; their spans go to `spans`."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        name, inner = part
        begin = start + len(text)
        text += _join([inner] if isinstance(inner, str) else inner, begin, spans, prompt_id)
        if name in spans:
            raise InputError(
                f"Prompt {prompt_id!r}: the span name {name!r} occurs twice; give each part its "
                "own name."
            )
        spans[name] = (begin, start + len(text))
    return text


def _require_columns(prompts: Iterable[Prompt]) -> None:
    """Refuse meta that would fail when a finished harvest is saved as a table."""
    seen: dict[str, tuple[str, Prompt]] = {}
    for prompt in prompts:
        for name, value in prompt.meta.items():
            text = isinstance(value, str | np.str_)
            kind = "text" if text else "truth value" if isinstance(value, bool) else "number"
            first, other = seen.setdefault(name, (kind, prompt))
            if kind != first:
                raise InputError(
                    f"Meta {name!r} is a {first} in prompt {other.id!r} ({other.language}) "
                    f"({other.meta[name]!r}) and a {kind} in {prompt.id!r} ({prompt.language}) "
                    f"({value!r}); give values of one type."
                )


def _wanted(asked: Iterable[str], present: Sequence[str], what: str) -> set[str]:
    wanted = set(asked)
    if missing := sorted(wanted - set(present)):
        shown = ", ".join(present[:12]) + (", …" if len(present) > 12 else "")
        raise InputError(f"Unknown {what} {missing}; these prompts have: {shown}.")
    return wanted


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
