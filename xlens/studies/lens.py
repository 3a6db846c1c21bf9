"""`xlens lens`: which language's word is the model about to say, layer by layer?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from cyclopts import Parameter

from xlens._renamed import renamed
from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import by_tag, standardize
from xlens.studies.study import Kept, ShownStudy, Step, Switch
from xlens.studies.through_lens import LOGIT, ThroughLens, unasked
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.prompts import Prompt
    from xlens.studies.study import Parts
    from xlens.tasks.words import WordList

Task = Literal["translation", "repetition", "cloze"]
Match = Literal["prefixes", "first", "whole"]
Collisions = Literal["drop", "subtract"]
CONTROLS = ("shuffled", "random-init", "repetition")
NULLS = ("shuffled", "random-init")
"""Controls in which no language's word should become probable."""
SURVIVAL, SUMMARY, SHARES = "survival", "summary-", "language-shares"
CAUSAL, EFFECTS, CAUSAL_SUMMARY, VERDICTS = ".causal", "effects", "causal-summary", "verdicts"
# Of the causal test, where none are named: languages that the built-in words and the atlas have.
_OTHERS = ("es", "ru", "zh-Hans", "ar", "hi", "de", "fr")
_N_OTHERS = 4
_FEWEST_OTHERS = 2
_OF_CAUSAL = ("others", "n_causal", "donors", "layers")


