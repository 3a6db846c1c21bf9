"""`xlens xmrc`: how well do models find in a text in one language what is asked in another?

The questions of arXiv 2504.10906: answers and their scores in every combination of languages, with
exchanged texts and answers without a model beside them; then relevance by layer and the phases of
retrieval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from xlens.languages import standardize_all
from xlens.studies.study import Kept, Parts, Step, Study, Switch
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.served import ServedModel
    from xlens.studies.steps.context_retrieval import ReadingPlan
    from xlens.tasks.xmrc import ReadingSet

READING_SETTINGS = ("en-en", "en-x", "x-en", "x-x", "full")
READING_CONTROLS = ("mismatched", "first-sentence", "random-span", "random-init")
# Two questions of a paragraph, and other paragraphs to take states from.
FEWEST_PHASES = 4
HUB = ("xquad", "mlqa", "tydiqa")
BASELINES = {"first-sentence": "first sentence", "random-span": "random span"}
ORACLE, TWIN, BOARD = "oracle", "phases-control", "leaderboard"
INSIDE = ("relevance", "depth", "depth-control", "curves", "phases", "stability")
PARTS = ("predictions", "scores", *BASELINES, ORACLE, *INSIDE, TWIN)


@dataclass(frozen=True, kw_only=True)
class ReadingStudy(Study):
    """How well do models find in a text in one language what is asked in another?

    ```
    xlens xmrc gemma-3-270m --context en --questions en,de,zh-Hans
    xlens xmrc gemma-3-270m --data data/xquad --settings en-en,en-x,x-x --n-items 100 --phases
    xlens xmrc org/base org/base-it --data mine.json --context de --questions de
    xlens xmrc small large --served http://localhost:8000/v1 --data data/xquad
    ```

    Prints scores with their intervals and controls, writes answers, a report and, for several
    models, a leaderboard. Models that are a pair, base and post-trained, stand side by side: those
    named with --pair, and those whose names differ by -it, -Instruct or -chat only. A model behind
    an OpenAI-compatible endpoint is named as NAME@URL.

    Either `settings`, or languages of texts and questions; languages also as `en,de`.

    Attributes:
        data: xquad, mlqa or tydiqa from the hub, or a file or folder in the --layout.
        layout: Of a file or folder.
        incomplete: Questions that some language lacks: an error, or left out.
        faulty: Questions whose answer isn't in its place: an error, or left out.
        pair: BASE:POST, two of the models.
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

    COMMAND: ClassVar[str] = "xmrc"
    CLUSTERS: ClassVar[tuple[str, ...]] = ("paragraph", "id")
    SERVED: ClassVar[bool] = True
    OUTLINED: ClassVar[bool] = True
    FREE: ClassVar[tuple[str, ...]] = ("pair",)

    data: str = "xquad"
    layout: Literal["squad", "mlqa", "tydiqa"] = "squad"
    incomplete: Literal["error", "drop"] = "error"
    faulty: Literal["error", "drop"] = "error"
    pair: tuple[str, ...] = ()
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
    oracle: Annotated[bool, Switch] = False
    phases: Annotated[bool, Switch] = False
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

    @property
    def asks_chat(self) -> bool:
        """As `Study.asks_chat`."""
        return self.chat != "no"

    def read(self) -> "ReadingSet":
        """Questions of a file or a folder, or else of the hub."""
        from xlens.studies.steps.context_retrieval import combinations
        from xlens.tasks.xmrc import download_reading, read_reading

        policies: dict[str, Any] = {"incomplete": self.incomplete, "faulty": self.faulty}
        tags: list[str] | None = None  # all there are
        if self.questions:
            tags = list(dict.fromkeys(tag for each in combinations(self) for tag in each))
        if Path(self.data).exists():
            return read_reading(self.data, layout=self.layout, languages=tags, **policies)
        folder = "Give a file or a folder of them: --data FOLDER"
        if self.data not in HUB:
            raise ValueError(
                f"No file or folder {self.data!r}. {folder}; or one of {', '.join(HUB)}, from the "
                "hub."
            )
        if tags is None:
            raise ValueError(f"Name the languages of {self.data}: --questions en,de,zh-Hans.")
        try:
            return download_reading(self.data, languages=tags, **policies)
        except ValueError:
            raise
        except Exception as error:  # whatever the hub's client finds between itself and the hub
            raise ValueError(
                f"Can't get {self.data} from the hub ({type(error).__name__}: {error}). {folder}."
            ) from None

    def check(self, data: "ReadingSet", model: "Outline | ServedModel | None" = None) -> None:
        """As `Study.check`; with a model also prompts too long for it, or no template or key."""
        from xlens.studies.steps.context_retrieval import check_reading

        check_reading(data, self, model)

    def parts(self, data: "ReadingSet") -> tuple[str, ...]:
        """As `Study.parts`."""
        wanted = {"predictions", "scores", *(name for name in BASELINES if name in self.controls)}
        wanted |= {ORACLE} if self.oracle else set()
        if self.phases:
            wanted |= {*INSIDE, *([TWIN] if "random-init" in self.controls else [])}
        return tuple(part for part in PARTS if part in wanted)

    def work(self, data: "ReadingSet", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.reading_work import reading_work

        return reading_work(data, self, model)

    def digest(self, data: "ReadingSet") -> dict[str, Any]:
        """As `Study.digest`: every question and text."""
        return {"data": data.digest()}

    def described(self, data: "ReadingSet") -> dict[str, Any]:
        """As `Study.described`."""
        table = data.survival()
        left = {str(k): int(n) for k, n in zip(table["reason"], table["n"], strict=True)}
        return {"questions": data.source, "survival": left}

    def prepared(
        self, data: "ReadingSet", model: "HookedModel | ServedModel"
    ) -> "tuple[ReadingPlan, dict[str, Any]]":
        """As `Study.prepared`: the prompts; another chat template is another study."""
        from xlens.studies.steps.context_retrieval import ReadingPlan

        plan = ReadingPlan.of(data, self, model)
        return plan, {"prompts": plan.digest()}

    def steps(
        self, data: "ReadingPlan", model: "HookedModel | ServedModel", kept: Kept
    ) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.context_retrieval import reading_steps

        return reading_steps(model, data, self, kept)

    def check_models(self, folders: Mapping[str, str]) -> None:
        """As `Study.check_models`: pairs of them that aren't there."""
        from xlens.studies.steps.leaderboard import find_pairs, given_pairs

        find_pairs(list(folders.values()), given_pairs(self.pair, folders))

    def across(
        self,
        models: Mapping[str, Parts],
        folders: Mapping[str, str],
        series: "Mapping[str, Checkpoint]",
    ) -> Iterable[Step]:
        """As `Study.across`: a leaderboard, where all were asked something in common."""
        from xlens.studies.steps.leaderboard import Leaderboard, compared

        found = compared(models, self, folders)
        return () if found is None else (Step.one(BOARD, Leaderboard, lambda _: found),)

    def taken(self, data: Any) -> "ReadingSet":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.tasks.xmrc import ReadingSet

        if not isinstance(data, ReadingSet):
            raise wrong_type("data of a ReadingStudy", data, "a ReadingSet")
        return data
