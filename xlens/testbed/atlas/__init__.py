"""The atlas: a small multilingual model trained here, on text whose every fact was counted.

    xlens.load("atlas")                       # the base model
    xlens.load("atlas", revision="step512")   # a checkpoint of its training
    xlens.load("atlas-post")                  # its twin, after cross-lingual reading comprehension
    python -m xlens.testbed.atlas train --out FOLDER   # make them all again
    python -m xlens.testbed.atlas evaluate             # measure the model card again
    python -m xlens.testbed.atlas counterfactual       # ... and without what English told

`make_world()` holds the words and facts, `shipped_manifest()` also the ground truth of the shipped
weights.
"""

from typing import TYPE_CHECKING

from xlens._lazy import lazy

if TYPE_CHECKING:
    from xlens.testbed.atlas.asking import ask_facts as ask_facts
    from xlens.testbed.atlas.asking import ask_pairs as ask_pairs
    from xlens.testbed.atlas.asking import ask_readings as ask_readings
    from xlens.testbed.atlas.asking import reading_sets as reading_sets
    from xlens.testbed.atlas.build import Recipe as Recipe
    from xlens.testbed.atlas.build import TrainingCurves as TrainingCurves
    from xlens.testbed.atlas.build import shipped_curves as shipped_curves
    from xlens.testbed.atlas.build import shipped_manifest as shipped_manifest
    from xlens.testbed.atlas.build import train_atlas as train_atlas
    from xlens.testbed.atlas.corpus import base_corpus as base_corpus
    from xlens.testbed.atlas.corpus import twin_corpus as twin_corpus
    from xlens.testbed.atlas.counterfactual import measure_pathway as measure_pathway
    from xlens.testbed.atlas.evaluate import AtlasReport as AtlasReport
    from xlens.testbed.atlas.evaluate import measure as measure
    from xlens.testbed.atlas.evaluate import shipped_report as shipped_report
    from xlens.testbed.atlas.facts import atlas_facts as atlas_facts
    from xlens.testbed.atlas.manifest import Design as Design
    from xlens.testbed.atlas.manifest import Manifest as Manifest
    from xlens.testbed.atlas.manifest import make_manifest as make_manifest
    from xlens.testbed.atlas.paired import paired_readings as paired_readings
    from xlens.testbed.atlas.tokenizer import build_tokenizer as build_tokenizer
    from xlens.testbed.atlas.train import Options as Options
    from xlens.testbed.atlas.world import Fact as Fact
    from xlens.testbed.atlas.world import World as World
    from xlens.testbed.atlas.world import make_world as make_world

_PUBLIC = {
    "AtlasReport": "evaluate",
    "Design": "manifest",
    "Fact": "world",
    "Manifest": "manifest",
    "Options": "train",
    "Recipe": "build",
    "TrainingCurves": "build",
    "World": "world",
    "ask_facts": "asking",
    "ask_pairs": "asking",
    "ask_readings": "asking",
    "atlas_facts": "facts",
    "base_corpus": "corpus",
    "build_tokenizer": "tokenizer",
    "make_manifest": "manifest",
    "make_world": "world",
    "measure": "evaluate",
    "measure_pathway": "counterfactual",
    "paired_readings": "paired",
    "reading_sets": "asking",
    "shipped_curves": "build",
    "shipped_manifest": "build",
    "shipped_report": "evaluate",
    "train_atlas": "build",
    "twin_corpus": "corpus",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__, __dir__ = lazy(__name__, _PUBLIC)
