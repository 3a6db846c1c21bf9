"""`xlens phases`: where inside does a question end and the answer begin?

The phases of retrieval of arXiv 2504.10906, without the answers themselves: relevance by layer,
evidence by layer with its controls, boundaries, and the same in random weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.studies.study import Kept, Step
from xlens.studies.texts import TextStudy
from xlens.studies.through_lens import LOGIT, ThroughLens
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.studies.steps.reading_phases import PhasePrompts
    from xlens.tasks.xmrc import ReadingSet

# Two questions of a paragraph, and other paragraphs to take states from.
FEWEST_PHASES = 4
INSIDE = ("relevance", "depth", "depth-control", "curves", "phases", "stability")
TWIN = "phases-control"
INSIDE_SUMMARIES = {"curves": "curves-summary", "depth": "depth-summary"}
"""Of parts, what a page says and draws of them."""
RANDOM_INIT = "random-init"
READABLE = "readable"


@dataclass(frozen=True, kw_only=True)
class InsideStudy(TextStudy, ThroughLens):
    """Studies that look at what a model does with a question about a text, layer by layer.

    Attributes:
        controls: What stands beside: random-init (phases in random weights of the same shape).
        n_phases: Most questions looked at inside, two of each paragraph.
        phase_languages: Languages of the questions looked at inside; default all.
        phase_layers: Residual points at which states are exchanged or wiped out; default all.
        kinds: Kinds of evidence; default all that can be had.
        lens: What the evidence `readable` is read through: logit, jacobian=PLACE or tuned=PLACE, as
            for `xlens lens`.
        relevance_rule: attnlrp, cp-lrp or gradient.
    """

    LANGUAGES: ClassVar[tuple[str, ...]] = (*TextStudy.LANGUAGES, "phase_languages")
    LISTS: ClassVar[tuple[str, ...]] = (*TextStudy.LISTS, "phase_languages")
    CONTROLS: ClassVar[tuple[str, ...]] = (RANDOM_INIT,)

    controls: tuple[str, ...] = (RANDOM_INIT,)
    n_phases: int = 24
    phase_languages: tuple[str, ...] = ()
    phase_layers: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    relevance_rule: Literal["attnlrp", "cp-lrp", "gradient"] = "attnlrp"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_known("controls", self.CONTROLS)
        check_least(self, n_phases=FEWEST_PHASES)
        if self.kinds:
            from xlens.phases import KINDS

            if unknown := sorted(set(self.kinds) - set(KINDS)):
                raise InputError(f"Unknown kinds of evidence {unknown}; accepted are {[*KINDS]}.")

        if {*self.lens} - {LOGIT} and self.kinds and READABLE not in self.kinds:
            raise InputError(
                f"lens is {list(self.lens)}, and of the kinds {list(self.kinds)} none is read "
                f"through a lens: ask for {READABLE} as well, or leave the lens out."
            )

    def digest(self, data: "ReadingSet") -> dict[str, Any]:
        """As `Study.digest`: every question and text, and every lens but the usual."""
        return {**super().digest(data), **self.lens_digests()}

    @property
    def inside(self) -> tuple[str, ...]:
        """Parts about the inside."""
        twin = [TWIN] if RANDOM_INIT in self.controls else []
        return (*INSIDE, *twin, *INSIDE_SUMMARIES.values())


@dataclass(frozen=True, kw_only=True)
class PhasesStudy(InsideStudy):
    """Where inside has the question been understood, and where is the answer fetched?

    ```
    xlens phases gemma-3-270m --data data/xquad --questions en,de,zh-Hans
    xlens phases gemma-3-270m --data mine.json --context de --questions de --n-phases 40
    xlens phases gemma-3-270m --data data/xquad --lens jacobian=fit-lens-gemma-3-270m
    xlens phases atlas --revisions all --data data/xquad --questions en,fr
    ```

    Two questions of each text, each with the answer to the other as the wrong one: relevance by
    layer, what exchanging and wiping out states does, and boundaries where that tells of any. The
    answers themselves are `xlens xmrc`.
    """

    COMMAND: ClassVar[str] = "phases"
    FREE: ClassVar[tuple[str, ...]] = ()

    def check(self, data: "ReadingSet", model: Any = None) -> None:
        """As `Study.check`; with a model also prompts too long for it, or no template."""
        from xlens.studies.steps.reading_prompts import check_inside

        self.check_lenses()
        check_inside(data, self, model)

    def parts(self, data: "ReadingSet") -> tuple[str, ...]:
        """As `Study.parts`."""
        return self.inside

    def work(self, data: "PhasePrompts", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.reading_work import inside_work

        return inside_work(data, self, model)

    def prepared(
        self, data: "ReadingSet", model: "HookedModel | Outline"
    ) -> "tuple[PhasePrompts, dict[str, Any]]":
        """As `Study.prepared`: the prompts; another chat template is another study."""
        from xlens.studies.steps.reading_prompts import inside_prompts

        prompts = inside_prompts(data, self, model)
        return prompts, {"prompts": prompts.digest()}

    def steps(self, data: "PhasePrompts", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.reading_phases import check_phases, phase_steps

        check_phases(model, data, self)
        return phase_steps(model, data, self, kept)
