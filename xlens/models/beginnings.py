"""Which tokens begin a word: the vocabulary items that count as "about to say it"."""

from typing import Literal

from xlens._renamed import renamed
from xlens.models.hooked import HookedModel
from xlens.models.vocabulary import Vocabulary
from xlens.text import form

Match = Literal["prefixes", "first"]


@renamed(reading="match")
def word_tokens(model: HookedModel, word: str, match: Match = "prefixes") -> tuple[int, ...]:
    """The ids that begin `word`, with and without a space before it.

    `prefixes` (arXiv 2402.10588, section 3.2 as in the authors' code): every vocabulary item that
    writes a prefix of the word; and, where the first character is more than one byte, every item
    that writes only its first bytes, for scripts that fall to bytes. `first`: the first token of
    the word and of space + word, as the tokenizer cuts them. Either way the word is brought into
    one form first (`xlens.text.form`), and prefixes are those of what the tokenizer's normaliser
    makes of it.
    """
    return tokens_of(model, model.vocab, word, match)


def tokens_of(model: HookedModel, vocab: Vocabulary, word: str, match: Match) -> tuple[int, ...]:
    """`word_tokens` with the model's vocabulary at hand, for many words."""
    if match == "first":
        return _first_tokens(model, vocab, form(word))
    return _prefix_tokens(vocab, vocab.written(word))


def _prefix_tokens(vocab: Vocabulary, word: str) -> tuple[int, ...]:
    data = word.encode()
    first = len(word[:1].encode())
    # Cuts inside a later character are left out: they would be prefixes of no reading.
    cuts = set(range(1, first)) | {len(word[:k].encode()) for k in range(1, len(word) + 1)}
    found = {i for cut in cuts for i in vocab.by_bytes.get(data[:cut], ())}
    return tuple(sorted(found - vocab.spare_bytes))


def _first_tokens(model: HookedModel, vocab: Vocabulary, word: str) -> tuple[int, ...]:
    found: set[int] = set()
    for text in (word, " " + word):
        ids = model.tokenizer(text, add_special_tokens=False, return_attention_mask=False)
        pieces = [i for i in ids["input_ids"] if (vocab.pieces[i] or b"").strip()]
        found.update(pieces[:1])
    return tuple(sorted(found))
