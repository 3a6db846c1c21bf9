"""Shell blocks of pages: `xlens` lines run, small and on stand-ins; others' lines are checked.

What is asked of these stands in `CHECKED`, with the reason; a line of no known kind fails.
"""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

from stand_ins import LATER, RUNS, SMALL, SMALL_WITH, WORDS

from xlens.cli import main

ROOT = Path(__file__).parent.parent


def bare(line: str) -> str:
    """Without its comment."""
    return re.sub(r"\s+# .*", "", line)


def lines(text: str) -> list[str]:
    """What is typed: without comments, each on one line."""
    joined = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in joined if line and not line.startswith("#")]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def smaller(given: list[str], steps: bool = False) -> list[str]:
    """A command of xlens with names that are here, and its size turned down.

    Args:
        given: Without `xlens`: options before the command, the command, what follows.
        steps: Whether a page's lines follow each other: then none may stand in another's way.
    """
    said = [standing_for(word) for word in given]
    command = next((word for word in said if word in SMALL), None)
    sizes = dict(SMALL.get(command or "", {}))
    for option in SMALL_WITH.keys() & set(said):
        sizes |= SMALL_WITH[option]
    if steps:
        sizes.pop("--overwrite", None)
    for name, values in sizes.items():
        if name in said:  # in place of the page's size
            start = said.index(name)
            stop = start + 1
            while stop < len(said) and not said[stop].startswith("--"):
                stop += 1
            del said[start:stop]
        said += [name, *values]
    return said


def standing_for(word: str) -> str:
    """A word of a line, or the place after `=`, `:` or `@` in it, as it is called here."""
    if word in WORDS:
        return WORDS[word]()
    for sign in ("=", "@", ":"):
        before, found, after = word.partition(sign)
        if found and after in WORDS:
            return f"{before}{sign}{WORDS[after]()}"
    return word


def before(page: str) -> None:
    """Make the runs that a page takes for made."""
    for out in RUNS.get(page, ()):
        run(f"xlens choices MODEL --languages en de --out {out}")


def run(line: str, steps: bool = False, plan: bool = False) -> None:
    """A line that begins with `xlens`, as the command would; it must end well.

    Args:
        line: As a page shows it.
        steps: As in `smaller`.
        plan: Whether a study goes no further than its plan: models loaded, data read, prompts made.
    """
    given = smaller(words(line)[1:], steps)
    if plan and SMALL.keys() & set(given):
        given.append("--dry-run")
    try:
        main(given)
    except SystemExit as end:
        assert not end.code, f"{line}: ended with {end.code}"


def _made(given: list[str]) -> None:
    told = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{re.escape(target)}:", told, re.MULTILINE) for target in given[1:])


def _installed(given: list[str]) -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = re.fullmatch(r"(?:xlens-interp|\.)\[([\w,]+)\]", given[-1])
    assert asked and set(asked[1].split(",")) <= set(told["optional-dependencies"]), given


def _there(given: list[str]) -> None:
    if given[1] == "-m" and given[2] == "xlens.testbed.atlas":
        from xlens.testbed.atlas.__main__ import app

        app.parse_args(given[3:], exit_on_error=False, print_error=False)
    else:
        assert given[1:3] == ["-m", "pytest"] or (ROOT / given[1]).is_file(), given


CHECKED: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "make": ("takes minutes, and CI runs it: the target must exist", _made),
    "pip": ("would change the environment: the extra must exist", _installed),
    "python": ("hours, or run small by test_notebooks: it must exist and take the options", _there),
}
"""What is not run, by its first word: why, and what is asked of it instead."""


def check(line: str, known: dict[str, tuple[str, Callable[[list[str]], None]]] = CHECKED) -> None:
    given = words(line)
    if given[0] == "xlens":
        return  # later: why stands in the list, and test_docs parses it
    assert given[0] in known, f"nothing is known of a line like: {line}"
    known[given[0]][1](given)


def is_a_script(text: str) -> bool:
    return text.startswith("#!")


def parses(text: str) -> None:
    """As bash reads it, without running anything."""
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def runs(line: str) -> bool:
    """Whether a line is run here."""
    return line.startswith("xlens ") and bare(line) not in LATER
