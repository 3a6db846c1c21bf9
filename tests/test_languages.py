import subprocess
import sys

import pytest

from xlens import languages as lg


@pytest.mark.parametrize(
    ("given", "standard"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("iw", "he"),
        ("zh_hans", "zh-Hans"),
        ("zh_cn", "zh-CN"),
        ("pt_br", "pt-BR"),
        ("arb", "arb"),
    ],
)
def test_tags_are_standardised_and_nothing_is_merged(given: str, standard: str) -> None:
    assert lg.standardize(given) == standard
    assert lg.standardize(standard) == standard


@pytest.mark.parametrize(
    ("given", "suggestions"),
    [
        ("english", ["'en' (English)"]),
        ("Chinese", ["'zh' (Chinese)", "'zh-Hans'", "'zh-Hant'"]),
        ("Deutsch", ["'de'"]),
        ("Frensh", ["'fr'"]),
        ("zh-Hnas", ["'zh-Hans'"]),
        ("xx", []),
        ("", []),
        ("und", []),
        ("419", []),  # a region, and so would be a file named 053.txt
    ],
)
def test_unknown_tags_are_named_with_what_is_accepted_and_what_is_near(
    given: str, suggestions: list[str]
) -> None:
    with pytest.raises(ValueError, match="BCP-47") as caught:
        lg.standardize(given)
    assert repr(given) in str(caught.value)
    for suggestion in suggestions:
        assert suggestion in str(caught.value)


def test_several_tags_keep_their_order_and_are_unique() -> None:
    assert lg.standardize_all(["zh_hans", "en"]) == ("zh-Hans", "en")
    with pytest.raises(ValueError, match=r"\['en'\]"):
        lg.standardize_all("en")
    with pytest.raises(ValueError, match="No language"):
        lg.standardize_all([])
    with pytest.raises(ValueError, match="'en' is given more than once"):
        lg.standardize_all(["en", "fr", "eng"])


def test_endonyms_are_those_of_wendlers_prompts() -> None:
    wanted = {
        "fr": "Français", "de": "Deutsch", "ru": "Русский", "en": "English", "zh-Hans": "中文",
        "ja": "日本語", "ko": "한국어", "ar": "العربية", "hi": "हिन्दी", "tr": "Türkçe",
        "sw": "Kiswahili", "es": "Español", "arb": "العربية", "zh-TW": "中文",
    }  # fmt: skip
    assert {tag: lg.endonym(tag) for tag in wanted} == wanted
    # Georgian has capitals, but none at the start of a word.
    assert lg.endonym("ka") == "ქართული"


def test_variants_tell_scripts_and_regions_apart() -> None:
    assert lg.endonym("zh-Hans", variant=True) == "简体中文"
    assert lg.endonym("zh-Hant", variant=True) == "繁體中文"
    assert lg.endonym("fr", variant=True) == "Français"
    assert "Brasil" in lg.endonym("pt-BR", variant=True)
    assert lg.english_name("zh-Hant") == "Chinese"
    assert lg.english_name("zh-Hant", variant=True) == "Traditional Chinese"
    assert lg.english_name("tlh-US", variant=True) == lg.english_name("tlh") == "Klingon"


def test_a_language_without_cldr_data_has_an_english_name_but_no_endonym() -> None:
    with pytest.raises(ValueError, match="'tlh'"):
        lg.endonym("tlh")
    assert lg.direction("tlh") == "ltr"


@pytest.mark.parametrize(
    ("tag", "script", "direction"),
    [
        ("fr", "Latn", "ltr"),
        ("ru", "Cyrl", "ltr"),
        ("zh", "Hans", "ltr"),
        ("zh-TW", "Hant", "ltr"),
        ("sr-Latn", "Latn", "ltr"),
        ("ar", "Arab", "rtl"),
        ("ur", "Arab", "rtl"),
        ("pa", "Guru", "ltr"),
        ("pa-Arab", "Arab", "rtl"),
        ("he", "Hebr", "rtl"),
        ("prs", "Arab", "rtl"),  # no locale of its own: the script decides
    ],
)
def test_script_and_direction(tag: str, script: str, direction: str) -> None:
    assert lg.script(tag) == script
    assert lg.direction(tag) == direction


def test_import_is_light() -> None:
    code = "import sys, xlens.languages; print('pandas' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert found.split() == ["False", "False"]


@pytest.mark.parametrize("tag", ["ru-Latn", "ja-Latn", "ug-Latn", "ku-Arab"])
def test_a_language_in_another_script_has_not_the_names_of_its_usual_one(tag: str) -> None:
    with pytest.raises(ValueError, match=f"{tag!r} in that script .*--names.TAG"):
        lg.endonym(tag)
    assert lg.direction(tag) == ("rtl" if lg.script(tag) == "Arab" else "ltr")


def test_what_is_written_alike() -> None:
    assert lg.written("zh-TW") == lg.written("zh-Hant") == ("zh", "Hant")
    assert lg.written("arb") == lg.written("ar-EG") == ("ar", "Arab")
    assert len({lg.written(tag) for tag in ("zh", "zh-Hant", "zh-Latn", "hi", "hi-Latn")}) == 5


def test_names_of_languages_in_others():
    assert lg.named_in("de", "es") == "alemán"
    assert lg.named_in("zh-Hans", "de") == lg.named_in("zh-Hant", "de") == "Chinesisch"
    assert lg.named_in("zh-Hant", "de", variant=True) != lg.named_in("zh-Hans", "de", variant=True)
    assert "Arab" in lg.named_in("arb", "de")
    assert lg.named_in("tlh", "de") == "Klingonisch"
    assert lg.named_in("de", "tlh") == "German"  # CLDR knows no word of Klingon


def test_the_identifier_does_not_take_another_script_for_what_it_knows() -> None:
    _, names = lg.identifier(("hi-Latn", "zh-Latn", "zh-Hant", "zh", "ru-Latn", "ko", "en"))
    assert names == {"zh": "zh-Hant", "ko": "ko", "en": "en"}
