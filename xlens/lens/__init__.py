"""Lenses: which language's word the model is about to say, layer by layer."""

from xlens._lazy import listed
from xlens.lens.causal import CausalResult, causal_test, for_causal_test
from xlens.lens.controls import shuffled_pairs
from xlens.lens.identify import identify_tokens
from xlens.lens.jacobian import fit_jacobian_lens, read_jacobian_lens, write_jacobian_lens
from xlens.lens.lenses import (
    LOGIT,
    FittedLens,
    JacobianLens,
    Lens,
    LogitLens,
    TunedLens,
    pooled,
)
from xlens.lens.logit_lens import logit_lens, logit_lenses
from xlens.lens.places import find_lens
from xlens.lens.readings import (
    LensReadings,
    agreement,
    read_texts_through,
    require_agreement,
)
from xlens.lens.result import LensResult, LensSummary, LensTokens, TraceResult
from xlens.lens.share import LanguageShares, language_shares
from xlens.lens.targets import TargetSets, target_sets
from xlens.lens.trace import trace
from xlens.lens.tuned import fit_tuned_lens, read_tuned_lens
from xlens.lens.twin_curves import TwinCurves, twin_curves
from xlens.lens.verdict import CausalSummary, CausalVerdicts, causal_summary, causal_verdicts
from xlens.lens.whole import whole_word_lens
from xlens.lens.yardstick import LensItems, LensYardstick, lens_yardstick, read_lens_items

__all__ = [
    "LOGIT",
    "CausalResult",
    "CausalSummary",
    "CausalVerdicts",
    "FittedLens",
    "JacobianLens",
    "LanguageShares",
    "Lens",
    "LensItems",
    "LensReadings",
    "LensResult",
    "LensSummary",
    "LensTokens",
    "LensYardstick",
    "LogitLens",
    "TargetSets",
    "TraceResult",
    "TunedLens",
    "TwinCurves",
    "agreement",
    "causal_summary",
    "causal_test",
    "causal_verdicts",
    "find_lens",
    "fit_jacobian_lens",
    "fit_tuned_lens",
    "for_causal_test",
    "identify_tokens",
    "language_shares",
    "lens_yardstick",
    "logit_lens",
    "logit_lenses",
    "pooled",
    "read_jacobian_lens",
    "read_lens_items",
    "read_texts_through",
    "read_tuned_lens",
    "require_agreement",
    "shuffled_pairs",
    "target_sets",
    "trace",
    "twin_curves",
    "whole_word_lens",
    "write_jacobian_lens",
]
__dir__ = listed(__all__)
