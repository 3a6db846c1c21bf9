"""Do a model's answers to the same question agree across languages?"""

from xlens._lazy import listed
from xlens.consistency.dissociation import Dissociation, dissociation
from xlens.consistency.options import OptionScores, option_scores
from xlens.consistency.panel import METRICS, ConsistencyResult, consistency
from xlens.consistency.per_item import option_ranks, rank_c, spearman

__all__ = [
    "METRICS",
    "ConsistencyResult",
    "Dissociation",
    "OptionScores",
    "consistency",
    "dissociation",
    "option_ranks",
    "option_scores",
    "rank_c",
    "spearman",
]
__dir__ = listed(__all__)
