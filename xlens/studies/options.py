"""What studies ask; light, so that the command line can show it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from xlens.checks import check_fields
from xlens.languages import by_tag, standardize, standardize_all

if TYPE_CHECKING:
    from xlens.stats import Resampling

Task = Literal["translation", "repetition", "cloze"]
Reading = Literal["prefixes", "first", "whole"]
Collisions = Literal["drop", "subtract"]
DRAWN = ("draws", "confidence", "clusters")
"""Of `Intervals`: what shapes nothing but intervals."""
CONTROLS = ("shuffled", "random-init", "repetition")
READING_SETTINGS = ("en-en", "en-x", "x-en", "x-x", "full")
READING_CONTROLS = ("mismatched", "first-sentence", "random-span", "random-init")
# Two questions of a paragraph, and other paragraphs to take states from.
FEWEST_PHASES = 4


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """How intervals are drawn: the one place of every study and command that has some.

    Attributes:
        draws: Resamples behind each interval.
        confidence: Share of the intervals that should hold the truth.
        clusters: What is drawn whole, as it hangs together: paragraph or id; default paragraph
            where there is one, else id.
        seed: Of all that is drawn: items, demonstrations, controls and intervals.
    """

    CLUSTERS: ClassVar[tuple[str, ...]] = ("id",)
    draws: int = 1000
    confidence: float = 0.95
    clusters: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.clusters not in (None, *self.CLUSTERS):
            raise ValueError(
                f"clusters is {self.clusters!r}; what is asked here can be drawn by "
                f"{' or '.join(self.CLUSTERS)}."
            )
        if (self.draws, self.confidence) != (Intervals.draws, Intervals.confidence):
            _ = self.resampling  # it checks them; for the usual, help needs nothing heavy

    @property
    def resampling(self) -> "Resampling":
        """What everything that draws an interval takes."""
        from xlens.stats import Resampling

        return Resampling(self.draws, self.confidence, self.seed, self.clusters)


@dataclass(frozen=True, kw_only=True)
class LensStudy(Intervals):
    """What is asked of every pair.

    Attributes:
        pivot: The language suspected inside.
        task: `translation`; `repetition` and `cloze` stay within the target language.
        reading: Token sets (`prefixes`, `first`) or the exact `whole` word.
        n_items: Most items per pair, drawn with `seed` from those that survive the filter.
        n_controls: Most items of the controls that need their own forward pass.
        controls: Which controls run: `shuffled` (the same states, other items' words),
            `random-init` (the same prompts, a randomly initialised twin), `repetition` (the target
            language repeated).
        shots: Demonstrations before each query; None for the task's usual number.
        top_k: Most probable tokens kept per layer.
        collisions: Whether items whose sets share a token are dropped or the tokens subtracted.
        names: What the prompts call a language, by tag, where not as it calls itself; needed for
            languages outside CLDR (--names.tlh "tlhIngan Hol").
        seed: Of sampling, demonstrations, shuffling, the twin and intervals.
    """

    pivot: str = "en"
    task: Task = "translation"
    reading: Reading = "prefixes"
    n_items: int = 100
    n_controls: int = 40
    controls: tuple[str, ...] = CONTROLS
    shots: int | None = None
    top_k: int = 10
    collisions: Collisions = "drop"
    names: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        object.__setattr__(self, "names", by_tag(self.names, "names"))
        if unknown := sorted(set(self.controls) - set(CONTROLS)):
            raise ValueError(f"Unknown controls {unknown}; accepted are {list(CONTROLS)}.")
        if min(self.n_items, self.n_controls) < 2:
            raise ValueError(
                f"n_items is {self.n_items} and n_controls {self.n_controls}; an interval over "
                "prompts needs at least 2 of each."
            )
        if self.top_k < 1 or (self.shots is not None and self.shots < 0):
            raise ValueError(
                f"top_k is {self.top_k} and shots {self.shots}; accepted are 1 or more tokens and "
                "0 or more demonstrations."
            )


@dataclass(frozen=True, kw_only=True)
class ReadingStudy(Intervals):
    """What is asked about texts in one language and questions in another.

    Either `settings`, or languages of texts and questions; languages also as `en,de`.

    Attributes:
        settings: en-en, en-x, x-en, x-x, or full (any text, any question); by default the first,
            second and fourth. `en` stands for the language of `context`, x for that of questions.
        context: Languages of the texts. The first is the yardstick; default en.
        questions: Languages of the questions; default all there are.
        answers: Languages of the right answers; default the text's.
        n_items: Most questions, drawn with `seed`.
        per_paragraph: So many questions of a paragraph are drawn before more of any: several cost
            little more than one, as their text is read once, but they are alike.
        n_controls: Of these, questions that are asked with exchanged texts, too.
        shots: Demonstrations; default three in plain prompts, none in a chat.
        instruction: Whose language instruction and labels are in: context, question, answer, a
            tag, or none (labels only).
        template: Words of the prompt instead of this project's own, by name: instruction, context,
            question, answer, language (--template.answer "Odpowiedź:").
        chat: yes, no, or auto: by the tokenizer's chat template if it has one. Some base models
            come with one (Qwen 2.5): say no.
        too_long: What becomes of prompts that the model can't take: refuse, truncate (the text, by
            sentences) or skip, in every combination of languages. Endpoints: only refuse.
        max_new_tokens: Most tokens of an answer; default as many as the longest right answer has
            in the model's own tokens and a few more, 32 or more: scripts differ threefold.
        controls: mismatched (texts of other articles, where these are known), first-sentence and
            random-span (answers without a model), random-init (phases in random weights of the same
            shape).
        rules: How answers are compared: xlens, mlqa (en es hi vi de ar zh) or squad.
        oracle: Leave each sentence of the text out in turn, for the questions of `n_controls`.
        phases: Look inside as well: relevance, evidence by layer, phases.
        n_phases: Most questions looked at inside, two of each paragraph.
        phase_languages: Languages of the questions looked at inside; default all.
        phase_layers: Residual points at which states are exchanged or wiped out; default all.
        kinds: Kinds of evidence; default all that can be had.
        relevance_rule: attnlrp, cp-lrp or gradient.
        seed: Of sampling, demonstrations, exchanges, intervals and tests.
    """

    CLUSTERS: ClassVar[tuple[str, ...]] = ("paragraph", "id")
    settings: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    n_items: int = 200
    per_paragraph: int = 1
    n_controls: int = 60
    shots: int | None = None
    instruction: str = "context"
    template: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    chat: str = "auto"
    too_long: Literal["refuse", "truncate", "skip"] = "refuse"
    max_new_tokens: int | None = None
    controls: tuple[str, ...] = READING_CONTROLS
    rules: Literal["xlens", "mlqa", "squad"] = "xlens"
    oracle: bool = False
    phases: bool = False
    n_phases: int = 24
    phase_languages: tuple[str, ...] = ()
    phase_layers: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    relevance_rule: str = "attnlrp"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        languages = ("context", "questions", "answers", "phase_languages")
        for name in ("settings", *languages, "controls", "kinds"):
            parts = [part for value in getattr(self, name) for part in value.split(",") if part]
            tags = parts and name in languages
            object.__setattr__(self, name, standardize_all(parts) if tags else tuple(parts))
        # YAML reads a bare yes or no as true or false.
        chat = {"true": "yes", "false": "no"}.get(self.chat.lower(), self.chat)
        object.__setattr__(self, "chat", chat)
        if chat not in ("auto", "yes", "no"):
            raise ValueError(f"chat is {self.chat!r}; accepted are auto, yes and no.")
        for name, accepted in (("settings", READING_SETTINGS), ("controls", READING_CONTROLS)):
            if unknown := sorted(set(getattr(self, name)) - set(accepted)):
                raise ValueError(f"Unknown {name} {unknown}; accepted are {list(accepted)}.")
        if self.settings and (self.answers or len(self.context) > 1):
            raise ValueError(
                f"settings={list(self.settings)} come with context={list(self.context)} and "
                f"answers={list(self.answers)}: beside settings at most one context is accepted, "
                "what `en` stands for, and no answers. Or leave the settings out."
            )
        low = {"n_items": 1, "n_controls": 1, "max_new_tokens": 1, "n_phases": FEWEST_PHASES}
        low["per_paragraph"] = 1
        for name, fewest in low.items():
            given = getattr(self, name)
            if given is not None and given < fewest:
                raise ValueError(f"{name} is {given}; at least {fewest} is needed.")
        if self.shots is not None and self.shots < 0:
            raise ValueError(f"shots is {self.shots}; accepted are 0 or more demonstrations.")

    @property
    def pivot(self) -> str:
        """The language whose texts, questions and answers are the yardstick."""
        return self.context[0] if self.context else "en"
