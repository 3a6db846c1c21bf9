"""The tables of an experiment's README, printed from the run: `python experiments/tables.py RUN`.

Markdown with the README's heads; what the run lacks is left out. Only results are read, no model.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xlens.results import Result, load

Rows = list[list[str]]
Table = tuple[list[str], Rows]


def number(value: float, places: int = 2) -> str:
    """As the READMEs write it: .42, -.05, 1.00; a dash where there is none."""
    if value != value:
        return "–"
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-") != "1.00" else text


def within(row: Any, name: str, low: str = "low", high: str = "high", places: int = 2) -> str:
    """A number with its interval."""
    if row[low] != row[low]:
        return number(row[name], places)
    ends = f"{number(row[low], places)}, {number(row[high], places)}"
    return f"{number(row[name], places)} [{ends}]"


def lens(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/latent_language: a row for each pair."""
    rows: Rows = []
    for part in (p for name, p in parts.items() if name.endswith("/summary-translation")):
        marks = part.landmarks.set_index("name")

        def peak(whose: str, marks: pd.DataFrame = marks) -> str:
            at = marks.loc[f"{whose}_peak_layer"]
            return f"{within(marks.loc[f'{whose}_peak_prob'], 'value')} at {place(at)}"

        over, end = marks.loc["crossover_layer"], marks.loc["final_target_prob"]
        crossed = "not found"
        if over["value"] == over["value"]:
            share = over["share_of_draws"]
            seldom = f", in {share * 100:.0f} % of the resamples" if share < 0.95 else ""
            crossed = f"{part.target} from {place(over)}{seldom}"
        said = f"{part.target} {within(end, 'value')}, {part.pivot} "
        said += number(marks.loc["final_pivot_prob", "value"], 3)
        pair = f"{part.source} → {part.target}"
        rows.append([pair, peak("source"), peak("pivot"), crossed, said])
    yield LENS, rows


LENS = ["pair", "the prompt's own word peaks", "English peaks", "overtakes English for good"]
LENS += ["at the output"]


def place(row: Any) -> str:
    """A layer, with its interval where that is wider."""
    value, low, high = (f"{row[name]:.0f}" for name in ("value", "low", "high"))
    return value if low == high or row["low"] != row["low"] else f"{value} [{low}, {high}]"


