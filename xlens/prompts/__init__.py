"""Prompts: text with a language, a parallel id and named character spans; and their tokens."""

from xlens._lazy import listed
from xlens.prompts.ends import Ends
from xlens.prompts.fewshot import TooFewItems, choose_demonstrations
from xlens.prompts.files import read_prompts
from xlens.prompts.prompt import Prompt, Prompts, PromptsLike
from xlens.prompts.slots import Slot, parse_slot
from xlens.prompts.tokens import TokenizedPrompt, tokenize

__all__ = [
    "Ends",
    "Prompt",
    "Prompts",
    "PromptsLike",
    "Slot",
    "TokenizedPrompt",
    "TooFewItems",
    "choose_demonstrations",
    "parse_slot",
    "read_prompts",
    "tokenize",
]
__dir__ = listed(__all__)
