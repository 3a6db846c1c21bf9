"""Equal text is equal: composed or not, with or without what nobody sees."""

import logging
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xlens
from xlens.models.beginnings import word_tokens
from xlens.prompts import Prompt
from xlens.tasks.choices import Choices
from xlens.tasks.words import WordList
from xlens.tasks.xmrc import ReadingSet, answer_scores
from xlens.tasks.xmrc.data import whole_readings
from xlens.text import comparable, folded, form, form_with_places, out_of_form

STRAY = "\u00ad\u200b\u200e\u200f\u2060\ufeff\u061c\u202b\u2069\u034f"
# Of many scripts, composed and not, of what NFC takes apart (Hindi's nukta letters), and of what
# only NFKC makes equal.
_WORDS = """Österreich Île é ǭ ṩ Hà Nội ngày tiếng đường ñandú Ελλάς ά й ё \u0958िला ख\u093cबर
    कुत्ता আমি ড\u09bcোয়া 가을 개 각 كَلْب آب أسد น้ำ กำ ທຳ 狗 が プ ｶﾞ １２ ﬁ"""
PIECES = _WORDS.split()
words = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(" ".join)
strays = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(STRAY)), max_size=4)


def spelled(text: str, how: str, marks: list[tuple[int, str]]) -> str:
    """Another spelling of the same text."""
    out = unicodedata.normalize(how, text)
    for place, mark in marks:
        out = out[: place % (len(out) + 1)] + mark + out[place % (len(out) + 1) :]
    return out


spellings = st.builds(lambda how, marks: (how, marks), st.sampled_from(["NFC", "NFD"]), strays)


@pytest.fixture(scope="module")
def models(family_dir):
    """Byte-level without a normaliser, with NFC (Qwen), and SentencePiece."""
    return [xlens.load(family_dir(name)) for name in ("gpt2", "qwen2", "gemma3")]


# --- the forms -----------------------------------------------------------------------------------


@given(words, spellings)
def test_one_text_has_one_form(text, spelling):
    other = spelled(text, *spelling)
    assert form(other) == form(text) == form(form(other))
    assert comparable(other) == comparable(text) == comparable(comparable(text))
    assert folded(other) == folded(text) == folded(folded(text))
    assert form(other) == unicodedata.normalize("NFC", form(other))


@given(words, words, spellings)
def test_places_move_with_the_text(before, after, spelling):
    one, other = spelled(before + " ", *spelling), spelled("x" + after, *spelling)
    whole, (at,) = form_with_places(one + other, [len(one)])
    assert whole == form(one + other)
    assert whole[at:] == form(other)


def test_joiners_stay_where_they_spell():
    for text in ("کتاب\u200cها", "क्\u200dष", "👩🏽\u200d🔬", "❤\ufe0f\u200d🔥"):
        assert form(text) == text
    assert form("Auf\u200clage") == "Auflage"
    assert form("e\u200d\u0301") == "é"
    assert folded("کتاب\u200cها") == folded("کتابها")


def test_what_carries_meaning_stays():
    assert form("x² ﬁ １ ㎏") == "x² ﬁ １ ㎏"
    assert folded("x² ﬁ １ ㎏") == "x2 fi 1 kg"


def test_thai_and_lao_am_is_one_letter():
    assert comparable("น้ำ") == comparable("นํ้า") == comparable("น\u0e49\u0e4d\u0e32") == "น้ำ"
    assert comparable("ນ້ຳ") == comparable("ນໍ້າ") == "ນ້ຳ"


# --- words, items, answers -----------------------------------------------------------------------


@given(words, spellings)
def test_a_words_tokens(models, text, spelling):
    for model in models:
        for reading in ("prefixes", "first"):
            wanted = word_tokens(model, form(text), reading)
            assert word_tokens(model, spelled(text, *spelling), reading) == wanted


@given(words, words, spellings)
def test_a_word_list(text, other, spelling):
    plain = WordList(pd.DataFrame({"de": [text], "vi": [other]}, index=["word/1"]), "here")
    again = WordList(
        pd.DataFrame(
            {"de": [spelled(text, *spelling)], "vi": [spelled(other, *spelling)]}, index=["word/1"]
        ),
        "here",
    )
    assert again.frame.equals(plain.frame)


