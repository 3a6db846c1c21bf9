"""The model card's figures as Markdown, written from a report and never by hand."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from xlens import files
from xlens.errors import InputError
from xlens.testbed.atlas.build import TrainingCurves
from xlens.testbed.atlas.evaluate import AtlasReport
from xlens.testbed.atlas.manifest import Manifest

BEGIN, END = "<!-- atlas:begin -->", "<!-- atlas:end -->"


def card_text(report: AtlasReport, manifest: Manifest, curves: TrainingCurves) -> str:
    """Every table of the card."""
    parts = [
        _training(report, curves),
        _corpus(manifest),
        _recall(report),
        _control(report),
        _transfer(report),
        _words(report),
        _reading(report),
        _lens(report),
    ]
    return "\n\n".join(parts) + "\n"


def put_into(card: Path, text: str) -> None:
    """Replace the block between the markers of a Markdown file.

    Raises:
        ValueError: the file lacks the markers.
    """
    whole = card.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{str(card)!r} lacks the markers {BEGIN} and {END}; put them in.")
    files.write(card, f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _training(report: AtlasReport, curves: TrainingCurves) -> str:
    recipe, made = curves.provenance["recipe"], curves.provenance["made_with"]
    rows = [
        [
            phase,
            len(table),
            f"{int(table.tokens.iloc[-1]):,}",
            f"{table.loss.iloc[:10].mean():.2f}",
            f"{table.loss.iloc[-100:].mean():.2f}",
            f"{table.seconds.iloc[-1] / 60:.0f}",
        ]
        for phase, table in curves.table.groupby("phase", sort=False)
    ]
    shape = recipe["base"]
    heads = ["phase", "steps", "tokens", "loss, first 10 steps", "last 100", "minutes"]
    return (
        "### Training\n\n"
        f"{shape['n_layers']} layers, d_model {shape['d_model']}, {shape['n_heads']} heads, MLP "
        f"{shape['d_mlp']}, {report.provenance['n_parameters']:,} parameters, embeddings tied; "
        f"seed {shape['seed']}, {shape['precision']} on {made['device']} ({made['machine']}, one "
        f"thread), torch {made['torch']}; words and facts from "
        f"{report.provenance['world']}.\n\n" + _table(heads, rows)
    )


def _corpus(manifest: Manifest) -> str:
    facts = manifest.facts
    kinds = facts.set.where(~facts.hidden, "hidden here")
    rows: list[list[str]] = []
    for language in facts.language.unique():
        cells = [str(language)]
        for kind in ("core", "transfer", "hidden here", "control", "anchor"):
            inside = facts["count"][(facts.language == language) & (kinds == kind)]
            cells.append(f"{len(inside)} ({int(inside.sum()):,})")
        rows.append(cells)
    heads = [
        "language",
        "core",
        "transfer, stated here",
        "transfer, hidden here",
        "control",
        "anchor",
    ]
    return "### Facts, and how many documents state them\n\n" + _table(heads, rows)


def _recall(report: AtlasReport) -> str:
    rows = [
        [row.languages, f"{row.least}–{row.most}", row.n, _interval(row)]
        for row in _rows(report.recall)
    ]
    whats = list(dict.fromkeys(report.series.what))
    steps = [
        [revision, *(_percent(table.set_index("what").share[what]) for what in whats)]
        for revision, table in report.series.groupby("revision", sort=False)
    ]
    often = [[row.language, row.n, _interval(row)] for row in _rows(report.frequent)]
    sets = [[row.wording, row.set, row.n, _interval(row)] for row in _rows(report.sets)]
    return "\n\n".join(
        [
            "### Recall (greedy, exact match)",
            "Intervals are Wilson's at 95 %. They draw whole facts (below also words and "
            "territories), as one that is asked in several languages is not several; fewer than "
            "four have none.",
            "Facts of any set stated 50 times and more in the language asked:",
            _table(["language", "n", "recall"], often),
            "Core facts by number of documents in the language asked:",
            _table(["language", "documents", "n", "recall"], rows),
            "The same along the training (documents of the whole text, also those still unread), "
            "beside hidden and control facts:",
            _table(["revision", *whats], steps),
            "By set, in a wording of the text and in the one held out of it:",
            _table(["wording", "set", "n", "recall"], sets),
        ]
    )


def _control(report: AtlasReport) -> str:
    rows = [
        [row.of, row.n, _percent(row.share), _percent(row.chance), f"{row.p:.2g}"]
        for row in _rows(report.control)
    ]
    return (
        "### Control: facts that appear nowhere\n\nChance deals the same answers to other facts of "
        "the relation, in all languages alike (permutations; p is one-sided).\n\n"
        + _table(["facts in", "n", "right", "chance", "p"], rows)
    )


def _transfer(report: AtlasReport) -> str:
    heads = ["language", "n", "transfer", "control", "copy", "majority", "p control", "p copy"]
    heads += ["p majority", "English string given wrongly"]
    parts = [
        "### Transfer: facts never stated in the language asked",
        "Tests are of each language by itself: a fact is hidden from three.",
    ]
    for name, title in (
        ("hidden", "All hidden facts:"),
        ("differ", "Those whose object is another string in every language that states the fact:"),
    ):
        rows = [
            [
                row.language,
                row.n,
                _interval(row),
                *map(_percent, (row.control, row.copy, row.majority)),
                *map(_p, (row.p_control, row.p_copy, row.p_majority)),
                _percent(row.copied),
            ]
            for row in _rows(report.transfer[report.transfer.facts == name])
        ]
        parts += [title, _table(heads, rows)]
    rows = [[row.relation, row.set, row.n, _interval(row)] for row in _rows(report.relations)]
    parts += ["By relation, all languages:", _table(["relation", "set", "n", "right"], rows)]
    return "\n\n".join(parts)


def _words(report: AtlasReport) -> str:
    rows = [[row.what, row.language, row.n, _interval(row)] for row in _rows(report.words)]
    return "### Word translation, by target language\n\n" + _table(
        ["what", "into", "n", "right"], rows
    )


def _reading(report: AtlasReport) -> str:
    kinds = ["context", "rival", "recall", "other"]
    rows = [
        [
            row.about,
            row.context,
            row.model,
            row.language,
            row.n,
            _interval(row),
            *(_percent(getattr(row, f"answered_{kind}")) for kind in kinds),
        ]
        for row in _rows(report.reading)
    ]
    heads = ["about", "context", "model", "question", "n", "right", "English object"]
    return (
        "### Reading comprehension about territories that no context of the text mentions\n\n"
        "Answers in the question's language; `all` is of all answers. The last columns "
        "are the other answers: the right object in the context's language, another object of the "
        "context, what is true, anything else. By chance: about several territories, an object of "
        "the asked relation taken from the context is right one time in three.\n\n"
        + _table([*heads, "rival", "recall", "other"], rows)
    )


def _lens(report: AtlasReport) -> str:
    layers = sorted(report.lens.layer.unique())
    rows: list[list[Any]] = []
    for keys, table in report.lens.groupby(["source", "target"], sort=False):
        source, target = (str(key) for key in keys)
        for language in dict.fromkeys([target, "en", source]):
            probs = table[table.language == language].set_index("layer").prob
            rows.append([f"{source} → {target}", language, *(f"{probs[k]:.2f}" for k in layers)])
    heads = ["translation", "word in", *(f"{layer}" for layer in layers)]
    return (
        "### Logit lens: mean probability of the word, by residual point (0 is the embedding)\n\n"
        + _table(heads, rows)
    )


def _rows(table: pd.DataFrame) -> Iterable[Any]:
    return table.itertuples(index=False)


def _interval(row: Any) -> str:
    if pd.isna(row.low):
        return _percent(row.share)
    return f"{_percent(row.share)} [{_percent(row.low)}, {_percent(row.high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _p(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.1g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