def process(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/latent_process: who is right, how far answers agree, what steering does."""
    for name, part in parts.items():
        if name.endswith("/consistency"):
            table = part.languages
            right = [within(row, "accuracy") for _, row in table.iterrows()]
            yield ["", *table["language"]], [["right", *right]]
            means = part.pairs.groupby("metric")[["value", "control"]].mean()
            told = [
                [words, *(number(means.loc[metric, c]) for c in ("value", "control"))]
                for metric, words in AGREED.items()
                if metric in means.index
            ]
            yield ["", "result", "permuted"], told


AGREED = {
    "spearman": "Spearman's rho of the options' order",
    "rank_c": "RankC",
    "transfer": "right, given right in the other language",
    "lift": "... less accuracy (lift)",
    "same_wrong": "the same wrong option, given wrong in the other language",
}


def xmrc(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/context_retrieval: EM and F1 of each combination; evidence by kind."""
    for name, part in parts.items():
        if name.endswith("/scores"):
            keys = ["context_language", "question_language"]
            found = part.scores.set_index([*keys, "control", "metric"])
            rows: Rows = []
            for at in dict.fromkeys(map(tuple, part.scores[keys].to_numpy())):
                own = {m: found.loc[(*at, "", m)] for m in ("em", "f1")}
                other = found["value"].get((*at, "mismatched", "f1"), float("nan"))
                ratio = within(own["f1"], "ratio", "ratio_low", "ratio_high")
                scores = (within(own["em"], "value"), within(own["f1"], "value"))
                rows.append([*at, *scores, ratio, number(float(other))])
            yield ["text", "question", "EM", "F1", "F1 of en-en", "F1, another text"], rows


def facts(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/fact_tracing: recall by language and group, at the last model or checkpoint."""
    (*_, part) = (p for name, p in parts.items() if name.endswith("/recall"))
    mine = part.accuracy[part.accuracy["rule"] == part.rule].set_index("language")
    tags = [tag for tag in mine.index if tag != "all"]
    rows = [["recalled, last checkpoint", *(number(mine.loc[tag, "accuracy"]) for tag in tags)]]
    groups = {} if part.groups is None else part.groups.set_index(["group", "language"])["accuracy"]
    for group, words in (("hidden", "hidden from this language"), ("control", "stated nowhere")):
        shares = [float(groups.get((group, tag), float("nan"))) for tag in tags]
        if any(share == share for share in shares):
            rows.append([words, *map(number, shares)])
    yield ["", *tags], rows


def align(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/question_alignment: means over languages, before and after."""
    words = {"unseen": "languages never seen", "seen": "languages in training", "all": "all"}
    for part in (p for name, p in parts.items() if name.endswith("/gain")):
        table = part.table.set_index(["condition", "against", "language"])
        rows: Rows = []
        for name, said in words.items():
            if ("aligned", "before", name) not in table.index:
                continue
            first = table.loc["aligned", "before", name]
            row = [said, number(first["before"], 3), number(first["after"], 3)]
            for against in ("before", "shuffled"):
                if ("aligned", against, name) not in table.index:
                    row += ["–"] * (1 + (against == "shuffled"))
                    continue
                one = table.loc["aligned", against, name]
                if against == "shuffled":
                    row.insert(3, number(one["before"], 3))
                row.append(f"{within(one, 'difference', places=3)}, {one['verdict']}")
            rows.append(row)
        head = ["mean over", "before", "aligned", "shuffled"]
        yield [*head, "aligned less before", "aligned less shuffled"], rows


def subspace(parts: dict[str, Any]) -> Iterator[Table]:
    """experiments/language_or_script: the middle layer, by what varieties share."""
    measures = {
        "mexa_centred": "MEXA, centred",
        "cka_unbiased": "unbiased CKA",
        "distance": "squared distance of means",
    }
    shared = {"language": "same language, other script", "script": "other language, same script"}
    shared |= {"neither": "other language, other script", "words": "words shuffled"}
    for part in (p for name, p in parts.items() if name.endswith("/scripts")):
        layer = part.layers[len(part.layers) // 2]
        table = part.table[(part.table["layer"] == layer) & (part.table["kind"] == "value")]
        found = table.set_index(["measure", "relation"])
        rows: Rows = [
            [words, *(within(found.loc[measure, r], "mean") for r in shared)]
            for measure, words in measures.items()
            if all((measure, r) in found.index for r in shared)
        ]
        yield [f"layer {layer}", *shared.values()], rows


TABLES: dict[str, Callable[[dict[str, Any]], Iterator[Table]]] = {
    "align": align,
    "facts": facts,
    "lens": lens,
    "process": process,
    "subspace": subspace,
    "xmrc": xmrc,
}


def results(folder: Path) -> dict[str, Result]:
    """Every result of a run, by its place below `results`, those of earlier checkpoints first."""
    places = [path.parent for path in (folder / "results").rglob("result.json")]
    order = sorted(places, key=lambda place: (place.stat().st_mtime, str(place)))
    return {str(place.relative_to(folder / "results")): load(place) for place in order}


def tables(folder: Path) -> str:
    """All tables of a run, as Markdown."""
    ((command, _),) = yaml.safe_load((folder / "config.yaml").read_text("utf-8")).items()
    if command not in TABLES:
        raise SystemExit(f"{folder} is a run of xlens {command}; there are {', '.join(TABLES)}.")
    return "\n".join(
        "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]) + "\n"
        for head, rows in TABLES[command](results(folder))
        if rows
    )


if __name__ == "__main__":
    print(tables(Path(sys.argv[1])), end="")
