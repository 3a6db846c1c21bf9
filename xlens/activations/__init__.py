"""`Activations`: cached states with named axes, by site, layer and slot; nothing about models."""

from xlens._lazy import listed
from xlens.activations.slots import SlotValues
from xlens.activations.states import Activations

__all__ = ["Activations", "SlotValues"]
__dir__ = listed(__all__)
