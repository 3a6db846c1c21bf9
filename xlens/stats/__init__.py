"""How sure a number is: one `Resampling`, one interval function, tests by sign flips."""

from xlens._lazy import listed
from xlens.stats.bootstrap import Bootstrap, bootstrap
from xlens.stats.draws import generator
from xlens.stats.intervals import FEW, FEWEST, interval, jumping, middle
from xlens.stats.pairs import PairBootstrap, pair_bootstrap
from xlens.stats.resampling import Resampling, Rows, cluster_of, joined
from xlens.stats.significance import adjusted_flips, holm, random_signs
from xlens.stats.sums import ClusterSums

__all__ = [
    "FEW",
    "FEWEST",
    "Bootstrap",
    "ClusterSums",
    "PairBootstrap",
    "Resampling",
    "Rows",
    "adjusted_flips",
    "bootstrap",
    "cluster_of",
    "generator",
    "holm",
    "interval",
    "joined",
    "jumping",
    "middle",
    "pair_bootstrap",
    "random_signs",
]
__dir__ = listed(__all__)
