"""The page of a run of `xlens twins`: two models beside each other, outside and inside."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from xlens.errors import InputError
from xlens.figures import Figure, gain_bars
from xlens.gain import ALL, Gain
from xlens.languages import english_names
from xlens.report.alignment import inside_section
from xlens.report.blocks import Drawing, Findings, Section
from xlens.report.cells import rounded
from xlens.report.gain import answered, change, gain_lead, gain_table
from xlens.report.grouped import parts_of
from xlens.report.minute import Minute
from xlens.report.process import offered
from xlens.report.sentences import listed
from xlens.report.written import write_page
from xlens.results import Result
from xlens.runs import ACROSS, RunDirectory
from xlens.studies.twins import ANSWERS
from xlens.subspace import TwinStates

__all__ = ["offered", "told", "write_twins_report"]
_BASE = "before"
_WORDS = {
    "better": "answers more questions right than {first}",
    "worse": "answers fewer questions right than {first}",
    "the same": "answers as many questions right as {first}, within the bound set beforehand",
    "undecided": "can't be told from {first}, nor shown to be the same",
}


def write_twins_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens twins` and write `report.html`.

    Args:
        run: With the parts of a `TwinsStudy`, of two models or more.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no results yet.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    across = run.parts(ACROSS) if ACROSS in run.results() else {}
    models = parts_of(run)
    gains = {name: part for name, part in across.items() if isinstance(part, Gain)}
    if not gains:
        raise InputError(f"{str(run.path)!r} has no comparison yet: the same command goes on.")
    figures: dict[str, Figure] = {}
    sections = told(across, {})
    for name, found in gains.items():
        one = name.rpartition("/")[0]
        figures[f"{one}-gain"] = gain_bars(found)
        drawn = Drawing.of(figures[f"{one}-gain"], f"{one}-gain", "Right answers, by language.")
        sections.append(Section(f"{one}-answers", f"{one}: answers", (drawn,)))
        for other, parts in _pairs(across, one).items():
            states = parts["states"]
            assert isinstance(states, TwinStates)
            start, title = f"{one}-{other}-", f"{one}: {' and '.join(states.names)}: "
            sections.append(inside_section(parts, start, title, figures))
    return write_page(
        run,
        "What did training change?",
        sections,
        [next(iter(parts.values())).provenance for parts in models.values()],
        figures,
        static,
        minute=minutes_of(across, models),
        offered=offered(run.provenance),
        template="twins",
        percent=run.resampling.percent,
    )


def told(across: Mapping[str, Result], models: Mapping[str, Any]) -> list[Section]:
    """What the page and the terminal say of the models together."""
    sections: list[Section] = []
    for name, found in across.items():
        if isinstance(found, Gain):
            one = name.rpartition("/")[0]
            said = [*_sentences(found, _first(across, one)), *_likeness(across, one)]
            sections.append(Section(f"{one}-found", one, (Findings.of(said),)))
    return sections


def minutes_of(
    across: Mapping[str, Result], models: Mapping[str, Mapping[str, Result]]
) -> dict[str, Minute]:
    """What is read first: of each set of questions, each model beside the first."""
    found: dict[str, Minute] = {}
    first = next(iter(models.values()), {})
    for name, part in across.items():
        if isinstance(part, Gain):
            one = name.rpartition("/")[0]
            before, names, called = first.get(f"{one}/{ANSWERS}"), _names(part), _first(across, one)
            for model in dict.fromkeys(part.table["condition"]):
                table = gain_table(part, names, model, _BASE, called=called)
                lead = gain_lead(part, model, before, names, called=called)
                found[f"{one}, {model}"] = Minute(lead, table, answered(before))
    return found


def _first(across: Mapping[str, Result], one: str) -> str:
    """What the model is called that the others are compared with."""
    for parts in _pairs(across, one).values():
        if isinstance(states := parts.get("states"), TwinStates):
            return states.names[0]
    return _BASE


def _names(found: Gain) -> dict[str, str]:
    each = found.table[found.table["n"] > 0]["language"]
    return english_names([tag for tag in dict.fromkeys(each) if tag != ALL])


def _sentences(found: Gain, first: str) -> Iterator[str]:
    """Of each model beside the first: the mean over languages, and single languages."""
    names = _names(found)
    for model in dict.fromkeys(found.table["condition"]):
        rows = {str(row["language"]): row for row in found.of(model).to_dict("records")}
        mean = rows[ALL]
        yield (
            f"{model} {_WORDS[mean['verdict']].format(first=first)}: "
            f"{rounded(100 * mean['after'], '.1f')} % "
            f"right, {first} {rounded(100 * mean['before'], '.1f')} %, {change(mean)}, in the mean "
            "over all "
            "languages."
        )
        single = {
            verdict: [tag for tag in names if rows[tag]["verdict"] == verdict]
            for verdict in ("better", "worse")
        }
        parts = [f"{word} in {listed(names, tags)}" for word, tags in single.items() if tags]
        yield (
            f"Language by language, adjusted for all {len(names)}: {', '.join(parts) or 'nothing'}."
        )


def _pairs(across: Mapping[str, Result], one: str) -> dict[str, dict[str, Result]]:
    """The parts of each comparison of a set of questions, by the other model's folder."""
    found: dict[str, dict[str, Result]] = {}
    for name, part in across.items():
        if name.startswith(f"{one}/") and name.count("/") - one.count("/") == 2:
            other, own = name.removeprefix(f"{one}/").split("/")
            found.setdefault(other, {})[own] = part
    return found


def _likeness(across: Mapping[str, Result], one: str) -> Iterator[str]:
    """Where the two differ most inside."""
    for parts in _pairs(across, one).values():
        states = parts.get("states")
        if not isinstance(states, TwinStates):
            continue
        names = english_names(states.languages)
        low = states.least_alike()
        yield (
            f"{states.names[1]} is least like {states.names[0]} inside at layer {low['layer']} in "
            f"{names[str(low['language'])]}: CKA {rounded(low['cka'], '.2f')} "
            f"[{rounded(low['low'], '.2f')}, "
            f"{rounded(low['high'], '.2f')}], other items {rounded(low['control'], '.2f')}; the "
            "lowest of all layers and "
            "languages, so read lower than it is."
        )
