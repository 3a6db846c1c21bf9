"""From characters to tokens: ids and token spans of a prompt, by the tokenizer's own offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlens.checks import typed
from xlens.errors import InputError
from xlens.prompts.ends import added, held, tell, wanted
from xlens.prompts.prompt import Prompt
from xlens.prompts.slots import Slot

AT_ONCE = 512  # prompts: what a tokenizer gives takes ten times the memory of what is kept of it
_AFTER = (
    "this tokenizer ends every text in {}; it is left off, so that the last token is the text's. "
    "To have it read, write it at the end of the prompt."
)
_HELD = "prompts hold {} themselves (from a chat template?): it is not put before them once more."
_TWICE = "the text of prompt {1!r} begins with {0} twice, which no model was trained on."


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as one model's tokenizer sees it.

    Attributes:
        prompt: Where it comes from.
        ids: Token ids, special tokens included.
        offsets: Per token its characters `[start, stop)` in the text; `(0, 0)` for special tokens.
            They cover the text, also where the tokenizer trims spaces or composes accents.
        spans: Token spans `[start, stop)` by name: all tokens that share a character with the
            character span. Tokens that hold one part of a character belong to its span.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    spans: Mapping[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, slot: Slot) -> range:
        """Token positions that `slot` reads (for `mean`: averages over).

        Raises:
            ValueError: the prompt has no such span, or `predict` asks for the position before the
                first token.
        """
        if slot.span is None:
            return range(len(self)) if slot.how == "each" else range(len(self) - 1, len(self))
        if slot.span not in self.spans:
            raise InputError(
                f"Slot {str(slot)!r}: prompt {self.prompt.id!r} ({self.prompt.language}) has no "
                f"span {slot.span!r}; its spans are {sorted(self.prompt.spans) or 'none'}. Name "
                "one of them, or record the span when you build the prompt (Prompt.from_parts)."
            )
        start, stop = self.spans[slot.span]
        where = slot.kind.positions(range(start, stop))
        if where.start < 0:
            raise InputError(
                f"Slot {str(slot)!r}: the span starts at the first token of prompt "
                f"{self.prompt.id!r} ({self.prompt.language}), which nothing predicts. Put "
                "text before the span, or use a tokenizer that adds a BOS token."
            )
        return where


@typed
def tokenize(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    prepend_bos: bool | None = None,
    spans: frozenset[str] | None = None,
) -> list[TokenizedPrompt]:
    """Tokenise prompts and map their character spans to tokens.

    Args:
        tokenizer: A fast Hugging Face tokenizer (offsets are needed).
        prompts: What to tokenise.
        prepend_bos: None keeps what the tokenizer puts before a text by itself; True asks for BOS
            there, False for nothing. A text that begins with BOS (a chat template wrote it, white
            space before it or not) gets no second one, and keeps its own in any case.
        spans: Which spans to map; None maps all. Only mapped spans can fail.

    What the tokenizer puts after a text (EOS, `[SEP]`) is left off, and a warning says so once: to
    have it read, write it at the end of the text.

    Raises:
        ValueError: BOS asked of a tokenizer that has none, a prompt without tokens, a span that
            holds no token, a tokenizer without offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} gives no character offsets; spans need a fast tokenizer. "
            "Load it with AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise InputError(
            "prepend_bos=True, but this tokenizer has no BOS token; use prepend_bos=None to keep "
            "what the tokenizer does by itself, or set tokenizer.bos_token."
        )
    once: dict[Any, Any] = {}
    return [
        made
        for first in range(0, len(prompts), AT_ONCE)
        for made in _tokenized(
            tokenizer, prompts[first : first + AT_ONCE], prepend_bos, spans, once
        )
    ]


