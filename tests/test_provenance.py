"""What a result says of its model is never overwritten by what an analysis says of itself."""

import ast
from dataclasses import replace
from pathlib import Path

import kit
import numpy as np
import pandas as pd
import pytest

import xlens
from xlens import phases
from xlens.lens import logit_lens, target_sets, trace, whole_word_lens
from xlens.results import analysed, versions
from xlens.steering import steering_vectors

ROOT = Path(xlens.__file__).parent
# Names that stand beside the model's, each a room of its own or what was asked.
BESIDE = {
    *("made_from", "prompts", "subspaces", "interventions", "versions", "kept_dtype", "slot"),
    *("tokens", "cost", "fingerprint", "stop"),
}
# Where the verbs of the engine say how a model was run; all else analyses that.
VERBS = ("engine", "served")


def joined(path: Path) -> list[tuple[int, set[str], int]]:
    """Dictionaries that hold a provenance and more: line, names beside it, other dictionaries."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Dict) and None in node.keys:
            pairs = zip(node.keys, node.values, strict=True)
            spread = [ast.unparse(value) for key, value in pairs if key is None]
            spread = [s for s in spread if "resampling.provenance" not in s]
            of = [s for s in spread if "provenance" in s.split("(")[0] or s == "origin"]
            names = {k.value for k in node.keys if isinstance(k, ast.Constant)}
            more = [s for s in spread if s not in of and "interventions" not in s]
            if of and (names or more):
                found.append((node.lineno, names, len(more)))
    return found


@pytest.fixture(scope="module")
def model():
    return kit.fresh("gpt2")


def test_no_analysis_puts_its_options_beside_the_models(model):
    own = {*model.provenance(), "source", "revision", "licence", "digest", "trust_remote_code"}
    seen = 0
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0]
        for line, names, more in joined(path):
            if path.name == "results.py" and room == "results.py":
                continue  # `analysed` itself
            seen += 1
            where = f"{path.relative_to(ROOT)}:{line}"
            assert not (names & own) - {"fingerprint"}, where
            assert names <= BESIDE or room in VERBS, (where, names - BESIDE)
            assert not more or room in VERBS, where
    assert seen > 5


def test_a_room_is_named_once_and_holds_the_versions_of_now():
    made = {"weights": "float32", "seed": 3, "versions": {"torch": "1"}}
    found = analysed(made, "panel", {"weights": "softmax", "seed": 7})
    assert made.items() <= found.items()
    assert found["panel"] == {"weights": "softmax", "seed": 7, "versions": versions()}
    with pytest.raises(ValueError, match="holds 'panel' already"):
        analysed(found, "panel", {})


def test_results_name_their_model_as_it_does(model):
    """One of each kind that the studies' own tests do not hold against their model."""
    meta = {"source": "en", "target": "de", "task": "translation"}
    prompts = xlens.Prompts(
        xlens.Prompt(f"{text} {i} is", tag, str(i), meta=meta)
        for i in range(4)
        for tag, text in (("en", "Number"), ("de", "Nummer"))
    )
    quiet = {"progress": False}
    states = xlens.harvest(model, prompts, slots="last", **quiet)
    words = pd.DataFrame(
        {"en": ["cat", "dog", "tree", "book"], "de": ["Katze", "Hund", "Baum", "Buch"]},
        index=pd.Index(list("0123"), name="id"),
    )
    some = xlens.Prompts(p for p in prompts if p.language == "en")
    few = xlens.harvest(model, some, slots="last", **quiet)
    sets = target_sets(model, words, languages=("de", "en"), match="first")
    lens = logit_lens(few, model, sets, pivot="en", **quiet)
    curves = phases.Curves(
        provenance=states.provenance,
        values=np.ones((1, 4, 2)),
        control=np.zeros((1, 4, 2)),
        kinds=("readable",),
        layers=(0, 1),
        meta=pd.DataFrame({"id": list("0123"), "language": "en"}),
        n_layers=1,
    )
    results = [
        lens,
        lens.summary(),
        whole_word_lens(model, some, words, pivot="en", **quiet),
        trace(model, prompts[0]),
        curves.summary(),
        steering_vectors(states, "en", "de"),
        xlens.score(model, prompts, [" a", " b"], **quiet),
        xlens.relevance(model, some, targets=[5] * 4, rule="gradient", **quiet),
        phases.join_curves([curves, replace(curves, kinds=("ablate_question",))]),
    ]
    for result in results:
        kit.names_its_model(result, model)
