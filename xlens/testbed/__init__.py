"""Models and data whose truth is known, to hold every analysis against."""

from typing import TYPE_CHECKING

from xlens._lazy import lazy

if TYPE_CHECKING:
    from xlens.testbed import atlas as atlas
    from xlens.testbed import planted as planted

_PUBLIC = {"atlas": "", "planted": ""}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
