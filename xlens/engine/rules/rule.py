"""`Rule`: where a backward pass departs from the plain gradient, as data."""

from dataclasses import dataclass

from xlens.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A backward pass; one that sets nothing but its name is the plain gradient.

    Relevance is always read off as gradient × input, `sum_d h * dh`. The rule changes what `dh`
    is: AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) in its gradient form, in which a rule for
    relevance becomes a constant, or a factor, in the backward pass.

    Attributes:
        name: What results call it.
        constant_norms: Norms divide by a constant: no gradient through the variance. LayerNorm's
            centring, which is linear, keeps its gradient.
        identity_activations: An activation's derivative f'(x) becomes f(x)/x, so that relevance
            passes unchanged. So do the soft-caps (tanh) of Gemma 2.
        gate: Factor on the gradient into the activated gate of a gated MLP.
        product: Factor on the gradient into both factors of a gated MLP's product.
        query: Factor on the gradient into the queries.
        key: Factor on the gradient into the keys.
        value: Factor on the gradient into the values.
    """

    name: str
    constant_norms: bool = False
    identity_activations: bool = False
    gate: float = 1.0
    product: float = 1.0
    query: float = 1.0
    key: float = 1.0
    value: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether this is calculus as it stands, which any model allows."""
        return self == Rule(name=self.name)


GRADIENT = Rule(name="gradient")
"""Gradient × input."""

# A product's relevance goes to its factors in halves. Attention is two products: weights · V, and
# inside the weights Q · K, whence halves and quarters. Softmax's own gradient is its rule.
ATTNLRP = Rule(
    name="attnlrp",
    constant_norms=True,
    identity_activations=True,
    product=1 / 2,
    query=1 / 4,
    key=1 / 4,
    value=1 / 2,
)
"""AttnLRP (arXiv 2402.05602, section 3.3). Conserves relevance but for biases and the softmax.

The authors hold a patent; their code's licence allows personal and scientific use only.
"""

CP_LRP = Rule(
    name="cp-lrp",
    constant_norms=True,
    identity_activations=True,
    gate=0.0,
    query=0.0,
    key=0.0,
)
"""CP-LRP (Ali et al. 2022, arXiv 2202.07304): attention weights and gates are constants.

A cheap second opinion that conserves relevance exactly where a model has no biases.
"""

RULES = {rule.name: rule for rule in (GRADIENT, ATTNLRP, CP_LRP)}
"""Rules by name."""


def find_rule(rule: Rule | str) -> Rule:
    """The rule itself, or the one of that name.

    Raises:
        ValueError: no such name.
    """
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        raise InputError(
            f"Unknown rule {rule!r}; accepted are {', '.join(map(repr, RULES))}, or a "
            "xlens.engine.rules.Rule of your own."
        )
    return RULES[rule]
