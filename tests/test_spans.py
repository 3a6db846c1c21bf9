"""From character spans to token spans, in every script and with every kind of tokenizer."""

import unicodedata
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tiny
from xlens import Prompt
from xlens.models import Vocabulary
from xlens.prompts import Ends, parse_slot, tokenize

# What trips tokenizers up: whole texts in twelve languages, and their most awkward pieces.
PIECES = [
    *tiny.TEXT.values(),
    *tiny.ODDITIES,
    "👩🏽‍🔬", "👨‍👩‍👧‍👦", "🇫🇷🇩🇪", "龘", "𠮷野家", "𝔘𝔫𝔦", "e\u0301", "s\u0323\u0307",
    "\u1112\u1161\u11ab", "क्षत्रिय", "مَرْحَبًا", "שָׁלוֹם", "ภาษาไทย", "ﬁ½", " ", "  ", "\n", "\t",
    "\u00a0", "\u3000", "\u200f", "\u0344", "Å", "क़", "dog", "Ġ", "\u0301", "\x00",
]  # fmt: skip


# A '▁' of the text's own reads as a space; '<bos>' would be a special token.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁<")


def clip(text, a, b):
    a, b = sorted((a % len(text), b % len(text)))
    return text[a : b + 1]


texts = st.lists(
    st.one_of(
        st.builds(clip, st.sampled_from(PIECES), st.integers(0, 200), st.integers(0, 200)),
        st.sampled_from(PIECES[len(tiny.TEXT) :]),
        st.text(CHARACTERS, min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
).map("".join)


def trimming(prefix):
    tokenizer = tiny.byte_level()
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.post_processor = processors.ByteLevel(add_prefix_space=prefix, trim_offsets=True)
    return tokenizer


def prepending():
    tokenizer = tiny.sentencepiece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def composing():
    tokenizer = tiny.byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def composing_and_trimming():
    tokenizer = trimming(prefix=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


KINDS = {
    "byte-level": tiny.byte_level,  # GPT-2
    "byte-level, trimmed": lambda: trimming(prefix=False),  # Pythia
    "byte-level, prefix, trimmed": lambda: trimming(prefix=True),  # RoBERTa's manner
    "sentencepiece": tiny.sentencepiece,  # Gemma
    "sentencepiece, prefix": lambda: tiny.sentencepiece(prefix=True),  # Mistral
    "sentencepiece, prepended": prepending,  # Llama 2
    "byte-level, NFC": composing,  # Qwen
    "byte-level, NFC, trimmed": composing_and_trimming,
}


@cache
def tokenizer(kind):
    made = KINDS[kind]()
    # Built anew, so that what was changed above is what is used.
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(made.backend_tokenizer.to_str()),
        bos_token=made.bos_token,
        unk_token=made.unk_token,
    )


@cache
def written(kind):
    return Vocabulary(tokenizer(kind), len(tokenizer(kind))).pieces


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=texts, data=st.data())
def test_a_spans_tokens_are_those_that_share_a_character_with_it(kind, text, data):
    a = data.draw(st.integers(0, len(text) - 1))
    b = data.draw(st.integers(a + 1, len(text)))
    c = data.draw(st.integers(a, b - 1))
    spans = {"outer": (a, b), "inner": (c, data.draw(st.integers(c + 1, b)))}
    (tokens,) = tokenize(tokenizer(kind), [Prompt(text, "en", "1", spans)])

    assert [tuple(o) for o in tokens.offsets] == sorted(tokens.offsets, key=lambda o: o[0])
    covered = set().union(*(range(*o) for o in tokens.offsets))
    assert covered == set(range(len(text)))

    for name, (start, stop) in spans.items():
        first, last = tokens.spans[name]
        assert 0 <= first < last <= len(tokens)
        inside = set().union(*(range(*o) for o in tokens.offsets[first:last]))
        assert inside >= set(range(start, stop))
        for i, (x, y) in enumerate(tokens.offsets):
            shares = x < stop and y > start and x < y
            assert not shares or first <= i < last
        assert tokens.offsets[first][1] > start and tokens.offsets[last - 1][0] < stop
        if "NFC" not in kind or unicodedata.is_normalized("NFC", text):
            text_there = b"".join(written(kind)[i] or b"" for i in tokens.ids[first:last])
            assert text[start:stop].encode() in text_there
    outer, inner = tokens.spans["outer"], tokens.spans["inner"]
    assert outer[0] <= inner[0] < inner[1] <= outer[1]
    if tokens.ids[0] == tokenizer(kind).bos_token_id:
        assert outer[0] >= 1


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(texts, min_size=2, max_size=5))
def test_neighbouring_spans_are_in_order(kind, texts):
    parts = [(f"part{n}", t) for n, t in enumerate(texts)]
    (tokens,) = tokenize(tokenizer(kind), [Prompt.from_parts(parts, language="en", id="1")])
    spans = [tokens.spans[name] for name, _ in parts]
    for (a, b), (c, d) in pairwise(spans):
        assert a <= c and b <= d  # a token may belong to both, a character of several pieces too
        shared = [tokens.offsets[i] for i in range(c, b)]
        assert len(shared) <= 1 or all(x < y for x, y in shared)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_familys_own_tokenizer(family, family_dir):
    """As loaded from a checkpoint, with the class that transformers picks."""
    loaded = AutoTokenizer.from_pretrained(family_dir(family))
    prompts = [
        Prompt(text, language, "1", {"word": (7, 15)}) for language, text in tiny.TEXT.items()
    ]
    vocab = Vocabulary(loaded, len(loaded))
    for tokens in tokenize(loaded, prompts):
        first, last = tokens.spans["word"]
        text = b"".join(vocab.pieces[i] for i in tokens.ids[first:last])
        assert tokens.prompt.text[7:15].encode() in text
        assert len(text) < 60


