"""Which letters of a figure no installed font can draw; they would come out as empty boxes."""

import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import plotly.graph_objects as go


def missing_glyphs(fig: go.Figure) -> dict[str, str]:
    """Letters in the texts of `fig` that no font of this machine has, by script.

    Returns:
        For each script (`CJK`, `DEVANAGARI`, by the letters' Unicode names) its missing letters,
        sorted. Empty where fontconfig's `fc-list` isn't installed, as on macOS and Windows, which
        bring fonts for these scripts.
    """
    covered = _covered()
    if covered is None:
        return {}
    # Every font has ASCII.
    letters = {c for text in _texts(fig.to_plotly_json()) for c in text if c > "~"}
    missing: dict[str, str] = {}
    for letter in sorted(letters):
        # Letters, marks, numbers, punctuation, symbols: what leaves a
        # trace; the rest are blanks and controls.
        visible = unicodedata.category(letter)[0] in "LMNPS"
        if visible and not any(start <= ord(letter) <= stop for start, stop in covered):
            script = unicodedata.name(letter, "UNNAMED").split()[0]
            missing[script] = missing.get(script, "") + letter
    return missing


def _texts(value: Any) -> Iterator[str]:
    """Every string anywhere in a figure's data and layout; styles and keys do no harm."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


@lru_cache(maxsize=1)
def _covered() -> tuple[tuple[int, int], ...] | None:
    """Code point ranges that some installed font has; None where fontconfig can't say."""
    if not (command := shutil.which("fc-list")):
        return None
    try:
        done = subprocess.run(
            [command, "--format=%{charset}\n"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    ranges = {part for line in done.stdout.splitlines() for part in line.split()}
    if done.returncode or not ranges:
        return None
    bounds = (part.partition("-") for part in ranges)
    return tuple(sorted((int(a, 16), int(b or a, 16)) for a, _, b in bounds))
