"""What a study is: frozen options, of which Python, YAML, command line, resume and report follow.

A study is a frozen dataclass; its fields are all that can be asked. It says what it is about
(`read`), what of that can't be asked (`check`), which parts there will be (`parts`) and what they
take of a model (`work`), what they are made from (`digest`) and how (`steps`). `xlens.run` does the
rest: it is the same for all studies.
Light, so that the command line can show every option at once: what computes is imported in methods.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from cyclopts import Group, Parameter

from xlens.checks import check_fields
from xlens.errors import InputError
from xlens.headers import HEADERS, Headers, check_headers
from xlens.studies.work import Plan, Work, counted

if TYPE_CHECKING:
    from pathlib import Path

    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.prompts import Prompt
    from xlens.results import Result
    from xlens.served import ServedModel
    from xlens.stats import Resampling
    from xlens.store import Store

Parts = Mapping[str, "Result"]
Drawn = Parameter(group=Group("Intervals", sort_key=2))
Switch = Parameter(negative=())
"""Of options that are there or not: --oracle, and no --no-oracle."""


@dataclass(frozen=True)
class Step:
    """Makes one or several parts; what is made together is one pass of the model.

    Attributes:
        kinds: What it makes: the type of each part by its name, `GROUP/PART` or `PART`.
        make: Makes them, from the parts that are there.
        derived: It only reads other parts: made anew where an option of no other part has changed.
    """

    kinds: Mapping[str, type["Result"]]
    make: Callable[[Parts], Mapping[str, "Result"]]
    derived: bool = False

    @classmethod
    def one(
        cls,
        name: str,
        kind: type["Result"],
        make: Callable[[Parts], "Result"],
        *,
        derived: bool = False,
    ) -> "Step":
        """A step that makes one part."""
        return cls({name: kind}, lambda done: {name: make(done)}, derived)

    def within(self, group: str) -> "Step":
        """The same step of a study whose parts lie in a group here."""
        head = f"{group}/"

        def make(done: Parts) -> Mapping[str, "Result"]:
            own = {n.removeprefix(head): part for n, part in done.items() if n.startswith(head)}
            return {f"{head}{name}": part for name, part in self.make(own).items()}

        return Step({f"{head}{n}": kind for n, kind in self.kinds.items()}, make, self.derived)


@dataclass(frozen=True)
class Kept:
    """Where what a model computes is kept, and whether bars are shown.

    Attributes:
        store: Of states, scores and answers.
        progress: Show bars.
        adapters: Folder for what is trained on a model, beside its parts; None: nothing is kept.
    """

    store: "Store | None" = None
    progress: bool = True
    adapters: "Path | None" = None

    @property
    def options(self) -> dict[str, Any]:
        """As the core takes them."""
        return {"store": self.store, "progress": self.progress}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What every study can be asked.

    Attributes:
        draws: Resamples behind each interval.
        confidence: Share of the intervals that should hold the truth.
        clusters: What is drawn whole, as it hangs together: paragraph or id; default paragraph
            where there is one, else id.
        seed: Of all that is drawn: items, demonstrations, controls and intervals.
    """

    COMMAND: ClassVar[str] = ""
    """Its name on the command line, in YAML and in a run's config."""
    CLUSTERS: ClassVar[tuple[str, ...]] = ("id",)
    SERVED: ClassVar[bool] = False
    """Whether models behind endpoints, which give text only, can be asked."""
    FREE: ClassVar[tuple[str, ...]] = ("draws", "confidence", "clusters")
    """Fields that shape derived parts only, and may be others when a run is taken up again."""
    MODEL: ClassVar[str | None] = None
    """Asked where none is named."""
    LISTS: ClassVar[tuple[str, ...]] = (
        "languages",
        "steer_languages",
        "others",
        "pairs",
        "controls",
        "kinds",
    )
    """Fields that may be written with commas, too, where a study has them."""

    draws: Annotated[int, Drawn] = 1000
    confidence: Annotated[float, Drawn] = 0.95
    clusters: Annotated[str | None, Drawn] = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        there = {field.name for field in fields(self)}
        for name in (name for name in self.LISTS if name in there):
            given: tuple[str, ...] = getattr(self, name)
            parts = tuple(part for value in given for part in value.split(",") if part)
            if given and not parts:
                raise InputError(f"{name} is {list(given)}, which names none: leave it out.")
            object.__setattr__(self, name, parts)
        if self.clusters not in (None, *self.CLUSTERS):
            raise InputError(
                f"clusters is {self.clusters!r}; what is asked here can be drawn by "
                f"{' or '.join(self.CLUSTERS)}."
            )
        if (self.draws, self.confidence) != (Study.draws, Study.confidence):
            _ = self.resampling  # it checks them; for the usual, help needs nothing heavy

    @property
    def resampling(self) -> "Resampling":
        """What everything that draws an interval takes."""
        from xlens.stats import Resampling

        return Resampling(self.draws, self.confidence, self.seed, self.clusters)

    @property
    def asks_chat(self) -> bool:
        """Whether models behind endpoints are asked in turns of a chat."""
        return True

    @property
    def outlined(self) -> bool:
        """Whether `check` looks at a model: its tokenizer, context length or size."""
        return False

    def options(self) -> dict[str, Any]:
        """The fields as plain values, as in a config."""
        from xlens.results import jsonable

        return {f.name: jsonable(getattr(self, f.name)) for f in fields(self)}

    def title(self, models: Sequence[str]) -> str:
        """Name of the run's folder where none is given."""
        return self.COMMAND

    # What each study says of itself. Nothing of it runs a model but what `steps` gives.

    def of_models(self, names: Sequence[str]) -> Self:
        """The study as these models are asked it: where they decide what is usual."""
        return self

    def read(self) -> Any:
        """What is asked about: items, words, texts.

        Raises:
            ValueError: there is nothing, or nothing that can be read.
        """
        raise NotImplementedError

    def check(self, data: Any, model: "Outline | HookedModel | ServedModel | None" = None) -> None:
        """Refuse what can't be asked, before a model is loaded.

        Args:
            data: From `read`, or the caller's own.
            model: Who will be asked, as far as it is known; None: only what holds for all.

        Raises:
            ValueError: it can't be asked.
        """

    def parts(self, data: Any) -> tuple[str, ...]:
        """Names of the parts that there will be of each model, in order."""
        raise NotImplementedError

    def work(self, data: Any, model: "Outline | HookedModel") -> Mapping[str, Work] | None:
        """What the parts take of the model, by part; None: nobody counted.

        Counted from the prompts, without running the model: at most that much.

        Args:
            data: As `prepared` gives it.
            model: As far as it is known.
        """
        return None

    def prompts(self, data: Any, model: "Outline | HookedModel") -> "Sequence[Prompt]":
        """What the model reads, as far as `work` counts it; the same prompt may stand there twice.

        Args:
            data: As `prepared` gives it.
            model: As far as it is known; loaded, it decides which are asked.
        """
        with counted() as found:
            _ = self.work(data, model)
        return found

    def plan(
        self,
        data: Any,
        model: "Outline | HookedModel | None" = None,
        *,
        asked: Any = None,
        flops: float | None = None,
    ) -> Plan:
        """What there will be of a model: parts, prompts, tokens, and about how long it takes.

        Args:
            data: From `read`, or the caller's own.
            model: Which, as far as it is known; None: the parts alone.
            asked: The data as `prepared` gives it, where that is there already.
            flops: Of the machine, a second, from `xlens.studies.work.flops_of`; None: no time.
        """
        if model is None:
            return Plan(self.parts(data))
        asked = self.prepared(data, model)[0] if asked is None else asked
        work = self.work(asked, model)
        if work is None:
            return Plan(self.parts(data))
        return Plan(self.parts(data), work, model.size, flops)

    def digest(self, data: Any) -> dict[str, Any]:
        """What of the data decides numbers: content, never names alone; by the field it is of."""
        raise NotImplementedError

    def prepared(self, data: Any, model: Any) -> tuple[Any, dict[str, Any]]:
        """The data as this model is asked it, and what of that decides numbers: prompts, say."""
        return data, {}

    def steps(self, data: Any, model: Any, kept: Kept) -> Iterable[Step]:
        """How the parts are made, in order.

        Args:
            data: As `prepared` gives it.
            model: Loaded, or served where `SERVED`.
            kept: Where what it computes is kept.
        """
        raise NotImplementedError

    def check_models(self, folders: Mapping[str, str]) -> None:
        """Refuse models that can't be asked together, by name with the folder of each."""

    def check_together(
        self, outlines: "Mapping[str, Callable[[], Outline | HookedModel | ServedModel | None]]"
    ) -> None:
        """Refuse models that can't be compared, by what is known of each before it is loaded.

        Args:
            outlines: By name, what tells that: its config, or the model where it is there.
        """

    def across(
        self,
        models: Mapping[str, Parts],
        folders: Mapping[str, str],
        series: "Mapping[str, Checkpoint]",
    ) -> Iterable[Step]:
        """How parts about several models are made.

        Args:
            models: The parts of each, by folder.
            folders: Folder of each, by name.
            series: Of those that are checkpoints of one training, when: by folder.
        """
        return ()

    def described(self, data: Any) -> dict[str, Any]:
        """What the run's provenance says of the data: sources, and what was left out."""
        return {}

    def taken(self, data: Any) -> Any:
        """The caller's own data as `read` would give it.

        Raises:
            WrongType: it is something else.
        """
        return data


@dataclass(frozen=True, kw_only=True)
class ShownStudy(Study):
    """Studies whose prompts show demonstrations.

    Attributes:
        headers: Sets of demonstrations that prompts share, about so many, which are run once and
            drawn whole by intervals; item for demonstrations of each item's own.
    """

    headers: Headers = HEADERS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_headers(self.headers)
