"""Whether the answers hang on how options of unequal length are compared: a sentence, a table."""

from collections.abc import Mapping

from xlens.consistency import ConsistencyResult
from xlens.languages import english_names
from xlens.lengths import LM_EVAL, WORDS
from xlens.report.blocks import Folded, Table
from xlens.report.cells import interval, number, rounded


def ways_sentences(panel: ConsistencyResult) -> list[str]:
    """In how many answers another way of comparing options chooses another one."""
    if panel.ways.empty:
        return []
    ways = list(dict.fromkeys(panel.ways["by"]))
    used, *others = (WORDS.get(way, way) for way in ways)
    by = panel.changed()
    each = ", ".join(f"{word} {by[way]}" for way, word in zip(ways[1:], others, strict=True))
    return [
        f"Options of unequal length are compared {used}: compared otherwise, another option is "
        f"chosen in {panel.n_unsettled} of {panel.n_answers} answers ({each})."
    ]


def folded_ways(
    panel: ConsistencyResult, names: Mapping[str, str] | None = None
) -> tuple[Folded, ...]:
    """`ways_table`, folded behind the sentence."""
    table, said = ways_table(panel, names), ways_sentences(panel)
    return (Folded(said[0], table),) if table else ()


def ways_table(
    panel: ConsistencyResult, names: Mapping[str, str] | None = None
) -> tuple[Table, ...]:
    """Accuracy by language and way of comparing options; none where one way only is known."""
    if panel.ways.empty:
        return ()
    ways = list(dict.fromkeys(panel.ways["by"]))
    names = names or english_names(panel.languages["language"])
    cells = panel.ways.set_index(["language", "by"])
    rows = [
        [
            names[row["language"]],
            *(interval(dict(cells.loc[(row["language"], way)]), "accuracy") for way in ways),
            number(row["chance"]),
            f"{rounded(row['unsettled'], '.0f')} of {row['n']}",
        ]
        for row in panel.languages.to_dict("records")
    ]
    caption = (
        "Share of right answers by how options of unequal length are compared; the first column is "
        "what everything else here is made of. In brackets the names of lm-evaluation-harness."
    )
    head = ["", *map(_named, ways), "chance", "another option by some way"]
    return (Table(caption, head, rows),)


def _named(way: str) -> str:
    word = WORDS.get(way, way)
    return f"{word} ({LM_EVAL[way]})" if way in LM_EVAL else word
