"""What is left out is said, with its reason, and options that would be ignored are refused."""

import kit  # noqa: F401  (no hub)
import pandas as pd
import pytest

from xlens.cli import main
from xlens.report.process import left_out
from xlens.report.sentences import used
from xlens.studies import LensStudy
from xlens.studies.lens import columns_of
from xlens.studies.steps.latent_language import check_pair
from xlens.tasks.words import WordList, cldr_words, translation_prompts

WORDS = WordList(
    pd.DataFrame(
        {
            "en": ["dog", "cat", "sun", "moon", "tea", "klingon"],
            "fr": ["chien", "chat", "soleil", "lune", "thé", None],
            "tlh": ["targh", "vIghro'", "pem", None, "Dargh", "tlhIngan"],
        },
        index=[f"w/{n}" for n in range(6)],
    ),
    "test",
)
NAMES = {"tlh": "tlhIngan Hol"}


def test_words_that_are_not_asked_for_are_told_with_the_reason():
    asked = translation_prompts(WORDS, "en", "tlh", shots=2, names=NAMES)
    assert asked.dropped == {"w/3": "missing word", "w/5": "named by a label"}
    assert set(asked.ids) == set(WORDS.ids) - set(asked.dropped)
    # Who names ids is not told of others.
    assert translation_prompts(WORDS, "en", "tlh", shots=2, ids=["w/1"], names=NAMES).dropped == {}
    with pytest.raises(ValueError, match=r"of 7, 7 have a word in fr, 0 have a word in zh-Latn"):
        translation_prompts(
            cldr_words(["fr", "zh-Latn"], ["weekday"]), "fr", "zh-Latn", names={"zh-Latn": "Zw"}
        )


def test_languages_outside_cldr_need_a_name_and_can_have_one():
    with pytest.raises(ValueError, match=r"'tlh'.*--names.TAG"):
        check_pair(WORDS, "fr", "tlh", study=LensStudy(shots=2))
    check_pair(WORDS, "fr", "tlh", study=LensStudy(shots=2, names=NAMES))
    assert LensStudy(names={"zh_hans": "汉语"}).names == {"zh-Hans": "汉语"}
    with pytest.raises(ValueError, match="names of fr: nothing given"):
        LensStudy(names={"fr": ""})
    with pytest.raises(ValueError, match="nosuch"):
        LensStudy(names={"nosuch": "x"})


def test_columns_by_name_or_in_order():
    assert columns_of(()) is None
    assert columns_of(("en", "fr")) == ["en", "fr"]
    assert columns_of(("English word:en", "a:b:fr")) == {"English word": "en", "a:b": "fr"}
    with pytest.raises(ValueError, match="NAME:TAG for every column"):
        columns_of(("x:en", "fr"))


def test_what_can_be_used_is_a_sentence():
    assert used({"offered": 3, "kept": 3, "missing word": 0}, "items") == ""
    said = used({"offered": 9, "kept": 3, "missing word": 4, "kind differs": 2, "x": 0}, "items")
    assert said == "3 of 9 items can be used; of the others: missing word 4, kind differs 2."
    assert left_out({}, {"latent": "the items have no en"}) == [
        "Without options inside: the items have no en."
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("process x --languages de fr --layers 3", "--layers without --steer"),
        ("process x --languages de fr --strengths 2", "--strengths without --steer"),
        ("process x --languages de fr --steer lda", "Steering is to 'en'"),
        ("process x --items a/m.jsonl b/m.jsonl", "two of these are called 'm'"),
        ("choices x --languages de fr --layout xcopa", "name it with --items"),
        ("choices x --languages en bo", "missing word (bo)"),
        ("lens x --from fr --to de --columns en fr", "Give --words as well"),
    ],
)
def test_options_that_would_be_ignored_are_refused(line, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    item = '{"id": "1", "language": "%s", "question": "%s?", "options": ["a", "b"], "gold": 0}\n'
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.jsonl").write_text(item % ("en", "one") + item % ("de", "eins"))
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2 and said in capsys.readouterr().err
