"""The page of a run of `xlens process`: shared space, consistency, steering."""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlens.consistency import ConsistencyResult, Dissociation
from xlens.figures import (
    Figure,
    agreement_matrix,
    dissociation_curves,
    language_colors,
    language_map_animation,
    languages_said,
    latent_share,
    pair_curves,
    probe_curves,
    steering_effects,
    steering_surface,
)
from xlens.languages import english_names
from xlens.report.blocks import Block, Drawing, Findings, Folded, Section, Table, said
from xlens.report.cells import number, rounded
from xlens.report.choices import (
    LEVEL,
    OPTIONS_INSIDE,
    accuracy_table,
    findings,
    listed_models,
    means_table,
)
from xlens.report.grouped import Group, groups, parts_of, require_summaries
from xlens.report.minute import Minute, minutes
from xlens.report.process_inside import inside_sentences
from xlens.report.process_minute import process_minute
from xlens.report.sentences import listed, used
from xlens.report.steered_outputs import CAPTIONS as OUTPUT_CAPTIONS
from xlens.report.steered_outputs import output_figures, output_findings, output_tables
from xlens.report.subspace import CAPTIONS as SCRIPT_CAPTIONS
from xlens.report.subspace import offered as offered_sentences
from xlens.report.subspace import script_figures, script_findings, script_table
from xlens.report.ways import folded_ways
from xlens.report.written import write_page
from xlens.results import Result, by_group
from xlens.runs import RunDirectory
from xlens.steering import EFFECTS, OutputSteering, SteeringResult
from xlens.studies.asking import LATENT, LATENT_SUMMARY
from xlens.studies.process import PARTS
from xlens.studies.steering import OUTPUTS, STEERING
from xlens.studies.subspace import SCRIPTS
from xlens.subspace import LanguageMap, LanguagePairs, LanguageProbe
from xlens.tasks.choices import LatentSummary
from xlens.wording import number_of

PART_WORDS = {"latent": "options inside", "dissociation": "the test whether the two go together"}
_CAPTIONS = {
    "agreement": "Agreement of the answers, and of permuted items.",
    "transfer": "Transfer: right in the column's language, given right in the row's.",
    "lift": "Transfer less the accuracy of the column's language: what is not accuracy alone.",
    "similarity": "Every language against the pivot, layer by layer; grey: mismatched pairs.",
    "probe": "Language identification from the states, before and after the languages' subspace is "
    "taken out, and from random subspaces of the same rank.",
    "map": "Every item of every language on the two main axes of its layer. It opens at the layer "
    "where the map tells languages apart best: the largest share of its variance between them, "
    "beyond what shuffled languages get.",
    LATENT: OPTIONS_INSIDE,
    "dissociation": "Over pairs of languages: does more similarity go with more consistency?",
    "dissociation-accuracy-out": "The same with the languages' accuracy taken out.",
    "steering-surface": "What was tried on the development items.",
    "steering-effects": "What the chosen push does to items that had no part in choosing it.",
    "steering-languages": "In which language the model goes on when it may say what it likes.",
}

_FOLDED = {
    "dissociation-accuracy-out": "Control: similarity and consistency with accuracy taken out",
    "steering-surface": "How layer and strength were chosen, on other items",
}