def span_of(kind, text, start, stop):
    (tokens,) = tokenize(tokenizer(kind), [Prompt(text, "en", "1", {"s": (start, stop)})])
    return b"".join(written(kind)[i] or b"" for i in tokens.ids[slice(*tokens.spans["s"])])


def test_trimmed_spaces_belong_to_their_token():
    """Pythia's offsets leave a lone space without any character."""
    kind = "byte-level, trimmed"
    text = "a   b  龘"
    raw = tokenizer(kind)(text, return_offsets_mapping=True)["offset_mapping"]
    assert any(a == b for a, b in raw)  # the trap is there
    (tokens,) = tokenize(tokenizer(kind), [Prompt(text, "en", "1")])
    assert tokens.offsets[:4] == ((0, 1), (1, 2), (2, 3), (3, 5))
    assert span_of(kind, text, 1, 2) == b" " and span_of(kind, text, 3, 4) == b" b"
    assert span_of(kind, "  two", 0, 1) == b" "


def test_composed_accents_belong_to_their_letter():
    """Under NFC the tokenizer's offset of é (two characters) holds the e alone."""
    kind = "byte-level, NFC"
    text = "cafe\u0301 n\u0303o"
    raw = tokenizer(kind)(text, return_offsets_mapping=True)["offset_mapping"]
    assert not any(a <= 4 < b for a, b in raw)
    assert span_of(kind, text, 4, 5) == span_of(kind, text, 3, 5) == "é".encode()
    assert "ñ".encode() in span_of(kind, text, 7, 8)
    assert span_of(kind, "\u1112\u1161\u11abx", 1, 2) == "한".encode()


def test_what_the_tokenizer_adds_belongs_to_no_span_and_ends_no_text(caplog):
    made = tiny.byte_level()
    backend = made.backend_tokenizer
    backend.normalizer = normalizers.NFC()
    end = ("<|endoftext|>", made.eos_token_id)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{end[0]} $A {end[0]}", special_tokens=[end]
    )
    prompt = Prompt("dog e\u0301", "en", "1", {"all of it": (0, 6), "accent": (5, 6)})
    (tokens,) = tokenize(made, [prompt])
    assert tokens.offsets[0] == (0, 0) and tokens.ids.count(made.eos_token_id) == 1
    assert tokens.spans["all of it"] == (1, len(tokens))
    assert tokens.spans["accent"][1] == len(tokens)
    assert max(b for _, b in tokens.offsets) == 6
    assert Ends.of(made) == Ends((made.eos_token_id,), (made.eos_token_id,))
    tokenize(made, [prompt])
    assert [r.message for r in caplog.records] == [
        f"{type(made).__name__}: this tokenizer ends every text in <|endoftext|>; it is left off, "
        "so that the last token is the text's. To have it read, write it at the end of the prompt."
    ]


