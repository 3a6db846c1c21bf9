"""What a reading prompt says around context and question, in the twelve languages of XQuAD.

The words are this project's, written for it: the prompts of the paper (arXiv 2504.10906) aren't
public. None is tuned to a model beyond what docs/xmrc.md reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from xlens.errors import InputError
from xlens.languages import script, standardize, written


@dataclass(frozen=True)
class ReadingTemplate:
    """The words of a reading prompt. Labels end with their own punctuation (`Answer:`).

    Attributes:
        instruction: What is to be done; may be empty.
        context: Label of the paragraph.
        question: Label of the question.
        answer: Label of the answer; a chat has none at its end.
        language: Label of the answer's language, which is named where it isn't the context's.
    """

    instruction: str = ""
    context: str = "Context:"
    question: str = "Question:"
    answer: str = "Answer:"
    language: str = "Language of the answer:"


TEMPLATES: Mapping[str, ReadingTemplate] = {
    "en": ReadingTemplate(
        "Answer the question with a short phrase taken from the context.",
    ),
    "de": ReadingTemplate(
        "Beantworte die Frage mit einer kurzen Textstelle aus dem Kontext.",
        "Kontext:",
        "Frage:",
        "Antwort:",
        "Sprache der Antwort:",
    ),
    "es": ReadingTemplate(
        "Responde a la pregunta con una frase breve tomada del contexto.",
        "Contexto:",
        "Pregunta:",
        "Respuesta:",
        "Idioma de la respuesta:",
    ),
    "ro": ReadingTemplate(
        "Răspunde la întrebare cu o expresie scurtă luată din context.",
        "Context:",
        "Întrebare:",
        "Răspuns:",
        "Limba răspunsului:",
    ),
    "vi": ReadingTemplate(
        "Hãy trả lời câu hỏi bằng một cụm từ ngắn lấy từ ngữ cảnh.",
        "Ngữ cảnh:",
        "Câu hỏi:",
        "Trả lời:",
        "Ngôn ngữ của câu trả lời:",
    ),
    "tr": ReadingTemplate(
        "Soruyu bağlamdan alınmış kısa bir ifadeyle yanıtla.",
        "Bağlam:",
        "Soru:",
        "Yanıt:",
        "Yanıtın dili:",
    ),
    "el": ReadingTemplate(
        "Απάντησε στην ερώτηση με μια σύντομη φράση από το κείμενο.",
        "Κείμενο:",
        "Ερώτηση:",
        "Απάντηση:",
        "Γλώσσα της απάντησης:",
    ),
    "ru": ReadingTemplate(
        "Ответь на вопрос короткой фразой из контекста.",
        "Контекст:",
        "Вопрос:",
        "Ответ:",
        "Язык ответа:",
    ),
    "ar": ReadingTemplate(
        "أجب عن السؤال بعبارة قصيرة من النص.",
        "النص:",
        "السؤال:",
        "الإجابة:",
        "لغة الإجابة:",
    ),
    "hi": ReadingTemplate(
        "प्रश्न का उत्तर संदर्भ से लिए गए एक छोटे वाक्यांश में दें।",
        "संदर्भ:",
        "प्रश्न:",
        "उत्तर:",
        "उत्तर की भाषा:",
    ),
    "th": ReadingTemplate(
        "จงตอบคำถามด้วยข้อความสั้น ๆ จากบริบท",
        "บริบท:",
        "คำถาม:",
        "คำตอบ:",
        "ภาษาของคำตอบ:",
    ),
    "zh": ReadingTemplate(
        "请用上下文中的简短词句回答问题。",
        "上下文：",
        "问题：",
        "答案：",
        "答案的语言：",
    ),
    "zh-Hant": ReadingTemplate(
        "請用上下文中的簡短詞句回答問題。",
        "上下文：",
        "問題：",
        "答案：",
        "答案的語言：",
    ),
}


def template_of(
    language: str, given: ReadingTemplate | Mapping[str, str] | None = None
) -> ReadingTemplate:
    """The template in a language and its script; `zh-Hans` finds `zh`, `zh-TW` `zh-Hant`.

    Args:
        language: Of instruction and labels.
        given: A template of your own, or some of its words by name, which take the places of this
            project's.

    Raises:
        ValueError: none in this language and script, or not all words where there is none.
    """
    if isinstance(given, ReadingTemplate):
        return given
    tag, words = standardize(language), dict(given or {})
    names = [field.name for field in fields(ReadingTemplate)]
    if unknown := sorted(set(words) - set(names)):
        raise InputError(f"Unknown words of a template {unknown}; accepted are {names}.")
    same = (TEMPLATES[other] for other in TEMPLATES if written(other) == written(tag))
    if (found := TEMPLATES.get(tag) or next(same, None)) is not None:
        return replace(found, **words)
    if lacking := [name for name in ("context", "question", "answer") if name not in words]:
        raise InputError(
            f"There is no reading template in {tag} ({script(tag)}); there are "
            f"{', '.join(TEMPLATES)}. Choose one of these as instruction=, or give the words of "
            f"your own, at least {', '.join(lacking)}: template={{'answer': '…'}}, on the command "
            "line --template.answer '…'."
        )
    return ReadingTemplate(**{"instruction": "", "language": "", **words})
