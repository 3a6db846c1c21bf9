"""The page of a run of `xlens neurons`: which units belong to a language, and what do they do?"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.figures import Figure, neuron_losses, neuron_places
from xlens.languages import english_names
from xlens.neurons import LanguageNeurons, NeuronEffects, NeuronOverlap
from xlens.neurons.effects import BEYOND
from xlens.neurons.effects import NEURONS as OWN
from xlens.report.blocks import Block, Findings, Folded, Paragraph, Section, Table
from xlens.report.by_model import ModelPage, write_by_model
from xlens.report.cells import interval, number, rounded
from xlens.report.minute import Minute, prompt_of
from xlens.results import Result
from xlens.runs import RunDirectory
from xlens.studies.neurons import EFFECTS, NEURONS, OVERLAP, SCRIPTS
from xlens.subspace import RelatedPairs
from xlens.subspace.relations import RELATIONS
from xlens.wording import number_of, percent

_DONE = {"off": "switched off", "mean": "at their mean in it", "boost": "boosted"}
_CAPTIONS = {
    NEURONS: "How many units belong to each language in each block; several may share one.",
    EFFECTS: "What text of every language loses with the units of each changed: first beyond as "
    "many random units in the same blocks, then with these alone. A language's own text is the "
    "diagonal.",
}


def write_neurons_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens neurons` and write `report.html`.

    Args:
        run: With the parts of a `NeuronsStudy`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    return write_by_model(run, static, PAGE)


def offered(known: Mapping[str, Any]) -> list[str]:
    """How much text there is."""
    texts: Mapping[str, int] = known.get("texts", {})
    if not texts:
        return []
    names = english_names(texts)  # by tag: a run's file and the run itself order them differently
    return [f"Texts: {', '.join(f'{names[tag]} {texts[tag]}' for tag in sorted(texts))}."]


def told(model: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    found = parts[NEURONS]
    assert isinstance(found, LanguageNeurons)
    said = [*_kept(found), *_related(parts.get(SCRIPTS)), *_effects(parts.get(EFFECTS))]
    return [Section(model, str(found.provenance.get("model", model)), (Findings.of(said),))]


def _kept(found: LanguageNeurons) -> Iterator[str]:
    names = english_names(found.languages)
    sizes = found.sizes()
    each = ", ".join(f"{names[tag]} {sizes[tag]}" for tag in found.languages)
    every = found.width * len(found.layers)
    yield (
        f"{number_of(found.kept, 'unit')} of {every} are kept ({percent(found.kept / every)}); to "
        f"a language belong: {each}."
    )


def _related(related: Result | None) -> Iterator[str]:
    """Are they units of languages, or of scripts?"""
    if not isinstance(related, RelatedPairs):
        return
    cells = [
        f"{RELATIONS[str(row['relation'])]} {number(row['mean'])} ({number_of(row['n'], 'pair')})"
        for row in related.table.to_dict("records")
    ]
    if cells:
        yield f"Units in common, as a share of either's (Jaccard): {'; '.join(cells)}."
    yield from related.missing()


def _effects(effects: Result | None) -> Iterator[str]:
    """Of how many languages the text is harmed beyond random units, and whether only that."""
    if not isinstance(effects, NeuronEffects) or effects.table.empty:
        return
    own, level = effects.own(BEYOND), 1 - effects.confidence
    names = english_names(effects.languages)
    worse = own[(own["p"] < level) & (own["difference"] > 0)]
    better = own[(own["p"] < level) & (own["difference"] < 0)]
    done = _DONE[effects.how]
    yield (
        f"With its own units {done}, text is predicted worse than with as many random units "
        f"{done} in {len(worse)} of {number_of(len(own), 'language')}"
        f"{_list(names, worse['neurons'])}, and better in {len(better)}"
        f"{_list(names, better['neurons'])} (p < {rounded(level, '.2g')}, adjusted for every cell "
        "below)."
    )
    everywhere = effects.of(BEYOND)
    other = everywhere[everywhere["neurons"] != everywhere["language"]]
    harmed = other[(other["p"] < level) & (other["difference"] > 0)]
    yield (
        f"In text of another language it is predicted worse in {len(harmed)} of "
        f"{number_of(len(other), 'pair')}."
    )


def _list(names: Mapping[str, str], tags: Any) -> str:
    told = ", ".join(names[str(tag)] for tag in tags)
    return f" ({told})" if told else ""


def _figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}
    if isinstance(found := parts.get(NEURONS), LanguageNeurons):
        drawn[NEURONS] = neuron_places(found)
    effects = parts.get(EFFECTS)
    if isinstance(effects, NeuronEffects) and len(effects.table):
        drawn[EFFECTS] = neuron_losses(effects)
    return drawn


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model: by language its units, and what text loses without them."""
    found, effects = parts[NEURONS], parts.get(EFFECTS)
    assert isinstance(found, LanguageNeurons)
    names = english_names(found.languages)
    sizes = found.sizes()
    cells = {tag: [str(found.tokens[tag]), str(sizes[tag])] for tag in found.languages}
    head = ["", "tokens", "units"]
    if isinstance(effects, NeuronEffects) and len(effects.table):
        head += ["own text", "beyond random", "p", "other text", "verdict"]
        own, beyond, others = (
            {str(row["neurons"]): row for row in table.to_dict("records")}
            for table in (effects.own(OWN), effects.own(BEYOND), effects.others(BEYOND))
        )
        for tag, row in cells.items():
            if tag not in own:
                row += ["–"] * 5
                continue
            row += [
                interval(own[tag], "difference"),
                interval(beyond[tag], "difference"),
                number(beyond[tag]["p"]),
                number(others[tag]["difference"]) if tag in others else "–",
                _verdict(beyond[tag], 1 - effects.confidence),
            ]
    table = Table(
        "Loss in nats a token with a language's units changed, less that of the model as it is; "
        "other text: the mean over the other languages, beyond random units. p of own text beyond "
        "random units, adjusted.",
        head,
        [[names[tag], *row] for tag, row in cells.items()],
    )
    said = (Paragraph("No question is asked: the model only reads text, as this."),)
    prompt = prompt_of(effects) or prompt_of(found)
    return Minute(neurons_lead(effects), table, (*said, *prompt) if prompt else (), asked=False)


