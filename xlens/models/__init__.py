"""Models: `load(...) -> HookedModel`."""

from xlens._lazy import listed
from xlens.models.hooked import HookedModel
from xlens.models.loading import adapted, check_readout, load
from xlens.models.readout import Readout
from xlens.models.sites import head_units
from xlens.models.vocabulary import Vocabulary

__all__ = [
    "HookedModel",
    "Readout",
    "Vocabulary",
    "adapted",
    "check_readout",
    "head_units",
    "load",
]
__dir__ = listed(__all__)