@given(st.lists(words, min_size=4, max_size=4, unique_by=folded), spellings)
def test_items(texts, spelling):
    def items(write) -> Choices:
        rows = [
            (write("Ü1"), tag, write(texts[k]), [write(texts[k + 1]), write("x" + texts[k])], 1)
            for k, tag in ((0, "de"), (2, "vi"))
        ]
        columns = ["id", "language", "question", "options", "gold"]
        return Choices(pd.DataFrame(rows, columns=columns), "here")

    one, other = items(form), items(lambda text: spelled(text, *spelling))
    assert one.frame.equals(other.frame)


@given(words, words, spellings)
def test_questions_and_where_their_answers_stand(context, answer, spelling):
    def reading(write) -> ReadingSet:
        start = f"{write('ä ' + context)} "
        row = ("1", "de", write(answer), start + write("x" + answer) + " .", [write("x" + answer)])
        frame = pd.DataFrame([row], columns=["id", "language", "question", "context", "answers"])
        frame["starts"] = [[len(start)]]
        return whole_readings(frame, "here", incomplete="error", faulty="error")

    one, other = reading(form), reading(lambda text: spelled(text, *spelling))
    assert one.frame.drop(columns="rewritten").equals(other.frame.drop(columns="rewritten"))
    (item,) = other.items("de").values()
    (said,), (at,) = item.answers, item.starts
    assert item.context[at : at + len(said)] == said
    assert not one.frame["rewritten"].any()


@given(words, spellings, spellings, st.sampled_from(["de", "hi", "vi", "th", "lo", "ja", "ar"]))
def test_an_answer_is_right_however_it_is_spelled(text, one, other, language):
    scores = answer_scores(spelled(text, *one), [spelled(text, *other)], language)
    assert scores["em"] == 1 and scores["f1"] == 1


@pytest.mark.parametrize(
    ("said", "right", "language"),
    [
        ("\u095bमीन", "ज\u093cमीन", "hi"),  # NFC takes the nukta letters apart
        ("１９６９", "1969", "ja"),
        ("So\u00adfort", "Sofort", "de"),
        ("\u200f١٩٦٩\u200f", "١٩٦٩", "ar"),
        ("Ｎ．Ａ．Ｓ．Ａ．", "NASA", "zh"),
    ],
)
def test_answers_in_another_form(said, right, language):
    assert answer_scores(said, [right], language)["em"] == 1
    # The published scripts compare code points.
    assert answer_scores(said, [right], language, normalisation="squad")["em"] == 0


def test_published_rules_warn_of_data_out_of_form(caplog):
    from xlens.studies import ReadingStudy
    from xlens.studies.steps.context_retrieval import check_reading

    frame = pd.DataFrame(
        [
            (id, tag, "?", f"Das Ko\u0308nigreich {id}", ["Ko\u0308nigreich"], [4], id)
            for id in ("1", "2")
            for tag in ("en", "de")
        ],
        columns=["id", "language", "question", "context", "answers", "starts", "paragraph"],
    )
    reading = ReadingSet(frame, "here")
    assert reading.frame["rewritten"].all()
    assert list(reading.frame["starts"]) == [(4,)] * 4
    study = {"settings": ("x-x",), "n_items": 2, "shots": 0}
    with caplog.at_level(logging.WARNING):
        check_reading(reading, ReadingStudy(normalisation="xlens", **study))
        assert not caplog.records
        check_reading(reading, ReadingStudy(normalisation="mlqa", **study))
    assert "2 right answers of here were not in NFC" in caplog.text


def test_a_prompt_is_sent_as_it_stands():
    text = "Ko\u0308nig"
    assert Prompt(text, "de", "1").text == text
    assert out_of_form([text, "König"]) == 1


def test_a_tokenizers_own_normaliser_is_asked(family_dir):
    from tokenizers import normalizers

    model = xlens.load(family_dir("gpt2"))
    plain = word_tokens(model, "Égal")
    model.tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    assert word_tokens(model, "Égal") == word_tokens(model, "egal") != plain
