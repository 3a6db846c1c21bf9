"""`xlens xmrc`: how well do models find in a text in one language what is asked in another?

The questions of arXiv 2504.10906: answers and their scores in every combination of languages, with
exchanged texts and answers without a model beside them; then relevance by layer and the phases of
retrieval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from xlens._renamed import renamed
from xlens.checks import check_least
from xlens.studies.phases import INSIDE, INSIDE_SUMMARIES, RANDOM_INIT, TWIN, InsideStudy
from xlens.studies.study import Kept, Parts, Step, Switch
from xlens.studies.through_lens import unasked
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.served import ServedModel
    from xlens.studies.steps.context_retrieval import ReadingPlan
    from xlens.tasks.xmrc import ReadingSet

READING_CONTROLS = ("mismatched", "first-sentence", "random-span", RANDOM_INIT)
BASELINES = {"first-sentence": "first sentence", "random-span": "random span"}
ORACLE, BOARD, STEADY = "oracle", "leaderboard", "stability-and-scores"
SUMMARIES = {**INSIDE_SUMMARIES, "scores": "summary", ORACLE: "oracle-summary"}
"""Of parts, what a page says and draws of them."""
PARTS = ("predictions", "scores", *BASELINES, ORACLE, *INSIDE, TWIN, *SUMMARIES.values())


@renamed(rules="normalisation")
@dataclass(frozen=True, kw_only=True)
class ReadingStudy(InsideStudy):
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

    Attributes:
        pair: BASE:POST, two of the models.
        n_items: Most questions, drawn with `seed`.
        per_paragraph: So many questions of a paragraph are drawn before more of any: several cost
            little more than one, as their text is read once, but they are alike.
        n_controls: Of these, questions that are asked with exchanged texts, too.
        max_new_tokens: Most tokens of an answer; default as many as the longest right answer has
            in the model's own tokens and a few more, 32 or more: scripts differ threefold.
        controls: mismatched (texts of other articles, where these are known), first-sentence and
            random-span (answers without a model), random-init (phases in random weights of the same
            shape).
        normalisation: How answers are compared: xlens, mlqa (en es hi vi de ar zh) or squad.
        oracle: Leave each sentence of the text out in turn, for the questions of `n_controls`.
        phases: Look inside as well: relevance, evidence by layer, phases.
        seed: Of sampling, demonstrations, exchanges, intervals and tests.
    """

    COMMAND: ClassVar[str] = "xmrc"
    SERVED: ClassVar[bool] = True
    FREE: ClassVar[tuple[str, ...]] = ("pair",)
    CONTROLS: ClassVar[tuple[str, ...]] = READING_CONTROLS

    pair: tuple[str, ...] = ()
    n_items: int = 200
    per_paragraph: int = 1
    n_controls: int = 60
    max_new_tokens: int | None = None
    controls: tuple[str, ...] = READING_CONTROLS
    normalisation: Literal["xlens", "mlqa", "squad"] = "xlens"
    oracle: Annotated[bool, Switch] = False
    phases: Annotated[bool, Switch] = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_items=1, n_controls=1, max_new_tokens=1, per_paragraph=1)
        if not self.phases:
            unasked(self, "what is read inside", "--phases", ("lens",))

    def check(self, data: "ReadingSet", model: Any = None) -> None:
        """As `Study.check`; with a model also prompts too long for it, or no template or key."""
        from xlens.studies.steps.context_retrieval import check_reading

        self.check_lenses()
        check_reading(data, self, model)

    def parts(self, data: "ReadingSet") -> tuple[str, ...]:
        """As `Study.parts`."""
        wanted = {"predictions", "scores", *(name for name in BASELINES if name in self.controls)}
        wanted |= {ORACLE} if self.oracle else set()
        wanted |= {*self.inside} if self.phases else set()
        wanted |= {summary for part, summary in SUMMARIES.items() if part in wanted}
        return tuple(part for part in PARTS if part in wanted)

    def work(self, data: "ReadingPlan", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.reading_work import reading_work

        return reading_work(data, self, model)

    def prepared(
        self, data: "ReadingSet", model: "HookedModel | ServedModel | Outline"
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
        from xlens.studies.steps.reading_summary import summary_steps

        yield from reading_steps(model, data, self, kept)
        yield from summary_steps(("scores", *([ORACLE] if self.oracle else [])), self.resampling)

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
        """As `Study.across`: a leaderboard, and whether the phases' stability goes with F1.

        The first of several models that were all asked something in common, the second where there
        are enough languages or models.
        """
        from xlens.phases import StabilityCorrelation
        from xlens.studies.steps.leaderboard import Leaderboard, compared
        from xlens.studies.steps.reading_summary import stability_and_scores

        board = compared(models, self, folders) if len(models) > 1 else None
        if board is not None:
            yield Step.one(BOARD, Leaderboard, lambda _: board)
        steady = stability_and_scores(models, self.resampling)
        if steady is not None:
            yield Step.one(STEADY, StabilityCorrelation, lambda _: steady)
