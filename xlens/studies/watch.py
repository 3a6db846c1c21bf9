"""What a run tells while it runs; nothing by default, the command line prints it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlens.results import Result
    from xlens.studies.work import Plan


class Watch:
    """Told of every step of a run."""

    def described(self, known: Mapping[str, Any]) -> None:
        """What is asked about, and what was left out of it, before a model is loaded."""

    def model(self, name: str, number: int, of: int) -> None:
        """A model's turn begins."""

    def planned(self, plan: Callable[[], "Plan"]) -> None:
        """A model is there, and its parts are about to be made: `plan` says what is left to do."""

    def group(self, name: str, number: int, of: int) -> None:
        """A group of parts, such as a pair of languages, begins."""

    def without(self, name: str, why: str) -> None:
        """A group can't be asked."""

    def model_done(self, folder: str, parts: Mapping[str, "Result"]) -> None:
        """All parts of a model are there."""
