"""Write the tables of `docs/performance.md` anew from `benchmarks/results/*.json`.

`python benchmarks/report.py` rewrites what stands between the two marks and nothing else;
`--check` only says whether it would change anything. The results are kept in the repository, so
that one benchmark can be taken anew without the others; of those before 29 November 2026 only what
the page shows is left, not each round.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN = "<!-- begin figures: written by `python benchmarks/report.py`, not by hand -->"
END = "<!-- end figures -->"
_INSIDE = re.compile(r"(?<=[a-zA-Z])\.(?=[a-z])")
_TOGETHER = "\N{NO-BREAK SPACE}"
# The order of the table; what is not listed comes last.
ORDER = (
    "harvest",
    "small",
    "ragged",
    "prefix",
    "memory",
    "plan",
    "generate",
    "score",
    "lens",
    "relevance",
    "store",
    "load",
    "tokens",
    "count",
    "facts",
    "reading",
    "training",
    "lenses",
    "jobs",
    "gpu",
)


def read_results() -> list[dict[str, Any]]:
    """What the benchmarks wrote, in the order of the page."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(RESULTS.glob("*.json"))]
    return sorted(found, key=lambda r: ORDER.index(r["name"]) if r["name"] in ORDER else 99)


def markdown(results: list[dict[str, Any]]) -> str:
    """The figures, what they were taken on, and the notes."""
    missing = [name for name in ORDER if name not in {r["name"] for r in results}]
    parts = [_table(results), *_notes(results), "### Taken on", _origins(results)]
    if missing:
        parts.append("Not measured yet: " + ", ".join(f"`bench_{name}.py`" for name in missing))
    return "\n\n".join(parts)


def _table(results: list[dict[str, Any]]) -> str:
    lines = [
        ["what", "against", "figure", "median", "min..max (rounds)", "to reach"],
        ["---", "---", "---", "---:", "---", "---"],
    ]
    above = ""
    for result in results:
        for row in result["rows"]:
            what, setting, against, *rest, bar, reached = row["cells"]
            told = {"yes": "reached", "no": "**missed**", "": ""}[reached]
            whole = f"{what}<br>{setting}"
            # Said once for all its peers, long names parted and a bar not: the page is narrow.
            first = whole if whole != above else ""
            parted = _INSIDE.sub("<wbr>.", against)
            lines.append([first, parted, *rest, f"{bar.replace(' ', _TOGETHER)} {told}".rstrip()])
            above = whole
    return _pipes(lines)


def _notes(results: list[dict[str, Any]]) -> list[str]:
    notes = [f"- `{r['name']}`: {note}" for r in results for note in r["notes"]]
    return ["\n".join(notes)] if notes else []


def _origins(results: list[dict[str, Any]]) -> str:
    lines = [["command", "date", "CPU s", "hardware", "load", "versions"], ["---"] * 6]
    for result in results:
        on = result["hardware"]
        threads = f"{on['threads']} thread{'s' * (on['threads'] != 1)}"
        cpu = f"{on['cpu']}, {on['cores']} cores, {on['instructions']}, {threads}"
        hardware = f"{on['gpu']}; {cpu}" if result["name"] == "gpu" else cpu
        versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
        took = f"{result['took']['cpu']:,.0f}" if "took" in result else ""
        told = [f"`{result['command']}`", result["date"][:10], took, hardware]
        lines.append([*told, str(on["load"]), versions])
    return _pipes(lines)


def _pipes(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Rewrite the page, or with `--check` say whether it is as the results have it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    results = read_results()
    if not results:
        sys.exit("No results yet: run `make bench` first.")
    page = PAGE.read_text(encoding="utf-8")
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"{PAGE.name} has lost its marks; put these two lines back:\n{BEGIN}\n{END}")
    new = f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}"
    if args.check:
        sys.exit(0 if new == page else f"{PAGE.name} is not as the results have it.")
    PAGE.write_text(new, encoding="utf-8")
    print(f"{PAGE.name}: {sum(len(r['rows']) for r in results)} figures of {len(results)} scripts.")


if __name__ == "__main__":
    main()
