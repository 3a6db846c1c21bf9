"""The tables of the experiments' READMEs, written from what was kept of their runs.

    python experiments/tables.py RUN                    print the tables that a run gives
    python experiments/tables.py RUN --keep FILE.json   keep of it what they need (a few kB)
    python experiments/tables.py                        write them into the pages (--check: compare)

On a page `<!-- begin table: means of al-dp -->` is followed by the table `means` of
`results/al-dp.json` beside it, up to `<!-- end table -->`. Kept are rows and columns of xlens's
own results as they are there (`PICKS`), with the run's command and date. `cells of NAME`
is a table as somebody typed it; its file says why. No model is read.
"""

import argparse
import datetime
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import yaml
from layouts import ENDS, TABLES, Cells, Kept

from xlens.results import load

HERE = Path(__file__).parent
MARKED = re.compile(
    r"(<!-- begin table: (\w+) of ([\w. -]+?) -->\n).*?(<!-- end table -->)", re.DOTALL
)
ASKED = ("source", "target", "learning_rate", "epochs", "n_pairs", "n_items", "shots", "dtype")
"""The options of a run that are kept: some tables name them."""


@dataclass(frozen=True)
class Pick:
    """Rows (a query) and columns of a frame of the results named `of`, and their single fields."""

    of: str
    frame: str = ""
    columns: tuple[str, ...] = ()
    rows: str = ""
    fields: tuple[str, ...] = ()


RATIO = ("ratio", "ratio_low", "ratio_high")
CHANGE = ("difference", "low", "high")
PICKS = {
    "scores": Pick(
        "scores",
        "scores",
        ("context_language", "question_language", "control", "metric", *ENDS, *RATIO),
        "metric in ('em', 'f1') and control in ('', 'mismatched')",
    ),
    "edges": Pick(
        "phases",
        "edges",
        ("kind", "edge", *ENDS, "before", "after", "p", "gradual"),
        "language == 'all'",
    ),
    "landmarks": Pick(
        "summary-translation",
        "landmarks",
        ("name", *ENDS, "share_of_draws"),
        fields=("source", "target", "pivot", "lens"),
    ),
    "moved": Pick(
        "causal-summary",
        "curves",
        ("what", "layer", "mean", "low", "high"),
        "way == 'exchange' and where == 'last' and what in ('concept', 'pivot', 'other', 'random')",
    ),
    "alone": Pick(
        "causal-summary",
        "tests",
        ("test", "layer", "p"),
        "way == 'exchange' and where == 'last'",
    ),
    "verdicts": Pick(
        "verdicts",
        "table",
        ("name", "source", "target", "verdict", "p_concept", "p_pivot"),
        "where == 'last'",
    ),
    "shares": Pick(
        "language-shares",
        "table",
        ("model", "source", "target", "share", "low", "high"),
        "language == 'en' and lens == 'logit' and task == 'translation' and depth != depth",
    ),
    "right": Pick("consistency", "languages", ("language", "accuracy", "low", "high")),
    "agreed": Pick(
        "consistency",
        "pairs",
        ("metric", "source", "target", "value", "control"),
        "metric in ('spearman', 'rank_c', 'transfer', 'lift', 'same_wrong')",
    ),
    "steered": Pick(
        "steering",
        "test",
        ("language", "condition", "change", "change_low", "change_high"),
        "metric == 'accuracy' and language == vector and condition != 'none'",
    ),
    "said": Pick(
        "outputs",
        "test",
        ("condition", "metric", *ENDS),
        "target == '*' and metric in ('forcing', 'relevance', 'score')",
    ),
    "gain": Pick(
        "gain",
        "table",
        ("against", "language", "seen", "before", "after", *CHANGE, "p", "verdict"),
        "condition == 'aligned'",
    ),
    "trained": Pick("aligned-1/training", fields=("n_rows", "n_tokens")),
    "recalled": Pick("recall", "accuracy", ("language", "accuracy")),
    "stated": Pick(
        "recall", "groups", ("group", "language", "accuracy"), "group in ('hidden', 'control')"
    ),
    "truth": Pick("transfer", "truth", ("language", "p")),
    "scripts": Pick(
        "scripts",
        "table",
        ("layer", "measure", "relation", "mean", "low", "high"),
        "kind == 'value' and measure in ('mexa_centred', 'cka_unbiased', 'distance') and"
        " relation in ('language', 'script', 'neither', 'words')",
    ),
    "survives": Pick(
        "scripts",
        "share",
        ("layer", "measure", "share", "low", "high"),
        "kind == 'value' and measure in ('mexa_centred', 'cka_unbiased', 'distance') and"
        " layer in (2, 6, 10, 14, 18)",
    ),
    "swapped": Pick(
        "script-probe",
        "squares",
        ("layer", "first", "second", "mean"),
        "kind == 'value' and layer in (0, 2, 6, 10, 14, 18)",
    ),
}


