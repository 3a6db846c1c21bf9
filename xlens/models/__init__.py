"""Models: `load(...) -> HookedModel`."""

from xlens._lazy import listed
from xlens.models.hooked import HookedModel
from xlens.models.loading import check_readout, load
from xlens.models.readout import Readout
from xlens.models.vocabulary import Vocabulary

__all__ = ["HookedModel", "Readout", "Vocabulary", "check_readout", "load"]
__dir__ = listed(__all__)
