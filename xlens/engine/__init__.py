"""The batching core: plan → run → read. Everything that runs a model goes through here."""

from xlens._lazy import listed
from xlens.engine import executors, interventions
from xlens.engine.attention import AttentionMass, attention
from xlens.engine.generate import Generations, generate, room_for
from xlens.engine.harvest import harvest, harvest_to_store
from xlens.engine.plan import Batch, Group, plan
from xlens.engine.relevance import relevance
from xlens.engine.relevance_scores import RelevanceScores
from xlens.engine.request import Execution, Request
from xlens.engine.score import Scores, score
from xlens.engine.stored import StoredActivations
from xlens.engine.stream import Streamed, stream
from xlens.engine.tally import Tally, tally
from xlens.engine.variants import harvest_variants, score_variants

__all__ = [
    "AttentionMass",
    "Batch",
    "Execution",
    "Generations",
    "Group",
    "RelevanceScores",
    "Request",
    "Scores",
    "StoredActivations",
    "Streamed",
    "Tally",
    "attention",
    "executors",
    "generate",
    "harvest",
    "harvest_to_store",
    "harvest_variants",
    "interventions",
    "plan",
    "relevance",
    "room_for",
    "score",
    "score_variants",
    "stream",
    "tally",
]
__dir__ = listed(__all__)
