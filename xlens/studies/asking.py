"""What studies of multiple-choice questions have in common: where the questions come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all
from xlens.lengths import By
from xlens.studies.study import ShownStudy
from xlens.studies.through_lens import ThroughLens

if TYPE_CHECKING:
    from xlens.tasks.choices import Choices

Layout = Literal[
    "jsonl",
    "xcopa",
    "belebele",
    "global-mmlu",
    "m-mmlu",
    "bmlama",
    "sib200",
    "paws-x",
    "xnli",
    "classes",
]
CLDR = "cldr"
TWO_WAY, YES_NO = "cldr-two-way", "cldr-yes-no"
MADE = (CLDR, TWO_WAY, YES_NO)
"""Questions that are made, by name: four options, two, or yes and no."""
ENGLISH = "english"
OWN = "items"
"""What the caller's own questions are called, where they come without a name."""
LATENT, LATENT_SUMMARY = "latent", "latent-summary"
"""Parts about the options inside."""


@dataclass(frozen=True, kw_only=True)
class ItemsStudy(ShownStudy):
    """Where questions with options come from, in several languages.

    Attributes:
        languages: Of the questions; default all that --items have. CLDR's are to be named.
        items: Questions of your own: a file, or a folder of them, or LAYOUT:PATH; or facts from
            CLDR: `cldr` (the default; four options), cldr-two-way, cldr-yes-no. Several are
            reported beside each other.
        layout: Of --items that don't name theirs.
        split: Read files with this in their name (val); default test where there are splits.
        incomplete: Items that some language lacks, or that differ between languages (some of
            XCOPA's do): an error, or left out.
        identical: Items with an option that is the same string in two languages: keep or drop;
            default drop for facts from CLDR with options, else keep.
        labels: Words of classes (topics; yes and no): a table `language label word`, or english
            for English ones everywhere. Default the items' own.
        kinds: Kinds of items; default all.
        shots: Demonstrations before each question.
        by: Options are compared by their summed log-probability (lm-eval: acc), or by that per
            token, per byte (acc_bytes) or per character (acc_norm).
    """

    CLUSTERS: ClassVar[tuple[str, ...]] = ("paragraph", "id")

    languages: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    layout: Layout = "jsonl"
    split: str | None = None
    incomplete: Literal["error", "drop"] = "error"
    identical: Literal["keep", "drop"] | None = None
    labels: str | None = None
    kinds: tuple[str, ...] = ()
    shots: int = 2
    by: By = "logprob"

    FILES_ONLY: ClassVar[Mapping[str, Any]] = {"layout": "jsonl", "split": None}
    """Options of files, with the value that asks for nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.languages:
            object.__setattr__(self, "languages", tuple(standardize_all(self.languages)))
        check_least(self, shots=0)

    def shown(self, pool: Any) -> dict[str, Any]:
        """How prompts come by their demonstrations, from `pool`; as every task's function asks."""
        return {"shots": self.shots, "seed": self.seed, "headers": self.headers, "pool": pool}

    def sets(self) -> "dict[str, Choices]":
        """The sets of questions, by name.

        Raises:
            ValueError: two of one name, options that would be ignored, or what the readers refuse.
        """
        sources = self.items or (CLDR,)
        files = [source for source in sources if source not in MADE]
        given = {name: getattr(self, name) for name in self.FILES_ONLY}
        if not files and given != {**self.FILES_ONLY}:
            shown = " and ".join(f"{name}={value!r}" for name, value in given.items())
            raise InputError(f"{shown} are of a file or folder: name it with --items.")
        found: dict[str, Choices] = {}
        for source in sources:
            name, choices = self._read(source)
            if name in found:
                raise InputError(
                    f"--items {' '.join(self.items)}: two of these are called {name!r} in the "
                    "report; rename a file."
                )
            found[name] = choices
        return found

    def _read(self, source: str) -> "tuple[str, Choices]":
        from xlens.tasks.choices import read_choices

        if source in MADE:
            return source, self._labelled(self._made(source))
        layout, colon, place = source.partition(":")
        if not colon or Path(source).exists():
            layout, place = self.layout, source
        found = read_choices(
            Path(place),
            layout=layout,
            languages=list(self.languages) or None,
            split=self.split,
            incomplete=self.incomplete,
            identical=self.identical or "keep",
        )
        name = layout if layout != "jsonl" else Path(place).stem
        return name, self._labelled(found.select(kinds=self.kinds) if self.kinds else found)

    def _made(self, source: str) -> "Choices":
        """Items from CLDR."""
        from xlens.tasks.choices import FACTS, cldr_choices, cldr_statements

        if not self.languages:
            raise InputError("Name two languages or more: --languages en de sw.")
        tags, kinds = list(self.languages), self.kinds or FACTS
        if source == YES_NO:  # a name is the same string in two languages: no answer shows it
            same = self.identical or "keep"
            return cldr_statements(tags, kinds, seed=self.seed, identical=same)
        n = 2 if source == TWO_WAY else 4
        same = self.identical or "drop"
        return cldr_choices(tags, kinds, n_options=n, seed=self.seed, identical=same)

    def _labelled(self, choices: "Choices") -> "Choices":
        """With other words for the classes, where they are asked for."""
        from xlens.tasks.choices.labels import read_labels

        if self.labels is None:
            return choices
        if self.labels == ENGLISH:
            return choices.with_labels(choices.labels_of("en"))
        words = read_labels(self.labels)
        return choices.with_labels({t: w for t, w in words.items() if t in choices.languages})