def write_process_report(run: RunDirectory, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of `xlens process` or `xlens steer` and write `report.html`.

    Args:
        run: With the parts of a `ProcessStudy` or a `SteeringStudy`.
        static: Pictures to draw as well; after the report is written.

    Raises:
        ValueError: no such results.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    by_model = parts_of(run)
    found = groups(run, by_model)
    for group in found.values():
        group.parts.update({n: group.parts.pop(n) for n in PARTS if n in group.parts})
    figures = {
        f"{key}-{name}": fig
        for key, group in found.items()
        for name, fig in _figures(group.parts).items()
    }
    sets = {key: group.parts for key, group in found.items()}
    require_summaries(run, sets, {LATENT: LATENT_SUMMARY})
    names = language_names(sets.values())
    made_by = [next(iter(parts.values())).provenance for parts in sets.values()]
    models = listed_models(made_by)
    does = "Do" if " and " in models else "Does"
    title = f"{does} {models} leave the shared space, and does it matter?"
    steered_only = all({*parts} <= {STEERING, OUTPUTS} for parts in sets.values())
    if steered_only:
        title = f"Does pushing {models} towards another language help?"
    sections = [
        _section(group, figures, _said(run, group.name), len(sets) > 1, names)
        for group in found.values()
    ]
    return write_page(
        run,
        title,
        sections,
        made_by,
        figures,
        static,
        minute=minutes(by_model, minute),
        template="process",
        questions=not all({*parts} & {SCRIPTS, OUTPUTS} for parts in sets.values()),
        sentences=any({*parts} & {SCRIPTS, OUTPUTS} for parts in sets.values()),
        steered_only=steered_only,
        percent=run.resampling.percent,
    )


def offered(known: Mapping[str, Any]) -> list[str]:
    """What of each set of items, and of what could be asked of it, is left out, and why."""
    texts: Mapping[str, Any] = known.get("texts", {})
    return [
        f"{name}: {said}" if len(known["survival"]) > 1 else said
        for name, survival in known["survival"].items()
        for said in (
            offered_sentences(texts[name])
            if name in texts
            else left_out(survival, known.get("without", {}).get(name, {}))
        )
    ]


def told(_: str, parts: Mapping[str, Result]) -> list[Section]:
    """What the page and the terminal say of a model's parts."""
    sets = by_group(parts)
    names = language_names(sets.values())
    several = len(sets) > 1
    return [_found(group, group, own, names, several) for group, own in sets.items()]


def _found(
    key: str, title: str, parts: Mapping[str, Result], names: Mapping[str, str], several: bool
) -> Section:
    head = f"Items: {title}" if several else "What was found"
    return Section(key, head, (Findings.of(process_findings(parts, names=names)),))


def minute(parts: Mapping[str, Result]) -> Minute:
    """What is read first of a model."""
    sets = {name: own for name, own in by_group(parts).items() if name}
    return process_minute(sets, language_names(sets.values()), LEVEL)


def left_out(survival: Mapping[str, int], without: Mapping[str, str]) -> list[str]:
    """What of the items, and of what could be asked of them, is left out, and why."""
    said = [f"Without {PART_WORDS.get(part, part)}: {why}." for part, why in without.items()]
    return [s for s in (used(survival, "items"), *said) if s]


def process_findings(
    parts: Mapping[str, Result], *, names: Mapping[str, str] | None = None
) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say.

    Args:
        parts: Of one set of items.
        names: Of the languages of the whole run; by default those of these parts, told apart.
    """
    names = names or language_names([parts])
    said: list[str] = []
    panel = parts.get("consistency")
    if isinstance(panel, ConsistencyResult):
        said += findings(panel, names=names)
    said += inside_sentences(parts, names)
    found = parts.get("dissociation")
    if isinstance(found, Dissociation):
        said.append(_dissociated(found))
    steered = parts.get("steering")
    if isinstance(steered, SteeringResult):
        said += _steered(steered, names)
    if SCRIPTS in parts:
        said += script_findings(parts)
    if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
        said += output_findings(outputs, names)
    return said


def language_names(sets: Iterable[Mapping[str, Result]]) -> dict[str, str]:
    """English names of the languages of some sets of items, told apart."""
    tags: list[str] = []
    for parts in sets:
        panel, steered = parts.get("consistency"), parts.get("steering")
        if isinstance(panel, ConsistencyResult):
            tags += panel.languages["language"].tolist()
        if isinstance(steered, SteeringResult):
            tags += [steered.target, *steered.test["language"], *steered.test["vector"]]
        if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
            tags += [outputs.source, *outputs.targets]
    return english_names(tags)


def _figures(parts: Mapping[str, Result]) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}
    if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
        drawn |= output_figures(outputs)
    if SCRIPTS in parts:
        drawn = {**script_figures(parts), **drawn}
    for part in () if {*parts} & {SCRIPTS, OUTPUTS} else parts.values():
        if isinstance(part, ConsistencyResult):
            drawn["agreement"] = agreement_matrix(part, "spearman")
            drawn["transfer"] = agreement_matrix(part, "transfer")
            drawn["lift"] = agreement_matrix(part, "lift")
        elif isinstance(part, LanguagePairs):
            colors = language_colors(part.languages)
            chosen = ["cka_unbiased", "cosine", "cosine_centred", "mexa"]
            drawn["similarity"] = pair_curves(part, chosen, colors=colors)
        elif isinstance(part, LanguageProbe):
            drawn["probe"] = probe_curves(part)
        elif isinstance(part, LanguageMap):
            drawn["map"] = language_map_animation(part)
        elif isinstance(part, LatentSummary):
            drawn["latent"] = latent_share(part)
        elif isinstance(part, Dissociation):
            chosen = ["cka_unbiased", "cosine", "cosine_centred", "mexa"]
            drawn["dissociation"] = dissociation_curves(part, chosen)
            drawn["dissociation-accuracy-out"] = dissociation_curves(
                part, chosen, kind="accuracy_out"
            )
        elif isinstance(part, SteeringResult):
            drawn["steering-surface"] = steering_surface(part)
            drawn["steering-effects"] = steering_effects(part)
            if not part.outputs.empty:
                drawn["steering-languages"] = languages_said(part)
    return drawn


def _said(run: RunDirectory, items: str) -> list[str]:
    known = run.provenance
    if texts := known.get("texts", {}).get(items):
        return offered_sentences(texts)
    survival, without = (known.get(name, {}).get(items, {}) for name in ("survival", "without"))
    return left_out(survival, without)


def _section(
    group: Group,
    figures: Mapping[str, Figure],
    without: Sequence[str],
    several: bool,
    names: Mapping[str, str],
) -> Section:
    items, parts = group.key, group.parts
    panel, steered = parts.get("consistency"), parts.get("steering")
    blocks: list[Block] = [block for text in without for block in said(text)]
    if isinstance(panel, ConsistencyResult):
        blocks += [accuracy_table(panel, names), *folded_ways(panel, names), means_table(panel)]
    if SCRIPTS in parts:
        blocks.append(script_table(parts))
    if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
        blocks += output_tables(outputs, names)
    captions = {**_CAPTIONS, **OUTPUT_CAPTIONS, **(SCRIPT_CAPTIONS if SCRIPTS in parts else {})}
    for name, fig in figures.items():
        part = name.removeprefix(f"{items}-")
        if part in captions and name.startswith(f"{items}-"):
            one = Drawing.of(fig, name, captions[part])
            blocks.append(Folded(_FOLDED[part], (one,)) if part in _FOLDED else one)
    if isinstance(steered, SteeringResult):
        blocks.append(_steering_table(steered, names))
    return _found(items, group.title, parts, names, several).more(blocks)


def _dissociated(found: Dissociation) -> str:
    counted = found.counted(LEVEL)
    if counted is None:
        return "Similarity inside and consistency of answers: nothing varies, so no correlation."
    best = counted.strongest.to_dict("records")
    combinations = number_of(counted.n, "combination")
    said = (
        "Similarity inside and consistency of answers, over "
        f"{number_of(int(best[0]['n_pairs']), 'pair')} of languages: of {combinations} of layer "
        f"and measure, {_have(counted.found)} p < 0.05 by permuted languages (by chance "
        f"{rounded(LEVEL * counted.n, '.2g')} would, on "
        f"average){_signs(counted.found, counted.negative)}; the "
        f"strongest {'is' if len(best) == 1 else 'are'} {' and '.join(map(_correlation, best))}."
    )
    if not counted.adjusted:
        return said
    stays = "stays" if counted.stay == 1 else "stay"
    stay = [f"{counted.stay} of the {counted.found} {stays}"] if counted.found else []
    stay += [f"of {counted.untold} nothing can be told then"] if counted.untold else []
    if counted.new and counted.found:
        have = "has" if counted.new == 1 else "have"
        stay.append(f"{number_of(counted.new, 'other')} of {counted.n_adjusted} {have} it")
    elif not counted.found:
        stay.append(f"{_have(counted.new)} it, of {counted.n_adjusted}")
    return f"{said} With accuracy taken out, {'; '.join(stay)}."


def _have(n: int) -> str:
    return f"{n or 'none'} {'have' if n > 1 else 'has'}"


def _correlation(row: Mapping[Any, Any]) -> str:
    """Where, how strong, and how sure: the strongest of many is judged as such."""
    where = f"{row['measure'].replace('_', ' ')} at layer {row['layer']:g}"
    said = f"{where} (rho {number(row['rho'])}, p "
    among = row.get("p_adjusted", math.nan)  # older results have none
    own = rounded(row["p"], ".3f")
    return (
        f"{said}{own})"
        if math.isnan(among)
        else f"{said}{rounded(among, '.3f')} as the strongest of all)"
    )


def _signs(n: int, against: int) -> str:
    """Which way correlations go, as more of the one need not go with more of the other."""
    if not against:
        return ""
    if n == 1:
        return ", a negative one"
    return f", {'all' if against == n else against} of them negative"


def _steered(result: SteeringResult, names: Mapping[str, str]) -> list[str]:
    said: list[str] = []
    target = names[result.target]
    effects = result.effects(LEVEL).to_dict("records")
    for row in effects:
        looked_at = f"the {number_of(row['n'], 'language')} looked at"
        if len(effects) > 1:
            looked_at += f" and the {number_of(len(effects), 'method')}"
        sure = {name: row[name].split() for name in ("rises", "falls")}
        alike = [
            f"; with random directions it {word} in {listed(names, both)} as well"
            for word, tags in sure.items()
            if (both := [tag for tag in tags if tag in row[f"{word}_random"].split()])
        ]
        said.append(
            f"Steering towards {target} by {row['method'].replace('_', ' ')} (layer {row['band']}, "
            f"strength {row['strength']:g}, chosen on other items): accuracy changes by "
            f"{rounded(row['change'], '+.3f')} on average, with random directions by "
            f"{rounded(row['change_random'], '+.3f')}; adjusted for {looked_at}, it rises in "
            f"{listed(names, sure['rises'])} and falls in {listed(names, sure['falls'])}"
            f"{''.join(alike)}."
        )
    return said + _steered_guesses(result, names)


def _steered_guesses(result: SteeringResult, names: Mapping[str, str]) -> list[str]:
    """Where answers without steering are no better than guesses, whatever a push does to them."""
    tags, chance = result.guessed(), result.chance
    if not tags or chance is None:
        return []
    return [
        f"Without steering, answers aren't told apart from guessing ({rounded(chance, '.2f')}) in "
        f"{listed(names, tags)}: what becomes of them says little."
    ]


def _steering_table(result: SteeringResult, names: Mapping[str, str]) -> Table:
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in result.test.to_dict("records"):
        key = (str(row["language"]), str(row["vector"]), str(row["condition"]))
        cells.setdefault(key, {})[str(row["metric"])] = _change(row)
    rows: list[list[str]] = []
    for (language, vector, condition), by in cells.items():
        who = names[language]
        if language == result.target:
            who += f" (vector of {names[vector]})"
        rows.append([who, condition, *(by[m] for m in EFFECTS)])
    head = ["", "condition", *(m.replace("_", " ") for m in EFFECTS)]
    caption = "Test items: value, and in brackets the interval of the change against no steering."
    if result.chance is not None:
        caption += f" Guessing is right in {rounded(result.chance, '.2f')}."
    return Table(caption, head, rows)


def _change(row: Mapping[Hashable, Any]) -> str:
    value = number(row["value"])
    if row["condition"] == "none" or math.isnan(row["change_low"]):
        return value
    return f"{value} [{rounded(row['change_low'], '+.2f')}, {rounded(row['change_high'], '+.2f')}]"