def _tokenized(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    prepend_bos: bool | None,
    spans: frozenset[str] | None,
    once: dict[Any, Any],
) -> list[TokenizedPrompt]:
    """Some prompts; equal ids and places in the text are one object, kept in `once`.

    Prompts that begin alike have most of them in common.
    """
    bos = tokenizer.bos_token_id
    encoded = tokenizer(
        [p.text for p in prompts],
        return_offsets_mapping=True,
        return_attention_mask=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    result: list[TokenizedPrompt] = []
    for i, prompt in enumerate(prompts):
        ids = list(encoded["input_ids"][i])
        offsets: list[tuple[int, int]] = [(int(a), int(b)) for a, b in encoded["offset_mapping"][i]]
        special = encoded.encodings[i].special_tokens_mask
        n_before, n_after = added(special)
        if n_before == len(ids):
            raise InputError(
                f"Prompt {prompt.id!r} ({prompt.language}) tokenises to nothing: {prompt.text!r}."
            )
        if n_after:
            tell(tokenizer, _AFTER, _names(tokenizer, ids[-n_after:]))
        stop = len(ids) - n_after
        # With the tokens before the text in it, so that offsets and mask stay side by side.
        offsets = _covering(prompt.text, offsets[:stop], special[:stop])[n_before:]
        before, ids = ids[:n_before], ids[n_before:stop]
        blank = (not prompt.text[a:b].strip() for a, b in offsets)
        # A chat template may begin with white space; its BOS comes after that and counts.
        own = ids[next((k for k, is_blank in enumerate(blank) if not is_blank), 0) :]
        put = wanted(before, bos, prepend_bos)
        if n_held := held(put, own):
            tell(tokenizer, _HELD, _names(tokenizer, put[-n_held:]))
            put = put[:-n_held]
        if bos is not None and own[:2] == [bos, bos]:
            tell(tokenizer, _TWICE, _names(tokenizer, [bos]), prompt.id)
        ids, offsets = [*put, *ids], [*[(0, 0)] * len(put), *offsets]
        named = {
            name: _token_span(prompt, name, span, offsets)
            for name, span in prompt.spans.items()
            if spans is None or name in spans
        }
        own_ids = tuple(once.setdefault(i, i) for i in ids)
        where = tuple(once.setdefault(o, o) for o in offsets)
        result.append(TokenizedPrompt(prompt, own_ids, where, named))
    return result


def _covering(
    text: str, offsets: Sequence[tuple[int, int]], special: Sequence[int]
) -> list[tuple[int, int]]:
    """The tokenizer's offsets, widened so that every character belongs to a token.

    Some post-processors (Pythia's) trim spaces: a space of its own is left with no character at
    all. And where a normalizer composes characters (Qwen's NFC), the offset holds the first only.
    Spaces between two tokens go to the second, anything else to the first; spaces stripped from
    the end go nowhere.
    """
    out: list[tuple[int, int]] = []
    end = 0  # of what is covered so far
    for (start, stop), marked in zip(offsets, special, strict=True):
        if marked:
            out.append((0, 0))
            continue
        # Without a character of its own, and beyond what is covered: nothing stands there.
        if start == stop > end and not any(map(str.isspace, text[end:start])):
            start = stop = end  # a space that the tokenizer puts before a word, trimmed
        if start > end:
            spaces = next((k for k in range(end, start) if text[k].isspace()), start)
            if end and spaces > end:
                _extend(out, end, spaces)
                end = spaces
            start = end
        elif start == stop == end and text[start : start + 1].isspace():
            stop = start + 1  # a trimmed space at the start of the text
        out.append((start, stop))
        end = max(end, stop)
    tail = next((k for k in range(end, len(text)) if text[k].isspace()), len(text))
    if end and tail > end:
        _extend(out, end, tail)
    return out


def _extend(offsets: list[tuple[int, int]], end: int, stop: int) -> None:
    """Let the tokens that end at `end` end at `stop`: all byte pieces of a composed character."""
    for j in range(len(offsets) - 1, -1, -1):
        a, b = offsets[j]
        # One with characters that ends elsewhere; those without any are passed over.
        if a < b != end:
            break
        if a < b:
            offsets[j] = (a, stop)


def _names(tokenizer: Any, ids: Sequence[int]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids)))


def _token_span(
    prompt: Prompt, name: str, span: tuple[int, int], offsets: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    start, stop = span
    # `a < b` leaves out special tokens, whose (0, 0) would lie in a span that starts at 0.
    inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start and a < b]
    if not inside:
        raise InputError(
            f"Span {name!r} of prompt {prompt.id!r} ({prompt.language}) holds no token: "
            f"{prompt.text[start:stop]!r} disappears in tokenisation. Widen the span."
        )
    return inside[0], inside[-1] + 1
