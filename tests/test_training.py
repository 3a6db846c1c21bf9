"""Training of adapters: what is learned, that the base stays, and that a kill changes nothing."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import kit
import pytest
import torch

import tiny
import xlens
from xlens.models.loading import adapted
from xlens.models.series import find_series
from xlens.training import Recipe, encode, train
from xlens.training import fit as room
from xlens.training.bar import Bar
from xlens.training.rows import IGNORED, collate, loss

peft = pytest.importorskip("peft")
PROMPTS = [f"Der Hund {n} schläft im Haus{' kalt' * (n % 3)}\nTranslate:\n" for n in range(8)]
SAID = [f"The dog {n} sleeps in the house" for n in range(8)]
RECIPE = Recipe(epochs=2, batch=2, accumulate=2, learning_rate=1e-2, save_every=1)
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    """A training of four steps, a checkpoint each. Read it only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return train(kit.model(base), PROMPTS, SAID, folder, recipe=RECIPE, **QUIET)


def weights(adapter):
    from safetensors.torch import load_file

    return load_file(Path(adapter) / "adapter_model.safetensors")


def same(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what is learned ---


def test_only_the_completion_and_the_end_are_learned(base):
    tokenizer = kit.model(base).tokenizer
    rows = encode(tokenizer, ["ab: "], ["Haus"], longest=50)
    (item,) = list(rows)
    learned = [i for i, label in zip(item["input_ids"], item["labels"], strict=True) if label >= 0]
    assert tokenizer.decode(learned[:-1]).strip() == "Haus"
    assert learned[-1] == tokenizer.eos_token_id
    assert rows.n_learned == len(learned) and rows.n_tokens == len(item["input_ids"])


def test_padding_is_not_learned(base):
    rows = encode(kit.model(base).tokenizer, PROMPTS, SAID, longest=99)
    made = collate([rows[0], rows[2]], pad=0)
    learned = sum(len(rows.ids[n]) - rows.learned[n] for n in (0, 2))
    assert (made["labels"] != IGNORED).sum() == learned
    behind = made["logits_to_keep"] + 1 >= len(rows.ids[0])  # the shorter one's padding
    assert behind.any() and (made["labels"][0, 1:][behind] == IGNORED).all()
    assert made["attention_mask"].sum() == len(rows.ids[0]) + len(rows.ids[2])


def test_the_gradient_is_that_of_a_loss_on_target_tokens_only(base):
    """By hand: the mean of -log p over the completion's tokens, no token of the prompt in it."""
    hooked = xlens.load(base, device="cpu")
    rows = encode(hooked.tokenizer, PROMPTS[:3], SAID[:3], longest=99)
    made = collate(list(rows), pad=0)
    model = hooked.hf_model.train()
    probe = model.get_input_embeddings().weight
    probe.requires_grad_(True)
    labels = made.pop("labels")
    theirs = torch.autograd.grad(loss(model(**made), labels), probe)[0]
    every = collate(list(rows), pad=0, whole=True)
    assert made["logits_to_keep"].numel() < every["input_ids"].shape[1] - 5
    others = every.pop("labels")
    same = torch.autograd.grad(loss(model(**every), others), probe)[0]
    assert torch.allclose(theirs, same, atol=1e-7)

    terms = []
    for ids, start in zip(rows.ids, rows.learned, strict=True):
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        terms += [-logits[at - 1, ids[at]] for at in range(start, len(ids))]
    own = torch.autograd.grad(torch.stack(terms).mean(), probe)[0]
    assert torch.allclose(theirs, own, atol=1e-6)
    # transformers' own loss over all tokens is another one, over these the same.
    ids, mask = every["input_ids"], every["attention_mask"]
    usual = model(**every, labels=others[:, :-1]).loss
    assert torch.allclose(torch.autograd.grad(usual, probe)[0], theirs, atol=1e-6)
    everything = model(**every, labels=ids.masked_fill(mask == 0, IGNORED)).loss
    other = torch.autograd.grad(everything, probe)[0]
    assert not torch.allclose(theirs, other, atol=1e-3)


def test_the_loss_falls_and_every_step_is_told(done):
    assert done.curve["step"].tolist() == [1, 2, 3, 4]
    assert done.curve["loss"].iloc[-1] < done.curve["loss"].iloc[0] - 0.2
    assert done.n_rows == 8 and done.left_out == 0 and done.targets == ("q_proj", "v_proj")


# --- the base stays, and the adapter is loaded like any other ---


def test_the_base_stays_and_an_adapter_switched_off_is_the_base(base, done):
    plain = kit.model(base)
    fresh = xlens.load(base, device="cpu")
    assert plain.fingerprint == fresh.fingerprint
    kept = xlens.load(base, adapter=done.adapter, device="cpu")
    ids = torch.tensor([list(range(5, 25))])
    with torch.inference_mode():
        base_logits, on = fresh.hf_model(ids).logits, kept.hf_model(ids).logits
        assert not torch.equal(base_logits, on)
        kept.hf_model.disable_adapters()
        assert torch.equal(base_logits, kept.hf_model(ids).logits)
        merged = xlens.load(base, adapter=done.adapter, merge=True, device="cpu")
        scale = on.abs().max()
        assert float((merged.hf_model(ids).logits - on).abs().max() / scale) < 1e-5


def test_beside_its_base_with_the_same_weights_in_memory(base, done):
    plain = kit.model(base)
    twin = adapted(plain, done.adapter)
    loaded = xlens.load(base, adapter=done.adapter, device="cpu")
    assert twin.fingerprint == loaded.fingerprint != plain.fingerprint
    assert twin.name == loaded.name
    own = plain.hf_model.get_input_embeddings().weight
    assert twin.hf_model.get_input_embeddings().weight is own
    assert plain.provenance().get("adapter_state") is None


def test_checkpoints_are_a_series_and_an_adapter_names_its_base(base, done):
    series = find_series(done.checkpoints, ["all"])
    assert [point.step for point in series] == [1, 2, 3, 4]
    assert {point.model for point in series} == {str(base)}
    alone = xlens.load(series[-1].adapter, device="cpu")
    assert alone.fingerprint == xlens.load(done.adapter, device="cpu").fingerprint
    (second,) = find_series(done.checkpoints, ["checkpoint-2"])
    assert second.adapter is not None and second.step == 2


@pytest.mark.slow
def test_a_study_over_the_checkpoints(done):
    study = xlens.studies.ChoicesStudy(languages=("de", "en"), kinds=("next-weekday",), n_items=3)
    loading = xlens.studies.Loading(revision=("checkpoint-1", "checkpoint-4"))
    found = xlens.run(study, done.checkpoints, loading=loading, **QUIET).models
    scores = [parts["cldr/scores"].table["logprob"] for parts in found.values()]
    assert len(found) == 2 and not scores[0].equals(scores[1])


def test_an_adapter_of_another_base_is_refused(done, tmp_path):
    other = tiny.make("llama", tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="of another base"):
        xlens.load(other, adapter=done.adapter)


def test_an_adapter_belongs_to_one_moment_of_its_base(tmp_path):
    """Its shapes fit every checkpoint of a training; its numbers mean something on one only."""
    model = xlens.load("atlas", revision="step512", device="cpu")
    recipe = replace(RECIPE, epochs=1, save_every=None)
    made = train(model, ["Tag - "] * 4, ["day"] * 4, tmp_path / "made", recipe=recipe, **QUIET)
    again = xlens.load(made.adapter, device="cpu")
    assert again.origin["revision"] == "step512"
    assert again.fingerprint == adapted(model, made.adapter).fingerprint
    (point,) = find_series(made.checkpoints, ["all"])
    assert (point.model, point.revision) == ("atlas", "step512")
    named = xlens.load("atlas", revision="step512", adapter=made.adapter, device="cpu")
    assert named.fingerprint == again.fingerprint
    last = xlens.load("atlas", device="cpu")
    for wrong in (
        lambda: xlens.load("atlas", adapter=made.adapter, device="cpu"),
        lambda: xlens.load(made.adapter, revision="step2048", device="cpu"),
        lambda: adapted(last, made.adapter),
    ):
        with pytest.raises(ValueError, match="on 'atlas' at revision 'step512', and this is"):
            wrong()
    with pytest.raises(ValueError, match=r"holds no checkpoint; .* Name one inside it: .*adapter'"):
        xlens.load(tmp_path / "made", device="cpu")


# --- stopped and taken up ---


class Stopped(BaseException):
    pass


def stop_at(step, monkeypatch):
    """Training is interrupted after a step, once."""

    def end(self, args, state, control, **more):
        if state.global_step == step:
            raise Stopped

    monkeypatch.setattr(Bar, "on_step_end", end)


def test_interrupted_training_goes_on_and_ends_the_same(base, done, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(Stopped):
            train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)
    torn = tmp_path / "run" / "checkpoints" / "checkpoint-3"
    torn.mkdir()  # a kill struck while it was written
    (torn / "adapter_config.json").write_text("{")
    again = train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)
    assert same(again.adapter, done.adapter) and again.digest == done.digest
    assert again.curve["loss"].tolist() == done.curve["loss"].tolist()


