"""The page of a run of `xlens choices`: do the answers agree across languages?"""

from collections.abc import Callable, Collection, Iterable, Mapping
from html import escape
from pathlib import Path

import pandas as pd

from xlens import files
from xlens.consistency import METRICS, ConsistencyResult
from xlens.figures import agreement_matrix, figure_block, page, write_figures
from xlens.languages import english_names
from xlens.report.reproduce import reproduce
from xlens.report.sentences import used
from xlens.report.style import STYLE
from xlens.report.tables import figure, paragraph, table
from xlens.report.ways import ways_html, ways_sentences
from xlens.runs import RunDirectory

STUDY = "choices"
PANEL, SCORES = "consistency", "scores"
_PLOTLY = "../plotly.min.js"
LEVEL = 0.05
"""Of the tests that sentences speak of."""
_DRAWN = ("rank_c", "spearman", "lift", "jaccard_lift", "same_wrong")


def write_choices_report(run: RunDirectory, *, static: Collection[str] = ()) -> Path:
    """Draw the figures of a run of multiple-choice questions and write `report.html`.

    Args:
        run: With a saved `ConsistencyResult` under `results/choices/consistency`.
        static: Pictures to draw as well, any of `png`, `svg`, `pdf`; after the report is written.

    Raises:
        ValueError: no such result.
        StaticExportError: the pictures can't be drawn here; the report is written.
    """
    panel = ConsistencyResult.load(run.result_folder(STUDY, PANEL))
    drawn = {name: agreement_matrix(panel, name) for name in _DRAWN}
    figures = {name.replace("_", "-"): fig for name, fig in drawn.items()}
    write_figures(figures, run.figures, plotlyjs=_PLOTLY)
    blocks = [
        figure(
            figure_block(fig, name.replace("_", "-"), label=_label(panel, name)),
            f"{METRICS[name][0].upper()}{METRICS[name][1:]}. On the right the same with the second "
            "language's items permuted: what unrelated answers of the same accuracy give.",
        )
        for name, fig in drawn.items()
    ]
    title = f"Do the answers of {panel.provenance.get('model', 'the model')} agree?"
    body = "\n".join(
        [
            f"<main>\n<header>\n<h1>{escape(title)}</h1>\n</header>",
            "<p>The same multiple-choice questions were asked in several languages; the model's "
            "answer is the option whose text it finds most probable. Intervals are 95 %, by "
            "resampling items.</p>",
            '<h2 id="findings">What was found</h2>',
            f'<ul class="findings">\n{_findings(panel)}</ul>',
            paragraph(used(run.provenance.get("survival", {}), "items")),
            f'<section id="accuracy">\n<h2>Accuracy</h2>\n{accuracy_table(panel)}'
            f"{ways_html(panel)}</section>",
            f'<section id="agreement">\n<h2>Agreement</h2>\n{means_table(panel)}{"".join(blocks)}'
            "</section>",
            reproduce(run, [panel.provenance]),
            "</main>\n",
        ]
    )
    files.write(run.report_file, page(title, body, style=STYLE))
    if static:
        write_figures(figures, run.figures, static=static, plotlyjs=_PLOTLY)
    return run.report_file


def findings(panel: ConsistencyResult) -> list[str]:
    """What the numbers say, in sentences; nothing but what they say."""
    table = panel.languages
    names = english_names(table["language"])
    best, worst = (_extreme(table, pick) for pick in (max, min))
    said = [
        f"Right equally often in all of {_listed(names, table['language'])}: {_share(best.iloc[0])}"
        if len(best) == len(table) > 1
        else f"Right most often in {_listed(names, best['language'])}, {_share(best.iloc[0])}"
        + (
            f", least often in {_listed(names, worst['language'])}, {_share(worst.iloc[0])}"
            if len(table) > 1
            else ""
        )
    ]
    chances = sorted(set(table["chance"]))
    said[0] += f"; chance is {' to '.join(f'{c:.2f}' for c in chances[:: len(chances) - 1 or 1])}."
    guess = table[table["low"] <= table["chance"]]["language"].tolist()
    if guess:
        said.append(
            f"Not told apart from guessing in {_listed(names, guess)}: what follows says little "
            f"about {'it' if len(guess) == 1 else 'them'}."
        )
    pairs = panel.pairs[panel.pairs["metric"] == "lift"]
    tested = panel.dependence
    value, control = _two(pairs["value"].mean()), _two(pairs["control"].mean())
    said.append(
        f"Being right in one language goes with being right in another, beyond accuracy, in "
        f"{(tested['p_adjusted'] < LEVEL).sum()} of {len(tested)} pairs of languages (exact tests, "
        f"adjusted for all of them; mean lift {value}, with permuted items {control})."
    )
    return said + ways_sentences(panel)


def _extreme(table: pd.DataFrame, pick: Callable[[pd.Series], float]) -> pd.DataFrame:
    """All languages that share the highest or the lowest accuracy."""
    return pd.DataFrame(table[table["accuracy"] == pick(table["accuracy"])])


def _listed(names: Mapping[str, str], tags: Iterable[str]) -> str:
    *rest, last = [names[tag] for tag in tags]
    return f"{', '.join(rest)} and {last}" if rest else last


def _findings(panel: ConsistencyResult) -> str:
    return "".join(f"<li>{escape(sentence)}</li>\n" for sentence in findings(panel))


def _share(row: pd.Series) -> str:
    return f"{row['accuracy']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _two(value: float) -> str:
    """Two decimals, and no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def accuracy_table(panel: ConsistencyResult) -> str:
    """Share of right answers by language."""
    names = english_names(panel.languages["language"])
    rows = [
        [
            names[row["language"]],
            _share(row),
            f"{row['chance']:.2f}",
            f"{row['ties']:.0%}",
            str(row["n"]),
        ]
        for _, row in panel.languages.iterrows()
    ]
    head = ["", "accuracy", "chance", "items with ties", "items"]
    return table("Share of right answers by language.", head, rows)


def means_table(panel: ConsistencyResult) -> str:
    """Every measure over all pairs, beside permuted items."""
    rows = [
        [METRICS[row["metric"]], _two(row["value"]), _two(row["control"])]
        for _, row in panel.means().iterrows()
    ]
    return table("Means over all ordered pairs.", ["", "result", "permuted items"], rows)


def _label(panel: ConsistencyResult, metric: str) -> str:
    names = ", ".join(english_names(panel.languages["language"]).values())
    return f"{METRICS[metric]}, for every two of {names}, beside its control."
