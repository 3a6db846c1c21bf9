"""What a tokenizer puts before and after a text by itself: asked of it, not assumed."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

_log = logging.getLogger(__name__)
_told: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Ends:
    """Tokens that a tokenizer adds to every text.

    Attributes:
        before: Such as BOS or `[CLS]`. They are kept.
        after: Such as EOS or `[SEP]`. They are left off: a model that reads them has been told that
            the text is over, so its last state, and what it says next, are another text's.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> "Ends":
        """Ask a fast tokenizer."""
        for text in _texts(tokenizer):
            encoded = tokenizer(text, return_attention_mask=False)
            n, m = added(encoded.encodings[0].special_tokens_mask)
            ids = list(encoded["input_ids"])
            if n + m < len(ids):
                return cls(tuple(ids[:n]), tuple(ids[len(ids) - m :]))
        return cls((), ())


def _texts(tokenizer: Any) -> Iterator[str]:
    """Texts of which one leaves a token, the vocabulary (a large table) last."""
    yield from "a1."
    yield from tokenizer.get_vocab()


def added(special: Sequence[int]) -> tuple[int, int]:
    """How many tokens the tokenizer put before and after a text; the mask marks only its own."""
    before = next((i for i, mark in enumerate(special) if not mark), len(special))
    after = next((i for i, mark in enumerate(reversed(special)) if not mark), 0)
    return before, after


def wanted(before: Sequence[int], bos: int | None, prepend_bos: bool | None) -> tuple[int, ...]:
    """What is to stand before a text: `before`, what the tokenizer puts there, unless forced."""
    if prepend_bos is None:
        return tuple(before)
    if not prepend_bos or bos is None:
        return ()
    return tuple(before) if bos in before else (bos,)


def held(wanted: Sequence[int], own: Sequence[int]) -> int:
    """How much of the end of `wanted` a text begins with itself."""
    # The longest first: a text may begin with all that is wanted, or only with its last token.
    sizes = range(len(wanted), 0, -1)
    return next((n for n in sizes if list(own[:n]) == list(wanted[-n:])), 0)


def tell(tokenizer: Any, what: str, *names: str) -> None:
    """Say something about a tokenizer once, whatever the names that it is filled with."""
    said = _told.setdefault(tokenizer, set())
    if what not in said:
        said.add(what)
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        _log.warning("%s: %s", name, what.format(*names))
