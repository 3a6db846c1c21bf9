"""Interventions on the stream or another site: add, project out, patch, change some units.

`add`, `project_out`, `patch`, `scale` and `set_to` say what is wanted; `check` binds a list of them
to a model and its prompts, refusing what can't be done before anything runs; `Edits.prepare` works
out the indices of one pass, so that its hooks do nothing but tensor arithmetic over the batch.
"""

from xlens._lazy import listed
from xlens.engine.interventions.binding import check, intervene
from xlens.engine.interventions.edits import Edits
from xlens.engine.interventions.kinds import (
    Intervention,
    Interventions,
    add,
    patch,
    project_out,
    scale,
    set_to,
    spans,
)

__all__ = [
    "Edits",
    "Intervention",
    "Interventions",
    "add",
    "check",
    "intervene",
    "patch",
    "project_out",
    "scale",
    "set_to",
    "spans",
]
__dir__ = listed(__all__)
