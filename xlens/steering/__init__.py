"""Pushing the residual stream from one language towards another, and the controls of that."""

from xlens._lazy import listed
from xlens.steering.removal import SubspaceRemoval
from xlens.steering.result import EFFECTS, SteeringResult
from xlens.steering.sweep import Steering, SweepScores, sweep
from xlens.steering.vectors import METHODS, SteeringVectors, steering_vectors

__all__ = [
    "EFFECTS",
    "METHODS",
    "Steering",
    "SteeringResult",
    "SteeringVectors",
    "SubspaceRemoval",
    "SweepScores",
    "steering_vectors",
    "sweep",
]
__dir__ = listed(__all__)
