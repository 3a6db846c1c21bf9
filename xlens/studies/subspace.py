"""`xlens subspace`: where varieties lie, how alike they are, and is it language or script?

The first question of a reviewer of any "language direction", asked of real parallel text; it needs
no questions and no answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
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
    from xlens.tasks.sentences import Sentences

SCRIPTS, SIMILARITY, MAP, PROBE = "scripts", "similarity", "map", "script-probe"
DISTANCES = "distances"
"""Of the subspaces of languages that are there in two scripts, by what two varieties share."""
Pooling = Literal["sentence:mean", "last"]


@dataclass(frozen=True, kw_only=True)
class SubspaceStudy(Study):
    """Is it language or is it script? Parallel sentences in any number of varieties.

    ```
    xlens subspace gemma-3-270m --sentences data/sib200 --layout sib200
    xlens subspace gemma-3-270m --sentences data/ntrex --layout ntrex --languages en de zh-Hans ar
    xlens subspace gemma-3-270m --sentences mine.tsv --layout tsv --layers 6 12 18 --twins words
    ```

    A map, a matrix of all pairs, and similarities by shared language, shared script and neither,
    beside twins of the texts: in another script, words shuffled, characters shuffled.

    Attributes:
        sentences: Folder, or a file for the layout tsv.
        layout: sib200, ntrex, pud, udhr (pages of the declaration of human rights), aligned (a text
            file per variety, by line) or tsv.
        languages: Varieties, as tags; default all there are.
        incomplete: Sentences that a variety lacks: an error, or left out.
        n_items: Sentences, drawn with seed; all where there are fewer.
        layers: Residual points; default every second one, from the embedding to the last.
        pooling: How a text becomes one state: sentence:mean (without BOS) or last.
        twins: Made of the texts: script (ICU; extra `sentences`), words, characters.
        n_twins: Varieties of which each kind is made: the first that allow it.
        most_pairs: Of each relation that are compared; more are drawn with seed.
        families: A table `language family` by which the matrix is ordered, before scripts.
    """

    COMMAND: ClassVar[str] = "subspace"
    CLUSTERS: ClassVar[tuple[str, ...]] = ("paragraph", "id")
    FREE: ClassVar[tuple[str, ...]] = ()

    sentences: str | None = None
    layout: SentenceLayout = "aligned"
    languages: tuple[str, ...] = ()
    incomplete: Literal["error", "drop"] = "error"
    n_items: int = 500
    layers: tuple[int, ...] = ()
    pooling: Pooling = "sentence:mean"
    twins: tuple[Twin, ...] = ("words", "characters")
    n_twins: int = 6
    most_pairs: int = 100
    families: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.languages:
            object.__setattr__(self, "languages", standardize_all(self.languages))
        check_least(self, n_items=5, n_twins=1, most_pairs=1)

    def read(self) -> "Sentences":
        """Sentences of the folder."""
        from xlens.tasks.sentences import read_sentences

        if self.sentences is None:
            raise InputError(
                "Name a folder of parallel sentences: --sentences FOLDER --layout sib200."
            )
        wanted = list(self.languages) or None
        return read_sentences(
            self.sentences, layout=self.layout, languages=wanted, incomplete=self.incomplete
        )

    def check(self, data: "Sentences", model: Any = None) -> None:
        """As `Study.check`: too few sentences, no family, layers that the model hasn't."""
        self.families_of(data)
        if len(data) < 5:
            raise InputError(f"{data.source} has {len(data)} sentences; this needs 5 or more.")
        if model is not None and self.layers:
            most = model.size.n_layers
            if odd := [layer for layer in self.layers if not 0 <= layer <= most]:
                raise InputError(f"layers holds {odd}; this model has residual points 0 to {most}.")

    def families_of(self, data: "Sentences") -> dict[str, str] | None:
        """The families of all varieties; None where no table was given.

        Raises:
            ValueError: a table that can't be read, or lacks a variety.
        """
        from xlens.tasks.sentences import read_families

        return None if self.families is None else read_families(self.families, data.languages)

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: which layers there are."""
        return bool(self.layers)

    def asked(self, data: "Sentences") -> "tuple[Sentences, dict[str, str]]":
        """The sentences that are asked about with their twins; why others can't be had."""
        return _with_twins(data, self.n_items, self.twins, self.n_twins, self.seed)

    def documents(self, data: "Sentences") -> int:
        """Of the sentences that are asked about, how many there are: what is drawn whole."""
        asked = _drawn(data, self.n_items, self.seed)
        return len(asked) if self.clusters == "id" else asked.frame["document"].nunique()

    def points(self, n_layers: int) -> tuple[int, ...]:
        """The residual points of a model with so many layers."""
        return self.layers or tuple(sorted({*range(0, n_layers + 1, 2), n_layers}))

    def parts(self, data: "Sentences") -> tuple[str, ...]:
        """As `Study.parts`."""
        from xlens.subspace.relations import in_two_scripts
        from xlens.subspace.script_probe import squares_of

        both = [DISTANCES] if in_two_scripts(data.languages) else []
        probed = squares_of(data.languages) and self.documents(data) > 1
        return (SCRIPTS, SIMILARITY, MAP, *both, *([PROBE] if probed else []))

    def work(self, data: "Sentences", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.work import passes

        share = max(self.points(model.size.n_layers)) / model.size.n_layers
        return {SCRIPTS: passes(model.tokenizer, list(self.asked(data)[0].prompts()), [share])}

    def digest(self, data: "Sentences") -> dict[str, Any]:
        """As `Study.digest`: every text."""
        from xlens.store import digest

        known = self.families_of(data)
        more = {} if known is None else {"families": digest(sorted(known.items()))}
        return {"sentences": data.digest(), **more}

    def described(self, data: "Sentences") -> dict[str, Any]:
        """As `Study.described`: where the sentences are from, and what can't be had of them."""
        from xlens.subspace import missing_relations

        table = data.survival()
        asked, without = self.asked(data)
        return {
            "sentences": data.source,
            "licence": data.licence,
            "survival": {str(k): int(n) for k, n in zip(table["reason"], table["n"], strict=True)},
            "made": asked.made,
            "without": [*missing_relations(data.languages), *without.values()],
        }

    def steps(self, data: "Sentences", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.subspace import subspace_steps

        yield from subspace_steps(self, data, model, kept)

    def taken(self, data: Any) -> "Sentences":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.tasks.sentences import Sentences

        if not isinstance(data, Sentences):
            raise wrong_type("data of a SubspaceStudy", data, "Sentences")
        return data


# A run asks for these four times over: with sixty varieties, many seconds each.
@lru_cache(maxsize=4)
def _drawn(data: "Sentences", n: int, seed: int) -> "Sentences":
    return data.sample(min(n, len(data)), seed=seed)


@lru_cache(maxsize=4)
def _with_twins(
    data: "Sentences", n: int, kinds: tuple[Twin, ...], most: int, seed: int
) -> "tuple[Sentences, dict[str, str]]":
    from xlens.tasks.sentences import with_twins

    return with_twins(_drawn(data, n, seed), kinds, most=most, seed=seed)
