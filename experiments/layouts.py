"""How each table of an experiment's README looks: cells from what `tables.py` kept of a run.

Nothing is worked out but means over pairs of languages, and which layer has the largest effect.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

Cells = list[list[str]]


@dataclass(frozen=True)
class Kept:
    """What is kept of a run: when it was, what was asked, and the frames that tables need."""

    started: str
    asked: dict[str, Any]
    frames: dict[str, pd.DataFrame]


ENDS = ("value", "low", "high")


def number(value: float, places: int = 2, *, signed: bool = False) -> str:
    """As the READMEs write it: .42, −.05, 1.00; a dash where there is none."""
    if value != value:
        return "–"
    text = f"{value:{'+' if signed else ''}.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return re.sub(r"^([+-]?)0\.", r"\1.", text).replace("-", "−")


def chance(p: float) -> str:
    """A p: 1, .24, .060, 3e-6."""
    if p < 0.0005:
        return re.sub(r"e-0?", "e-", f"{p:.0e}")
    return "1" if p > 0.995 else number(p, 2 if p >= 0.0995 else 3)


def within(row: Any, name: str, ends: str = "", places: int = 2, *, signed: bool = False) -> str:
    """A number with its interval, the columns `low` and `high` or those of a prefix."""
    low, high = (row[f"{ends}_{end}" if ends else end] for end in ("low", "high"))
    middle = number(row[name], places, signed=signed)
    return f"{middle} [{number(low, places)}, {number(high, places)}]" if low == low else middle


def layer(row: Any) -> str:
    """A layer, with its interval where that is wider."""
    value, low, high = (f"{row[end]:.0f}" for end in ENDS)
    return value if low == high or row["low"] != row["low"] else f"{value} [{low}, {high}]"


def highest(table: pd.DataFrame, by: str = "mean") -> Any:
    """The row with the largest of a column."""
    return table.loc[table[by].idxmax()]


def lens(run: Kept) -> Cells:
    """A row for each pair: what peaks where, and what comes out."""
    rows = [["pair", "the prompt's own word peaks", "English peaks"]]
    rows[0] += ["overtakes English for good", "at the output"]
    for _, pair in run.frames["landmarks"].groupby("part", sort=False):
        marks, tags = pair.set_index("name"), pair.iloc[0]
        peaks = [
            f"{within(marks.loc[f'{whose}_peak_prob'], 'value')} at "
            + layer(marks.loc[f"{whose}_peak_layer"])
            for whose in ("source", "pivot")
        ]
        over, crossed = marks.loc["crossover_layer"], "not found"
        if over["value"] == over["value"]:
            crossed = f"{tags['target']} from {layer(over)}"
            if over["share_of_draws"] < 0.95:
                crossed += f", in {over['share_of_draws'] * 100:.0f} % of the resamples"
        said = f"{tags['target']} {within(marks.loc['final_target_prob'], 'value')}, "
        said += f"{tags['pivot']} {number(marks.loc['final_pivot_prob', 'value'], 3)}"
        through = "" if tags["lens"] == "logit" else f" ({tags['lens']} lens)"
        rows.append([f"{tags['source']} → {tags['target']}{through}", *peaks, crossed, said])
    return rows


def work(run: Kept) -> Cells:
    """What exchanging a word changes, a row for each pair of one model."""
    rows = [["pair", "what languages share", "English alone", "another language alone"]]
    rows[0] += ["random", "p, shared", "p, English alone"]
    for _, found in run.frames["verdicts"].iterrows():
        moved, alone = (
            table[table["part"].str.endswith(f"/{found['name']}.causal")]
            for table in (run.frames["moved"], run.frames["alone"])
        )
        most = {what: highest(table) for what, table in moved.groupby("what")}
        tests = alone.pivot(index="layer", columns="test", values="p")
        # English alone has to do more than random directions and than another language.
        both = tests[["pivot", "pivot_over_other"]].max(axis=1)
        least = {"concept": tests["concept"].min(), "pivot": both.min()}
        rows.append(
            [f"{found['source']} → {found['target']}"]
            + [within(most[what], "mean", places=1) for what in ("concept", "pivot", "other")]
            + [number(most["random"]["mean"], 1)]
            + [f"{chance(found[f'p_{t}'])} ({chance(least[t])})" for t in ("concept", "pivot")]
        )
    return rows


def twins(run: Kept) -> Cells:
    """The same of several models side by side, a row for each pair and what is exchanged."""
    models = list(dict.fromkeys(run.frames["verdicts"]["part"]))
    rows = [["", *models]]
    found = run.frames["verdicts"]
    found = found[~found["name"].str.contains(".", regex=False)]
    for what, words in (("concept", "what languages share"), ("pivot", "what English alone has")):
        for _, pair in found[found["part"] == models[0]].iterrows():
            row = [f"{pair['source']} → {pair['target']}, {words}"]
            for model in models:
                moved = run.frames["moved"]
                moved = moved[moved["part"] == f"{model}/{pair['name']}.causal"]
                most = within(highest(moved[moved["what"] == what]), "mean")
                own = found[(found["part"] == model) & (found["name"] == pair["name"])]
                row.append(f"{most}, p {chance(own[f'p_{what}'].iloc[0])}")
            rows.append(row)
    for at, shares in run.frames["shares"].groupby(["source", "target"], sort=False):
        own = shares.set_index("model")
        cells = [within(own.loc[model], "share", places=3) for model in models]
        rows.append([f"{' → '.join(map(str, at))}, share of English inside", *cells])
    return rows


def right(run: Kept) -> Cells:
    """Right answers by language."""
    table = run.frames["right"]
    return [
        ["", *table["language"]],
        ["right", *(within(row, "accuracy") for _, row in table.iterrows())],
    ]


AGREED = {
    "spearman": "Spearman's rho of the options' order",
    "rank_c": "RankC",
    "transfer": "right, given right in the other language",
    "lift": "... less accuracy (lift)",
    "same_wrong": "the same wrong option, given wrong in the other language",
}


def agreed(run: Kept) -> Cells:
    """Agreement of answers, means over pairs, beside permuted items."""
    means = run.frames["agreed"].groupby("metric")[["value", "control"]].mean()
    told = [(words, means.loc[metric]) for metric, words in AGREED.items() if metric in means.index]
    return [["", "result", "permuted"]] + [
        [words, number(row["value"]), number(row["control"])] for words, row in told
    ]


def steered(run: Kept) -> Cells:
    """What steering towards English changes in accuracy."""
    words = {"": "", ", random": "random, as long", ", shuffled": "languages shuffled"}
    rows: Cells = []
    for condition, table in run.frames["steered"].groupby("condition", sort=False):
        method, comma, control = str(condition).partition(",")
        rows = rows or [["change in accuracy", *table["language"]]]
        name = words[comma + control] or method.replace("_", " ")
        cells = (within(row, "change", "change", signed=True) for _, row in table.iterrows())
        rows.append([name, *cells])
    return rows


def said(run: Kept) -> Cells:
    """Whether a push brings the language about, means over languages."""
    words = {"mean_difference": "mean difference", "mean_difference, rule": "..., layer by rule"}
    words |= {"mean_difference, random": "random vector, as long"}
    words |= {"mean_difference, shuffled": "vector of shuffled languages"}
    words |= {"neurons": "neurons (LAPE)", "neurons, random": "as many random units"}
    words |= {"none": "not steered"}
    words |= {"asked in it": "asked in the language", "written": "what was written there"}
    found = run.frames["said"].set_index(["condition", "metric"])
    return [
        ["mean over languages", "in the language", "about the prompt", "both (harmonic mean)"]
    ] + [
        [text]
        + [number(found.loc[(name, metric), "value"]) for metric in ("forcing", "relevance")]
        + [within(found.loc[(name, "score")], "value")]
        for name, text in words.items()
        if name in found.index
    ]


def scores(run: Kept) -> Cells:
    """EM and F1 of each combination."""
    rows = [["text", "question", "EM", "F1", "F1 of en-en", "F1, another text"]]
    keys = ["context_language", "question_language"]
    for at, table in run.frames["scores"].groupby(keys, sort=False):
        own = table[table["control"] == ""].set_index("metric")
        other = table[(table["control"] != "") & (table["metric"] == "f1")]["value"]
        cells = [within(own.loc[metric], "value") for metric in ("em", "f1")]
        own_ratio = own.loc["f1"]
        cells.append("1" if own_ratio["ratio"] == 1 else within(own_ratio, "ratio", "ratio"))
        rows.append([*map(str, at), *cells, number(float(other.iloc[0])) if len(other) else "–"])
    return rows


KINDS = {
    "patch_last_question": "last position, from another question (nats)",
    "ablate_question": "question's tokens wiped out (nats)",
    "patch_last_context": "last position, from another context (nats)",
    "ablate_context": "context's tokens wiped out (nats)",
    "readable": "answer readable at the last position (nats)",
    "aligned_last": "last position nearest to its translation's",
    "aligned_question_end": "question's end nearest to its translation's",
}


def evidence(run: Kept) -> Cells:
    """Where each kind of evidence of two phases changes."""
    found = run.frames["edges"].set_index("kind")
    rows = [["kind", "edge", "boundary", "before", "after", "p"]]
    for kind, words in KINDS.items():
        if kind in found.index:
            row = found.loc[kind]
            at = layer(row) + ", gradual" * bool(row["gradual"] > 0.5)
            at = at if row["value"] == row["value"] else "not found"
            sizes = (number(row[name], 1) for name in ("before", "after"))
            rows.append([words, str(row["edge"]), at, *sizes, chance(row["p"])])
    return rows


SEEN = {"unseen": "languages never seen", "seen": "languages in training", "all": "all"}


def change(row: Any) -> str:
    """A difference with its verdict, and its p where interval and verdict say different things."""
    p = f", p {chance(row['p'])}" * bool(row["low"] * row["high"] > 0)
    p = p if row["verdict"] == "undecided" else ""
    return f"{within(row, 'difference', places=3, signed=True)}{p}, {row['verdict']}"


def gains(run: Kept) -> dict[tuple[str, str], Any]:
    """By what is compared with and the languages: a row of the gain."""
    keyed = run.frames["gain"].set_index(["against", "language"])
    return {(str(a), str(b)): row for (a, b), row in keyed.iterrows()}


def means(run: Kept) -> Cells:
    """Means over languages, before and after."""
    found, table = gains(run), run.frames["gain"]
    rows = [["mean over", "before", "aligned", "shuffled"]]
    rows[0] += ["aligned less before", "aligned less shuffled"]
    single = table[(table["against"] == "before") & ~table["language"].isin(list(SEEN))]
    for name, words in SEEN.items():
        tags = list(single.loc[single["seen"] == (name == "seen"), "language"])
        words += f" ({' '.join(tags)})" * (name != "all")
        one, other = found.get(("before", name)), found.get(("shuffled", name))
        if one is not None:
            row = [words, number(one["before"], 3), number(one["after"], 3)]
            row.append("–" if other is None else number(other["before"], 3))
            rows.append([*row, *("–" if part is None else change(part) for part in (one, other))])
    return rows


def doses(*runs: Kept) -> Cells:
    """Means over languages of several runs."""
    rows = [["sources", "pairs in all", "rate", "never seen: less before", "less shuffled"]]
    rows[0] += ["in training: less before", "less shuffled"]
    for run in runs:
        found = gains(run)
        rate = re.sub(r"e-0?", "e-", f"{run.asked['learning_rate']:.0e}")
        asked = [" ".join(run.asked["source"]), str(run.frames["trained"]["n_rows"].iloc[0]), rate]
        kinds = [
            (against, name) for name in ("unseen", "seen") for against in ("before", "shuffled")
        ]
        rows.append(asked + [change(found[kind]) if kind in found else "–" for kind in kinds])
    return rows


MEASURES = {
    "mexa_centred": "MEXA, centred",
    "cka_unbiased": "unbiased CKA",
    "distance": "squared distance of means",
}


def scripts(run: Kept) -> Cells:
    """The middle layer, by what varieties share."""
    shared = {"language": "same language, other script", "script": "other language, same script"}
    shared |= {"neither": "other language, other script", "words": "words shuffled"}
    table = run.frames["scripts"]
    layers = list(dict.fromkeys(table["layer"]))
    middle = layers[len(layers) // 2]
    found = table[table["layer"] == middle].set_index(["measure", "relation"])
    return [[f"layer {middle}", *shared.values()]] + [
        [words, *(within(found.loc[(measure, kind)], "mean") for kind in shared)]
        for measure, words in MEASURES.items()
        if all((measure, kind) in found.index for kind in shared)
    ]


def survives(run: Kept) -> Cells:
    """Which part of what language and script make of two varieties is the language's, by layer."""
    table = run.frames["survives"]
    layers = sorted(set(map(int, table["layer"])))
    kept = table.set_index(["measure", "layer"])
    return [["the language's share", *(f"layer {layer}" for layer in layers)]] + [
        [words, *(within(kept.loc[(measure, layer)], "share") for layer in layers)]
        for measure, words in MEASURES.items()
    ]


