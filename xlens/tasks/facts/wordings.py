"""How the facts that CLDR knows are asked, by language: templates for five relations.

Names stand in their citation form: where a language would inflect them, or put an article before
them, the question says "the country" and leaves the name as it is. Each ends like those of KLAR,
with words for "The answer is:".
"""

from xlens.errors import InputError
from xlens.languages import standardize, written
from xlens.tasks.facts.template import MASK

RELATIONS = ("capital", "currency", "language", "continent", "city")
# Questions in the order of the relations, then what leads to the answer.
_ASKED: dict[tuple[str, str], tuple[str, str, str, str, str, str]] = {
    ("en", "Latn"): (
        "What is the capital of <subject>?",
        "What is the currency of <subject>?",
        "What is the official language of <subject>?",
        "Which continent is <subject> part of?",
        "Which city is the time zone of <subject> named after?",
        "The answer is:",
    ),
    ("fr", "Latn"): (
        "Quelle est la capitale du pays suivant : <subject> ?",
        "Quelle est la monnaie du pays suivant : <subject> ?",
        "Quelle est la langue officielle du pays suivant : <subject> ?",
        "Sur quel continent se trouve le pays suivant : <subject> ?",
        "Quelle ville donne son nom au fuseau horaire du pays suivant : <subject> ?",
        "La réponse est :",
    ),
    ("es", "Latn"): (
        "¿Cuál es la capital de <subject>?",
        "¿Cuál es la moneda de <subject>?",
        "¿Cuál es el idioma oficial de <subject>?",
        "¿En qué continente está <subject>?",
        "¿Qué ciudad da nombre a la zona horaria de <subject>?",
        "La respuesta es:",
    ),
    ("de", "Latn"): (
        "Was ist die Hauptstadt des Landes <subject>?",
        "Welche Währung hat das Land <subject>?",
        "Was ist die Amtssprache des Landes <subject>?",
        "Auf welchem Kontinent liegt das Land <subject>?",
        "Nach welcher Stadt ist die Zeitzone des Landes <subject> benannt?",
        "Die Antwort lautet:",
    ),
    ("pt", "Latn"): (
        "Qual é a capital do país <subject>?",
        "Qual é a moeda do país <subject>?",
        "Qual é a língua oficial do país <subject>?",
        "Em que continente fica o país <subject>?",
        "Que cidade dá nome ao fuso horário do país <subject>?",
        "A resposta é:",
    ),
    ("it", "Latn"): (
        "Qual è la capitale del seguente Paese: <subject>?",
        "Qual è la valuta del seguente Paese: <subject>?",
        "Qual è la lingua ufficiale del seguente Paese: <subject>?",
        "In quale continente si trova il seguente Paese: <subject>?",
        "Quale città dà il nome al fuso orario del seguente Paese: <subject>?",
        "La risposta è:",
    ),
    ("ca", "Latn"): (
        "Quina és la capital del país següent: <subject>?",
        "Quina és la moneda del país següent: <subject>?",
        "Quina és la llengua oficial del país següent: <subject>?",
        "En quin continent es troba el país següent: <subject>?",
        "Quina ciutat dona nom al fus horari del país següent: <subject>?",
        "La resposta és:",
    ),
    ("ru", "Cyrl"): (
        "Какой город является столицей страны <subject>?",
        "Какая валюта используется в стране <subject>?",
        "Какой язык является официальным в стране <subject>?",
        "На каком континенте находится страна <subject>?",
        "По какому городу назван часовой пояс страны <subject>?",
        "Ответ:",
    ),
    ("uk", "Cyrl"): (
        "Яке місто є столицею країни <subject>?",
        "Яка валюта використовується в країні <subject>?",
        "Яка мова є офіційною в країні <subject>?",
        "На якому континенті розташована країна <subject>?",
        "За яким містом названо часовий пояс країни <subject>?",
        "Відповідь:",
    ),
    ("zh", "Hans"): (
        "<subject>的首都是哪座城市？",
        "<subject>使用什么货币？",
        "<subject>的官方语言是什么？",
        "<subject>位于哪个大洲？",
        "<subject>的时区以哪座城市命名？",
        "答案是：",
    ),
    ("ja", "Jpan"): (
        "<subject>の首都はどこですか？",
        "<subject>の通貨は何ですか？",
        "<subject>の公用語は何ですか？",
        "<subject>はどの大陸にありますか？",
        "<subject>のタイムゾーンはどの都市の名前で呼ばれていますか？",
        "答えは：",
    ),
    ("ko", "Kore"): (
        "<subject>의 수도는 어디입니까?",
        "<subject>의 통화는 무엇입니까?",
        "<subject>의 공용어는 무엇입니까?",
        "<subject>의 대륙은 어디입니까?",
        "<subject>의 시간대는 어느 도시의 이름을 따랐습니까?",
        "정답은:",
    ),
    ("ar", "Arab"): (
        "ما هي عاصمة <subject>؟",
        "ما هي عملة <subject>؟",
        "ما هي اللغة الرسمية في <subject>؟",
        "في أي قارة تقع دولة <subject>؟",
        "ما المدينة التي سُميت باسمها المنطقة الزمنية في <subject>؟",
        "الإجابة هي:",
    ),
    ("tr", "Latn"): (
        "<subject> ülkesinin başkenti neresidir?",
        "<subject> ülkesinin para birimi nedir?",
        "<subject> ülkesinin resmî dili nedir?",
        "<subject> hangi kıtada yer alır?",
        "<subject> ülkesinin saat dilimi hangi şehrin adını taşır?",
        "Cevap:",
    ),
    ("el", "Grek"): (
        "Ποια είναι η πρωτεύουσα της χώρας <subject>;",
        "Ποιο είναι το νόμισμα της χώρας <subject>;",
        "Ποια είναι η επίσημη γλώσσα της χώρας <subject>;",
        "Σε ποια ήπειρο βρίσκεται η χώρα <subject>;",
        "Από ποια πόλη πήρε το όνομά της η ζώνη ώρας της χώρας <subject>;",
        "Η απάντηση είναι:",
    ),
    ("hi", "Deva"): (
        "<subject> की राजधानी क्या है?",
        "<subject> की मुद्रा क्या है?",
        "<subject> की आधिकारिक भाषा क्या है?",
        "<subject> किस महाद्वीप में है?",
        "<subject> के समय क्षेत्र का नाम किस शहर के नाम पर है?",
        "उत्तर है:",
    ),
}
LANGUAGES = tuple(language for language, _ in _ASKED)


def wording(language: str, relation: str) -> str:
    """The template of a relation in a language.

    Raises:
        ValueError: a language without templates.
    """
    said = _said(language)
    space = "" if said[-1].endswith("：") else " "
    return space.join((question(language, relation), said[-1], MASK))


def question(language: str, relation: str) -> str:
    """The question alone, with `<subject>` in it.

    Raises:
        ValueError: a language without templates.
    """
    return _said(language)[RELATIONS.index(relation)]


def _said(language: str) -> tuple[str, str, str, str, str, str]:
    said = _ASKED.get(written(language))
    if said is None:
        raise InputError(
            f"There are no templates of ours in {standardize(language)!r}: they are in "
            f"{', '.join(LANGUAGES)} (zh: simplified). Leave it out, or give facts with templates "
            "of your own (a file)."
        )
    return said
