"""Which units of the MLPs belong to a language: LAPE, their overlap, and what they do."""

from xlens._lazy import listed
from xlens.neurons.effects import NeuronEffects, neuron_effects
from xlens.neurons.lape import LanguageNeurons, language_neurons
from xlens.neurons.overlap import NeuronOverlap, neuron_overlap
from xlens.neurons.push import NeuronPush, neuron_push
from xlens.neurons.units import neuron_edits, random_neurons

__all__ = [
    "LanguageNeurons",
    "NeuronEffects",
    "NeuronOverlap",
    "NeuronPush",
    "language_neurons",
    "neuron_edits",
    "neuron_effects",
    "neuron_overlap",
    "neuron_push",
    "random_neurons",
]
__dir__ = listed(__all__)
