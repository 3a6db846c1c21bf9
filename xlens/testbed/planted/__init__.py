"""Planted truth: models and data written by hand, so that analyses can be held against it."""

from xlens._lazy import listed
from xlens.testbed.planted.activations import (
    ActivationsTruth,
    PlantedActivations,
    planted_activations,
)
from xlens.testbed.planted.bound import bound_pivot
from xlens.testbed.planted.facts import FactTruth, FactWorld, fact_world
from xlens.testbed.planted.lexicon import Lexicon
from xlens.testbed.planted.pivot import PivotTruth, latent_pivot, pivot_questions
from xlens.testbed.planted.planted import Planted, Questions
from xlens.testbed.planted.two_phase import TwoPhaseTruth, retrieval_questions, two_phase

__all__ = [
    "ActivationsTruth",
    "FactTruth",
    "FactWorld",
    "Lexicon",
    "PivotTruth",
    "Planted",
    "PlantedActivations",
    "Questions",
    "TwoPhaseTruth",
    "bound_pivot",
    "fact_world",
    "latent_pivot",
    "pivot_questions",
    "planted_activations",
    "retrieval_questions",
    "two_phase",
]
__dir__ = listed(__all__)
