"""Question encoding, then answer retrieval: where in the network, and whether at all?"""

from xlens._lazy import listed
from xlens.phases.asked import Asked, answer_tokens, other_context, same_context
from xlens.phases.correlation import StabilityCorrelation, correlate
from xlens.phases.curves import KINDS, Curves, CurveSummary, join_curves
from xlens.phases.depth import DepthOptions, DepthResult, major_depth
from xlens.phases.detect import PhaseResult, detect_phases
from xlens.phases.effects import LayerEffects
from xlens.phases.evidence import evidence
from xlens.phases.gap import depth_gap
from xlens.phases.last_layers import late_share, lens_gap, recovered
from xlens.phases.paired import (
    PairedCurves,
    PairedDepth,
    PairedEffects,
    compare_curves,
    compare_depth,
    compare_effects,
)
from xlens.phases.segment_depth import random_span_depth, relevance_depth
from xlens.phases.stability import INDICES, StabilityResult, stability
from xlens.phases.swap import layer_swap, swapped_blocks

__all__ = [
    "INDICES",
    "KINDS",
    "Asked",
    "CurveSummary",
    "Curves",
    "DepthOptions",
    "DepthResult",
    "LayerEffects",
    "PairedCurves",
    "PairedDepth",
    "PairedEffects",
    "PhaseResult",
    "StabilityCorrelation",
    "StabilityResult",
    "answer_tokens",
    "compare_curves",
    "compare_depth",
    "compare_effects",
    "correlate",
    "depth_gap",
    "detect_phases",
    "evidence",
    "join_curves",
    "late_share",
    "layer_swap",
    "lens_gap",
    "major_depth",
    "other_context",
    "random_span_depth",
    "recovered",
    "relevance_depth",
    "same_context",
    "stability",
    "swapped_blocks",
]
__dir__ = listed(__all__)
