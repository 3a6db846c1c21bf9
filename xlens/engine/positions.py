"""Models whose positions depend on the longest one in a pass: what may run beside what.

LongRoPE has two sets of rotary factors, and takes one or the other for a whole pass by its longest
position; dynamic NTK stretches its frequencies with it. A prompt's state must not follow its
neighbours' length, so prompts are put into passes by what would be taken for them alone.
"""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from torch import nn

from xlens.models import HookedModel

# Whose rotation of a position is the same in every pass.
_STEADY = frozenset({"default", "linear", "yarn", "llama3", "proportional", "mrope", "none"})
_told: WeakSet[HookedModel] = WeakSet()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scheme:
    """How positions follow the length of a pass.

    Attributes:
        kind: The rotary type.
        boundary: Passes of up to so many positions are all alike.
        two_sided: Passes beyond it are alike too; else each length is another.
    """

    kind: str
    boundary: int
    two_sided: bool

    def label(self, length: int) -> int:
        """0 up to the boundary; beyond it, the same for lengths that may run together."""
        if length <= self.boundary:
            return 0
        return 1 if self.two_sided else length


def scheme(model: HookedModel) -> Scheme | None:
    """Of this model, by its config as it is now; None where no position depends on the pass."""
    config = model.config.get_text_config()
    given: Any = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(given, dict):
        return None
    # One set of parameters, or one for each type of layer.
    each = [p for p in given.values() if isinstance(p, dict)] or [given]
    found = [s for s in (_of(p, config) for p in each) if s is not None]
    if not found:
        return None
    if len(found) == 1 or len(set(found)) == 1:
        return found[0]
    least = min(s.boundary for s in found)
    return Scheme("/".join(s.kind for s in found), least, two_sided=False)


def labels(model: HookedModel, lengths: Sequence[int]) -> list[int] | None:
    """For sequences of these lengths, which may stand in one pass: those of one label.

    What has a label other than 0 can't share a beginning either. None where all may.
    """
    how = scheme(model)
    if how is None:
        return None
    found = [how.label(n) for n in lengths]
    if not any(found):
        return None
    if model not in _told:
        _told.add(model)
        _log.warning(
            "%s: its positions (%s) depend on the longest one in a pass from %s tokens on. Longer "
            "prompts run %s, without shared prefixes: right, and slower.",
            model.name,
            how.kind,
            f"{how.boundary + 1:,}",
            "among themselves" if how.two_sided else "with others of their own length",
        )
    return found


@contextmanager
def fresh(model: HookedModel) -> Generator[None]:
    """Frequencies as a model that has run nothing yet has them; as they were, afterwards.

    Dynamic NTK remembers the longest pass: a prompt would be read by what ran before it.
    """
    how = scheme(model)
    if how is None or how.two_sided:
        yield
        return
    kept = [(m, name) for m in model.body.modules() for name in _remembered(m)]
    before = [(m, name, getattr(m, name)) for m, name in kept]
    try:
        for module, name, _ in before:
            _restart(module, name)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _of(parameters: dict[str, Any], config: Any) -> Scheme | None:
    kind = str(parameters.get("rope_type", parameters.get("type", "default")))
    if kind in _STEADY:
        return None
    trained = getattr(config, "max_position_embeddings", 0) or 0
    if kind in ("longrope", "su"):
        asked = parameters.get("original_max_position_embeddings")
        own = getattr(config, "original_max_position_embeddings", None)
        return Scheme(kind, int(asked or own or trained), two_sided=True)
    # Dynamic NTK begins beyond the length trained on; of a kind not known, nothing is taken as
    # steady.
    return Scheme(kind, trained if "dynamic" in kind else 0, two_sided=False)


def _remembered(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name.endswith("max_seq_len_cached")] + [
        name
        for name in vars(module)["_buffers"]
        if name.endswith("inv_freq") and "original" not in name
    ]


def _restart(module: nn.Module, name: str) -> None:
    if name.endswith("inv_freq"):
        first = name.removesuffix("inv_freq") + "original_inv_freq"
        if (value := getattr(module, first, None)) is not None:
            setattr(module, name, value.to(getattr(module, name).device))
    elif (trained := getattr(module, "original_max_seq_len", None)) is not None:
        setattr(module, name, trained)
