"""Served models: text from any OpenAI-compatible endpoint. Behaviour only: no states, no logits."""

from xlens._lazy import listed
from xlens.served.ask import ServedError
from xlens.served.generations import ServedGenerations, served_generate
from xlens.served.model import ServedModel

__all__ = ["ServedError", "ServedGenerations", "ServedModel", "served_generate"]
__dir__ = listed(__all__)