def test_pieces_of_a_character_stay_together():
    for kind in ("byte-level", "sentencepiece"):
        assert span_of(kind, "x龘y", 1, 2) == "龘".encode()
        (tokens,) = tokenize(tokenizer(kind), [Prompt("x龘y", "en", "1", {"s": (1, 2)})])
        assert tokens.spans["s"][1] - tokens.spans["s"][0] == 3


# --- positions ---


def test_positions_of_each_slot():
    prompt = Prompt("the dog sleeps", "en", "1", {"s": (3, 14)})
    (tokens,) = tokenize(tokenizer("sentencepiece"), [prompt])
    a, b = tokens.spans["s"]
    assert a >= 2 and b == len(tokens)

    def positions(slot):
        return list(tokens.positions(parse_slot(slot)))

    assert positions("all") == list(range(len(tokens))) and positions("last") == [b - 1]
    assert positions("s:first") == [a] and positions("s:last") == [b - 1]
    assert positions("s:each") == positions("s:mean") == list(range(a, b))
    assert positions("s:predict") == list(range(a - 1, b - 1))


def test_a_span_at_the_start_is_predicted_by_bos_only():
    prompt = Prompt("the dog", "en", "1", {"s": (0, 3)})
    for prepend in (True, None):
        (tokens,) = tokenize(tokenizer("sentencepiece"), [prompt], prepend_bos=prepend)
        assert tokens.positions(parse_slot("s:predict"))[0] == 0
    (tokens,) = tokenize(tokenizer("sentencepiece"), [prompt], prepend_bos=False)
    with pytest.raises(ValueError, match=r"starts at the first token of prompt '1' \(en\)"):
        tokens.positions(parse_slot("s:predict"))


def test_spans_that_are_not_asked_for_are_not_mapped():
    stripping = tiny.byte_level()
    stripping.backend_tokenizer.normalizer = normalizers.Strip()
    prompt = Prompt("dog  ", "en", "1", {"space": (3, 5), "noun": (0, 3)})
    with pytest.raises(ValueError, match=r"'space' of prompt '1' \(en\) holds no token: '  '"):
        tokenize(stripping, [prompt])
    (tokens,) = tokenize(stripping, [prompt], spans=frozenset({"noun"}))
    assert dict(tokens.spans).keys() == {"noun"}


def test_a_text_that_disappears():
    stripping = tiny.byte_level()
    stripping.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(ValueError, match=r"'7' \(en\) tokenises to nothing: '  '"):
        tokenize(stripping, [Prompt("  ", "en", "7")])


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_bos_is_forced_or_kept_away_once(kind):
    bos = tokenizer(kind).bos_token_id
    (with_bos,) = tokenize(tokenizer(kind), [Prompt("dog", "en", "1")], prepend_bos=True)
    (without,) = tokenize(tokenizer(kind), [Prompt("dog", "en", "1")], prepend_bos=False)
    assert with_bos.ids == (bos, *without.ids) and bos not in without.ids
    assert with_bos.offsets == ((0, 0), *without.offsets)


# As a chat template writes them: with BOS, and some with white space before it.
HELD = ["{}Der Hund", "\n{}Der Hund", "  {}  Der Hund", "{}{}Der Hund", "{}"]


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("text", HELD)
@pytest.mark.parametrize("prepend", [None, True, False])
def test_a_text_that_holds_bos_gets_no_second_one(kind, text, prepend):
    words = tokenizer(kind)
    prompt = Prompt(text.replace("{}", words.bos_token), "de", "1")
    (tokens,) = tokenize(words, [prompt], prepend_bos=prepend)
    assert list(tokens.ids) == words(prompt.text, add_special_tokens=False)["input_ids"]
    assert tokens.ids.count(words.bos_token_id) == text.count("{}")


