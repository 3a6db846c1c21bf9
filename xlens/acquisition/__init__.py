"""When is a fact known, in which language, and why: pure functions of answers and frequencies."""

from xlens._lazy import listed
from xlens.acquisition.association import associations, correlations
from xlens.acquisition.counterfactual import Pathway, pathway
from xlens.acquisition.curves import FactCurves, curves
from xlens.acquisition.frequency import binned, edges, isotonic, logistic
from xlens.acquisition.likeness import FactLikeness, fact_likeness
from xlens.acquisition.overlap import MEASURES, overlap
from xlens.acquisition.pathways import pathways
from xlens.acquisition.recall import FactRecall, recall
from xlens.acquisition.response import FrequencyResponse, frequency_response
from xlens.acquisition.threshold import Threshold, best_threshold, carried_over, threshold
from xlens.acquisition.transfer import Transfer, TransferCurves, transfer, transfer_curves

__all__ = [
    "MEASURES",
    "FactCurves",
    "FactLikeness",
    "FactRecall",
    "FrequencyResponse",
    "Pathway",
    "Threshold",
    "Transfer",
    "TransferCurves",
    "associations",
    "best_threshold",
    "binned",
    "carried_over",
    "correlations",
    "curves",
    "edges",
    "fact_likeness",
    "frequency_response",
    "isotonic",
    "logistic",
    "overlap",
    "pathway",
    "pathways",
    "recall",
    "threshold",
    "transfer",
    "transfer_curves",
]
__dir__ = listed(__all__)
