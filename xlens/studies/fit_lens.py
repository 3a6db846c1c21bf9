"""`xlens fit-lens`: lenses for a model, and how what they read changes with what they saw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize_all
from xlens.studies.study import Kept, Step, Study
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.sources import Outline
    from xlens.prompts import Prompt, Prompts

Fitted = Literal["jacobian", "tuned"]
CLDR, ATLAS = "cldr", "atlas"
READINGS, YARDSTICK = "readings", "yardstick"
ALL = "all"
TESTBED = {"atlas", "atlas-post"}
_LEAST_TUNED = 10


@dataclass(frozen=True, kw_only=True)
class FitLensStudy(Study):
    """Fit lenses on a model's own states, and see what they read of texts that they never saw.

    ```
    xlens fit-lens atlas
    xlens fit-lens gemma-3-270m --kind jacobian --languages en de fr ru --n-texts 16
    xlens fit-lens ./my-checkpoint --text en=wiki.en.txt de=wiki.de.jsonl.gz
    ```

    A Jacobian lens is made of each language's texts by itself, and of all; each language's held-out
    texts are read through its own, through all, and through all but its own. `xlens lens --fitted`
    reads with them.

    Attributes:
        kind: Which lenses: jacobian, tuned.
        text: TAG=FILE (text, JSON Lines or Parquet, packed or not), or JSON Lines with `text` and
            `language`. Default: sentences about CLDR's facts, or the atlas's own.
        field: Of JSON Lines and Parquet: the one that holds the text.
        languages: Of the texts; default all that there are. CLDR's are to be named.
        n_texts: Passages of each language that lenses are fitted on.
        n_held: Passages of each language that are read and not fitted on.
        max_tokens: Of a passage.
        skip: Positions at its beginning that are left out.
        rotation: Of a Jacobian lens: each passage gives 1/rotation of the rows, as many times
            cheaper; n_texts is a multiple of it. 1: all of them.
        n_steps: Most steps of training of a tuned lens.
        positions: Of each held-out passage that are read.
        yardstick: The multilingual items of the Jacobian lens's authors, a JSON file: the share of
            their intermediate words that each lens ranks high on the way.
        seed: Of which passages, rows and steps.
    """

    COMMAND: ClassVar[str] = "fit-lens"

    kind: tuple[Fitted, ...] = ("jacobian", "tuned")
    text: tuple[str, ...] = ()
    field: str = "text"
    languages: tuple[str, ...] = ()
    n_texts: int = 24
    n_held: int = 16
    max_tokens: int = 96
    skip: int = 16
    rotation: int = 8
    n_steps: int = 300
    positions: int = 4
    yardstick: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_texts=1, n_held=2, rotation=1, n_steps=1, positions=1, skip=0)
        object.__setattr__(self, "kind", tuple(dict.fromkeys(self.kind)))
        if self.languages:
            object.__setattr__(self, "languages", tuple(standardize_all(self.languages)))
        if not self.kind or set(self.kind) - set(get_args(Fitted)):
            raise InputError(f"kind is {list(self.kind)}; accepted are {list(get_args(Fitted))}.")
        if "jacobian" in self.kind and self.n_texts % self.rotation:
            raise InputError(
                f"n_texts is {self.n_texts} and rotation {self.rotation}: each passage gives "
                f"1/{self.rotation} of the rows, so that n_texts must be a multiple of it."
            )
        if self.field != "text" and not self.text:
            raise InputError(
                f"field is {self.field!r}, and no files are named that have one: text."
            )
        if self.max_tokens < self.skip + 2:
            raise InputError(
                f"max_tokens is {self.max_tokens} and skip {self.skip}: at least two tokens must "
                "be left."
            )

    def of_models(self, names: Sequence[str]) -> Self:
        """As `Study.of_models`: the atlas reads nothing but its own sentences."""
        own = {name.partition("@")[0] for name in names} <= TESTBED
        return self if self.text or not own else replace(self, text=(ATLAS,))

    def title(self, models: Sequence[str]) -> str:
        """As `Study.title`: after the models."""
        return "-".join([self.COMMAND, *(Path(model).name for model in models)])

    def read(self) -> "Prompts":
        """Texts of files, or sentences about facts.

        Raises:
            ValueError: what can't be read, a language without text, or CLDR's not named.
        """
        from xlens.prompts import Prompts
        from xlens.tasks.facts import cldr_facts
        from xlens.tasks.facts.wordings import RELATIONS
        from xlens.tasks.running_text import fact_texts, read_texts

        if self.text == (ATLAS,):
            from xlens.testbed.atlas.facts import atlas_facts

            found = fact_texts(atlas_facts(), seed=self.seed)
        elif self.text:
            found = read_texts(self.text, field=self.field)
        elif len(self.languages) < 2:
            raise InputError("Name two languages or more (--languages en de), or give --text.")
        else:
            found = fact_texts(cldr_facts(list(self.languages), RELATIONS), seed=self.seed)
        there = list(dict.fromkeys(text.language for text in found))
        if lacking := [tag for tag in self.languages if tag not in there]:
            raise InputError(
                f"No text in {', '.join(lacking)}; there is text in {', '.join(there)}."
            )
        return Prompts(t for t in found if not self.languages or t.language in self.languages)

    def check(self, data: "Prompts", model: Any = None) -> None:
        """As `Study.check`: texts long enough, enough for a tuned lens, items for the yardstick."""
        if "tuned" in self.kind and (n := self.n_texts * len(self.tags(data))) < _LEAST_TUNED:
            raise InputError(
                f"n_texts is {self.n_texts} in each language, {n} in all: a fifth of a tuned "
                f"lens's texts is held out, so that it needs {_LEAST_TUNED} or more; raise "
                "n_texts, or ask for --kind jacobian."
            )
        if self.yardstick is not None:
            from xlens.lens.yardstick import read_lens_items

            read_lens_items(self.yardstick)
        if model is not None:
            from xlens.studies.steps.lens_fits import parted

            parted(data, model.tokenizer, self)

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: its tokens decide how long a passage is."""
        return True

    def tags(self, data: "Prompts") -> list[str]:
        """The languages of the texts."""
        return list(dict.fromkeys(text.language for text in data))

    def parts(self, data: "Prompts") -> tuple[str, ...]:
        """As `Study.parts`: a lens of each language, of all, and what they read."""
        tags = self.tags(data)
        jacobian = [f"jacobian/{tag}" for tag in (*tags, *([ALL] if len(tags) > 1 else []))]
        tuned = [f"tuned/{ALL}"]
        made = {"jacobian": jacobian, "tuned": tuned}
        last = (READINGS, *([YARDSTICK] if self.yardstick else []))
        return (*(name for kind in self.kind for name in made[kind]), *last)

    def digest(self, data: "Prompts") -> dict[str, Any]:
        """As `Study.digest`: every text."""
        from xlens.lens.jacobian import text_digest

        digests = {"text": text_digest(list(data))}
        if self.yardstick is not None:
            from xlens.files import digest

            digests["yardstick"] = digest(self.yardstick)
        return digests

    def described(self, data: "Prompts") -> dict[str, Any]:
        """As `Study.described`."""
        return {
            "languages": self.tags(data),
            "texts": len(data),
            "from": list(self.text) or [CLDR],
            "fitted_on": self.n_texts,
            "held_out": self.n_held,
            "max_tokens": self.max_tokens,
        }

    def work(self, data: "Prompts", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`: a row of a Jacobian is a backward pass, as long as a forward one."""
        tags, size = self.tags(data), model.size
        read = self.n_texts * (self.max_tokens - self.skip)
        rows = -(-size.d_model // self.rotation)
        lens = Work(self.n_texts, self.n_texts * self.max_tokens + read * rows)
        points = size.n_layers + 1
        found: dict[str, Work] = {}
        if "jacobian" in self.kind:
            found |= {f"jacobian/{tag}": lens for tag in tags}
        if "tuned" in self.kind:
            n = self.n_texts * len(tags)
            found[f"tuned/{ALL}"] = Work(n, n * self.max_tokens, self.n_steps * 256 * points * 4)
        held = self.n_held * len(tags)
        times = 2 + 3 * ("jacobian" in self.kind)
        found[READINGS] = Work(held, held * self.max_tokens, held * self.positions * points * times)
        return found

    def prompts(self, data: "Prompts", model: "Outline | HookedModel") -> "list[Prompt]":
        """As `Study.prompts`: the passages that are fitted on and read."""
        from xlens.studies.steps.lens_fits import parted

        both = parted(data, model.tokenizer, self)
        return [text for texts in both for mine in texts.values() for text in mine]

    def steps(self, data: "Prompts", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.lens_fits import lens_steps

        return lens_steps(model, data, self, kept)

    def taken(self, data: Any) -> "Prompts":
        """As `Study.taken`."""
        from xlens.prompts import Prompts

        return data if isinstance(data, Prompts) else Prompts(data)
