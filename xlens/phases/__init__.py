"""Question encoding, then answer retrieval: where in the network, and whether at all?"""

from xlens.phases.asked import Asked, answer_tokens, other_context, same_context
from xlens.phases.compare import PairedCurves, PairedDepth, compare_curves, compare_depth
from xlens.phases.curves import KINDS, Curves, CurveSummary, join_curves
from xlens.phases.depth import (
    DepthOptions,
    DepthResult,
    major_depth,
    random_span_depth,
    relevance_depth,
)
from xlens.phases.detect import PhaseResult, detect_phases
from xlens.phases.evidence import evidence
from xlens.phases.last_layers import (
    LayerEffects,
    late_share,
    layer_swap,
    lens_gap,
    recovered,
    swapped_blocks,
)
from xlens.phases.stability import (
    INDICES,
    StabilityCorrelation,
    StabilityResult,
    correlate,
    stability,
)

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
    "PhaseResult",
    "StabilityCorrelation",
    "StabilityResult",
    "answer_tokens",
    "compare_curves",
    "compare_depth",
    "correlate",
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