@dataclass(frozen=True, kw_only=True)
class AskingStudy(ItemsStudy):
    """Studies that are about questions with options, and nothing else."""

    def read(self) -> "dict[str, Choices]":
        """As `Study.read`: the sets of questions, by name."""
        return self.sets()

    def digest(self, data: "Mapping[str, Any]") -> dict[str, Any]:
        """As `Study.digest`: every question of every set."""
        return {"items": {name: choices.digest() for name, choices in data.items()}}

    def described(self, data: "Mapping[str, Any]") -> dict[str, Any]:
        """As `Study.described`: where the questions are from, and how many can be used."""
        counted = {name: choices.survival() for name, choices in data.items()}
        return {
            "sources": {name: choices.source for name, choices in data.items()},
            "survival": {
                name: {str(k): int(n) for k, n in zip(t["reason"], t["n"], strict=True)}
                for name, t in counted.items()
            },
        }

    def taken(self, data: Any) -> "dict[str, Choices]":
        """As `Study.taken`: one set, or several by name."""
        from xlens.checks import wrong_type
        from xlens.tasks.choices import Choices

        sets = {OWN: data} if isinstance(data, Choices) else data
        several = isinstance(sets, Mapping) and sets
        if not several or not all(isinstance(value, Choices) for value in sets.values()):
            raise wrong_type(
                f"data of a {type(self).__name__}", data, "Choices, or several by name"
            )
        return {
            str(name): choices.select(languages=self.languages) if self.languages else choices
            for name, choices in sets.items()
        }


@dataclass(frozen=True, kw_only=True)
class SampledStudy(AskingStudy):
    """Studies that ask some of the questions.

    Attributes:
        n_items: Most items asked, drawn with seed.
    """

    n_items: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_items=1)

    def check(self, data: "Mapping[str, Choices]", model: Any = None) -> None:
        """As `Study.check`: items to demonstrate with."""
        from xlens.tasks.choices.prompts import demonstrations

        super().check(data, model)
        for choices in data.values():
            demonstrations(
                self.sampled(choices), choices, self.shots, self.seed, self.headers, False
            )

    def sampled(self, choices: "Choices") -> "Choices":
        """The items that are asked."""
        return choices.sample(min(self.n_items, len(choices)), seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class LatentStudy(SampledStudy, ThroughLens):
    """Studies that can read options inside, layer by layer, in two languages.

    Attributes:
        pivot: Whose words for the options are read beside each language's own.
        n_latent: Of these, items whose options are read inside.
    """

    pivot: str = "en"
    n_latent: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        check_least(self, n_latent=5)

    def check(self, data: "Mapping[str, Choices]", model: Any = None) -> None:
        """As `Study.check`: also lenses that aren't there."""
        super().check(data, model)
        self.check_lenses()

    def digest(self, data: "Mapping[str, Choices]") -> dict[str, Any]:
        """As `Study.digest`: every question of every set, and every lens but the usual."""
        return {**super().digest(data), **self.lens_digests()}

    def read_inside(self, choices: "Choices") -> "Choices":
        """The items whose options are read inside."""
        asked = self.sampled(choices)
        return asked.sample(min(self.n_latent, len(asked)), seed=self.seed)
