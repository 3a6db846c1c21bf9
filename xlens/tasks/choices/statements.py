"""Yes or no: is what is said of a place, a currency or a month so? Made from CLDR, no data set."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from xlens.checks import typed
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.tasks.choices.data import Choices
from xlens.tasks.choices.facts import FACTS, MARK, cldr_choices

YES_NO: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "af": ("ja", "nee"),
        "am": ("አዎን", "አይ"),
        "ar": ("نعم", "لا"),
        "az": ("hə", "yox"),
        "bg": ("да", "не"),
        "bn": ("হ্যাঁ", "না"),
        "ca": ("sí", "no"),
        "cs": ("ano", "ne"),
        "da": ("ja", "nej"),
        "de": ("ja", "nein"),
        "el": ("ναι", "όχι"),
        "en": ("yes", "no"),
        "es": ("sí", "no"),
        "et": ("jah", "ei"),
        "eu": ("bai", "ez"),
        "fa": ("بله", "نه"),
        "fi": ("kyllä", "ei"),
        "fil": ("oo", "hindi"),
        "fr": ("oui", "non"),
        "gu": ("હા", "નહીં"),
        "he": ("כן", "לא"),
        "hi": ("हाँ", "नहीं"),
        "hr": ("da", "ne"),
        "hu": ("igen", "nem"),
        "hy": ("այո", "ոչ"),
        "id": ("ya", "tidak"),
        "is": ("já", "nei"),
        "it": ("sì", "no"),
        "ja": ("はい", "いいえ"),
        "ka": ("კი", "არა"),
        "kk": ("иә", "жоқ"),
        "ko": ("예", "아니요"),
        "lt": ("taip", "ne"),
        "lv": ("jā", "nē"),
        "mn": ("тийм", "үгүй"),
        "ms": ("ya", "tidak"),
        "nb": ("ja", "nei"),
        "ne": ("हो", "होइन"),
        "nl": ("ja", "nee"),
        "pa": ("ਹਾਂ", "ਨਹੀਂ"),
        "pl": ("tak", "nie"),
        "pt": ("sim", "não"),
        "ro": ("da", "nu"),
        "ru": ("да", "нет"),
        "sk": ("áno", "nie"),
        "sl": ("da", "ne"),
        "sr": ("да", "не"),
        "sv": ("ja", "nej"),
        "sw": ("ndiyo", "hapana"),
        "ta": ("ஆம்", "இல்லை"),
        "th": ("ใช่", "ไม่ใช่"),
        "tr": ("evet", "hayır"),
        "uk": ("так", "ні"),
        "ur": ("ہاں", "نہیں"),
        "uz": ("ha", "yo‘q"),
        "vi": ("có", "không"),
        "zh-Hans": ("是", "否"),
        "zh-Hant": ("是", "否"),
        "zu": ("yebo", "cha"),
    }
)
"""What a computer asks for (CLDR 48, posix messages, the first of several, in small letters), by
tag. Ours are the Chinese words (CLDR has 确定 and 否定: to confirm, to negate) and the Turkish ı.
Languages whose CLDR words are English ones are not here."""


@typed
def cldr_statements(
    languages: Iterable[str],
    kinds: Iterable[str] = FACTS,
    *,
    seed: int = 0,
    identical: Literal["keep", "drop"] = "keep",
) -> Choices:
    """Statements from CLDR facts, half of them true, to be answered by yes or no.

        Japan: yen → yes
        日本: ユーロ → いいえ

    No sentence, so nothing that has to be written in each language. The false half names the answer
    of another item of the kind; a statement is true in every language or in none.

    Args:
        languages: Two tags or more, of `YES_NO`.
        kinds: Which of `FACTS`.
        seed: Of what false statements name, and of which are false.
        identical: As `cldr_choices`, of the names; yes and no may be the same word in two
            languages. English words everywhere: `with_labels(labels_of("en"))`.

    Raises:
        ValueError: a language without words for yes and no, or what `cldr_choices` refuses.
    """
    tags = standardize_all(languages)
    if unknown := [tag for tag in tags if tag not in YES_NO]:
        raise InputError(
            f"No words for yes and no in {', '.join(unknown)}; there are words in "
            f"{', '.join(YES_NO)}."
        )
    pairs = cldr_choices(tags, kinds, n_options=2, seed=seed, identical=identical)
    frame = pairs.frame
    said = [
        f"{question}: {options[0]}"
        for question, options in zip(frame["question"], frame["options"], strict=True)
    ]
    words = [YES_NO[tag] for tag in frame["language"]]
    # The first option is the right one in half of the items of a kind: then yes is.
    changed: dict[str, Any] = {"question": said, "options": words, "mark": MARK}
    frame = frame.assign(**changed)
    return Choices(frame, f"statements from {pairs.source}", pairs.dropped)
