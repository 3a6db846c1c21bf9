"""Which units of the MLPs belong to a language: LAPE, their overlap, and what they do."""

from xlens._lazy import listed
from xlens.neurons.lape import LanguageNeurons, language_neurons
from xlens.neurons.overlap import NeuronOverlap, neuron_overlap
from xlens.neurons.units import neuron_edits, random_neurons

__all__ = [
    "LanguageNeurons",
    "NeuronOverlap",
    "language_neurons",
    "neuron_edits",
    "neuron_overlap",
    "random_neurons",
]
__dir__ = listed(__all__)
