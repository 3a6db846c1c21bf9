"""Target sets: which tokens begin a word, and which words can be told apart."""

import re

import kit
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from xlens.lens import TargetSets, target_sets
from xlens.models import HookedModel
from xlens.models.beginnings import word_tokens

# --- two vocabularies that are known to the last token ---

SHARED = ["d", "o", "g", "do", "dog", "dogs", "c", "ch", "cat"]


def with_tokenizer(pieces, merges, *, byte_level):
    specials = ["<unk>", "<bos>"]
    pieces = list(dict.fromkeys([*specials, *pieces]))
    backend = Tokenizer(
        models.BPE(
            {p: i for i, p in enumerate(pieces)},
            merges,
            unk_token="<unk>",
            byte_fallback=not byte_level,
        )
    )
    if byte_level:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>"
    )
    return HookedModel(tiny.model("gpt2"), tokenizer, name="known")


@pytest.fixture(scope="module")
def sentencepiece():
    """Gemma's kind: spaces as ▁, bytes as <0x..>."""
    pieces = [*(f"<0x{b:02X}>" for b in range(256)), "▁", *SHARED, "▁d", "▁do", "▁dog", "▁cat"]
    pieces += ["a", "t", "s", "h", "▁c", "ca", "狗", "▁狗", "天", "水"]
    merges = [("d", "o"), ("do", "g"), ("▁", "dog"), ("c", "a"), ("ca", "t"), ("▁", "cat")]
    return with_tokenizer(pieces, [*merges, ("▁", "狗"), ("dog", "s")], byte_level=False)


@pytest.fixture(scope="module")
def byte_level():
    """GPT-2's kind: 狗 is E7 8B 97, written ç ĭ Ĺ."""
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *SHARED, "Ġd", "Ġdo", "Ġdog", "çĭ", "Ġç", "çĭĹ", "Ġcat", "ca"]
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog"), ("ç", "ĭ"), ("çĭ", "Ĺ"), ("dog", "s")]
    return with_tokenizer(pieces, [*merges, ("c", "a"), ("ca", "t")], byte_level=True)


def named(model, ids):
    return {model.tokenizer.convert_ids_to_tokens(i) for i in ids}


def test_prefixes_in_sentencepiece(sentencepiece):
    def found(word):
        return named(sentencepiece, word_tokens(sentencepiece, word))

    assert found("dog") == {"d", "do", "dog", "▁d", "▁do", "▁dog"}  # never <0x64>
    assert found("dogs") == found("dog") | {"dogs"}
    assert found("cat") == {"c", "ca", "cat", "▁c", "▁cat"}
    # The character with and without a space, and the byte that a model without it would begin with.
    assert found("狗") == {"狗", "▁狗", "<0xE7>"}
    # Bytes of the first character only: 子 is E5 AD 90.
    assert found("狗子") == found("狗")
    assert found("犬") == {"<0xE7>"}
    assert found("Ω") == {"<0xCE>"}


def test_prefixes_in_byte_level(byte_level):
    def found(word):
        return named(byte_level, word_tokens(byte_level, word))

    assert found("dog") == {"d", "do", "dog", "Ġd", "Ġdo", "Ġdog"}
    assert found("狗") == {"ç", "Ġç", "çĭ", "çĭĹ"}
    assert found("犬") == {"ç", "Ġç"}  # E7 8A AC
    assert "Ġ" not in found("dog") | found("狗")


def test_first_tokens(sentencepiece, byte_level):
    def found(model, word):
        return named(model, word_tokens(model, word, "first"))

    assert found(sentencepiece, "dog") == {"dog", "▁dog"}
    assert found(sentencepiece, "狗") == {"狗", "▁狗"}
    assert found(sentencepiece, "犬") == {"<0xE7>"}  # the space stands alone, and says nothing
    assert found(byte_level, "dog") == {"dog", "Ġdog"}
    assert found(byte_level, "狗") == {"çĭĹ"}
    assert found(byte_level, "ox") == {"o"}


def test_a_prefixing_tokenizer_has_the_spaced_first_token_only(family_dir):
    model = kit.model(family_dir("llama"))
    (first,) = word_tokens(model, "the", "first")
    assert model.vocab.label(first) == "␣the"
    assert {model.vocab.label(i) for i in word_tokens(model, "The")} >= {"T", "␣T", "The"}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "qwen2"])
