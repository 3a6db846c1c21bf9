"""Studies: a task, the core and an analysis put together, controls included.

Every module beside this one holds a study, or what several of them share; `xlens.run` runs them.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from xlens._lazy import lazy
from xlens.studies.study import Study

if TYPE_CHECKING:
    from xlens.studies.align import AlignStudy as AlignStudy
    from xlens.studies.choices import ChoicesStudy as ChoicesStudy
    from xlens.studies.facts import FactsStudy as FactsStudy
    from xlens.studies.fit_lens import FitLensStudy as FitLensStudy
    from xlens.studies.lens import LensStudy as LensStudy
    from xlens.studies.loading import Loading as Loading
    from xlens.studies.neurons import NeuronsStudy as NeuronsStudy
    from xlens.studies.phases import PhasesStudy as PhasesStudy
    from xlens.studies.process import ProcessStudy as ProcessStudy
    from xlens.studies.reading import ReadingStudy as ReadingStudy
    from xlens.studies.running.forecast import forecast as forecast
    from xlens.studies.running.runner import Outcome as Outcome
    from xlens.studies.running.runner import run as run
    from xlens.studies.serving import Serving as Serving
    from xlens.studies.steering import SteeringStudy as SteeringStudy
    from xlens.studies.steps.leaderboard import Leaderboard as Leaderboard
    from xlens.studies.study import Kept as Kept
    from xlens.studies.study import Step as Step
    from xlens.studies.subspace import SubspaceStudy as SubspaceStudy
    from xlens.studies.twins import TwinsStudy as TwinsStudy
    from xlens.studies.watch import Watch as Watch
    from xlens.studies.work import Plan as Plan
    from xlens.studies.work import Work as Work

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
    "SubspaceStudy": "subspace",
    "TwinsStudy": "twins",
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
