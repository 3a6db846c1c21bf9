"""Figures as files: HTML and JSON always, PNG, SVG and PDF where a browser can draw them."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from xlens.checks import typed
from xlens.errors import InputError, MachineError
from xlens.figures.glyphs import missing_glyphs
from xlens.figures.page import HEIGHT, PLOTLY_JS, figure_block, figure_json, page
from xlens.files import make, write

STATIC = ("png", "svg", "pdf")
_STATIC_WIDTH = 900
_INSTALL = "pip install 'xlens-interp[static]', and Chromium or Chrome"


class StaticExportError(MachineError):
    """A picture (PNG, SVG, PDF) can't be made here; HTML and JSON don't need what is missing."""


@typed
def write_figure(
    fig: go.Figure,
    folder: str | Path,
    name: str,
    *,
    static: Collection[str] = (),
    plotlyjs: str = PLOTLY_JS,
) -> tuple[Path, ...]:
    """Write one figure to `folder/name.html`, `.json` and the formats of `static`.

    See `write_figures`, which draws the pictures of several figures much faster.
    """
    return write_figures({name: fig}, folder, static=static, plotlyjs=plotlyjs)


@typed
def write_figures(
    figures: Mapping[str, go.Figure],
    folder: str | Path,
    *,
    static: Collection[str] = (),
    plotlyjs: str = PLOTLY_JS,
) -> tuple[Path, ...]:
    """Write figures as HTML and JSON, on request also as pictures; the same figure, same bytes.

    Args:
        figures: By name: letters, digits, `-`, `_` and `.`; the name of the files and the id of
            the HTML element.
        folder: Made if missing.
        static: Any of `png` (twice the size, for sharp screens), `svg`, `pdf`; on white paper.
        plotlyjs: Where the pages find plotly.js, relative to `folder`; written if missing, so that
            all pages share one copy of its 5 MB.

    Returns:
        The files written, plotly.js not counted.

    Raises:
        ValueError: a name or a format that isn't allowed.
        StaticExportError: no kaleido, no browser, or no font for letters of a figure. HTML and JSON
            are written before.
    """
    _check(figures, static)
    folder = Path(folder)
    make(folder)
    write_plotlyjs(folder / plotlyjs)
    files: list[Path] = []
    for name, fig in figures.items():
        text = title_text(fig) or name
        plot = figure_block(fig, name, label=text)
        written = {
            folder / f"{name}.html": page(
                "figures/figure.html", title=text, plotlyjs=plotlyjs, plot=plot
            ),
            folder / f"{name}.json": figure_json(fig) + "\n",
        }
        for path, content in written.items():
            write(path, content)
            files.append(path)
    if static:
        files += _write_static(figures, folder, static)
    return tuple(files)


def write_plotlyjs(path: str | Path) -> Path:
    """Write plotly.js (MIT licence, part of the plotly package) to `path` unless it is there."""
    from plotly.offline import get_plotlyjs

    path = Path(path)
    script = get_plotlyjs().encode()
    if not path.is_file() or path.read_bytes() != script:
        write(path, script)
    return path


def title_text(fig: go.Figure) -> str:
    """The title of a figure with its notes, without markup."""
    import html

    layout: Any = fig.layout
    text = re.sub(r"<br>", ". ", layout.title.text or "")
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def check_static(static: Collection[str]) -> None:
    """Refuse formats that no picture is written in.

    Raises:
        ValueError: some; says which.
    """
    if given := sorted(set(static) - set(STATIC)):
        raise InputError(
            f"static={given!r}: give a list of formats from {', '.join(STATIC)}; HTML and JSON are "
            "always written."
        )


def _check(figures: Mapping[str, go.Figure], static: Collection[str]) -> None:
    for name in figures:
        if not re.fullmatch(r"[\w][\w.@-]*", name, re.ASCII):
            raise InputError(
                f"{name!r} can't name a figure's files: use letters, digits, '-', '_', '.' and "
                "'@', a letter or digit first."
            )
    check_static(static)


def _write_static(
    figures: Mapping[str, go.Figure], folder: Path, static: Collection[str]
) -> list[Path]:
    """Draw pictures in one browser; all that can be checked is checked before it starts."""
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        raise StaticExportError(
            f"Pictures ({', '.join(static)}) need the kaleido package, 1 or newer, and a browser: "
            f"{_INSTALL}. The HTML and JSON figures are written."
        ) from None
    for name, fig in figures.items():
        if missing := missing_glyphs(fig):
            scripts = "; ".join(f"{script}: {letters}" for script, letters in missing.items())
            raise StaticExportError(
                f"No font on this machine has these letters of figure {name!r}: {scripts}. They "
                "would be drawn as empty boxes; install the Noto fonts (on Debian fonts-noto-core "
                "and fonts-noto-cjk). The HTML and JSON figures are written."
            )
    files: list[Path] = []
    specs: list[dict[str, Any]] = []
    for name, fig in figures.items():
        # A picture can't follow its reader's light or dark mode.
        drawn = go.Figure(fig).update_layout(paper_bgcolor="white")
        layout: Any = drawn.layout
        for suffix in static:
            path = folder / f"{name}.{suffix}"
            files.append(path)
            options = {
                "format": suffix,
                "width": layout.width or _STATIC_WIDTH,
                "height": layout.height or HEIGHT,
                "scale": 2 if suffix == "png" else 1,
            }
            specs.append({"fig": drawn.to_plotly_json(), "path": path, "opts": options})
    try:
        # By default kaleido fetches MathJax from the network.
        kaleido.write_fig_from_object_sync(specs, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise StaticExportError(
            f"Pictures ({', '.join(static)}) need a browser, and none was found: {_INSTALL}. "
            "BROWSER_PATH can name one. The HTML and JSON figures are written."
        ) from error
    return files
