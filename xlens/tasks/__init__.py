"""What is asked, in which languages: one module or package a task."""

from typing import TYPE_CHECKING

from xlens._lazy import lazy

if TYPE_CHECKING:
    from xlens.tasks import alignment as alignment
    from xlens.tasks import chat as chat
    from xlens.tasks import choices as choices
    from xlens.tasks import facts as facts
    from xlens.tasks import running_text as running_text
    from xlens.tasks import sentences as sentences
    from xlens.tasks import words as words
    from xlens.tasks import xmrc as xmrc

_PUBLIC = dict.fromkeys(
    ["alignment", "chat", "choices", "facts", "running_text", "sentences", "words", "xmrc"], ""
)
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
