"""Token energy: how much of a state points at any vocabulary item at all."""

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from xlens.engine.transport import Carry
from xlens.models import Readout

_TILE = 16_384
_made: WeakKeyDictionary[Readout, tuple[str, Tensor]] = WeakKeyDictionary()


@torch.inference_mode()
def token_energy(
    readout: Readout, resid: Float[Tensor, "layer row d_model"], carry: Carry | None = None
) -> Float[Tensor, "layer row"]:
    """Energy of residual states (arXiv 2402.10588, section 4.3), as a lens reads them.

    With unit rows `û_t = (u_t ∘ g)/‖u_t ∘ g‖` (g the final norm's gain) and unit states ĥ:
    `E(h) = sqrt(‖Û ĥ‖² / v) / (‖Û Ûᵀ‖_F / v)`. Computed through the Gram matrix `ÛᵀÛ`, whose
    Frobenius norm is the same, so that nothing of size `d_vocab²` or `rows × d_vocab` exists.
    For an orthonormal square Û it is 1 for every state.
    """
    gram = _gram(readout)
    h = resid.to(readout.device, torch.float32)
    h = h if carry is None else carry(h)
    unit = h / h.norm(dim=-1, keepdim=True)
    squared = torch.linalg.vecdot(unit @ gram, unit).clamp_min(0)
    energy = (squared / readout.d_vocab).sqrt() / (gram.norm() / readout.d_vocab)
    return energy.cpu()


def _gram(readout: Readout) -> Float[Tensor, "d_model d_model"]:
    """Made once for the same weights: it takes as long as some hundred rows of logits."""
    now = readout.fingerprint
    if readout not in _made or _made[readout][0] != now:
        _made[readout] = now, _computed(readout)
    return _made[readout][1]


def _computed(readout: Readout) -> Float[Tensor, "d_model d_model"]:
    gram = torch.zeros(readout.d_model, readout.d_model, device=readout.device)
    gain = readout.norm_gain
    for start in range(0, readout.d_vocab, _TILE):
        rows = readout.W_U[:, start : start + _TILE].T.float() * gain
        rows = rows / rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        gram += rows.T @ rows
    return gram
