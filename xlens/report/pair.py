"""The part of a report on one language pair: verdict, figures, controls, landmarks."""

import re
from collections.abc import Mapping
from typing import Any

from xlens.figures import (
    Figure,
    composition_bars,
    condition_label,
    controls,
    language_curves,
    state_curves,
)
from xlens.figures.theme import task_words
from xlens.lens.result import LensSummary, lens_title
from xlens.report.blocks import Block, Drawing, Folded, OwnName, Paragraph, Section, Table
from xlens.report.sentences import landmark, pair_sentences, verdict, with_interval
from xlens.wording import percent

_FIRST = ("translation", "cloze", "repetition")
_NEXT = ("shuffled", "random-init", "repetition")


def ordered(conditions: Mapping[str, LensSummary]) -> dict[str, LensSummary]:
    """The result first, then the controls in the usual order, then whatever else there is."""
    first = next((name for name in _FIRST if name in conditions), min(conditions))
    names = dict.fromkeys([first, *(n for n in _NEXT if n in conditions), *sorted(conditions)])
    return {name: conditions[name] for name in names}


def anchor(pair: str) -> str:
    """A pair's name as an id and as the beginning of its figures' file names."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", pair).lstrip("-") or "pair"


def languages_title(summary: LensSummary, names: Mapping[str, str]) -> str:
    """`German → Russian`; for a task in one language its name alone."""
    return " → ".join(dict.fromkeys([names[summary.source], names[summary.target]]))


def pair_title(summary: LensSummary, names: Mapping[str, str]) -> str:
    """The languages, with the lens if it isn't the usual."""
    title = languages_title(summary, names)
    return title if summary.lens == "logit" else f"{title}, {lens_title(summary.lens)}"


def pair_figures(
    pair: str,
    conditions: Mapping[str, LensSummary],
    colors: Mapping[str, str],
    names: Mapping[str, str],
) -> dict[str, Figure]:
    """The figures of a pair by file name; `conditions` with the result first."""
    summary = next(iter(conditions.values()))
    key = anchor(pair)
    run: dict[str, Any] = {"colors": colors, "names": names}
    chance = conditions.get("shuffled")
    figures = {f"{key}-curves": language_curves(summary, chance=chance, **run)}
    if len(conditions) > 1:
        figures[f"{key}-controls"] = controls(conditions, **run)
    figures[f"{key}-composition"] = composition_bars(summary, **run)
    figures[f"{key}-states"] = state_curves(summary, names=names)
    return figures


def pair_section(
    pair: str,
    conditions: Mapping[str, LensSummary],
    figures: Mapping[str, Figure],
    names: Mapping[str, str],
    title: str,
) -> Section:
    """A pair's section; `conditions` with the result first, `figures` as drawn for it."""
    summary = next(iter(conditions.values()))
    key = anchor(pair)
    drawn: list[Block] = []
    for name, fig in figures.items():
        kind = name.removeprefix(f"{key}-")
        caption = _caption(kind, conditions, names)
        one = Drawing.of(fig, name, caption, label=_alt(name, conditions, names))
        folded = _folded(kind, conditions, names)
        drawn.append(Folded(folded, (one,)) if folded else one)
    blocks = (
        Paragraph(verdict(conditions, names=names), "verdict"),
        *drawn,
        landmark_table(conditions, names),
    )
    tags = dict.fromkeys([summary.source, summary.target])
    return Section(key, title, blocks, tuple(map(OwnName.of, tags)))


def _folded(kind: str, conditions: Mapping[str, LensSummary], names: Mapping[str, str]) -> str:
    """The message of a figure that is folded; nothing of one that isn't."""
    if kind == "controls":
        said = pair_sentences(conditions, names=names)
        return next((text for text in said if text.startswith("Controls:")), _FOLDED[kind])
    return _FOLDED.get(kind, "")


