"""Reading comprehension across languages: context, question and answer each in its own."""

from xlens._lazy import listed
from xlens.tasks.xmrc.answers import Predictions, answer_questions, predictions_of
from xlens.tasks.xmrc.cldr import cldr_reading
from xlens.tasks.xmrc.controls import baseline_predictions, mismatched
from xlens.tasks.xmrc.data import Reading, ReadingSet
from xlens.tasks.xmrc.errors import ERRORS, Verdict, classify
from xlens.tasks.xmrc.metrics import METRICS, answer_scores, normalise
from xlens.tasks.xmrc.oracle import OracleResult, gold_targets, oracle_estimate, own_targets
from xlens.tasks.xmrc.prompts import ReadingPrompts, paired, reading_prompts
from xlens.tasks.xmrc.readers import download_reading, read_reading
from xlens.tasks.xmrc.scores import ReadingResult, reading_scores
from xlens.tasks.xmrc.segments import sentences
from xlens.tasks.xmrc.settings import Combination, settings
from xlens.tasks.xmrc.templates import TEMPLATES, ReadingTemplate

__all__ = [
    "ERRORS",
    "METRICS",
    "TEMPLATES",
    "Combination",
    "OracleResult",
    "Predictions",
    "Reading",
    "ReadingPrompts",
    "ReadingResult",
    "ReadingSet",
    "ReadingTemplate",
    "Verdict",
    "answer_questions",
    "answer_scores",
    "baseline_predictions",
    "classify",
    "cldr_reading",
    "download_reading",
    "gold_targets",
    "mismatched",
    "normalise",
    "oracle_estimate",
    "own_targets",
    "paired",
    "predictions_of",
    "read_reading",
    "reading_prompts",
    "reading_scores",
    "sentences",
    "settings",
]
__dir__ = listed(__all__)
