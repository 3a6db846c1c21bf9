"""How relevance goes backwards: plain gradients, AttnLRP, or a rule of your own.

A `Rule` says which parts of the backward pass differ from calculus; `applied` makes them so for the
time of a `with` block. The forward pass computes what it always did.
"""

from xlens._lazy import listed
from xlens.engine.rules.passes import relevance_pass
from xlens.engine.rules.patches import applied, check
from xlens.engine.rules.rule import ATTNLRP, CP_LRP, GRADIENT, RULES, Rule, find_rule
from xlens.engine.rules.scalars import Scalar, objective

__all__ = [
    "ATTNLRP",
    "CP_LRP",
    "GRADIENT",
    "RULES",
    "Rule",
    "Scalar",
    "applied",
    "check",
    "find_rule",
    "objective",
    "relevance_pass",
]
__dir__ = listed(__all__)