def swapped(run: Kept) -> Cells:
    """A probe with the scripts swapped, a row for each two languages, both ways of training."""
    table = run.frames["swapped"]
    languages = table[["first", "second"]].map(lambda tag: str(tag).partition("-")[0])
    pairs = [" and ".join(sorted(pair)) for pair in languages.to_numpy()]
    found = table.assign(pair=pairs).groupby(["pair", "layer"])["mean"].mean().unstack()
    layers = [*found.columns]
    found = found.sort_values(layers[len(layers) // 2], ascending=False, kind="stable")
    return [["right, scripts swapped", *(f"layer {layer}" for layer in layers)]] + [
        [str(pair), *map(number, row)]
        for pair, row in zip(found.index, found.to_numpy(), strict=True)
    ]


def recall(run: Kept) -> Cells:
    """Recall by language at the last model or checkpoint, and of what its text never stated."""
    part = run.frames["recalled"]["part"].iloc[-1]
    recalled, stated, truth = (
        table[table["part"] == part]
        for table in (run.frames[name] for name in ("recalled", "stated", "truth"))
    )
    last = recalled.set_index("language")["accuracy"]
    tags = [str(tag) for tag in last.index if tag != "all"]
    rows = [["", *tags], ["recalled, last checkpoint", *(number(last[tag]) for tag in tags)]]
    for group, words in (("hidden", "hidden from this language"), ("control", "stated nowhere")):
        own = stated[stated["group"] == group]
        shares = dict(zip(own["language"], own["accuracy"], strict=True))
        if shares:
            rows.append([words, *(number(shares.get(tag, float("nan"))) for tag in tags)])
    p = {tag: chance(value) for tag, value in zip(truth["language"], truth["p"], strict=True)}
    if p:
        rows.append(["p (Fisher, one-sided)", *(p.get(tag, "–") for tag in tags)])
    return rows


TABLES: dict[str, tuple[Callable[..., Cells], str, tuple[str, ...]]] = {
    "agreed": (agreed, "process", ("agreed",)),
    "doses": (doses, "align", ("gain", "trained")),
    "evidence": (evidence, "xmrc", ("edges",)),
    "lens": (lens, "lens", ("landmarks",)),
    "means": (means, "align", ("gain",)),
    "recall": (recall, "facts", ("recalled", "stated", "truth")),
    "right": (right, "process", ("right",)),
    "said": (said, "steer", ("said",)),
    "scores": (scores, "xmrc", ("scores",)),
    "scripts": (scripts, "subspace", ("scripts",)),
    "steered": (steered, "process", ("steered",)),
    "survives": (survives, "subspace", ("survives",)),
    "swapped": (swapped, "subspace", ("swapped",)),
    "twins": (twins, "lens", ("verdicts", "moved", "shares")),
    "work": (work, "lens", ("verdicts", "moved", "alone")),
}
"""Every table: of a run of which command, and what of it it needs."""