def test_a_finished_one_is_not_trained_again(base, done, monkeypatch):
    monkeypatch.setattr(room, "_trainer", None)
    folder = Path(done.adapter).parent
    again = train(kit.model(base), PROMPTS, SAID, folder, recipe=RECIPE, **QUIET)
    assert again.digest == done.digest and again.curve.equals(done.curve)


def test_changed_bytes_of_an_adapter_are_told(base, done, tmp_path):
    folder = shutil.copytree(Path(done.adapter).parent, tmp_path / "moved")
    saved = room.Training.load(folder / "result")
    assert (saved.adapter, saved.checkpoints) == ("adapter", "checkpoints")
    weights = folder / saved.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x3c")
    for load in (
        lambda: xlens.load(base, adapter=weights.parent, device="cpu"),
        lambda: train(kit.model(base), PROMPTS, SAID, folder, recipe=RECIPE, **QUIET),
    ):
        with pytest.raises(ValueError, match=f"{weights}.*is damaged.*again"):
            load()


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "adapter_config.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(done, tmp_path, caplog, name):
    series = shutil.copytree(done.checkpoints, tmp_path / "checkpoints")
    *_, before, last = sorted(series.iterdir(), key=lambda p: int(p.name.split("-")[1]))
    assert room._last_whole(series) == str(last)
    assert not list(series.glob("*/training_args.bin"))  # a pickle that nothing reads
    (last / name).write_bytes((last / name).read_bytes()[::-1])
    assert room._last_whole(series) == str(before) and not last.exists()
    assert str(last / name) in caplog.text and "trained again" in caplog.text


