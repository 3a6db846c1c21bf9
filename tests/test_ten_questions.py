"""Ten questions of a new user, each answered in at most five lines, those of `answer`."""

import inspect
import json
from contextlib import suppress

import kit
import numpy as np
import pytest
import torch

import xlens
from xlens.engine.harvest import HarvestRequest

TEXTS = {"en": "The dog sleeps", "de": "Der Hund schläft", "fr": "Le chien dort"}


@pytest.fixture(scope="module")
def model():
    return kit.fresh("gpt2")


def lines_of(answer):
    """The lines of a function's body."""
    body = inspect.getsource(answer).splitlines()[1:]
    return len([line for line in body if line.strip() and not line.strip().startswith("return")])


def few(answer):
    assert lines_of(answer) <= 5
    return answer()


def test_my_own_prompts_through_the_lens(model):
    def answer():
        states = xlens.harvest(model, ["Wo liegt Rom?", "Where is Rome?"])
        read = xlens.logit_lens(states, model)
        return read

    assert len(few(answer).states) == 2 * (model.n_layers + 1)


def test_pca_of_my_states_by_language(model):
    def answer():
        Prompt, every = xlens.Prompt, [(n, *item) for n in range(9) for item in TEXTS.items()]
        prompts = [Prompt(f"{text} {n}", language, str(n)) for n, language, text in every]
        states = xlens.harvest(model, prompts)
        drawn = xlens.subspace.language_map(states, n_controls=3).plot()
        return drawn

    assert few(answer).data


def test_my_own_vector(model):
    def answer():
        vector = torch.ones(model.d_model)
        push = xlens.engine.interventions.add(vector, layers=[1], strength=2.0)
        said = xlens.generate(model, "The dog", max_new_tokens=3, interventions=[push])
        return said

    assert len(few(answer).to_frame()) == 1


def test_a_model_in_bf16(model, family_dir):
    folder = family_dir("llama")

    def answer():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        llama = xlens.load(folder, dtype="bfloat16", device=device)
        return llama

    assert few(answer).dtype == torch.bfloat16


def test_heads(model):
    def answer():
        states = xlens.harvest(model, "The dog sleeps", site="z")
        heads = states.heads()
        return heads

    assert few(answer).shape[:2] == (model.n_layers, 1)


def test_two_models(model):
    other = model.random_twin()

    def answer():
        one, two = (xlens.score(m, "The dog", [" a", " b"]) for m in (model, other))
        both = xlens.compare(one, two)
        return both

    table = few(answer).to_frame()
    logprobs = table[table["measure"] == "logprob"]
    assert len(logprobs) == 2 and (logprobs["difference"] != 0).all()


def test_go_on_after_a_stop(model, tmp_path, monkeypatch):
    def answer():
        states = xlens.harvest(model, list(TEXTS.values()), store=tmp_path / "store")
        again = xlens.harvest(model, list(TEXTS.values()), store=tmp_path / "store")
        return states, again

    states, again = few(answer)
    assert torch.equal(states.get(), again.get())
    monkeypatch.setattr(HarvestRequest, "compute", None)  # what is kept is not computed again
    again = xlens.harvest(model, list(TEXTS.values()), store=tmp_path / "store")
    assert torch.equal(states.get(), again.get())


def test_my_own_files(model, tmp_path):
    (tmp_path / "words.tsv").write_text("id\tde\ten\n1\tHund\tdog\n2\tHaus\thouse\n", "utf-8")
    rows = [{"text": t, "language": lang, "id": "1"} for lang, t in TEXTS.items()]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "prompts.jsonl").write_text(text, encoding="utf-8")
    item = {"id": "q", "question": "A dog is?", "options": ["a", "b"], "gold": 0}
    asked = "".join(json.dumps(item | {"language": lang}) + "\n" for lang in ("en", "de"))
    (tmp_path / "mine.jsonl").write_text(asked, encoding="utf-8")

    def answer():
        words = xlens.read_words(tmp_path / "words.tsv")
        prompts = xlens.read_prompts(tmp_path / "prompts.jsonl")
        questions = xlens.tasks.choices.read_choices(tmp_path / "mine.jsonl")
        return words, prompts, questions

    words, prompts, questions = few(answer)
    assert len(prompts) == 3 and len(words) == 2
    assert questions.ids == ("q",) and questions.languages == ("en", "de")


def test_numpy_out(model):
    def answer():
        array = xlens.harvest(model, list(TEXTS.values())).to_numpy()
        table = xlens.trace(model, "The dog").to_frame()
        return array, table

    array, table = few(answer)
    assert isinstance(array, np.ndarray) and array.shape == (3, model.n_layers + 1, model.d_model)
    assert len(table)


@pytest.mark.slow  # a browser starts
def test_a_figure_as_png(model, tmp_path):
    def answer():
        figure = xlens.trace(model, "The dog").plot()
        return xlens.figures.write_figure(figure, tmp_path, "trace", static=["png"])

    with suppress(xlens.figures.StaticExportError):  # no browser on this machine
        assert any(path.suffix == ".png" and path.is_file() for path in few(answer))
    assert (tmp_path / "trace.html").is_file()
