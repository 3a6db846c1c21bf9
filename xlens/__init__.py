"""xlens: in which language, and where, does a multilingual language model think?"""

from typing import TYPE_CHECKING

from xlens._lazy import lazy

if TYPE_CHECKING:  # what editors and type checkers see; `_PUBLIC` says the same
    from xlens import acquisition as acquisition
    from xlens import activations as activations
    from xlens import consistency as consistency
    from xlens import corpus as corpus
    from xlens import engine as engine
    from xlens import errors as errors
    from xlens import figures as figures
    from xlens import gain as gain
    from xlens import languages as languages
    from xlens import lens as lens
    from xlens import models as models
    from xlens import neurons as neurons
    from xlens import phases as phases
    from xlens import precision as precision
    from xlens import prompts as prompts
    from xlens import report as report
    from xlens import results as results
    from xlens import runs as runs
    from xlens import served as served
    from xlens import stats as stats
    from xlens import steering as steering
    from xlens import store as store
    from xlens import studies as studies
    from xlens import subspace as subspace
    from xlens import tasks as tasks
    from xlens import testbed as testbed
    from xlens import training as training
    from xlens.activations import Activations as Activations
    from xlens.comparison import compare as compare
    from xlens.engine import generate as generate
    from xlens.engine import harvest as harvest
    from xlens.engine import relevance as relevance
    from xlens.engine import score as score
    from xlens.errors import XlensError as XlensError
    from xlens.lens import logit_lens as logit_lens
    from xlens.lens import target_sets as target_sets
    from xlens.lens import trace as trace
    from xlens.models import HookedModel as HookedModel
    from xlens.models import load as load
    from xlens.prompts import Prompt as Prompt
    from xlens.prompts import Prompts as Prompts
    from xlens.prompts import read_prompts as read_prompts
    from xlens.steering import steering_vectors as steering_vectors
    from xlens.store import Store as Store
    from xlens.studies import run as run
    from xlens.tasks.words import answers as answers
    from xlens.tasks.words import cldr_words as cldr_words
    from xlens.tasks.words import read_words as read_words
    from xlens.tasks.words import translation_prompts as translation_prompts

__version__ = "0.2.0"

_PUBLIC = {
    "Activations": "activations",
    "HookedModel": "models",
    "Prompt": "prompts",
    "Prompts": "prompts",
    "Store": "store",
    "XlensError": "errors",
    "answers": "tasks.words",
    "cldr_words": "tasks.words",
    "compare": "comparison",
    "generate": "engine",
    "harvest": "engine",
    "load": "models",
    "logit_lens": "lens",
    "read_prompts": "prompts",
    "read_words": "tasks.words",
    "relevance": "engine",
    "run": "studies",
    "score": "engine",
    "steering_vectors": "steering",
    "target_sets": "lens",
    "trace": "lens",
    "translation_prompts": "tasks.words",
    # The rooms, where all the rest is.
    "acquisition": "",
    "activations": "",
    "consistency": "",
    "corpus": "",
    "engine": "",
    "errors": "",
    "figures": "",
    "gain": "",
    "languages": "",
    "lens": "",
    "models": "",
    "neurons": "",
    "phases": "",
    "precision": "",
    "prompts": "",
    "report": "",
    "results": "",
    "runs": "",
    "served": "",
    "stats": "",
    "store": "",
    "steering": "",
    "studies": "",
    "subspace": "",
    "tasks": "",
    "testbed": "",
    "training": "",
}
# Here until the next release, with a warning.
_MOVED = {
    "Generations": "engine",
    "LensResult": "lens",
    "LensSummary": "lens",
    "RelevanceScores": "engine",
    "Scores": "engine",
    "ServedModel": "served",
    "StoredActivations": "engine",
    "TargetSets": "lens",
    "TraceResult": "lens",
    "WordList": "tasks.words",
    "answer_questions": "tasks.xmrc",
    "cldr_choices": "tasks.choices",
    "cloze_prompts": "tasks.words",
    "harvest_to_store": "engine",
    "read_choices": "tasks.choices",
    "read_reading": "tasks.xmrc",
    "reading_prompts": "tasks.xmrc",
    "reading_scores": "tasks.xmrc",
    "repetition_prompts": "tasks.words",
    "score_choices": "tasks.choices",
    "score_variants": "engine",
    "served_generate": "served",
    "whole_word_lens": "lens",
}
__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
_load, __dir__ = lazy(__name__, _PUBLIC, _MOVED)
if not TYPE_CHECKING:  # a checker that saw it would take any name for one of ours
    __getattr__ = _load