@pytest.mark.parametrize("template", ["", "\n", "\n \n"])
def test_a_chat_is_read_as_the_template_meant_it(template, caplog):
    words = tiny.sentencepiece(prefix=True)  # puts a space before a text, but not behind BOS
    words.chat_template = (
        template + "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{{ eos_token }}"
        "{% endfor %}"
    )
    turns = [{"role": "user", "content": "Wo?"}, {"role": "assistant", "content": "Rom."}]
    written = words.apply_chat_template(turns, tokenize=False)
    (tokens,) = tokenize(words, [Prompt(written, "de", "1")])
    assert list(tokens.ids) == words.apply_chat_template(turns)["input_ids"]
    assert tokens.ids[-1] == words.eos_token_id  # the text's own stays
    assert "prompts hold <bos> themselves" in caplog.text


def around(before: str, after: str) -> PreTrainedTokenizerFast:
    made = tiny.byte_level()
    made.add_special_tokens({"additional_special_tokens": ["[CLS]", "[SEP]"]})
    backend = made.backend_tokenizer
    marks = [(m, made.convert_tokens_to_ids(m)) for m in {*before.split(), *after.split()}]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(), special_tokens=marks
    )
    return made


def test_other_marks_than_bos():
    words = around("[CLS] <|endoftext|>", "[SEP] <|endoftext|>")
    bos = words.bos_token
    cls, sep = words.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    plain = words("Der Hund", add_special_tokens=False)["input_ids"]

    def ids(text, prepend=None):
        return list(tokenize(words, [Prompt(text, "de", "1")], prepend_bos=prepend)[0].ids)

    both = [cls, words.bos_token_id]
    assert ids("Der Hund") == ids("Der Hund", True) == both + plain
    assert ids("Der Hund", False) == plain
    assert ids(f"[CLS]{bos}Der Hund") == ids(f"{bos}Der Hund") == both + plain
    assert ids("Der Hund[SEP]") == [*both, *plain, sep]
    only = around("[CLS]", "[SEP]")
    (tokens,) = tokenize(only, [Prompt("Der Hund", "de", "1")], prepend_bos=True)
    assert list(tokens.ids) == [only.bos_token_id, *plain]
    assert Ends.of(only) == Ends((cls,), (sep,))
    assert Ends.of(tiny.byte_level()) == Ends((), ())


def test_a_space_that_the_tokenizer_puts_before_words_takes_no_character_from_others():
    words = tiny.byte_level()
    backend = words.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    mark = (words.bos_token, words.bos_token_id)
    backend.post_processor = processors.RobertaProcessing(mark, mark)  # trims offsets
    text = f"{words.bos_token}Hund da"
    at = len(words.bos_token)
    (tokens,) = tokenize(words, [Prompt(text, "de", "1", {"bos": (0, at), "s": (at, at + 4)})])
    assert dict(tokens.spans)["bos"] == (0, 1)
    start, stop = tokens.spans["s"]
    assert "".join(words.convert_ids_to_tokens(tokens.ids[start:stop])).lstrip("Ġ") == "Hund"


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_many_prompts_are_tokenised_some_at_a_time_and_share_what_is_equal(family, monkeypatch):
    """Of prompts with one beginning, ids and places in the text would take more than states."""
    tokenizer = tiny.tokenizer(family)
    begun = tiny.TEXT["de"] * 4
    prompts = [
        Prompt.from_parts([begun, ("word", f" {word}")], language="de", id=word)
        for word in ("Hund", "Haus", "Buch", "Tisch", "Sommer")
    ]
    whole = tokenize(tokenizer, prompts)
    monkeypatch.setattr("xlens.prompts.tokens.AT_ONCE", 2)
    some = tokenize(tokenizer, prompts)
    assert some == whole
    assert some == [tokenize(tokenizer, [prompt])[0] for prompt in prompts]
    first, last = some[0], some[-1]
    places = {id(place) for t in some for place in t.offsets}
    assert len(places) == len({place for t in some for place in t.offsets})
    assert max(first.offsets[-3]) > 256 and first.offsets[20] is last.offsets[20]
    assert len({id(i) for t in some for i in t.ids}) == len({i for t in some for i in t.ids})