@renamed(reading="match", points="layers")
@dataclass(frozen=True, kw_only=True)
class LensStudy(ShownStudy, ThroughLens):
    """Which language's word is the model about to say, layer by layer?

    ```
    xlens lens gemma-3-270m --from fr --to zh-Hans
    xlens lens ./my-checkpoint --pairs de:ru ru:ar --kinds territory month
    xlens lens google/gemma-3-270m --from fr --to hi --words my-words.tsv --match whole
    xlens lens ./my-checkpoint --from fr --to tlh --words my-words.tsv --names.tlh "tlhIngan Hol"
    xlens lens gemma-3-270m smollm2-135m-instruct --from fr --to de
    xlens lens atlas --from fr --to de --lens logit jacobian=fit-lens-atlas tuned=fit-lens-atlas
    xlens lens atlas --from fr --to de --causal --lens jacobian=fit-lens-atlas
    ```

    Attributes:
        source: Language of the word shown, a BCP-47 tag.
        target: Language asked for.
        pairs: Several pairs SOURCE:TARGET instead of --from and --to.
        words: Your own word list (TSV, CSV or JSON Lines with language tags as column names).
        columns: What the columns of --words are where they aren't named by tags: NAME:TAG of each,
            or, in a file without a row of names, the tags in order.
        repeats: Rows of --words that repeat an item: an error, or all but the first left out.
        missing: Rows of --words that lack a word: an error, left out, or kept for the pairs of
            languages that they have words in.
        kinds: Which of the built-in words (CLDR): territory language currency month weekday unit.
        pivot: The language suspected inside.
        task: `translation`; `repetition` and `cloze` stay within the target language.
        match: What of a word counts: the tokens it may begin with (`prefixes`), those of its own
            tokens' `first`, or the exact `whole` word.
        n_items: Most items per pair, drawn with `seed` from those that survive the filter.
        n_controls: Most items of the controls that need their own forward pass.
        controls: Which controls run: `shuffled` (the same states, other items' words),
            `random-init` (the same prompts, a randomly initialised twin), `repetition` (the target
            language repeated).
        shots: Demonstrations before each query; None for the task's usual number.
        top_k: Most probable tokens kept per layer.
        lens: Lenses to read through, side by side: logit, jacobian=PLACE and tuned=PLACE, a run of
            `xlens fit-lens` or the folder or file of a lens; jacobian alone is the published one of
            the model.
        causal: Also test whether what is read does any work: words are exchanged for other items',
            in what languages share, in what is the pivot's own, and in what is another language's.
        others: Of the causal test: languages besides source, target and pivot whose words tell
            what languages share; two or more that the model knows.
        n_causal: Of the causal test: most items per pair.
        donors: Of the causal test: other items that each is exchanged with.
        layers: Of the causal test: residual points; default all below the last.
        collisions: Whether items whose sets share a token are dropped or the tokens subtracted.
        names: What the prompts call a language, by tag, where not as it calls itself; needed for
            languages outside CLDR (--names.tlh "tlhIngan Hol").
        seed: Of sampling, demonstrations, shuffling, the twin and intervals.
    """

    COMMAND: ClassVar[str] = "lens"
    SIDE_BY_SIDE: ClassVar[bool] = True

    source: Annotated[str | None, Parameter(name=["--from", "--source"])] = None
    target: Annotated[str | None, Parameter(name=["--to", "--target"])] = None
    pairs: tuple[str, ...] = ()
    words: Path | None = None
    columns: tuple[str, ...] = ()
    repeats: Literal["error", "first"] = "error"
    missing: Literal["error", "drop", "keep"] = "error"
    kinds: tuple[str, ...] = ()
    pivot: str = "en"
    task: Task = "translation"
    match: Match = "prefixes"
    n_items: int = 100
    n_controls: int = 40
    controls: tuple[str, ...] = CONTROLS
    shots: int | None = None
    top_k: int = 10
    causal: Annotated[bool, Switch] = False
    others: tuple[str, ...] = ()
    n_causal: int = 32
    donors: int = 2
    layers: tuple[int, ...] = ()
    collisions: Collisions = "drop"
    names: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pivot", standardize(self.pivot))
        object.__setattr__(self, "names", by_tag(self.names, "names"))
        self._settle_pairs()
        if unknown := sorted(set(self.controls) - set(CONTROLS)):
            raise InputError(f"Unknown controls {unknown}; accepted are {list(CONTROLS)}.")
        if min(self.n_items, self.n_controls) < 2:
            raise InputError(
                f"n_items is {self.n_items} and n_controls {self.n_controls}; an interval over "
                "prompts needs at least 2 of each."
            )
        if self.top_k < 1 or (self.shots is not None and self.shots < 0):
            raise InputError(
                f"top_k is {self.top_k} and shots {self.shots}; accepted are 1 or more tokens and "
                "0 or more demonstrations."
            )
        self._settle_causal()
        if self.words is None and self.columns:
            raise InputError(
                f"--columns {' '.join(self.columns)}: of what file? Give --words as well."
            )

    def _settle_causal(self) -> None:
        """The causal test's options, and whether there is anything that they are of."""
        check_least(self, n_causal=8, donors=1)
        object.__setattr__(self, "others", tuple(map(standardize, self.others)))
        if not self.causal:
            return unasked(self, "the causal test", "--causal", _OF_CAUSAL)
        if self.task != "translation" or self.match == "whole":
            raise InputError(
                "The causal test exchanges words of a translation, by their first tokens: it takes "
                f"task translation and match prefixes or first; got {self.task} and "
                f"{self.match}."
            )

    def _settle_pairs(self) -> None:
        """However pairs were given, `pairs` holds them afterwards."""
        given = {"--from": self.source, "--to": self.target, "--pairs": self.pairs}
        if (self.source is None) != (self.target is None) or (self.pairs and self.source):
            shown = " and ".join(name for name, value in given.items() if value)
            raise InputError(
                f"Give either --from and --to, or --pairs SOURCE:TARGET …; got {shown}."
            )
        pairs = (f"{self.source}:{self.target}",) if self.source else self.pairs
        tagged = dict.fromkeys(":".join(_pair(text)) for text in pairs)
        for name, value in (("source", None), ("target", None), ("pairs", tuple(tagged))):
            object.__setattr__(self, name, value)

    @property
    def each_pair(self) -> tuple[tuple[str, str], ...]:
        """Source and target of every pair.

        Raises:
            ValueError: no pair.
        """
        if not self.pairs:
            raise InputError("Give either --from and --to, or --pairs SOURCE:TARGET …; got none.")
        return tuple(_pair(text) for text in self.pairs)

    @property
    def pair_languages(self) -> tuple[str, ...]:
        """The pivot, and those of the pairs."""
        return tuple(dict.fromkeys([self.pivot, *(t for pair in self.each_pair for t in pair)]))

    def others_of(
        self, source: str, target: str, there: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Further languages of a pair's causal test: those asked for, or some that are there."""
        pair = (source, target, self.pivot)
        if self.others:
            return tuple(tag for tag in self.others if tag not in pair)
        known = _OTHERS if there is None else [*(t for t in _OTHERS if t in there), *there]
        return tuple(dict.fromkeys(tag for tag in known if tag not in pair))[:_N_OTHERS]

    def title(self, models: Sequence[str]) -> str:
        """As `Study.title`: after models and pairs."""
        called = [Path(model).name for model in models]
        return "-".join([self.COMMAND, *called, *(pair.replace(":", "_") for pair in self.pairs)])

    def read(self) -> "WordList":
        """Words of a file, or CLDR's."""
        from xlens.tasks.words import KINDS, cldr_words, read_words

        pairs = self.each_pair
        languages = dict.fromkeys(self.pair_languages)
        if self.causal:
            further = (tag for pair in pairs for tag in self.others_of(*pair))
            languages |= dict.fromkeys(self.others if self.words else further)
        if self.words is None:
            return cldr_words(list(languages), self.kinds or KINDS)
        found = read_words(
            self.words,
            languages=columns_of(self.columns),
            repeats=self.repeats,
            missing=self.missing,
        )
        found.require(languages)
        return found.select(kinds=self.kinds) if self.kinds else found

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: it may know fewer tokens (all know every byte), or lack layers."""
        return self.top_k > 256 or bool(self.layers)

    def check(self, data: "WordList", model: Any = None) -> None:
        """As `Study.check`; a pair without enough words is left out where others have some."""
        from xlens.prompts import TooFewItems
        from xlens.studies.steps.latent_language import check_pair

        self.check_lenses()
        if model is not None and self.top_k > (n := model.size.d_vocab):
            raise InputError(f"top_k is {self.top_k}; accepted are 1 to {n:,}, all that it knows.")
        self._check_layers(model)
        self._check_others(data)
        asked = self.each_pair
        lacking: list[TooFewItems] = []
        for source, target in asked:
            try:
                check_pair(data, source, target, study=self)
            except TooFewItems as error:
                lacking.append(error)
        if len(lacking) == len(asked):
            raise lacking[-1]

    def _check_others(self, data: "WordList") -> None:
        """Refuse a causal test of words in too few languages."""
        for pair in self.each_pair if self.causal else ():
            if len(found := self.others_of(*pair, data.languages)) < _FEWEST_OTHERS:
                raise InputError(
                    "The causal test tells a word's concept from its language by words in "
                    f"{_FEWEST_OTHERS} languages or more besides "
                    f"{', '.join(dict.fromkeys((*pair, self.pivot)))}; there are "
                    f"{len(found)}{': ' * bool(found)}{', '.join(found)}. "
                    "Give words in more (--others names them)."
                )

    def _check_layers(self, model: Any) -> None:
        """Refuse layers of the causal test that there are none of."""
        if not self.layers:
            return
        from xlens.lens.places import lens_layers

        for lens in self.lens:
            there = lens_layers(lens)
            if there and (lacking := sorted({*self.layers} - {*there})):
                raise InputError(
                    f"layers is {list(self.layers)}; {lens!r} has none of {lacking}, only "
                    f"{', '.join(map(str, there))}. Ask at these, or fit a lens that has them."
                )
        least, last = min(self.layers), model.size.n_layers if model is not None else None
        if least < 0 or (last is not None and max(self.layers) >= last):
            end = "the model's last but one" if last is None else last - 1
            raise InputError(
                f"layers is {list(self.layers)}; accepted are 0 to {end}: at the "
                "last nothing comes after what is exchanged."
            )

    def parts(self, data: "WordList") -> tuple[str, ...]:
        """As `Study.parts`: the conditions of each pair, what was left out, and the summaries."""
        names: list[str] = []
        for pair in self.each_pair:
            for n, lens in enumerate(self.lens):
                asked = self.conditions_of(lens)
                kinds = [*asked, *([SURVIVAL] if n == 0 else []), *(SUMMARY + c for c in asked)]
                names += [f"{group_name(*pair, lens)}/{kind}" for kind in kinds]
                if self.causal:
                    group = group_name(*pair, lens) + CAUSAL
                    names += [f"{group}/{EFFECTS}", f"{group}/{CAUSAL_SUMMARY}"]
        return (*names, *([VERDICTS] if self.causal else []))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The task's own, and the controls that go with it."""
        return (self.task, *(c for c in CONTROLS if c in self.controls and c != self.task))

    def conditions_of(self, lens: str) -> tuple[str, ...]:
        """Through a lens: one that was fitted on these weights reads no others."""
        if lens == LOGIT:
            return self.conditions
        return tuple(name for name in self.conditions if name != "random-init")

    def digest(self, data: "WordList") -> dict[str, Any]:
        """As `Study.digest`: every word, and every lens but the usual."""
        return {"words": data.digest(), **self.lens_digests()}

    def described(self, data: "WordList") -> dict[str, Any]:
        """As `Study.described`."""
        dropped = {
            reason: n
            for reason in ("repeated", "missing")
            if (n := data.dropped.loc[data.dropped["reason"] == reason, "id"].nunique(dropna=False))
        }
        return {"words": data.source, "n_words": len(data), "dropped": dropped}

    def work(self, data: "WordList", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.latent_language import pair_work
        from xlens.studies.steps.lens_causal import causal_work

        found: dict[str, Work] = {}
        for pair in self.each_pair:
            mine = pair_work(data, *pair, self, model)
            for lens in self.lens:
                asked = self.conditions_of(lens)
                name = group_name(*pair, lens)
                found |= {f"{name}/{k}": work for k, work in mine.items() if k in asked}
                if self.causal and mine:
                    found[f"{name}{CAUSAL}/{EFFECTS}"] = causal_work(mine[self.task], self, model)
        return found

    def prompts(self, data: "WordList", model: "Outline | HookedModel") -> "Sequence[Prompt]":
        """As `Study.prompts`: a loaded model's vocabulary tells which words can be used."""
        from xlens.studies.steps.latent_language import pair_prompts

        return pair_prompts(data, self, model) or super().prompts(data, model)

    def steps(self, data: "WordList", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.latent_language import pair_steps

        return pair_steps(model, data, self, kept)

    def across(
        self,
        models: "Mapping[str, Parts]",
        folders: Mapping[str, str],
        series: "Mapping[str, Checkpoint]",
    ) -> Iterable[Step]:
        """As `Study.across`: shares of languages by relative depth, model beside model or alone."""
        from xlens.lens import LanguageShares, LensResult, language_shares

        found = {
            f"{folder} {name.rpartition('/')[0]}": part
            for folder, parts in models.items()
            for name, part in parts.items()
            if isinstance(part, LensResult) and name.rpartition("/")[2] == self.task
        }
        if found:
            how = self.resampling
            yield Step.one(SHARES, LanguageShares, lambda _: language_shares(found, resampling=how))

    def taken(self, data: Any) -> "WordList":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.tasks.words import WordList

        if not isinstance(data, WordList):
            raise wrong_type("data of a LensStudy", data, "a WordList")
        data.require([*self.pair_languages, *self.others])
        return data


def columns_of(given: Iterable[str]) -> "Mapping[str, str] | list[str] | None":
    """Columns by name, or in order; None: the first row names them."""
    given = list(given)
    named = [text.rpartition(":") for text in given]
    if all(name and tag for name, _, tag in named):
        return {name: tag for name, _, tag in named} or None
    if any(colon for _, colon, _ in named):
        raise InputError(
            f"--columns {' '.join(given)}: write NAME:TAG for every column that is to be read, or "
            "only tags, in order, for a file without a row of names."
        )
    return given


def pair_name(source: str, target: str) -> str:
    """Name of the group of a language pair's parts: `fr_zh-Hans`."""
    return f"{source}_{target}"


def group_name(source: str, target: str, lens: str) -> str:
    """Name of the parts of a pair under a lens: `fr_zh-Hans`, `fr_zh-Hans.jacobian`."""
    kind = lens.partition("=")[0]
    return pair_name(source, target) + ("" if kind == LOGIT else f".{kind}")


def _pair(text: str) -> tuple[str, str]:
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{text!r} is no language pair; write SOURCE:TARGET, such as fr:zh-Hans.")
    return standardize(parts[0]), standardize(parts[1])