def _caption(kind: str, conditions: Mapping[str, LensSummary], names: Mapping[str, str]) -> str:
    """What a figure shows, and what the controls are of those that were run."""
    summary = next(iter(conditions.values()))
    more = [words for name, words in _OF_CONTROLS.get(kind, {}).items() if name in conditions]
    return " ".join([_CAPTIONS[kind], *more]).format(
        pivot=names[summary.pivot], target=names[summary.target]
    )


def landmark_table(conditions: Mapping[str, LensSummary], names: Mapping[str, str]) -> Table:
    """The landmarks with their intervals, a column for each condition."""
    summary = next(iter(conditions.values()))
    pivot, target = names[summary.pivot], names[summary.target]
    labels = {
        "pivot_peak_prob": f"{pivot}: highest mean probability",
        "pivot_peak_layer": f"{pivot}: residual point of that peak",
        "source_peak_prob": f"{names[summary.source]}, as shown: highest mean probability",
        "source_peak_layer": f"{names[summary.source]}: residual point of that peak",
        "source_over_pivot": f"{names[summary.source]} at its peak, more than {pivot} at its own",
        "crossover_layer": f"{target} ahead of {pivot} for good from point",
        "final_target_prob": f"{target}: probability at the output",
        "final_pivot_prob": f"{pivot}: probability at the output",
        "target_over_shuffled": f"{target} at the output, more than with shuffled words",
    }
    rows: list[list[str]] = []
    for name, label in labels.items():
        if landmark(summary, name) is None:
            continue
        cells: list[str] = []
        for one in conditions.values():
            row = landmark(one, name)
            cells.append("–" if row is None else with_interval(row))
        rows.append([label, *cells])
    rows.append(["prompts", *(str(s.n_prompts) for s in conditions.values())])
    head = [condition_label(name, control=i > 0) for i, name in enumerate(conditions)]
    level = percent(summary.confidence, whole=False)
    return Table(
        f"Landmarks with {level} bootstrap intervals over prompts. Points run from 0 (embedding) "
        f"to {summary.n_layers} (after the last block). The top of a curve is too high by chance: "
        "each half of the prompts is read where the other half's mean is highest, which can be "
        "below it.",
        ["", *head],
        rows,
    )


def _alt(name: str, conditions: Mapping[str, LensSummary], names: Mapping[str, str]) -> str:
    """What a figure shows and, where it has one, its message; the tables hold the numbers."""
    summary = next(iter(conditions.values()))
    what = task_words(summary.task, summary.source, summary.target, names)
    kind = name.rpartition("-")[2]
    if kind in ("curves", "controls"):
        said = " ".join(pair_sentences(conditions, names=names))
        return f"{what}: probability of each language's word by layer. {said}"
    return f"{what}: {_CAPTIONS[kind].split('.')[0]}."


_CAPTIONS = {
    "curves": (
        "Mean probability that the model is about to say the word in each language, read from "
        "every layer with the logit lens; above, the entropy of the whole distribution. A dotted "
        "upright line marks where {target} overtakes {pivot} for good, if it does."
    ),
    "controls": "The same reading for the result and its controls, on one scale.",
    "composition": (
        "Languages of the tokens that each layer holds most probable. A guess from single tokens: "
        "short ones often belong to no one language and count as unknown."
    ),
    "states": (
        "Entropy: how many choices are open. KL: how far the layer's distribution is from the "
        "output's. Token energy: how much of the state lies where tokens are written."
    ),
}
_FOLDED = {
    "controls": "Controls: the same reading of each",
    "composition": "Languages of the most probable tokens, by layer",
    "states": "How sure each layer is: entropy, distance from the output, token energy",
}
_OF_CONTROLS = {
    "curves": {
        "shuffled": "Thin dotted lines: the same states read for other prompts' words, what each "
        "language gets by chance."
    },
    "controls": {
        "shuffled": "Shuffled words: the same states, read for other prompts' words.",
        "random-init": "Random weights: the same prompts through an untrained model of the same "
        "shape.",
        "repetition": "Repetition: {target} words only repeated.",
    },
}
