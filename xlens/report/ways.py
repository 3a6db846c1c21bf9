"""Whether the answers hang on how options of unequal length are compared: a sentence, a table."""

import pandas as pd

from xlens.consistency import ConsistencyResult
from xlens.languages import english_names
from xlens.lengths import LM_EVAL, WORDS
from xlens.report.tables import table


def ways_sentences(panel: ConsistencyResult) -> list[str]:
    """In how many answers another way of comparing options chooses another one."""
    if panel.ways.empty:
        return []
    ways = list(dict.fromkeys(panel.ways["by"]))
    used, *others = (WORDS.get(way, way) for way in ways)
    n, changed = int(panel.languages["n"].sum()), int(panel.languages["unsettled"].sum())
    by = panel.ways.groupby("by", sort=False)["changed"].sum()
    each = ", ".join(f"{word} {by[way]}" for way, word in zip(ways[1:], others, strict=True))
    return [
        f"Options of unequal length are compared {used}: compared otherwise, another option is "
        f"chosen in {changed} of {n} answers ({each})."
    ]


def ways_html(panel: ConsistencyResult) -> str:
    """Accuracy by language and way of comparing options; empty where one way only is known."""
    if panel.ways.empty:
        return ""
    ways = list(dict.fromkeys(panel.ways["by"]))
    names = english_names(panel.languages["language"])
    cells = panel.ways.set_index(["language", "by"])
    rows = [
        [
            names[row["language"]],
            *(_cell(cells.loc[(row["language"], way)]) for way in ways),
            f"{row['unsettled']:.0f} of {row['n']}",
        ]
        for _, row in panel.languages.iterrows()
    ]
    return table(
        "Share of right answers by how options of unequal length are compared; the first column is "
        "what everything else here is made of. In brackets the names of lm-evaluation-harness.",
        ["", *map(_named, ways), "another option by some way"],
        rows,
    )


def _cell(row: pd.Series) -> str:
    return f"{row['accuracy']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _named(way: str) -> str:
    word = WORDS.get(way, way)
    return f"{word} ({LM_EVAL[way]})" if way in LM_EVAL else word
