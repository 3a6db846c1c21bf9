"""Two models beside each other: a twin is itself, another is not, and what is compared is kept."""

from functools import partial

import pytest
from pages import same_sentences
from test_studies import SMALL, folder, here  # noqa: F401

import tiny
import xlens
from xlens.cli import main
from xlens.lens import TwinCurves
from xlens.models import HookedModel
from xlens.prompts import Prompt, Prompts
from xlens.runs import ACROSS, RunDirectory
from xlens.studies import Loading, TwinsStudy
from xlens.subspace import PooledStates, pooled_states, twin_states

QUIET = {"progress": False}


def test_one_model_is_no_twin(folder):  # noqa: F811
    with pytest.raises(ValueError, match=r"xlens twins compares models, and '.*tiny-gpt2' is one"):
        xlens.run(TwinsStudy(**SMALL["twins"]), str(folder), **QUIET)


def test_kept_states_are_compared_like_fresh_ones(tmp_path):
    model = xlens.load(tiny.model("llama"), tiny.tokenizer("llama"))
    prompts = Prompts(
        Prompt(tiny.TEXT[tag][k : k + 30], tag, str(k)) for tag in ("en", "de") for k in range(12)
    )
    states = xlens.harvest(model, prompts, slots="all", **QUIET)
    kept = pooled_states(states, pooling="mean")
    kept.save(tmp_path / "kept")
    again = PooledStates.load(tmp_path / "kept")
    assert (again.activations().slot("mean").values == kept.activations().slot("mean").values).all()
    one = twin_states(states, states, names=("a", "b"), pooling="mean")
    two = twin_states(again.activations(), kept.activations(), names=("a", "b"), pooling="mean")
    assert one.similarity.equals(two.similarity) and one.points.equals(two.points)


@pytest.mark.slow
def test_twins_from_the_command_line(folder, tmp_path, capsys):  # noqa: F811
    other = tiny.make("gpt2", tmp_path / "other", n_positions=512, seed=1)
    line = ["twins", str(folder), str(other), "--items", "items.jsonl", "--n-items", "8"]
    with pytest.raises(SystemExit) as end:
        main([*line, "--shots", "1", "--draws", "50", "--out", "both"])
    assert not end.value.code
    run = RunDirectory.open("both")
    assert run.models == ("other", "tiny-gpt2")
    same_sentences(run.report_file, capsys.readouterr().out)
    parts = run.parts(ACROSS)
    assert {"items/gain", "items/other/states", "items/other/curves"} <= parts.keys()
    curves = parts["items/other/curves"]
    assert isinstance(curves, TwinCurves) and curves.names == ("tiny-gpt2", "other")
    # Its last layer is the model's own output.
    last = curves.of("kl", "other")
    assert last[last["layer"] == curves.n_layers]["mean"].abs().max() < 1e-6
    first, second = (curves.of("entropy", name)["mean"].to_numpy() for name in curves.names)
    found = curves.of("entropy", "difference")["mean"].to_numpy()
    assert found == pytest.approx(second - first)
    with pytest.raises(ValueError, match="'energy' of 'other': there are entropy, kl of"):
        curves.of("energy", "other")


@pytest.mark.slow
def test_a_model_is_its_own_twin():
    """The same checkpoint under two names: nothing changed, nowhere."""
    study = TwinsStudy(languages=("en", "de"), n_items=12, draws=50, shots=1)
    model = xlens.load("atlas", device="cpu")
    twin = HookedModel(model.hf_model, model.tokenizer, name="twin")
    done = xlens.run(study, [model, twin], **QUIET)
    states, gain = done.across["cldr/twin/states"], done.across["cldr/gain"]
    assert states.similarity["cka"].to_numpy() == pytest.approx(1)
    assert (gain.table["difference"] == 0).all() and set(gain.table["language"]) == {
        "all", "en", "de"
    }  # fmt: skip
    # Twelve items without a difference don't show that there is none.
    assert set(gain.table["verdict"]) <= {"the same", "undecided"}
    assert done.across["cldr/twin/curves"].of("entropy", "difference")["mean"].abs().max() == 0


def test_models_of_another_width_are_refused_as_twins_before_they_are_asked(here, monkeypatch):  # noqa: F811
    wide, deep = (
        HookedModel(
            tiny.model("gpt2", n_positions=512, n_layer=n), tiny.tokenizer("gpt2"), name=name
        )
        for name, n in (("one", 2), ("two", 3))
    )
    monkeypatch.setattr(TwinsStudy, "steps", lambda *_: pytest.fail("the first was asked"))
    told = r"all need the same layers and width \(layers × width here: one: 2 × \d+; two: 3 × "
    for verb in (partial(xlens.run, **QUIET), xlens.studies.forecast):
        with pytest.raises(ValueError, match=told):
            verb(TwinsStudy(**SMALL["twins"]), [wide, deep], loading=Loading())


def test_checkpoints_of_another_depth_are_refused_before_they_are_loaded(
    folder,  # noqa: F811
    tmp_path,
    here,  # noqa: F811
    monkeypatch,
):
    deep = tiny.make("gpt2", tmp_path / "deep", n_positions=512, n_layer=5)
    monkeypatch.setattr(Loading, "load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match=r"need the same layers and width .*deep: 5 × "):
        xlens.run(TwinsStudy(**SMALL["twins"]), [str(folder), str(deep)], **QUIET)
