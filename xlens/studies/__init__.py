"""Studies: a task, the core and an analysis put together, controls included.

Every module beside this one holds a study, or what several of them share; `xlens.run` runs them.
"""

import importlib
import pkgutil

from xlens._lazy import lazy
from xlens.studies.study import Study

_PUBLIC = {
    "AlignStudy": "align",
    "ChoicesStudy": "choices",
    "FactsStudy": "facts",
    "FitLensStudy": "fit_lens",
    "Kept": "study",
    "Leaderboard": "steps.leaderboard",
    "LensStudy": "lens",
    "Loading": "loading",
    "NeuronsStudy": "neurons",
    "Outcome": "running.runner",
    "PhasesStudy": "phases",
    "Plan": "work",
    "ProcessStudy": "process",
    "ReadingStudy": "reading",
    "Serving": "serving",
    "SteeringStudy": "steering",
    "Step": "study",
    "Study": "study",
    "Watch": "watch",
    "Work": "work",
    "forecast": "running.forecast",
    "run": "running.runner",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)


def find_studies() -> dict[str, type[Study]]:
    """Every study by its command: a new one is a module here, and nothing else."""
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:  # what computes lies in packages, and isn't needed to show options
            importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, type[Study]] = {}
    todo: list[type[Study]] = [Study]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__dict__.get("COMMAND"):
            found[kind.COMMAND] = kind
    return dict(sorted(found.items()))