def test_prefixes_are_what_could_begin_the_word(family, family_dir):
    model = kit.model(family_dir(family))
    vocab, tokenizer = model.vocab, model.tokenizer
    items = tokenizer.get_vocab()
    written = {chr(k).encode() for k in range(128) if chr(k) in items}
    for word in ("chien", "dog", "été", "собака", "狗", "कुत्ता", "개", "龘", "🐶"):
        ids = word_tokens(kit.model(family_dir(family)), word)
        assert ids == tuple(sorted(set(ids))) and ids
        brute = set()
        for i, piece in enumerate(vocab.pieces):
            bare = (piece or b"").removeprefix(b" ")
            if not bare or piece == b" " or not word.encode().startswith(bare):
                continue
            if re.fullmatch(r"<0x[0-7].>", tokenizer.convert_ids_to_tokens(i)) and bare in written:
                continue  # the tokenizer writes that character by a piece of its own
            whole = bare in [word[:k].encode() for k in range(1, len(word) + 1)]
            if whole or len(bare) < len(word[0].encode()):
                brute.add(i)
        assert set(ids) == brute


# --- the collision filter ---


def words(**columns):
    columns = {tag.replace("_", "-"): texts for tag, texts in columns.items()}
    return pd.DataFrame(
        columns, index=[f"item/{n}" for n in range(len(next(iter(columns.values()))))]
    )


def test_each_reason_is_counted_and_explained(sentencepiece):
    table = words(
        en=["dog", "cat", "dog", None, "dog", "dog", ""],
        zh_Hans=["狗", "天", "Dogs", "水", pd.NA, "do", "狗"],
        ja=["天", "水", "水", "天", "狗", "水", "天"],
    )
    sets = target_sets(sentencepiece, table, languages=["en", "zh-Hans"])
    assert sets.ids == ("item/0", "item/1") and sets.n_offered == 7
    assert sets.languages == sets.all_languages == ("en", "zh-Hans") and sets.extra == ()
    assert dict(zip(sets.dropped["id"], sets.dropped["reason"], strict=True)) == {
        "item/2": "same word inside the other",  # case folded
        "item/3": "missing word",
        "item/4": "missing word",
        "item/5": "same word inside the other",
        "item/6": "missing word",
    }
    assert sets.dropped["detail"].tolist() == [
        "en: dog in zh-Hans: Dogs", "en", "zh-Hans", "zh-Hans: do in en: dog", "en",
    ]  # fmt: skip
    survival = sets.survival().set_index("reason")["n"].to_dict()
    assert survival == {
        "offered": 7,
        "kept": 2,
        "missing word": 3,
        "no token": 0,
        "same word inside the other": 2,
        "shared tokens": 0,
        "nothing of its own": 0,
    }


def test_shared_tokens_are_dropped_or_subtracted(sentencepiece):
    table = words(en=["dog", "dog"], de=["dachs", "天"], ja=["天", "水"])
    sets = target_sets(sentencepiece, table, languages=["en", "de"])
    assert sets.ids == ("item/1",)
    assert sets.dropped["reason"].tolist() == ["shared tokens"]
    assert sets.dropped["detail"].tolist() == ["2 of dog, dachs"]  # d and ▁d

    sets = target_sets(
        sentencepiece, table, languages=["en", "de"], collisions="subtract", match="prefixes"
    )
    # Nothing of "dachs" but its first letter is a token of its own.
    assert sets.ids == ("item/1",) and sets.dropped["reason"].tolist() == ["nothing of its own"]

    table = words(en=["dog"], de=["cat"], nl=["do-g"])
    sets = target_sets(sentencepiece, table, languages=["en", "de"], extra=["nl"])
    assert named(sentencepiece, sets.sets.loc["item/0", "en"]) == {"dog", "▁dog"}
    assert sets.sets.loc["item/0", "nl"] == ()
    assert named(sentencepiece, sets.sets.loc["item/0", "de"]) >= {"cat", "▁cat"}


def test_cjk_words_that_share_their_first_byte(sentencepiece, byte_level):
    """犬 and 狗 are told apart by subtraction where the vocabulary has more than the byte."""
    table = words(zh_Hans=["狗"], en=["dog"], ja=["犬"])
    for model in (sentencepiece, byte_level):
        with pytest.raises(ValueError, match=r"No item of 1 .*'shared tokens': 1"):
            target_sets(model, table, languages=["zh-Hans", "ja"])
        sets = target_sets(model, table, languages=["zh-Hans", "en"], extra=["ja"])
        mine = named(model, sets.sets.loc["item/0", "zh-Hans"])
        assert mine == ({"狗", "▁狗"} if model is sentencepiece else {"çĭ", "çĭĹ"})
        assert sets.sets.loc["item/0", "ja"] == ()


def test_an_extra_language_may_lack_the_word(sentencepiece):
    table = words(en=["dog", "cat"], zh_Hans=["狗", "天"], fr=[None, "水"])
    sets = target_sets(sentencepiece, table, languages=["en", "zh-Hans"], extra=["fr", "en"])
    assert sets.extra == ("fr",) and sets.all_languages == ("en", "zh-Hans", "fr")
    assert sets.sets.loc["item/0", "fr"] == () and sets.sets.loc["item/1", "fr"]


