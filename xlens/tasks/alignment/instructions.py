"""How a model is asked to translate: after the text, in any of some languages.

The paper's training rows (arXiv 2405.13816, in its released data) have the text first and then
`Translate the input from Chinese to English:`. That is the wording in English here; those in other
languages are this project's own, and name both languages in brackets, so that no name of a language
has to be inflected.
"""

from collections.abc import Mapping

from xlens.checks import typed
from xlens.errors import DataError, InputError
from xlens.languages import by_tag, named_in, standardize, written

INSTRUCTIONS: Mapping[str, str] = {
    "en": "Translate the input from {source} to {target}:",
    "ar": "ترجم النص ({source} ← {target}):",
    "de": "Übersetze den Text ({source} → {target}):",
    "es": "Traduce el texto ({source} → {target}):",
    "fr": "Traduis le texte ({source} → {target}) :",
    "hi": "पाठ का अनुवाद करें ({source} → {target}):",
    "it": "Traduci il testo ({source} → {target}):",
    "ja": "文章を翻訳してください（{source} → {target}）:",
    "ko": "글을 번역하세요 ({source} → {target}):",
    "pt": "Traduza o texto ({source} → {target}):",
    "ru": "Переведи текст ({source} → {target}):",
    "sw": "Tafsiri maandishi ({source} → {target}):",
    "tr": "Metni çevir ({source} → {target}):",
    "vi": "Dịch văn bản ({source} → {target}):",
    "zh-Hans": "翻译以上文字（{source} → {target}）:",
}
WHOSE = ("source", "target")


@typed
def instruction(
    source: str,
    target: str,
    whose: str = "en",
    *,
    templates: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """The line after a text that asks for its translation.

    Args:
        source: Language of the text.
        target: To translate into.
        whose: In which language it is asked: a tag, `source` or `target`.
        templates: By tag, instead of or beside `INSTRUCTIONS`, with `{source}` and `{target}` for
            the names of the languages.
        names: Of languages, by tag, where CLDR has none in the language of the instruction.

    Raises:
        ValueError: a language without a template or name, or a template without a place for them.
    """
    tag = {"source": source, "target": target}.get(whose, whose)
    tag = standardize(tag)
    given = by_tag(dict(templates or {}), "templates")
    found = given.get(tag) or next(
        (text for each, text in INSTRUCTIONS.items() if written(each) == written(tag)), None
    )
    if found is None:
        raise DataError(
            f"No wording to ask for a translation in {tag!r}: there are {', '.join(INSTRUCTIONS)}. "
            f"Give one, templates={{{tag!r}: '… {{source}} … {{target}} …:'}}, or ask in English, "
            "instruction='en'."
        )
    if lacking := [name for name in ("{source}", "{target}") if name not in found]:
        raise InputError(
            f"The template in {tag!r}, {found!r}, lacks {' and '.join(lacking)}: it must name both "
            "languages, or pairs of several languages look alike."
        )
    own = by_tag(dict(names or {}), "names")
    called = {each: own.get(each) or named_in(each, tag) for each in (source, target)}
    return found.replace("{source}", called[source]).replace("{target}", called[target])
