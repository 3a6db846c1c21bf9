"""`xlens align`: train on translated questions; do answers get better, where, and what changed?

The questions of arXiv 2405.13816: a LoRA that learns to translate questions, without an answer, in
a few languages; then the same task as before, in all languages, and the same look inside.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from cyclopts import Parameter

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all
from xlens.studies.asking import ItemsStudy
from xlens.studies.study import Kept, Step
from xlens.studies.work import Work
from xlens.training.recipe import Recipe

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.studies.steps.alignment import AlignData

Questions = Literal["jsonl", "squad", "mgsm", "xcopa", "belebele", "global-mmlu", "m-mmlu"]
ALIGNED, SHUFFLED = "aligned", "shuffled"
BEFORE, TRAINING, ANSWERS, GAIN = "before", "training", "answers", "gain"
INSIDE = "inside"


# More than anybody trains; each is listed before the first begins.
MOST_RUNS = 1_000


@dataclass(frozen=True, kw_only=True)
class AlignStudy(ItemsStudy, Recipe):
    """Train a model to translate questions; do its answers get better, and in which languages?

    ```
    xlens align atlas --from de fr --to en --languages en de fr es ru hi
    xlens align gemma-3-270m --questions mine.jsonl --from zh-Hans,de --to en --languages en de sw
    xlens align gemma-3-270m --data data/xquad --from zh,de --to en --n-items 60 --runs 3
    ```

    Asks before, trains, asks again, and says what changed: by language, for those in training and
    those never seen, with tests and intervals, and beside training on shuffled pairs. No evaluated
    item is ever trained on.

    Attributes:
        source: Languages that questions are translated from, in training; also as zh,de.
        target: The language that they are translated into.
        questions: To be translated: a file, or a folder; or `cldr`, questions about countries made
            from CLDR. Default those of --data that are not evaluated, else cldr.
        question_layout: Of --questions.
        direction: Translate to the target, from it, or both.
        n_pairs: Most pairs of each source, drawn with seed; default all.
        instruction: In which language is asked for the translation: a tag, source or target.
        templates: Wordings of that of your own, by tag, with {source} and {target}.
        names: Of languages, by tag, for those without CLDR names.
        languages: Of the evaluation; default all that the items have, or those of the questions.
        data: Evaluate reading comprehension: a file or folder in SQuAD's layout (XQuAD).
        context: Language of its texts; default that of each question.
        held_out: Share of the questions of --data, by article, that are evaluated and not trained
            on.
        rule: How an option is chosen: sequence, prefix_sum (the paper's), first_token, generation.
        calibrated: Take off what the model would say without the question.
        runs: Trainings of each kind, each with a seed of its own.
        controls: shuffled (the same texts, none with its own translation: the same compute).
        bound: Differences below it are none: of the test of equivalence.
        inside: Look inside before and after as well.
        n_items: Most items evaluated, drawn with seed.
        n_inside: Of the evaluated items, so many are looked at inside.
        pooling: How a prompt becomes one state there.
    """

    COMMAND: ClassVar[str] = "align"
    FREE: ClassVar[tuple[str, ...]] = (*ItemsStudy.FREE, "bound")
    CONTROLS: ClassVar[tuple[str, ...]] = (SHUFFLED,)
    LISTS: ClassVar[tuple[str, ...]] = (*ItemsStudy.LISTS, "source")

    source: Annotated[tuple[str, ...], Parameter(name=["--from", "--source"])] = ()
    target: Annotated[str, Parameter(name=["--to", "--target"])] = "en"
    questions: str | None = None
    question_layout: Questions = "jsonl"
    direction: Literal["to", "from", "both"] = "to"
    n_pairs: int | None = None
    instruction: str = "en"
    templates: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    names: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    data: str | None = None
    context: str | None = None
    held_out: float = 0.3
    rule: Literal["sequence", "prefix_sum", "first_token", "generation"] = "sequence"
    calibrated: bool = False
    runs: int = 1
    controls: tuple[str, ...] = (SHUFFLED,)
    bound: float = 0.03
    inside: bool = True
    n_inside: int = 40
    pooling: Literal["last", "mean", "mean_without_first", "mean_weighted"] = "mean_without_first"
    n_items: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        ItemsStudy.__post_init__(self)
        Recipe.__post_init__(self)
        object.__setattr__(self, "source", standardize_all(self.source) if self.source else ())
        object.__setattr__(self, "target", standardize(self.target))
        if self.target in self.source:
            raise InputError(
                f"{self.target} is both source and target: a question is translated into another "
                f"language. Leave it out of --from {','.join(self.source)}."
            )
        check_least(self, n_items=1, n_pairs=2, runs=1, n_inside=8)
        if self.runs > MOST_RUNS:
            raise InputError(
                f"runs is {self.runs}; accepted are 1 to {MOST_RUNS:,} trainings of each kind."
            )
        if unknown := sorted(set(self.controls) - set(self.CONTROLS)):
            raise InputError(f"Unknown controls {unknown}; accepted are {list(self.CONTROLS)}.")
        if not 0 < self.bound < 1:
            raise InputError(f"bound is {self.bound}; accepted is a difference between 0 and 1.")
        if self.data is not None and self.items:
            raise InputError(
                f"--data {self.data} and --items {' '.join(self.items)}: evaluate one of the two."
            )
        if self.data is not None:
            usual = {**self.FILES_ONLY, "labels": None, "kinds": (), "identical": None}
            if odd := [
                f"--{name}" for name, value in usual.items() if getattr(self, name) != value
            ]:
                raise InputError(f"{', '.join(odd)}: of --items only; with --data, leave out.")
        if self.context is not None:
            object.__setattr__(self, "context", standardize(self.context))
        for name in ("questions", "data"):
            if "\0" in (getattr(self, name) or ""):
                raise InputError(f"{name} is {getattr(self, name)!r}, which names no file.")

    @property
    def conditions(self) -> tuple[str, ...]:
        """What a model goes through: the alignment, and the controls."""
        return (ALIGNED, *self.controls)

    def trainings(self) -> dict[str, tuple[str, int]]:
        """Condition and number of every training, by its name."""
        every = [
            (condition, run) for run in range(1, self.runs + 1) for condition in self.conditions
        ]
        return {f"{condition}-{run}": (condition, run) for condition, run in every}

    def recipe(self, run: int) -> Recipe:
        """Of the training of that number: only its seed is its own."""
        own: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Recipe)}
        own["seed"] = self.seed + run - 1
        return Recipe(**own)

    def options(self) -> dict[str, Any]:
        """As `Study.options`."""
        return ItemsStudy.options(self)

    def read(self) -> "AlignData":
        """Questions to train on, and items to evaluate, none of which is among them."""
        from xlens.studies.steps.alignment import read_alignment

        return read_alignment(self)

    def check(self, data: "AlignData", model: Any = None) -> None:
        """As `Study.check`."""
        from xlens.studies.steps.alignment import check_alignment

        check_alignment(self, data)

    def parts(self, data: "AlignData") -> tuple[str, ...]:
        """As `Study.parts`."""
        from xlens.studies.steps.alignment import inside_parts

        made = [f"{name}/{part}" for name in self.trainings() for part in (TRAINING, ANSWERS)]
        return (f"{BEFORE}/{ANSWERS}", *made, GAIN, *inside_parts(self, data))

    def work(self, data: "AlignData", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.alignment import alignment_work

        return alignment_work(self, data, model)

    def digest(self, data: "AlignData") -> dict[str, Any]:
        """As `Study.digest`: every pair, and every item."""
        return {"questions": data.questions.digest(), "items": data.items.digest()}

    def described(self, data: "AlignData") -> dict[str, Any]:
        """As `Study.described`: what is trained on, and what was left out as it is evaluated."""
        table = data.questions.survival()
        left = {str(k): int(n) for k, n in zip(table["reason"], table["n"], strict=True)}
        return {
            "questions": data.questions.source,
            "items": data.items.source,
            "survival": left,
            "evaluated": len(data.items),
        }

    def steps(self, data: "AlignData", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.alignment import alignment_steps

        yield from alignment_steps(self, data, model, kept)

    def taken(self, data: Any) -> "AlignData":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.studies.steps.alignment import AlignData

        if not isinstance(data, AlignData):
            raise wrong_type("data of an AlignStudy", data, "AlignData")
        return data
