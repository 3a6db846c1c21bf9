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

from xlens._lazy import lazy

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
