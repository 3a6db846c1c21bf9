"""`xlens demo`: `xlens lens` on a real model, with words that need no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xlens.studies.lens import LensStudy

# Currency names repeat the country's name in most languages: left out where words are few.
_KINDS = ("territory", "language", "month", "weekday", "unit")


@dataclass(frozen=True, kw_only=True)
class DemoStudy(LensStudy):
    """Read a real multilingual model through the logit lens and write a report.

    Gemma 3 270M translates words between languages that are not English; the report shows
    whether English appears inside, layer by layer, with the controls beside. About 3 minutes on
    two CPU cores.

    ```
    xlens demo
    xlens demo --pairs ja:ar hi:de --n-items 50
    ```
    """

    COMMAND: ClassVar[str] = "demo"
    MODEL: ClassVar[str | None] = "gemma-3-270m"

    pairs: tuple[str, ...] = ("fr:zh-Hans", "de:ru", "ru:zh-Hans", "zh-Hans:fr")
    kinds: tuple[str, ...] = _KINDS
    n_items: int = 60
    n_controls: int = 24

    def title(self, models: Sequence[str]) -> str:
        """As `Study.title`."""
        return self.COMMAND
