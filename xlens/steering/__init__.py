"""Pushing the residual stream from one language towards another, and the controls of that."""

from xlens._lazy import listed
from xlens.steering.judging import judge_text
from xlens.steering.layer_rule import layer_balance, predicted_layer
from xlens.steering.outputs import OutputSteering
from xlens.steering.removal import SubspaceRemoval
from xlens.steering.result import EFFECTS, SteeringResult
from xlens.steering.sweep import Steering, SweepScores, sweep
from xlens.steering.vectors import METHODS, SteeringVectors, steering_vectors

__all__ = [
    "EFFECTS",
    "METHODS",
    "OutputSteering",
    "Steering",
    "SteeringResult",
    "SteeringVectors",
    "SubspaceRemoval",
    "SweepScores",
    "judge_text",
    "layer_balance",
    "predicted_layer",
    "steering_vectors",
    "sweep",
]
__dir__ = listed(__all__)