def test_words_that_tokenise_to_nothing():
    pieces = ["▁", *"dogs", "do", "dog"]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(["<unk>", *pieces])}, [],
                                   unk_token="<unk>"))  # fmt: skip
    backend.normalizer = normalizers.Replace(" ", "▁")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    model = HookedModel(tiny.model("gpt2"), tokenizer, name="no bytes")
    assert word_tokens(model, "Ω") == word_tokens(model, "Ω", "first") == ()
    table = words(en=["dog", "dog"], el=["Ω", "sΩ"])
    for match in ("prefixes", "first"):
        sets = target_sets(model, table, match=match)
        assert sets.ids == ("item/1",) and sets.match == match
        assert sets.dropped["detail"].tolist() == ["el: Ω"]
        assert sets.dropped["reason"].tolist() == ["no token"]


def test_the_tensor_of_some_items(sentencepiece):
    table = words(en=["dog", "cat"], zh_Hans=["狗", "天"], fr=[None, "水"])
    sets = target_sets(sentencepiece, table, languages=["en", "zh-Hans"], extra=["fr"])
    tensor = sets.tensor(["item/1", "item/0", "item/1"])
    assert tensor.shape[:2] == (3, 3)
    for row, item in enumerate(["item/1", "item/0", "item/1"]):
        for column, language in enumerate(sets.all_languages):
            ids = [i for i in tensor[row, column].tolist() if i >= 0]
            assert tuple(ids) == sets.sets.loc[item, language]
            assert tensor[row, column, len(ids) :].eq(-1).all()
    with pytest.raises(ValueError, match=r"1 of 2 items have no target sets, first 'item/9'"):
        sets.tensor(["item/0", "item/9"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["en", "xx"]}, r"missing \['xx'\], the words have \['en', 'zh-Hans'\]"),
        ({"extra": ["fr"]}, r"missing \['fr'\]"),
        ({"extra": ["en", "zh-Hans"]}, r"missing languages"),
    ],
)
def test_bad_columns(options, message, sentencepiece):
    with pytest.raises(ValueError, match=message):
        target_sets(sentencepiece, words(en=["dog"], zh_Hans=["狗"]), **options)


def test_an_item_twice(sentencepiece):
    table = words(en=["dog", "cat"], zh_Hans=["狗", "天"])
    table.index = ["a", "a"]
    with pytest.raises(ValueError, match=r"Item ids must be unique; 'a' has several rows"):
        target_sets(sentencepiece, table)


# --- whatever the words ---

WORDS = [
    *sorted({w for text in tiny.TEXT.values() for w in text.replace("。", " ").split()}),
    "狗", "犬", "天", "天空", "dog", "dogs", "Dog", "chien", "chienne", "été", "et", "龘", "🐶", "",
]  # fmt: skip
LANGUAGES = ("en", "fr", "zh-Hans", "de")


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(["gpt2", "llama", "gemma2"]),
    rows=st.lists(st.tuples(*[st.sampled_from(WORDS)] * 4), min_size=1, max_size=5),
    n_main=st.integers(1, 4),
    match=st.sampled_from(["prefixes", "first"]),
    collisions=st.sampled_from(["drop", "subtract"]),
)
def test_sets_are_disjoint_and_nothing_is_lost(family, rows, n_main, match, collisions, family_dir):
    model = kit.model(family_dir(family))
    table = pd.DataFrame(rows, columns=LANGUAGES, index=[str(n) for n in range(len(rows))])
    main, extra = LANGUAGES[:n_main], LANGUAGES[n_main:]
    options = {"languages": main, "extra": extra, "match": match, "collisions": collisions}
    try:
        sets = target_sets(model, table, **options)
    except ValueError as nothing:
        assert f"No item of {len(rows)} is left" in str(nothing)
        return
    assert sorted([*sets.ids, *sets.dropped["id"]], key=int) == list(table.index)
    survival = sets.survival().set_index("reason")["n"]
    assert survival["kept"] == len(sets.ids)
    assert survival.drop(["offered", "kept"]).sum() == len(sets.dropped)
    for item, cells in sets.sets.iterrows():
        every = [i for cell in cells for i in cell]
        assert len(every) == len(set(every))
        assert all(0 <= i < model.d_vocab and i not in model.vocab.special for i in every)
        assert all(cells[c] for c in main)
        for language in LANGUAGES:
            own = set(word_tokens(model, table.loc[item, language], match))
            assert set(cells[language]) <= own
            lost = own - set(cells[language])
            others = [table.loc[item, c] for c in LANGUAGES if c != language]
            assert lost <= {i for w in others for i in word_tokens(model, w, match)}
    assert isinstance(sets, TargetSets)
