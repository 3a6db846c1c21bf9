"""Counts into shares with intervals, and the baselines and tests that stand beside them."""

from typing import Any

import numpy as np
import pandas as pd

from xlens.stats import bootstrap, generator
from xlens.testbed.atlas.world import LANGUAGES, PIVOT

DOSES = (1, 2, 4, 8, 16, 32, 50, 100, 200)


def share(cells: pd.DataFrame, clusters: str = "fact") -> dict[str, Any]:
    """`n share low high` of the column `correct`, with the Wilson interval at 95 %.

    Args:
        cells: One row per answer.
        clusters: Column of what is drawn whole: one fact asked in eight languages is not eight.
    """
    n = len(cells)
    if n == 0:
        return {"n": 0, "share": np.nan, "low": np.nan, "high": np.nan}
    right = cells.correct.to_numpy(float)
    found = bootstrap(right[:, None], clusters=cells[clusters].tolist(), bounds=(0, 1))
    (low,), (high,) = found.interval()
    return {"n": n, "share": float(right.mean()), "low": float(low), "high": float(high)}


def by_dose(facts: pd.DataFrame) -> pd.DataFrame:
    """Recall of the core facts by how often the text states them in the language asked.

    Returns:
        One row per bin of occurrences and group of languages (`en`, `others`, `all`): `languages
        least most n share low high`.
    """
    core = facts[facts.set == "core"]
    groups = {
        PIVOT: core.language == PIVOT,
        "others": core.language != PIVOT,
        "all": core.language.notna(),
    }
    tops = [*(low - 1 for low in DOSES[1:]), int(core["count"].max())]
    rows: list[dict[str, Any]] = []
    for name, inside in groups.items():
        for least, most in zip(DOSES, tops, strict=True):
            cells = core[inside & core["count"].between(least, most)]
            if len(cells):
                rows.append({"languages": name, "least": least, "most": most, **share(cells)})
    return pd.DataFrame(rows)


def frequent(facts: pd.DataFrame, *, least: int = 50) -> pd.DataFrame:
    """Recall of facts of any set stated at least so often, per language and for all."""
    often = facts[facts["count"] >= least]
    rows = [
        {"language": language, **share(often[often.language == language])} for language in LANGUAGES
    ]
    return pd.DataFrame([*rows, {"language": "all", **share(often)}])


def majority_answers(facts: pd.DataFrame) -> "pd.Series[Any]":
    """For each row the answer that the text gives most often, for its relation and language."""
    seen = facts[facts["count"] > 0]
    totals = seen.groupby(["language", "relation", "object_text"])["count"].sum().reset_index()
    totals = totals.sort_values(["count", "object_text"], ascending=[False, True])
    best = totals.drop_duplicates(["language", "relation"]).set_index(["language", "relation"])
    keys = pd.MultiIndex.from_frame(facts[["language", "relation"]])
    return pd.Series(best.object_text.reindex(keys).to_numpy(), index=facts.index)


def chance(facts: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How often answers would be right if they were dealt to other facts of their relation.

    A permutation test of "the answers know nothing about which fact was asked": within relation
    facts exchange their golds, in all languages alike, as answers about one fact hang together.

    Args:
        facts: Each asked in every language there is.
        draws: Permutations.
        seed: Of these.

    Returns:
        `share` right as asked, `chance` (mean of the permutations), `p` (one-sided).
    """
    rng = generator(seed)
    hits = np.zeros(draws)
    for _, group in facts.groupby("relation"):
        answers = group.pivot(index="fact", columns="language", values="answer").to_numpy()
        golds = group.pivot(index="fact", columns="language", values="object_text").to_numpy()
        for draw in range(draws):
            # Draw n of every relation adds up to draw n of the whole: relations are independent.
            hits[draw] += (answers == golds[rng.permutation(len(golds))]).sum()
    right = int(facts.correct.sum())
    return {
        "n": len(facts),
        "share": right / len(facts),
        "chance": float(hits.mean() / len(facts)),
        "p": float((1 + (hits >= right).sum()) / (1 + draws)),
    }


def transfer(facts: pd.DataFrame) -> pd.DataFrame:
    """Facts hidden from a language, asked in it, beside the control set and two baselines.

    Baselines on the same facts: `copy` answers with the string that English has, `majority` with
    the object most frequent in the language's own text for the relation. `p_control` is Fisher's
    exact test against the control set in that language, `p_copy` and `p_majority` McNemar's exact
    test on the same facts; all one-sided, and NaN for all languages together: each fact is hidden
    from several, which these tests would take for independent.

    Returns:
        One row per language and facts (`hidden`, or `differ`: those whose object is another string
        in every language in which the fact appears), and for all languages together: `language
        facts n share low high copied control control_n copy majority p_control p_copy p_majority`.
        `copied` is the share of answers that are the English string though that is wrong.
    """
    facts = facts.assign(majority=majority_answers(facts) == facts.object_text)
    hidden, control = facts[facts.hidden], facts[facts.set == "control"]
    rows: list[dict[str, Any]] = []
    for language in [*(x for x in LANGUAGES if x != PIVOT), "all"]:
        everyone = language == "all"
        theirs = hidden if everyone else hidden[hidden.language == language]
        absent = control[control.language != PIVOT]
        absent = absent if everyone else absent[absent.language == language]
        for name, cells in (("hidden", theirs), ("differ", theirs[~theirs.identical])):
            found = _transfer(cells, absent)
            tests = dict.fromkeys((p for p in found if everyone and p.startswith("p_")), np.nan)
            rows.append({"language": language, "facts": name, **found, **tests})
    return pd.DataFrame(rows)


def _transfer(cells: pd.DataFrame, control: pd.DataFrame) -> dict[str, Any]:
    from scipy.stats import fisher_exact

    copy = cells.english_text == cells.object_text
    right, wrong = int(cells.correct.sum()), int((~cells.correct).sum())
    other_right, other_wrong = int(control.correct.sum()), int((~control.correct).sum())
    table = [[right, wrong], [other_right, other_wrong]]
    fisher: Any = fisher_exact(table, alternative="greater")
    return {
        **share(cells),
        "copied": float(((cells.answer == cells.english_text) & ~copy).mean()),
        "control": float(control.correct.mean()),
        "control_n": len(control),
        "copy": float(copy.mean()),
        "majority": float(cells.majority.mean()),
        "p_control": float(fisher[1]),
        "p_copy": _mcnemar(cells.correct, copy),
        "p_majority": _mcnemar(cells.correct, cells.majority),
    }


def _mcnemar(first: "pd.Series[Any]", second: "pd.Series[Any]") -> float:
    """P(as many or more facts that only the first has right), were both as good."""
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, alternative="greater").pvalue)


def per_language(
    answers: pd.DataFrame, clusters: str, by: str = "language", **labels: Any
) -> pd.DataFrame:
    """Shares right per group, and a last row `all` of all answers."""
    groups = [*answers.groupby(by, sort=False), ("all", answers)]
    return pd.DataFrame([{**labels, by: key, **share(group, clusters)} for key, group in groups])
