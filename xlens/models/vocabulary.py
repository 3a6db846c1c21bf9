"""What each token id stands for, in bytes: the one view that byte-level and SentencePiece share."""

import json
import re
from collections import defaultdict
from functools import cache, cached_property
from typing import Any, Literal

from xlens.text import form

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})

_MACHINERY = ("normalizer", "pre_tokenizer", "decoder")
Kind = Literal["byte-level", "sentencepiece", "plain"]


class Vocabulary:
    """A tokenizer's items as bytes, with readable labels.

    Attributes:
        kind: How the tokenizer writes bytes and spaces: `byte-level` (GPT-2, Llama 3, Qwen),
            `sentencepiece` (`▁` for a space, `<0xE4>` for a byte: Llama 2, Gemma) or `plain`.
    """

    def __init__(self, tokenizer: Any, d_vocab: int) -> None:
        self._tokenizer = tokenizer
        self.d_vocab = d_vocab
        self.kind: Kind = _kind(tokenizer)

    def __len__(self) -> int:
        return self.d_vocab

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids that stand for no text."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        marked = {int(i) for i, token in added.items() if getattr(token, "special", False)}
        return frozenset(marked | set(self._tokenizer.all_special_ids))

    @cached_property
    def pieces(self) -> tuple[bytes | None, ...]:
        """Per id the UTF-8 bytes it writes; None for special and unused ids.

        A leading space is a space byte, whatever mark the tokenizer uses.
        """
        table: list[bytes | None] = [None] * self.d_vocab
        # Byte-level tokenizers write added tokens as they stand, not in stand-ins for bytes.
        added = self._tokenizer.get_added_vocab() if self.kind == "byte-level" else {}
        for token, i in self._tokenizer.get_vocab().items():
            if i < self.d_vocab and i not in self.special:
                table[i] = token.encode() if token in added else self._decode(token)
        return tuple(table)

    @cached_property
    def by_bytes(self) -> dict[bytes, tuple[int, ...]]:
        """Ids by the bytes they write, one leading space left off."""
        found: defaultdict[bytes, list[int]] = defaultdict(list)
        for i, piece in enumerate(self.pieces):
            if piece:
                found[piece.removeprefix(b" ") if piece != b" " else piece].append(i)
        return {piece: tuple(ids) for piece, ids in found.items()}

    def written(self, text: str) -> str:
        """How the vocabulary writes a text: its `form`, after the tokenizer's own normaliser.

        A normaliser may decompose characters or put all in lower case, and the items are of what
        it leaves. Marks for spaces are spaces again, none at either end.
        """
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        plain = form(text)
        if normalizer is None or "ByteLevel" in repr(normalizer):
            return plain
        return normalizer.normalize_str(plain).replace("▁", " ").strip() or plain

    def label(self, token_id: int) -> str:
        """A readable name: spaces and line breaks visible, pieces of characters as `⟨E4 B8⟩`."""
        piece = self.pieces[token_id] if 0 <= token_id < self.d_vocab else None
        if piece is None:
            token = self._tokenizer.convert_ids_to_tokens(token_id)
            return str(token) if token else f"⟨{token_id}⟩"
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            return "⟨" + " ".join(f"{byte:02X}" for byte in piece) + "⟩"
        return text.translate(_VISIBLE) or "⟨⟩"

    def text(self, token_id: int) -> str | None:
        """What the id writes, or None where that is no whole number of characters."""
        piece = self.pieces[token_id]
        try:
            return None if piece is None else piece.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def spare_bytes(self) -> frozenset[int]:
        """Bytes of ASCII (`<0x41>`) beside which a piece writes the same character.

        The tokenizer falls back on bytes for what it has no piece for, and never writes these.
        """
        if self.kind != "sentencepiece":
            return frozenset()
        items = self._tokenizer.get_vocab()
        return frozenset(
            i
            for token, i in items.items()
            if (match := _BYTE_TOKEN.fullmatch(token))
            and int(match[1], 16) < 0x80
            and chr(int(match[1], 16)) in items
        )

    def _decode(self, token: str) -> bytes:
        if self.kind == "byte-level":
            table = _byte_level_table()
            if all(c in table for c in token):
                return bytes(table[c] for c in token)
            return token.encode()
        if self.kind == "sentencepiece":
            if match := _BYTE_TOKEN.fullmatch(token):
                return bytes([int(match[1], 16)])
            return token.replace("▁", " ").encode()
        return token.encode()


def _kind(tokenizer: Any) -> Kind:
    # The vocabulary itself is full of arbitrary strings, and takes a second to spell out: look at
    # the machinery only, as each part is pickled.
    parts = (getattr(tokenizer.backend_tokenizer, k) for k in _MACHINERY)
    machinery = json.dumps(
        [None if part is None else json.loads(part.__getstate__()) for part in parts]
    )
    if '"ByteLevel"' in machinery:
        return "byte-level"
    if "▁" in machinery or "\\u2581" in machinery or '"Metaspace"' in machinery:
        return "sentencepiece"
    return "plain"


@cache
def _byte_level_table() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (Radford et al. 2019), inverted."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in kept}
    for n, b in enumerate(b for b in range(256) if b not in set(kept)):
        table[chr(256 + n)] = b
    return table
