"""A run of `xlens process` or `xlens steer` in a minute: is a shared space left, does it matter?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xlens.consistency import ConsistencyResult, Dissociation
from xlens.report.blocks import Block, Paragraph, Table
from xlens.report.cells import interval, number, rounded, signed
from xlens.report.choices_minute import above_guessing, accuracy_rows, done_in
from xlens.report.minute import Minute, of_each, prompt_of
from xlens.report.process_inside import course_of, space
from xlens.report.sentences import listed
from xlens.report.steered_outputs import beyond_random, output_lead
from xlens.report.subspace import script_table, subspace_lead
from xlens.results import Result
from xlens.steering import OutputSteering, SteeringResult
from xlens.studies.steering import OUTPUTS
from xlens.studies.subspace import SCRIPTS
from xlens.subspace import ScriptControl
from xlens.tasks.choices import LatentOptions
from xlens.wording import number_of, percent

Names = Mapping[str, str]


def process_minute(sets: Mapping[str, Mapping[str, Result]], names: Names, level: float) -> Minute:
    """What is read first of a model's answers, states and steering.

    Args:
        sets: Parts by set of items.
        names: English names of languages.
        level: Of the tests.
    """
    said = of_each({key: process_lead(parts, names, level) for key, parts in sets.items()})
    panels = {
        key: panel
        for key, parts in sets.items()
        if isinstance(panel := parts.get("consistency"), ConsistencyResult)
    }
    steered = {
        key: part
        for key, parts in sets.items()
        if isinstance(part := parts.get("steering"), SteeringResult)
    }
    table = accuracy_rows(panels, names) if panels else None
    if not panels and steered:
        table = _steered_rows(steered, names, level)
    for parts in sets.values() if table is None else ():
        if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
            table = beyond_random(outputs, names)
        elif isinstance(parts.get(SCRIPTS), ScriptControl):
            table = script_table(parts)
    example = next(filter(None, map(_example, sets.values())), ())
    return Minute(" ".join(said), table, example)


def process_lead(parts: Mapping[str, Result], names: Names, level: float) -> str:
    """One sentence: is the task done, is there a shared space and is it left, does it matter?"""
    said: list[str] = []
    panel, steered = parts.get("consistency"), parts.get("steering")
    if isinstance(panel, ConsistencyResult):
        said.append(done_in(panel, names))
    elif isinstance(steered, SteeringResult):
        said.append(steered_done(steered, names))
    if course := course_of(parts.get("similarity")):
        said.append(f"inside, {space(course)}")
    if isinstance(found := parts.get("dissociation"), Dissociation):
        said.append(_matters(found, level))
    if isinstance(steered, SteeringResult):
        said += _pushed(steered, names, level)
    if isinstance(control := parts.get(SCRIPTS), ScriptControl):
        said.append(subspace_lead(control).removesuffix("."))
    if isinstance(outputs := parts.get(OUTPUTS), OutputSteering):
        said.append(output_lead(outputs, names))
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def steered_done(result: SteeringResult, names: Names) -> str:
    """In how many languages the task is done without steering."""
    tags = [t for t in dict.fromkeys(result.test["language"]) if t != result.target]
    guessed = result.guessed()
    if result.chance is None:
        return "Whether the task is done without steering isn't known"
    if len(guessed) == len(tags):
        return "The task isn't shown to be done: answers without steering are not above guessing"
    above = [tag for tag in tags if tag not in guessed]
    which = f" ({listed(names, above)})" if guessed else ""
    n = number_of(len(tags), "language")
    return f"Without steering, answers are above guessing in {len(above)} of {n}{which}"


def _matters(found: Dissociation, level: float) -> str:
    counted = found.counted(level)
    if counted is None:
        return "whether similarity goes with consistency can't be told, as nothing varies"
    best = counted.strongest.to_dict("records")[0]
    p = float(best.get("p_adjusted", math.nan))
    sure = p < level
    way = "with less" if best["rho"] < 0 else "with more"
    said = (
        f"more similarity goes {way} consistency of answers"
        if sure
        else "that similarity goes with consistency of answers isn't shown"
    )
    told = (
        "not adjusted"
        if math.isnan(p)
        else f"p {rounded(p, '.3f')} as the strongest of {counted.n}"
    )
    return f"{said} ({told})"


def _pushed(result: SteeringResult, names: Names, level: float) -> list[str]:
    """What steering does to accuracy, beyond what random directions do."""
    said: list[str] = []
    for row in result.effects(level).to_dict("records"):
        sure = {
            name: [t for t in row[name].split() if t not in row[f"{name}_random"].split()]
            for name in ("rises", "falls")
        }
        told = [f"it {word} in {listed(names, tags)}" for word, tags in sure.items() if tags]
        shown = " and ".join(told) if told else "no language's accuracy is shown to change"
        said.append(
            f"steered towards {names[result.target]} ({row['method'].replace('_', ' ')}), {shown} "
            f"beyond random directions, of {number_of(int(row['n']), 'language')}"
        )
    return said


def _steered_rows(found: Mapping[str, SteeringResult], names: Names, level: float) -> Table:
    rows: list[list[str]] = []
    for key, result in found.items():
        effects = {str(row["method"]): row for row in result.effects(level).to_dict("records")}
        cells: dict[tuple[str, str], Mapping[Any, Any]] = {
            (str(row["language"]), str(row["condition"])): row
            for row in result.test.to_dict("records")
            if row["metric"] == "accuracy" and row["language"] != result.target
        }
        chance = math.nan if result.chance is None else result.chance
        for (tag, method), row in cells.items():
            if method not in effects:
                continue
            plain, null = cells[tag, "none"], cells.get((tag, f"{method}, random"))
            own = effects[method]
            done = {**plain, "accuracy": plain["value"], "chance": chance}
            word = (
                "rises"
                if tag in own["rises"].split()
                else "falls"
                if tag in own["falls"].split()
                else "undecided"
            )
            rows.append(
                [
                    f"{names[tag]}{f', {key}' if len(found) > 1 else ''}",
                    method.replace("_", " "),
                    interval(plain),
                    number(chance),
                    signed(row, "change", "change_low", "change_high"),
                    "–" if null is None else signed(null, "change", "change_low", "change_high"),
                    f"{above_guessing(done)}; {word}",
                ]
            )
    caption = (
        "Share of right answers without steering, and its change by the chosen push and by random "
        "directions; the verdict is adjusted for languages and methods."
    )
    head = ("", "method", "accuracy", "chance", "change", "random", "verdict")
    return Table(caption, head, rows)


def _example(parts: Mapping[str, Result]) -> Sequence[Block]:
    """The first prompt: its options at each layer, or what the model said freely."""
    latent, steered = parts.get("latent"), parts.get("steering")
    if isinstance(latent, LatentOptions) and prompt_of(latent):
        read = latent.first_read().to_dict("records")
        rows = [
            [
                str(r["layer"]),
                *(str(r[s]).strip() for s in ("native", "pivot")),
                percent(r["share"]),
            ]
            for r in read
        ]
        table = Table(
            "At each point the most probable of the item's own options and of the pivot's, and the "
            "share of the pivot's options in both.",
            ["point", "own option", "pivot's option", "pivot's share"],
            rows,
        )
        said = Paragraph(f"The model's answer: {rows[-1][1]}.")
        return (*prompt_of(latent), said, table)
    for part in (steered, parts.get("consistency"), parts.get(OUTPUTS), parts.get(SCRIPTS)):
        if isinstance(part, Result) and (prompt := prompt_of(part)):
            return (*prompt, *_freely(part))
    return ()


def _freely(part: Result) -> Sequence[Block]:
    """What was said to the first prompt that went on freely, without and with the push."""
    if not isinstance(part, SteeringResult) or part.outputs.empty:
        return ()
    outputs = part.outputs.to_dict("records")
    first = outputs[0]
    rows = [
        [str(row["condition"]), str(row["text"]).strip(), str(row["identified"])]
        for row in outputs
        if (row["id"], row["language"]) == (first["id"], first["language"])
    ]
    caption = f"What the model said to item {first['id']} in {first['language']}, left free."
    return (Table(caption, ["condition", "said", "language"], rows, numbers=False),)
