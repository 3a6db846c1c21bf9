"""Evidence about the phases: curves over layers, each with its control."""

from xlens._lazy import listed
from xlens.phases.evidence.collect import evidence
from xlens.phases.evidence.observed import aligned, readable
from xlens.phases.evidence.relevant import relevant
from xlens.phases.evidence.sweep import ablated, patched, read_answers

__all__ = [
    "ablated",
    "aligned",
    "evidence",
    "patched",
    "read_answers",
    "readable",
    "relevant",
]
__dir__ = listed(__all__)