def neurons_lead(effects: Result | None) -> str:
    """One sentence over all languages; no task is asked, so none can fail."""
    nothing = "Units are found by language, and what they do wasn't asked."
    if not isinstance(effects, NeuronEffects) or effects.table.empty:
        return nothing
    level = 1 - effects.confidence
    own, every = effects.own(BEYOND), effects.of(BEYOND)
    names = english_names(effects.languages)
    harm = own[(own["p"] < level) & (own["difference"] > 0)]["neurons"].tolist()
    other = every[every["neurons"] != every["language"]]
    harmed = other[(other["p"] < level) & (other["difference"] > 0)]
    done = _DONE[effects.how]
    if not harm:
        return (
            f"In none of {number_of(len(own), 'language')} is text shown to be predicted worse "
            f"with its own units {done} than with as many random units {done}."
        )
    return (
        f"Text is predicted worse with its own units {done} than with as many random ones in "
        f"{len(harm)} of {number_of(len(own), 'language')}{_list(names, harm)}, and text of "
        f"another language in {len(harmed)} of {number_of(len(other), 'pair')}."
    )


def _verdict(row: Mapping[Any, Any], level: float) -> str:
    if not row["p"] < level:
        return "not told from random units"
    return f"{'worse' if row['difference'] > 0 else 'better'} than random units"


def _tables(parts: Mapping[str, Result]) -> Iterator[Block]:
    """Units that languages share."""
    found, overlap = parts[NEURONS], parts.get(OVERLAP)
    assert isinstance(found, LanguageNeurons)
    names = english_names(found.languages)
    if isinstance(overlap, NeuronOverlap):
        table = overlap.closest()
        pairs = [
            [
                f"{names[str(row['first'])]}, {names[str(row['second'])]}",
                str(row["shared"]),
                rounded(row["by_chance"], ".1f"),
                number(row["jaccard"]),
            ]
            for row in table.to_dict("records")
        ]
        shared = Table(
            "The pairs that share most of their units; by chance: of as many drawn in each block.",
            ["", "shared", "by chance", "Jaccard"],
            pairs,
        )
        yield Folded(f"Units that languages share, most of all {_most(pairs)}", (shared,))
    if isinstance(related := parts.get(SCRIPTS), RelatedPairs):
        yield Table(
            "Units in common (Jaccard) by what two varieties share: mean over pairs, the least and "
            "the most of them.",
            ["", "Mean", "Least", "Most", "Pairs"],
            [
                [
                    RELATIONS[str(row["relation"])],
                    *(number(row[name]) for name in ("mean", "least", "most")),
                    str(row["n"]),
                ]
                for row in related.table.to_dict("records")
            ],
        )


def _most(pairs: Sequence[Sequence[str]]) -> str:
    return f"{pairs[0][0]}: {pairs[0][1]}, by chance {pairs[0][2]}" if pairs else "none"


PAGE = ModelPage(
    needs=NEURONS,
    what="neurons",
    title=lambda _: "Which units belong to a language?",
    template="neurons",
    offered=offered,
    told=told,
    minute=minute,
    figures=_figures,
    captions=_CAPTIONS,
    tables=_tables,
)
