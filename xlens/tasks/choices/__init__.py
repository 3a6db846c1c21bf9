"""The same multiple-choice questions in several languages, their options scored as text."""

from xlens._lazy import listed
from xlens.tasks.choices.answers import RULES, ChoiceAnswers, answer_choices, check_labels
from xlens.tasks.choices.data import Choice, Choices
from xlens.tasks.choices.facts import FACTS, cldr_choices
from xlens.tasks.choices.labels import read_labels
from xlens.tasks.choices.latent import LatentOptions, LatentSummary, latent_options
from xlens.tasks.choices.prompts import choice_prompts
from xlens.tasks.choices.readers import download_choices, read_choices
from xlens.tasks.choices.scoring import score_choices
from xlens.tasks.choices.statements import YES_NO, cldr_statements

__all__ = [
    "FACTS",
    "RULES",
    "YES_NO",
    "Choice",
    "ChoiceAnswers",
    "Choices",
    "LatentOptions",
    "LatentSummary",
    "answer_choices",
    "check_labels",
    "choice_prompts",
    "cldr_choices",
    "cldr_statements",
    "download_choices",
    "latent_options",
    "read_choices",
    "read_labels",
    "score_choices",
]
__dir__ = listed(__all__)
