"""What studies of questions about texts have in common: which are asked, and in what words."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.studies.study import ShownStudy

if TYPE_CHECKING:
    from xlens.tasks.xmrc import ReadingSet

READING_SETTINGS = ("en-en", "en-x", "x-en", "x-x", "full")
CLDR = "cldr"
HUB = ("xquad", "mlqa", "tydiqa")


@dataclass(frozen=True, kw_only=True)
class TextStudy(ShownStudy):
    """Questions about texts, in several languages.

    Either `settings`, or languages of texts and questions; languages also as `en,de`.

    Attributes:
        data: cldr (small, made here, in 16 languages), xquad, mlqa or tydiqa from the hub, or a
            file or folder in the --layout.
        layout: Of a file or folder.
        incomplete: Questions that some language lacks: an error, or left out.
        faulty: Questions whose answer isn't in its place: an error, or left out.
        settings: en-en, en-x, x-en, x-x, or full (any text, any question); by default the first,
            second and fourth. `en` stands for the language of `context`, x for that of questions.
        context: Languages of the texts. The first is the yardstick; default en.
        questions: Languages of the questions; default all there are.
        answers: Languages of the right answers; default the text's.
        shots: Demonstrations; default three in plain prompts, none in a chat.
        instruction: Whose language instruction and labels are in: context, question, answer, a
            tag, or none (labels only).
        template: Words of the prompt instead of this project's own, by name: instruction, context,
            question, answer, language (--template.answer "Odpowiedź:").
        chat: yes, no, or auto: by the tokenizer's chat template if it has one. Some base models
            come with one (Qwen 2.5): say no.
        too_long: What becomes of prompts that the model can't take: refuse, truncate (the text, by
            sentences) or skip, in every combination of languages. Endpoints: only refuse.
    """

    CLUSTERS: ClassVar[tuple[str, ...]] = ("paragraph", "id")
    LANGUAGES: ClassVar[tuple[str, ...]] = ("context", "questions", "answers")
    """Fields that hold tags."""
    LISTS: ClassVar[tuple[str, ...]] = (*ShownStudy.LISTS, "settings", *LANGUAGES)

    data: str = "xquad"
    layout: Literal["squad", "mlqa", "tydiqa"] = "squad"
    incomplete: Literal["error", "drop"] = "error"
    faulty: Literal["error", "drop"] = "error"
    settings: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    shots: int | None = None
    instruction: str = "context"
    template: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    chat: str = "auto"
    too_long: Literal["refuse", "truncate", "skip"] = "refuse"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.LANGUAGES:
            if tags := getattr(self, name):
                object.__setattr__(self, name, standardize_all(tags))
        # YAML reads a bare yes or no as true or false.
        chat = {"true": "yes", "false": "no"}.get(self.chat.lower(), self.chat)
        object.__setattr__(self, "chat", chat)
        if chat not in ("auto", "yes", "no"):
            raise InputError(f"chat is {self.chat!r}; accepted are auto, yes and no.")
        self.require_known("settings", READING_SETTINGS)
        if self.settings and (self.answers or len(self.context) > 1):
            raise InputError(
                f"settings={list(self.settings)} come with context={list(self.context)} and "
                f"answers={list(self.answers)}: beside settings at most one context is accepted, "
                "what `en` stands for, and no answers. Or leave the settings out."
            )
        check_least(self, shots=0)

    def require_known(self, name: str, accepted: tuple[str, ...]) -> None:
        """Refuse values of a field that aren't accepted.

        Raises:
            ValueError: some; says which.
        """
        if unknown := sorted(set(getattr(self, name)) - set(accepted)):
            raise InputError(f"Unknown {name} {unknown}; accepted are {list(accepted)}.")

    @property
    def pivot(self) -> str:
        """The language whose texts, questions and answers are the yardstick."""
        return self.context[0] if self.context else "en"

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: prompts may be too long."""
        return True

    @property
    def asks_chat(self) -> bool:
        """As `Study.asks_chat`."""
        return self.chat != "no"

    def read(self) -> "ReadingSet":
        """Questions of a file or a folder, those made here, or else the hub's."""
        from xlens.studies.steps.reading_prompts import combinations
        from xlens.tasks.xmrc import cldr_reading, download_reading, read_reading

        policies: dict[str, Any] = {"incomplete": self.incomplete, "faulty": self.faulty}
        tags: list[str] | None = None  # all there are
        if self.questions:
            tags = list(dict.fromkeys(tag for each in combinations(self) for tag in each))
        if Path(self.data).exists():
            return read_reading(self.data, layout=self.layout, languages=tags, **policies)
        if self.data == CLDR:
            return cldr_reading() if tags is None else cldr_reading(tags)
        folder = f"Give a file or a folder of them: --data FOLDER; or --data {CLDR}, made here"
        if self.data not in HUB:
            raise InputError(
                f"No file or folder {self.data!r}. {folder}; or one of {', '.join(HUB)}, from the "
                "hub."
            )
        if tags is None:
            raise InputError(f"Name the languages of {self.data}: --questions en,de,zh-Hans.")
        try:
            return download_reading(self.data, languages=tags, **policies)
        except ValueError:
            raise
        except Exception as error:  # whatever the hub's client finds between itself and the hub
            raise InputError(
                f"Can't get {self.data} from the hub ({type(error).__name__}: {error}). {folder}."
            ) from None

    def digest(self, data: "ReadingSet") -> dict[str, Any]:
        """As `Study.digest`: every question and text."""
        return {"data": data.digest()}

    def described(self, data: "ReadingSet") -> dict[str, Any]:
        """As `Study.described`."""
        table = data.survival()
        left = {str(k): int(n) for k, n in zip(table["reason"], table["n"], strict=True)}
        return {"questions": data.source, "survival": left}

    def taken(self, data: Any) -> "ReadingSet":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.tasks.xmrc import ReadingSet

        if not isinstance(data, ReadingSet):
            raise wrong_type(f"data of a {type(self).__name__}", data, "a ReadingSet")
        return data
