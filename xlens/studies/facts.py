"""`xlens facts`: which facts does a model recall, in which languages, and the same in all?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from xlens.checks import check_least
from xlens.errors import InputError
from xlens.languages import standardize, standardize_all
from xlens.studies.study import Kept, Parts, Step, Study, Switch
from xlens.studies.work import Work

if TYPE_CHECKING:
    from xlens.models import HookedModel
    from xlens.models.series import Checkpoint
    from xlens.models.sources import Outline
    from xlens.tasks.facts import Facts, Offers

ANSWERS, CANDIDATES, RECALL, PANEL = "answers", "candidates", "recall", "consistency"
CURVES, RESPONSE = "curves", "frequency"
LIKENESS, TRANSFER, GROWN = "likeness", "transfer", "transfer"
CLDR, ATLAS = "cldr", "atlas"
Rule = Literal["exact", "word", "prefix", "first_token", "ranked"]


@dataclass(frozen=True, kw_only=True)
class FactsStudy(Study):
    """Ask for facts in several languages: how many are recalled, and are they the same ones?

    ```
    xlens facts gemma-3-270m --languages en fr de ru --relations capital
    xlens facts atlas --revisions all
    xlens facts gemma-3-270m --facts klar:data/klar --languages en fr es --rule prefix
    ```

    Attributes:
        facts: `cldr`, what CLDR knows about countries; `atlas`, what the testbed's text states; a
            file (JSON Lines, .tsv, .csv), or LAYOUT:PATH with klar, bmlama or mlama. Default: the
            atlas is asked its own, other models CLDR's.
        languages: In which it is asked; default all that there are. CLDR's are to be named.
        relations: What is asked of a subject: capital, currency …; default all.
        incomplete: Facts that a language lacks, or whose template has no place at its end for the
            object: an error, or left out.
        identical: Facts whose object is written alike in the pivot and another language: keep or
            drop.
        pivot: What all are compared with.
        n_items: Most facts asked, drawn with seed; default all.
        shots: Demonstrations before a fact; default 3, and none for the atlas, whose text has none.
        leaks: Demonstrate with facts that hold the answer, too, as arXiv 2505.14824 does.
        n_candidates: Objects of its relation that each fact's own is ranked among; 0: no ranking.
        rule: What counts as right: exact; word (begins with it, and the word ends there); prefix
            (the paper's); first_token; ranked.
        frequencies: Documents that state each fact: the folder `counts` that `xlens count` wrote, a
            table `id language frequency`, or the file that the paper publishes.
        states: Compare the states of each fact with those in the pivot: what may be carried over.
        named: Relations whose objects are named entities; default those of KLAR and CLDR that are.
    """

    COMMAND: ClassVar[str] = "facts"
    CLUSTERS: ClassVar[tuple[str, ...]] = ("id", "subject")
    FREE: ClassVar[tuple[str, ...]] = (*Study.FREE, "rule", "pivot", "named")

    facts: str | None = None
    languages: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    incomplete: Literal["error", "drop"] = "error"
    identical: Literal["keep", "drop"] = "keep"
    pivot: str = "en"
    n_items: int | None = None
    shots: int | None = None
    leaks: Annotated[bool, Switch] = False
    n_candidates: int = 10
    rule: Rule = "word"
    frequencies: Path | None = None
    states: bool = True
    named: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_items=1, shots=0)
        if self.languages:
            object.__setattr__(self, "languages", tuple(standardize_all(self.languages)))
        object.__setattr__(self, "pivot", standardize(self.pivot))
        if self.n_candidates < 0 or self.n_candidates == 1:
            raise InputError(
                f"n_candidates is {self.n_candidates}; to rank takes 2 or more, 0 asks for none."
            )
        if self.rule == "ranked" and not self.n_candidates:
            raise InputError("rule='ranked' without candidates: n_candidates is 0; ask for some.")

    def of_models(self, names: Sequence[str]) -> Self:
        """As `Study.of_models`: the atlas knows nothing but its own facts."""
        if self.facts is not None:
            return self
        own = {name.partition("@")[0] for name in names} <= {"atlas", "atlas-post"}
        return replace(self, facts=ATLAS if own else CLDR)

    @property
    def outlined(self) -> bool:
        """As `Study.outlined`: its context may not hold prompt and answer."""
        return True

    @property
    def how(self) -> dict[str, Any]:
        """How prompts are made, as the task takes it."""
        usual = 0 if self.facts == ATLAS else 3
        shots = usual if self.shots is None else self.shots
        return {"shots": shots, "seed": self.seed, "leaks": self.leaks}

    def read(self) -> "Facts":
        """The facts, with what is known of their frequency.

        Raises:
            ValueError: what the readers refuse.
        """
        from xlens.tasks.facts import read_frequencies

        found = self._facts()
        if self.identical == "drop":
            found = found.without_identical(self.pivot)
        if self.frequencies is not None:
            found = found.with_frequencies(read_frequencies(self.frequencies))
        return found

    def _facts(self) -> "Facts":
        from xlens.tasks.facts import cldr_facts, read_facts
        from xlens.tasks.facts.wordings import RELATIONS

        source, tags = CLDR if self.facts is None else self.facts, list(self.languages)
        if source == CLDR:
            if not tags:
                raise InputError("Name two languages or more: --languages en de ru.")
            return cldr_facts(tags, self.relations or RELATIONS)
        if source == ATLAS:
            from xlens.testbed.atlas.facts import atlas_facts

            return atlas_facts().select(languages=tags or None, relations=self.relations or None)
        layout, colon, place = source.partition(":")
        if not colon or Path(source).exists():
            layout, place = "plain", source
        return read_facts(
            place,
            layout=layout,
            languages=tags or None,
            relations=self.relations or None,
            incomplete=self.incomplete,
        )

    def sampled(self, data: "Facts") -> "Facts":
        """The facts that are asked."""
        return _sampled(data, self.n_items, self.seed)

    def offered(self, data: "Facts") -> "Offers":
        """What each of them is ranked among."""
        return _offered(data, self.n_items, self.n_candidates, self.seed)

    def check(self, data: "Facts", model: "Outline | Any | None" = None) -> None:
        """As `Study.check`."""
        from xlens.studies.steps.facts import check_room
        from xlens.tasks.facts import demonstrations

        asked = self.sampled(data)
        asked.require([self.pivot])
        there = dict.fromkeys(data.relations.values())
        if unknown := [name for name in self.named if name not in there]:
            raise InputError(
                f"named: no relation {', '.join(map(repr, unknown))}; there are {', '.join(there)}."
            )
        if model is not None:
            check_room(asked, data, self, model)
            return
        demonstrations(asked, pool=data, **self.how)
        if self.n_candidates and not self.offered(data).ids:
            raise InputError(
                "No fact can be ranked: each relation has one object only. Ask for no candidates: "
                "--n-candidates 0."
            )

    def parts(self, data: "Facts") -> tuple[str, ...]:
        """As `Study.parts`."""
        ranked, counted = bool(self.n_candidates), bool(data.frequencies)
        named = {CANDIDATES: ranked, PANEL: ranked, RESPONSE: counted}
        named |= dict.fromkeys([LIKENESS, TRANSFER], self.states)
        every = (ANSWERS, CANDIDATES, RECALL, PANEL, RESPONSE, LIKENESS, TRANSFER)
        return tuple(name for name in every if named.get(name, True))

    def work(self, data: "Facts", model: "Outline | HookedModel") -> dict[str, Work]:
        """As `Study.work`."""
        from xlens.studies.steps.facts import facts_work

        return facts_work(data, self, model)

    def digest(self, data: "Facts") -> dict[str, Any]:
        """As `Study.digest`: every fact with its template and frequency."""
        return {"facts": data.digest(), "frequencies": None}

    def described(self, data: "Facts") -> dict[str, Any]:
        """As `Study.described`: where the facts are from, how many can be asked, what is easy."""
        from xlens.tasks.facts import demonstrations, relation_table

        asked, shots = self.sampled(data), self.how["shots"]
        shown = demonstrations(asked, pool=data, **self.how)
        rates = relation_table(asked, shots=shots, shown=shown, pool=data)
        flags = asked.flags(self.pivot).groupby("language", sort=False)
        counts = data.survival()
        return {
            **self._counted(data, asked),
            "demonstrations": {
                "shots": shots,
                **{
                    name: float((rates[name] * rates["n"]).sum() / rates["n"].sum())
                    for name in ("shown", "leakage")
                },
            },
            "flags": {
                name: {str(tag): int(rows[name].sum()) for tag, rows in flags}
                for name in ("identical_object", "subject_is_object")
            },
            "sources": {"facts": data.source},
            "survival": {
                "facts": {
                    str(reason): int(n)
                    for reason, n in zip(counts["reason"], counts["n"], strict=True)
                }
            },
        }

    def _counted(self, data: "Facts", asked: "Facts") -> dict[str, Any]:
        """Of how many facts the frequency is known, and how many others were given."""
        from xlens.tasks.facts import read_frequencies

        if not data.frequencies:
            return {}
        n = len(asked.frame)
        found = {"asked": n, "counted": len(asked.frequencies), "estimates": len(asked.estimates)}
        if self.frequencies is not None:
            given = read_frequencies(self.frequencies)
            known = set(zip(data.frame["id"], data.frame["language"], strict=True))
            found |= {"given": len(given), "unknown": len(given.keys() - known)}
        return {"frequencies": found}

    def taken(self, data: Any) -> "Facts":
        """As `Study.taken`."""
        from xlens.checks import wrong_type
        from xlens.tasks.facts import Facts

        if not isinstance(data, Facts):
            raise wrong_type(f"data of a {type(self).__name__}", data, "Facts")
        chosen = {"languages": self.languages or None, "relations": self.relations or None}
        return data.select(**chosen)

    def steps(self, data: "Facts", model: "HookedModel", kept: Kept) -> Iterable[Step]:
        """As `Study.steps`."""
        from xlens.studies.steps.facts import facts_steps
        from xlens.studies.steps.facts_transfer import transfer_steps

        yield from facts_steps(data, self, model, kept)
        if self.states:
            yield from transfer_steps(data, self, model, kept)

    def across(
        self,
        models: Mapping[str, Parts],
        folders: Mapping[str, str],
        series: "Mapping[str, Checkpoint]",
    ) -> Iterable[Step]:
        """As `Study.across`: recall and consistency over models or checkpoints."""
        from xlens.acquisition import FactCurves, FactRecall, curves

        if len(models) < 2:
            return
        found = {
            folder: part
            for folder in folders.values()
            if isinstance(part := models[folder].get(RECALL), FactRecall)
        }
        yield Step.one(CURVES, FactCurves, lambda _: curves(found, series=series))
        if self.states:
            from xlens.studies.steps.facts_transfer import grown_step

            yield grown_step({folder: models[folder] for folder in found}, self, series)


@lru_cache(maxsize=4)
def _sampled(data: "Facts", n: int | None, seed: int) -> "Facts":
    return data if n is None or n >= len(data) else data.sample(n, seed=seed)


@lru_cache(maxsize=4)
def _offered(data: "Facts", n: int | None, n_candidates: int, seed: int) -> "Offers":
    from xlens.tasks.facts import offers

    return offers(_sampled(data, n, seed), data, n_candidates, seed=seed)
