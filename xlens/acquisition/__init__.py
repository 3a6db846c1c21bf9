"""When is a fact known, in which language, and why: pure functions of answers and frequencies."""

from xlens.acquisition.curves import FactCurves, curves
from xlens.acquisition.frequency import binned, correlations, edges, isotonic, logistic
from xlens.acquisition.overlap import MEASURES, overlap
from xlens.acquisition.recall import FactRecall, recall
from xlens.acquisition.response import FrequencyResponse, frequency_response
from xlens.acquisition.threshold import Threshold, best_threshold, carried_over, threshold

__all__ = [
    "MEASURES",
    "FactCurves",
    "FactRecall",
    "FrequencyResponse",
    "Threshold",
    "best_threshold",
    "binned",
    "carried_over",
    "correlations",
    "curves",
    "edges",
    "frequency_response",
    "isotonic",
    "logistic",
    "overlap",
    "recall",
    "threshold",
]
