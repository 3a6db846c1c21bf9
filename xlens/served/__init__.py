"""Served models: text from any OpenAI-compatible endpoint. Behaviour only: no states, no logits."""

from xlens.served.ask import ServedError
from xlens.served.generate import ServedGenerations, served_generate
from xlens.served.model import ServedModel

__all__ = ["ServedError", "ServedGenerations", "ServedModel", "served_generate"]
