"""The gallery: its page's code is run, and what it shows stands on the page, below its picture.

`python docs/site/gallery.py` (`make gallery`) draws the pictures anew, which are tracked; a build
of the site runs the code for the interactive figures. Both need nothing but the atlas.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import plotly.graph_objects as go
from pictures import interactive

PAGE = Path(__file__).parents[1] / "gallery.md"
PICTURES = Path(__file__).parents[1] / "images"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"^!\[.*\]\(images/gallery-(\d+)\.png\)$", re.MULTILINE)


@cache
def shown() -> tuple[go.Figure, ...]:
    """Every figure that the page's code shows, in its order."""
    found: list[go.Figure] = []
    known: dict[str, Any] = {"__name__": "gallery"}
    with patch.object(go.Figure, "show", lambda figure: found.append(figure)):
        for number, code in enumerate(_BLOCK.findall(PAGE.read_text(encoding="utf-8"))):
            exec(compile(code, f"{PAGE.name}, block {number}", "exec"), known)
    return tuple(found)


def beside(app: Any, page: str, source: list[str]) -> None:
    """Put each interactive figure below its picture."""
    if page != "docs/gallery":
        return
    figures = shown()

    def both(found: re.Match[str]) -> str:
        number = int(found[1])
        html = interactive(f"figure-{number}", figures[number - 1].to_plotly_json())
        return f"{found[0]}\n\n```{{raw}} html\n{html}\n```"

    source[0] = _PICTURE.sub(both, source[0])


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx asks for."""
    app.connect("source-read", beside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Draw the pictures: the extra `static`, a Chromium, and fonts with these letters."""
    numbers = [int(n) for n in _PICTURE.findall(PAGE.read_text(encoding="utf-8"))]
    if numbers != list(range(1, len(shown()) + 1)):
        raise SystemExit(f"{PAGE.name} shows {len(shown())} figures and has pictures {numbers}.")
    for number, figure in enumerate(shown(), 1):
        # A picture can't follow its reader's light or dark mode.
        on_white = go.Figure(figure).update_layout(paper_bgcolor="white")
        on_white.write_image(PICTURES / f"gallery-{number}.png", scale=1)
        print(PICTURES / f"gallery-{number}.png")


if __name__ == "__main__":
    main()