@pytest.mark.parametrize("what", ["rows", "recipe"])
def test_a_folder_of_another_training_is_refused(base, done, what):
    said = [*SAID[:-1], "No"] if what == "rows" else SAID
    recipe = Recipe(seed=1) if what == "recipe" else RECIPE
    folder = Path(done.adapter).parent
    with pytest.raises(ValueError, match=f"another {what}"):
        train(kit.model(base), PROMPTS, said, folder, recipe=recipe, **QUIET)


@pytest.mark.slow
def test_random_numbers_go_on_where_they_were(base, tmp_path):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    train(
        kit.model(base), PROMPTS[:2], SAID[:2], tmp_path / "run", recipe=Recipe(epochs=1), **QUIET
    )
    assert torch.equal(torch.rand(3), expected)


_CHILD = """
import sys
sys.path.insert(0, {tests!r})
import os, signal, xlens
from xlens.training import bar, train
import test_training as t
class Killing(bar.Bar):
    def on_save(self, args, state, control, **more):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
bar.Bar = Killing
train(xlens.load({base!r}, device="cpu"), t.PROMPTS, t.SAID, {folder!r}, recipe=t.RECIPE,
      progress=False)
"""


@pytest.mark.slow
def test_killed_training_goes_on_and_ends_the_same(base, done, tmp_path):
    folder, tests = str(tmp_path / "run"), str(Path(__file__).parent)
    code = _CHILD.format(tests=tests, base=str(base), folder=folder)
    child = subprocess.run([sys.executable, "-c", code], env=dict(os.environ))
    assert child.returncode == -signal.SIGKILL
    again = train(kit.model(base), PROMPTS, SAID, folder, recipe=RECIPE, **QUIET)
    assert same(again.adapter, done.adapter)