def picked(run: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of CSV of what is kept of a run; results of earlier checkpoints first."""
    places = [path.parent for path in (run / "results").rglob("result.json")]
    places.sort(key=lambda place: (place.stat().st_mtime, str(place)))
    for name, pick in PICKS.items():
        frames: list[pd.DataFrame] = []
        for place in places:
            if not f"/{place.relative_to(run / 'results').as_posix()}".endswith(f"/{pick.of}"):
                continue
            result = load(place)
            table = getattr(result, pick.frame, None) if pick.frame else pd.DataFrame(index=[0])
            if table is None:
                continue
            table = table if len(table) else pd.DataFrame(columns=list(pick.columns))
            table = table.query(pick.rows) if pick.rows and len(table) else table
            table = table[list(pick.columns)]
            part = str(PurePosixPath(place.relative_to(run / "results").as_posix()).parent)
            told = {"part": part} | {field: getattr(result, field) for field in pick.fields}
            frames.append(table.assign(**told))
        if frames:
            text = pd.concat(frames).to_csv(index=False, float_format="%.9g", na_rep="nan")
            yield name, text.splitlines()


def kept(run: Path, only: list[str]) -> dict[str, Any]:
    """What is kept of a run: of all that its tables need, or of some of them."""
    made = json.loads((run / "provenance.json").read_text("utf-8"))
    ((study, asked),) = yaml.safe_load((run / "config.yaml").read_text("utf-8")).items()
    tables = [name for name in only or TABLES if TABLES[name][1] == study]
    wanted = {name for table in tables for name in TABLES[table][2]}
    # Where it lay on somebody's machine says nothing to others.
    command = re.sub(r"(?<=[ =])/\S+", lambda at: Path(at[0]).name, made["command"])
    return {
        "command": command,
        "started": made["started"][:10],
        "versions": made["versions"],
        "asked": {name: asked[name] for name in ASKED if name in asked},
        "frames": {name: lines for name, lines in picked(run) if name in wanted},
    }


def read(held: dict[str, Any]) -> Kept:
    """A kept run, its frames as frames."""
    frames = {
        name: pd.read_csv(io.StringIO("\n".join(lines)), keep_default_na=False, na_values=["nan"])
        for name, lines in held["frames"].items()
    }
    return Kept(held["started"], held["asked"], frames)


def markdown(rows: Cells) -> str:
    """Rows as a Markdown table, the first as its head."""
    return "\n".join(
        f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    )


def block(page: Path, table: str, names: list[str]) -> str:
    """A table of a page, and where it is from."""
    paths = [page.parent / "results" / f"{name}.json" for name in names]
    if lacking := [path.name for path in paths if not path.exists()]:
        raise SystemExit(f"{page}: there is no results/{', '.join(lacking)}; see --keep.")
    held = [json.loads(path.read_text("utf-8")) for path in paths]
    if table == "cells":
        return "\n".join(
            [*held[0]["table"], "", f"*Typed, not written from a run: {held[0]['why']}*"]
        )
    if table not in TABLES:
        raise SystemExit(f"{page}: there is no table {table!r}; there are {', '.join(TABLES)}.")
    show, _, needs = TABLES[table]
    for path, one in zip(paths, held, strict=True):
        if lacking := [name for name in needs if name not in one["frames"]]:
            raise SystemExit(f"{path} lacks {', '.join(lacking)}; the table {table!r} needs it.")
    runs = [read(one) for one in held]
    dates = sorted({datetime.date.fromisoformat(run.started) for run in runs})
    days = " and ".join(f"{date.day} {date:%B %Y}" for date in dates)
    files = ", ".join(f"`results/{path.name}`" for path in paths)
    return f"{markdown(show(*runs))}\n\n*From {files}; run on {days}.*"


def written(page: Path) -> str:
    """A page with its tables as what is kept has them."""

    def anew(found: re.Match[str]) -> str:
        return f"{found[1]}\n{block(page, found[2], found[3].split())}\n\n{found[4]}"

    return MARKED.sub(anew, page.read_text("utf-8"))


def main() -> None:
    """Print, keep, write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run directory; without: the pages")
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="write here what tables need of RUN"
    )
    parser.add_argument("--only", nargs="+", default=[], choices=TABLES, help="only these tables")
    parser.add_argument("--check", action="store_true", help="change no page, say which would be")
    asked = parser.parse_args()
    if asked.run is None:
        pages = {page: written(page) for page in sorted(HERE.glob("*/README.md"))}
        stale = [page for page, text in pages.items() if page.read_text("utf-8") != text]
        if asked.check and stale:
            sys.exit(f"Not as the kept results have it: {', '.join(map(str, stale))}.")
        for page in stale:
            page.write_text(pages[page], encoding="utf-8")
            print(page)
        return
    held = kept(asked.run, asked.only)
    if not held["frames"]:
        sys.exit(f"{asked.run} has no results that a table is made of: {', '.join(TABLES)}.")
    if asked.keep:
        asked.keep.parent.mkdir(exist_ok=True)
        asked.keep.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return
    for show, _, needs in TABLES.values():
        if set(needs) <= set(held["frames"]):
            print(f"{markdown(show(read(held)))}\n")


if __name__ == "__main__":
    main()
