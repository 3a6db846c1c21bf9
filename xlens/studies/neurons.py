"""`xlens neurons`: which units belong to a language, and what happens without them?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.studies.sentences import SentenceLayout, Twin
from xlens.studies.study import Kept, Step, Study
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.prompts import Prompts

TALLY, NEURONS, OVERLAP, EFFECTS = "tally", "neurons", "overlap", "effects"
SCRIPTS = "overlap-scripts"
Layout = Literal["jsonl", "squad", "mgsm", "xcopa", "belebele", "global-mmlu", "m-mmlu"]


@dataclass(frozen=True, kw_only=True)
class NeuronsStudy(Study):
    """Which units of the MLPs belong to a language (LAPE), and what happens without them?

    ```
    xlens neurons gemma-3-270m --text en=english.txt de=german.txt sw=swahili.txt
    xlens neurons gemma-3-270m --sentences data/sib200 --sentence-layout sib200
    xlens neurons gemma-3-270m --questions data/xquad --layout squad --languages en de zh
    xlens neurons atlas --languages en de hi --least-tokens 300
    ```

    Counts at how many of a language's tokens each unit is active, keeps those that few languages
    activate, and switches each language's off: how much worse is text predicted, in that language
    and in the others, than with as many units drawn at random?

    Attributes:
        text: Files, a text a line, with their languages: de=FILE, or named by it (wiki.de.txt).
        sentences: Parallel sentences instead: a folder, or a file for the layout tsv.
        sentence_layout: sib200, ntrex, pud, udhr, aligned (a text file per variety, by line) or
            tsv.
        twins: Of sentences, made and counted as varieties of their own: script (ICU), words,
            characters.
        questions: Parallel questions instead: a file, or a folder in the --layout.
        layout: Of --questions.
        languages: Of texts, sentences or questions, default all; without these, of questions from
            CLDR.
        top: Share of all units that are kept.
        filter_rate: Quantile of all probabilities above which a unit is active often enough.
        least_tokens: Of each language.
        how: What is done to a language's units: off, mean (their own average) or boost.
        n_texts: Texts of each language that effects are measured on, drawn with seed.
        effects: Measure them.
    """

    COMMAND: ClassVar[str] = "neurons"

    text: tuple[str, ...] = ()
    sentences: str | None = None
    sentence_layout: SentenceLayout = "aligned"
    twins: tuple[Twin, ...] = ()
    questions: str | None = None
    layout: Layout = "jsonl"
    languages: tuple[str, ...] = ()
    top: float = 0.01
    filter_rate: float = 0.95
    least_tokens: int = 1000
    how: Literal["off", "mean", "boost"] = "off"
    n_texts: int = 40
    effects: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.languages:
            object.__setattr__(self, "languages", standardize_all(self.languages))
        check_least(self, least_tokens=1, n_texts=2)
        for name in ("top", "filter_rate"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise InputError(f"{name} is {value}; accepted is a share between 0 and 1.")
        given = {"--text": self.text, "--sentences": self.sentences, "--questions": self.questions}
        if len(named := [name for name, value in given.items() if value]) > 1:
            raise InputError(f"{' and '.join(named)}: give one of them.")
        if self.twins and self.sentences is None:
            raise InputError(
                f"twins={list(self.twins)} are made of sentences: name their folder with "
                "--sentences."
            )

    def read(self) -> "Prompts":
        """Texts in several languages."""
        from xlens.studies.steps.neurons import read_texts

        return read_texts(self)

    def check(self, data: "Prompts", model: Any = None) -> None:
        """As `Study.check`: as many bytes in each language as tokens are wanted."""
        sizes = {tag: 0 for tag in data.languages}
        for text in data:
            sizes[text.language] += len(text.text.encode()) + 1  # a token at the beginning
        if few := {tag: n for tag, n in sizes.items() if n < self.least_tokens}:
            told = ", ".join(f"{tag} ({n} bytes)" for tag, n in few.items())
            raise InputError(
                f"Fewer than {self.least_tokens} tokens in {told}: give more text, or say that "
                "fewer are enough (least_tokens, --least-tokens)."
            )

    def parts(self, data: "Prompts") -> tuple[str, ...]:
        """As `Study.parts`."""
        related = [SCRIPTS] if self.sentences is not None else []
        return (TALLY, NEURONS, OVERLAP, *related, *([EFFECTS] if self.effects else []))

    def work(self, data: "Prompts", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.neurons import neuron_work

        return neuron_work(self, data, model.tokenizer)

    def digest(self, data: "Prompts") -> dict[str, Any]:
        """As `Study.digest`: every text."""
        from xlens.store import digest

        return {"text": digest([[p.id, p.language, p.text] for p in data])}

    def described(self, data: "Prompts") -> dict[str, Any]:
        """As `Study.described`."""
        return {"texts": {tag: sum(p.language == tag for p in data) for tag in data.languages}}

    def steps(self, data: "Prompts", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.neurons import neuron_steps

        yield from neuron_steps(self, data, model, kept)

    def taken(self, data: Any) -> "Prompts":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.prompts import Prompts

        if not isinstance(data, Prompts):
            raise wrong_type("data of a NeuronsStudy", data, "Prompts")
        return data