_SHARED = """
import sys
sys.path.insert(0, {tests!r})
import xlens
from xlens.training import train
import test_training as t
made = train(xlens.load({base!r}, device="cpu"), t.PROMPTS, t.SAID, {folder!r}, recipe=t.RECIPE,
             progress=False)
assert made.n_rows == 8 and len(made.curve) in (0, 4)
"""


def test_two_processes_take_the_steps_of_one(base, done, tmp_path):
    """As `accelerate launch` and torchrun start them; on GPUs likewise, each with its own."""
    file, folder = tmp_path / "job.py", tmp_path / "run"
    tests = str(Path(__file__).parent)
    file.write_text(_SHARED.format(tests=tests, base=str(base), folder=str(folder)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ran = subprocess.run([*launch, str(file)], env=dict(os.environ), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    made = train(kit.model(base), PROMPTS, SAID, folder, recipe=RECIPE, **QUIET)
    assert made.curve["step"].tolist() == [1, 2, 3, 4]
    ours, theirs = weights(made.adapter), weights(done.adapter)
    for name, wanted in theirs.items():
        assert torch.allclose(ours[name], wanted, atol=1e-4), name
    assert {*os.listdir(made.checkpoints)} == {*os.listdir(done.checkpoints)}


def test_passes_that_cannot_be_dealt_to_the_processes_are_refused(base, tmp_path, monkeypatch):
    import accelerate

    state = accelerate.PartialState(cpu=True)
    monkeypatch.setattr(accelerate, "PartialState", lambda cpu: state)
    monkeypatch.setattr(state, "num_processes", 3)
    with pytest.raises(ValueError, match=r"accumulate is 2, and 3 processes .* multiples"):
        train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)


def test_bfloat16_is_of_the_passes_only(base, done, tmp_path):
    recipe = replace(RECIPE, precision="bfloat16")
    made = train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=recipe, **QUIET)
    ours, theirs = weights(made.adapter), weights(done.adapter)
    assert {w.dtype for w in ours.values()} == {torch.float32}
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)
    assert abs(made.curve["loss"] - done.curve["loss"]).max() < 0.05
    assert made.provenance["training"]["precision"] == "bfloat16"


# --- refused before any work ---


def test_no_room_for_checkpoints(base, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ValueError, match=r"checkpoints need about .* MB"):
        train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_told_and_gone_on_with(base, done, tmp_path, monkeypatch):
    real = torch.save

    def full(state, path, *more, **how):
        if "checkpoint-2" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return real(state, path, *more, **how)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="Make room"):
            train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)
    again = train(kit.model(base), PROMPTS, SAID, tmp_path / "run", recipe=RECIPE, **QUIET)
    assert same(again.adapter, done.adapter)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": PROMPTS[:2]}, "2 prompts and 8 completions"),
        ({"completions": ["", *SAID[1:]]}, "Row 0 has an empty completion"),
        ({"recipe": Recipe(cutoff=5)}, "longer than 5 tokens"),
        ({"recipe": Recipe(targets=("q_prj",))}, "no modules q_prj to adapt"),
    ],
)
def test_bad_input(base, tmp_path, change, said):
    asked = {"prompts": PROMPTS, "completions": SAID, "recipe": RECIPE} | change
    with pytest.raises(ValueError, match=said):
        train(kit.model(base), folder=tmp_path / "run", **asked, **QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"epochs": -1}]
)
def test_recipes_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_families_with_other_names(family, tmp_path):
    hooked = kit.fresh(family)
    found = train(hooked, PROMPTS[:4], SAID[:4], tmp_path / "run", recipe=Recipe(epochs=1), **QUIET)
    twin = adapted(hooked, found.adapter)
    assert twin.fingerprint != hooked.fingerprint
