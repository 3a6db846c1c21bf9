"""Which directions are about language, and how alike are languages without them?"""

from xlens._lazy import listed
from xlens.subspace.axes import LSAR, LDAAxes, MeanDifference, PooledPCA
from xlens.subspace.base import Subspace
from xlens.subspace.by_language import LIR, AffineSubspaces, Centering
from xlens.subspace.cka import linear_cka
from xlens.subspace.correlation import ScoreCorrelation, score_correlation
from xlens.subspace.distances import subspace_distances
from xlens.subspace.layers import LayerWise
from xlens.subspace.maps import LanguageMap, language_map
from xlens.subspace.pairs import LanguagePairs
from xlens.subspace.pooled import PooledStates, pooled_states
from xlens.subspace.probe import LanguageProbe, language_probe
from xlens.subspace.relations import (
    RelatedPairs,
    by_relation,
    missing_relations,
    related_pairs,
    relation,
)
from xlens.subspace.script_probe import ScriptProbe, script_probe
from xlens.subspace.scripts import ScriptControl, script_control
from xlens.subspace.similarity import language_similarity
from xlens.subspace.states import pool, shared_items
from xlens.subspace.twins import TwinStates, twin_states

__all__ = [
    "LIR",
    "LSAR",
    "AffineSubspaces",
    "Centering",
    "LDAAxes",
    "LanguageMap",
    "LanguagePairs",
    "LanguageProbe",
    "LayerWise",
    "MeanDifference",
    "PooledPCA",
    "PooledStates",
    "RelatedPairs",
    "ScoreCorrelation",
    "ScriptControl",
    "ScriptProbe",
    "Subspace",
    "TwinStates",
    "by_relation",
    "language_map",
    "language_probe",
    "language_similarity",
    "linear_cka",
    "missing_relations",
    "pool",
    "pooled_states",
    "related_pairs",
    "relation",
    "score_correlation",
    "script_control",
    "script_probe",
    "shared_items",
    "subspace_distances",
    "twin_states",
]
__dir__ = listed(__all__)
