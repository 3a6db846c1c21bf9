"""README as an index shows it, without the files beside it; hatchling asks at each build."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)\s]+)\)")


def on_an_index(text: str, source: str, version: str) -> str:
    """The text, with links and pictures that lead to the version's own files.

    Args:
        text: Markdown with links relative to the root of the repository.
        source: The repository's address; empty where it has none, and then a link is its words and
            a picture is left out: neither can lead anywhere.
        version: Of the release, whose tag is `vVERSION`.
    """

    def absolute(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if not source:
            return "" if picture else words
        return f"{picture}[{words}]({source}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return _LINK.sub(absolute, text)


class Readme(MetadataHookInterface):
    """Fills in `readme`, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the page in place."""
        root = Path(self.root)
        said = (root / "xlens" / "__init__.py").read_text(encoding="utf-8")
        (version,) = re.findall(r'^__version__ = "(.+)"$', said, re.MULTILINE)
        source = metadata.get("urls", {}).get("Source", "").rstrip("/")
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": on_an_index(text, source, version),
        }
