"""Why an answer is wrong: what it says, its language, or no answer at all. By rules, each named.

The first rule that fits decides:

| kind | rule | when |
|---|---|---|
| blank | thought only | the answer is empty, and the model wrote thoughts (`<think>`) |
| blank | no letter or digit | the answer has none |
| content | stands in the context | it does, word by word, and context and answer share a language |
| language | copied from the context | it does, and the context's language isn't the answer's |
| refusal | refusal phrase | it holds one of `REFUSALS` |
| gibberish | broken characters | a character could not be decoded before the end |
| gibberish | few letters | fewer than half of its characters are letters, digits or marks |
| gibberish | repetition | of 6 words or more (ICU), less than a third differ; or a run of 8 |
| gibberish | scripts within a word | Latin, Cyrillic, Greek or Arabic letters in one word |
| language | right answer in … | it is the right answer, in the question's language |
| language | script | most letters are of the script of another candidate |
| language | script of no candidate | most letters are of a script of no candidate |
| language | identifier | the identifier is sure of another candidate of the same script |
| content | else | nothing of this |

The kinds are those that a review reports of arXiv 2504.10906, where a model told them apart; the
rules are ours. Candidates are the languages of context, question and answer, no others: short
answers don't tell more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import regex

from xlens.checks import typed
from xlens.languages import identifier, script
from xlens.segments import word_spans
from xlens.tasks.xmrc.metrics import characters, holds, normalise
from xlens.tasks.xmrc.replies import has_thoughts
from xlens.text import folded

ERRORS = ("content", "language", "gibberish", "refusal", "blank")
FAILURES = ("gibberish", "refusal", "blank")
UNKNOWN = "unknown"
MIN_CONFIDENCE = 0.8

Langid = Callable[[str, tuple[str, ...]], str]
"""From a text and candidates to one of them, or `unknown`."""

REFUSALS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "i cannot",
        "i can't",
        "i can’t",
        "i don't know",
        "i do not know",
        "i'm sorry",
        "i am sorry",
        "cannot be determined",
        "cannot be answered",
        "not mentioned",
        "not specified",
        "not stated",
        "does not mention",
        "doesn't mention",
        "does not say",
        "does not provide",
        "no answer",
        "no information",
        "unanswerable",
    ),
    "de": ("ich kann nicht", "ich weiß nicht", "tut mir leid", "nicht erwähnt", "nicht angegeben",
           "nicht beantwortet", "keine antwort", "keine information", "keine angabe"),
    "es": ("no puedo", "no lo sé", "lo siento", "no se menciona", "no se especifica",
           "no hay información", "sin respuesta", "no proporciona"),
    "ro": ("nu pot", "nu știu", "îmi pare rău", "nu se menționează", "nu este menționat",
           "nu există informații", "niciun răspuns"),
    "vi": ("tôi không thể", "tôi không biết", "xin lỗi", "không được đề cập", "không đề cập",
           "không có thông tin", "không có câu trả lời"),
    "tr": ("cevap veremem", "bilmiyorum", "üzgünüm", "belirtilmemiş", "bahsedilmemiş",
           "bilgi yok", "yanıt yok", "cevap yok"),
    "el": ("δεν μπορώ", "δεν γνωρίζω", "δεν ξέρω", "λυπάμαι", "δεν αναφέρεται",
           "δεν υπάρχουν πληροφορίες", "καμία απάντηση"),
    "ru": ("я не могу", "не знаю", "извините", "не упоминается", "не указано", "не указан",
           "нет ответа", "нет информации"),
    "ar": ("لا أستطيع", "لا يمكنني", "لا أعرف", "آسف", "لم يذكر", "لا توجد معلومات",
           "لا توجد إجابة"),
    "hi": ("मैं नहीं", "मुझे नहीं पता", "क्षमा करें", "उल्लेख नहीं", "कोई जानकारी नहीं", "कोई उत्तर नहीं"),
    "th": ("ฉันไม่สามารถ", "ไม่ทราบ", "ขอโทษ", "ขออภัย", "ไม่ได้กล่าวถึง", "ไม่ได้ระบุ",
           "ไม่มีข้อมูล", "ไม่มีคำตอบ"),
    "zh": ("无法回答", "无法确定", "不知道", "抱歉", "没有提到", "未提及", "没有提及", "没有答案",
           "沒有提到", "無法回答"),
}  # fmt: skip
_PHRASES = tuple(folded(phrase) for phrases in REFUSALS.values() for phrase in phrases)
# ISO 15924 names of mixed writing, as the scripts of its letters.
_MIXED = {
    "Hans": "Hani",
    "Hant": "Hani",
    "Jpan": "Hani Hira Kana",
    "Kore": "Hang Hani",
}
_LETTER = regex.compile(r"\p{L}")
_WRITTEN = regex.compile(r"[\p{L}\p{N}\p{M}]")
_ANY = "en"  # ICU's dictionaries go by the script, whatever the language
_RUN = regex.compile(r"(.)\1{7}")
_IN_A_WORD = tuple(regex.compile(rf"\p{{Script={s}}}") for s in ("Latn", "Cyrl", "Grek", "Arab"))


class Verdict(NamedTuple):
    """What is wrong with an answer.

    Attributes:
        kind: One of `ERRORS`.
        rule: The rule that said so.
        language: Which language the answer is in, where a rule of language found out.
    """

    kind: str
    rule: str
    language: str = ""


@typed
def classify(row: Mapping[str, Any], *, langid: Langid | None = None) -> Verdict:
    """The kind of error of a wrong answer.

    Args:
        row: Of `Predictions.table`.
        langid: Tells languages of one script apart; None: `identify`.
    """
    said = str(row["prediction"])
    told, asked, wanted = (
        str(row[f"{part}_language"]) for part in ("context", "question", "answer")
    )
    if not said and has_thoughts(str(row.get("text", ""))):
        return Verdict("blank", "thought only")
    if not _WRITTEN.search(said):
        return Verdict("blank", "no letter or digit")
    if holds(_context_characters(str(row["context"]), told), characters(said, told)):
        # A name or a number is written so in both languages.
        # With its language unlike the context's, copying is an error of language.
        same = told == wanted or not _language(said, wanted, (told,), langid)
        return (
            Verdict("content", "stands in the context")
            if same
            else Verdict("language", "copied from the context", told)
        )
    text = folded(said)
    if any(phrase in text for phrase in _PHRASES):
        return Verdict("refusal", "refusal phrase")
    if rule := gibberish(said):
        return Verdict("gibberish", rule)
    if asked != wanted:
        own = normalise(said, asked)
        if own and own in {normalise(str(r), asked) for r in row["question_references"]}:
            return Verdict("language", f"right answer in {asked}", asked)
    found = _language(said, wanted, (asked, told), langid)
    if found:
        return Verdict("language", *found)
    return Verdict("content", "else")


def gibberish(text: str) -> str:
    """The rule by which a text is no text, or nothing."""
    if "\ufffd" in text.rstrip("\ufffd"):  # at its end a character may be cut off
        return "broken characters"
    shown = [c for c in text if not c.isspace()]
    # Doubled, not halved: whole numbers stay whole.
    if sum(bool(_WRITTEN.match(c)) for c in shown) * 2 < len(shown):
        return "few letters"
    same = folded(text)
    found = [same[a:b] for a, b in word_spans(same, _ANY)]
    if (len(found) >= 6 and len(set(found)) * 3 < len(found)) or _RUN.search(text):
        return "repetition"
    for word in regex.findall(r"\p{L}{4,}", text):
        if sum(bool(letters.search(word)) for letters in _IN_A_WORD) > 1:
            return "scripts within a word"
    return ""


def identify(text: str, candidates: tuple[str, ...]) -> str:
    """The candidate that a text is written in, or `unknown`.

    `py3langid`, restricted to the candidates; below three letters or a confidence of 0.8 unknown.
    Measured on XQuAD's answers that differ between English and another language, with these two
    as candidates: German 68 % right, 0.9 % wrong, the rest unknown (73 and 0.8 of those that have
    three letters); Spanish 70 and 0.6 (75 and 0.7). Of whole questions 99.6 % (de) and more are
    right. `lingua` does about as well (de 75.0 and 1.5,
    es 80.7 and 1.1) and takes 96 MB.
    """
    if len(_LETTER.findall(text)) < 3:
        return UNKNOWN
    guesser, names = identifier(candidates)
    if len(names) < len(candidates):
        return UNKNOWN  # a candidate that it doesn't know, or that it can't tell from another
    code, confidence = guesser.classify(text)
    return names[code] if confidence >= MIN_CONFIDENCE else UNKNOWN


def script_share(text: str, language: str) -> float:
    """Share of a text's letters that belong to the script of a language; 1 where there are none."""
    letters = _LETTER.findall(text)
    pattern = _letters_of(script(language))
    return sum(bool(pattern.match(c)) for c in letters) / len(letters) if letters else 1.0


def _language(
    said: str, wanted: str, others: Sequence[str], langid: Langid | None
) -> tuple[str, str] | None:
    """Rule and language, if a text isn't in the language that it should be in."""
    rivals = [tag for tag in dict.fromkeys(others) if tag != wanted]
    if script_share(said, wanted) < 0.5:
        found = [tag for tag in rivals if script_share(said, tag) >= 0.5]
        return ("script", found[0]) if found else ("script of no candidate", "other")
    # Only of these can letters not tell; the identifier is asked of no others.
    same = [tag for tag in rivals if script_share(said, tag) >= 0.5]
    if not same:
        return None
    guess = (langid or identify)(said, (wanted, *same))
    return ("identifier", guess) if guess in same else None


@lru_cache(maxsize=8192)
def _context_characters(context: str, language: str) -> tuple[str, ...]:
    return tuple(characters(context, language))


@cache
def _letters_of(name: str) -> Any:
    names = _MIXED.get(name, name).split()
    try:
        return regex.compile("[" + "".join(rf"\p{{Script={each}}}" for each in names) + "]")
    except regex.error:  # a script that has no letters of its own
        return _LETTER
