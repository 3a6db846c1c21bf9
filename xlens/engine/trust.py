"""Whether a model's key-value cache can be trusted with shared prefixes: tried, not assumed."""

import logging
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from xlens.engine.forward import run_batch
from xlens.engine.gather import Seats
from xlens.engine.plan import Batch, Group, Tokens, plan
from xlens.engine.positions import scheme
from xlens.models import HookedModel
from xlens.models.sites import Keep, Point

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_HALF_TOLERANCE = 0.1  # half precision differs by 1-2 % between batches in any case
_known: WeakKeyDictionary[HookedModel, bool] = WeakKeyDictionary()
_log = logging.getLogger(__name__)


def shares_prefixes(model: HookedModel) -> bool:
    """Whether sharing prefixes leaves this model's states as they are.

    Tried once per model on four short sequences with two prefixes of different length, longer than
    a sliding window where it is short; if the states differ, every prompt runs whole, and a
    warning says so.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    if model not in _known:
        try:
            error = _error(model)
        except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as problem:
            if should_reduce_batch_size(problem):
                return False  # says nothing of the cache: asked again next time
            error, reason = float("inf"), f"{type(problem).__name__}: {problem}"
        else:
            reason = f"states differ by {error:.1g}"
        _known[model] = error <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE)
        if not _known[model]:
            _log.warning(
                "%s: its key-value cache can't be trusted with shared prefixes (%s); every prompt "
                "runs whole.",
                model.name,
                reason,
            )
    return _known[model]


def _error(model: HookedModel) -> float:
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    longest = min(model.n_ctx or 64, window + 12 if window < 100 else 24)
    if how := scheme(model):
        longest = min(longest, how.boundary)  # beyond it nothing is shared
    if longest < 12:
        return float("inf")  # hardly a context to share
    generator = torch.Generator().manual_seed(0)
    high = min(model.d_vocab, len(model.tokenizer))

    def draw(n: int) -> Tokens:
        return tuple(torch.randint(high, (n,), generator=generator).tolist())

    one, other = draw(longest - 4), draw(longest - 7)
    sequences = [one + draw(4), one + draw(2), other + draw(3), other + draw(1)]
    groups = (Group(len(one), (0, 1)), Group(len(other), (2, 3)))
    shared = Batch(groups, ((0, 1, 2, 3),), 2 * len(one), (16,))
    together = _last_states(model, [shared], sequences)
    alone = _last_states(model, plan(sequences, longest, share=False), sequences)
    return float((together - alone).norm() / alone.norm())


def _last_states(model: HookedModel, batches: list[Batch], sequences: list[Tokens]) -> Tensor:
    """The last token's states at the last point, one row per sequence."""
    found: dict[int, Tensor] = {}

    def watch(seats: Seats) -> Keep:
        def keep(_layer: Point, resid: Tensor) -> None:
            for i, (row, first, held, index) in seats.tokens.items():
                if first + held == len(sequences[i]):
                    found[i] = resid[row, index + held - 1].float().cpu()

        return keep

    for batch in batches:
        run_batch(model, batch, sequences, (model.n_layers,), watch)
    return torch.stack([found[i] for i in range(len(sequences))])
