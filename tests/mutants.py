"""Would the tests notice? Small deliberate breaks, one at a time, in a random sample of the code.

By hand, never in CI. cosmic-ray makes the mutants, coverage says which tests run the mutated line,
and only those are run. In a fresh clone of a clean tree (files are changed in place, and put back):

    pip install cosmic-ray pytest-cov
    python tests/mutants.py cover                              # once: which test runs which line
    python tests/mutants.py run engine models prompts --n 200 --seed 0 --out mutants.jsonl
    python tests/mutants.py report mutants.jsonl

Left out beforehand, since no test could or should notice: type annotations, docstrings, raised
messages and logged texts, and decorators. A survivor is either a missing test or listed with the
reason in tests/mutants.md.
"""

import argparse
import ast
import json
import random
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
COVERED, TIMES = ROOT / ".coverage", ROOT / ".mutants-times.xml"
MOST_SECONDS = 40.0  # of tests per mutant, as they were timed one by one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["cover", "run", "report"])
    parser.add_argument("names", nargs="*", help="rooms below xlens/, or the file to report on")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    if asked.what == "cover":
        cover(asked.workers)
    elif asked.what == "run":
        run(asked.names, asked.n, asked.seed, asked.minutes, asked.out)
    else:
        report(Path(asked.names[0]))


def cover(workers: int) -> None:
    """Run the suite once and remember which test ran which line, and how long each took."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile"]
    command += ["--cov=xlens", "--cov-context=test", "--cov-report=", f"--junitxml={TIMES}"]
    command += ["--timeout=900", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=ROOT, check=False)


def run(rooms: list[str], n: int, seed: int, minutes: float, out: Path) -> None:
    """Try `n` mutants of these rooms, one line of JSON each."""
    from cosmic_ray.mutating import mutate_and_test

    if subprocess.run(["git", "diff", "--quiet"], cwd=ROOT, check=False).returncode:
        sys.exit("The tree has changes; mutants are put into files in place. Commit them first.")
    tests = Tests()
    mutants = sorted(
        (m for room in rooms for m in candidates(room)),
        key=lambda m: (str(m.module_path), m.start_pos, m.operator_name, m.occurrence),
    )
    # One mutant a line at most: otherwise long expressions are drawn again and again.
    draw = random.Random(seed)
    lines = groupby(mutants, key=lambda m: (str(m.module_path), m.start_pos[0]))
    chosen = draw.sample(
        one_each := [draw.choice(list(found)) for _, found in lines], k=min(n, len(one_each))
    )
    print(f"{len(mutants)} mutants on {len(one_each)} lines; {len(chosen)} are tried.")
    done = {(r["file"], r["line"]) for r in read(out)} if out.exists() else set()
    begun = time.monotonic()
    for number, mutant in enumerate(chosen):
        file, line = str(mutant.module_path.relative_to(ROOT)), mutant.start_pos[0]
        if (file, line) in done:
            continue
        if time.monotonic() - begun > 60 * minutes:
            print(f"Out of time after {number} mutants.")
            return
        names = tests.of(mutant.module_path, line)
        arguments = ROOT / ".mutants-args"
        arguments.write_text("\n".join(names), encoding="utf-8")
        command = (
            f"{shlex.quote(sys.executable)} -m pytest -x -q -p no:cacheprovider "
            f"--timeout=120 @{arguments}"
        )
        result = mutate_and_test([mutant], command, 400.0) if names else None
        row = {
            "file": file,
            "line": line,
            "operator": mutant.operator_name,
            "tests": len(names),
            "outcome": "no test" if result is None else str(result.test_outcome.value),
            "diff": "" if result is None else result.diff,
        }
        with out.open("a", encoding="utf-8") as lines_out:
            lines_out.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{number + 1}/{len(chosen)} {row['outcome']:9} {file}:{line}", flush=True)


def report(file: Path) -> None:
    """Counts, and every mutant that no test noticed."""
    rows = read(file)
    for outcome in ("killed", "survived", "no test", "incompetent"):
        print(f"{outcome:12} {sum(r['outcome'] == outcome for r in rows)}")
    for row in rows:
        if row["outcome"] in ("survived", "no test"):
            changed = [
                x for x in row["diff"].splitlines() if x[:1] in "+-" and x[:3] not in "+++---"
            ]
            print(f"\n{row['file']}:{row['line']} ({row['outcome']})\n  " + "\n  ".join(changed))


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


class Tests:
    """Which tests run a line, quickest first, until their time is spent."""

    def __init__(self) -> None:
        from coverage import CoverageData

        self.data = CoverageData(str(COVERED))
        self.data.read()
        self.seconds: dict[str, float] = {}
        for case in ElementTree.parse(TIMES).iter("testcase"):
            module = case.get("classname", "").replace(".", "/")
            self.seconds[f"{module}.py::{case.get('name')}"] = float(case.get("time", 1))

    def of(self, module: Path, line: int) -> list[str]:
        by_line = self.data.contexts_by_lineno(str(module))
        found = {c.split("|")[0] for c in by_line.get(line, []) if c}
        if not found:  # run at import: any test of the module may notice
            found = {c.split("|")[0] for cs in by_line.values() for c in cs if c}
        # Tests named after the module come first: they are the ones that should notice.
        near = module.stem if module.stem != "__init__" else module.parent.name
        ordered = sorted(found, key=lambda t: (near not in t, self.seconds.get(t, 5.0), t))
        taken, spent = [], 0.0
        for name in ordered:
            spent += self.seconds.get(name, 5.0)
            if taken and spent > MOST_SECONDS:
                break
            taken.append(name)
        return taken


def candidates(room: str) -> Iterator[object]:
    """All mutants of a room's modules outside of what needs no test."""
    from cosmic_ray.commands.init import _all_work_items

    place = ROOT / "xlens" / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        quiet = set(silent_lines(file))
        for item in _all_work_items([file], {}):
            (mutant,) = item.mutations
            here = (mutant.start_pos, mutant.end_pos)
            if "Decorator" in mutant.operator_name or any(
                first <= here[0] and here[1] <= last for first, last in quiet
            ):
                continue
            yield mutant


def silent_lines(file: Path) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Places (line, column) of annotations, docstrings, and texts of errors, logs and warnings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        quiet: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            quiet.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            quiet.append(node.returns)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            quiet.append(node)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            quiet += node.exc.args
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
            ("_log.", "warnings.")
        ):
            quiet += node.args
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            names = [t.id for t in node.targets if isinstance(t, ast.Name)]
            if any(name[:1].isupper() and not name.isupper() for name in names):
                quiet.append(node.value)  # a type alias
        for found in quiet:
            if found is not None:
                yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)


if __name__ == "__main__":
    main()
