"""What a study says that it will take is what it takes, and saying so runs nothing."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from test_studies import _STEER, SMALL, STUDIES, folder, here  # noqa: F401

import xlens
from xlens.cli import main
from xlens.engine.request import Request
from xlens.errors import InputError
from xlens.models.size import Size
from xlens.store import Store
from xlens.studies import Plan, Work, find_studies, forecast

pytestmark = pytest.mark.usefixtures("as_users_have_it")
LARGER = {
    "lens": {"controls": ("shuffled", "random-init", "repetition"), "n_controls": 3},
    "process": {"steer": (), **{name: value for name, value in _STEER.items() if name == "shots"}},
    "steer": {"n_outputs": 2, "max_new_tokens": 3, "layers": (1, "1-2"), "steer": ("lsar", "lda")},
    "xmrc": {"oracle": True},
}


def asked(command: str, **more):
    own = SMALL[command] if command != "process" else {"items": ("items.jsonl",), "n_items": 8}
    return STUDIES[command](**{**own, **LARGER.get(command, {}), **more})


@pytest.fixture
def counted(monkeypatch) -> Counter:
    """Prompts that the model is asked, counted where every request is computed."""
    found: Counter = Counter()
    kinds = [Request]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if "compute" in vars(kind) and kind is not Request:
            _count(monkeypatch, kind, found)
    return found


def _count(monkeypatch, kind, found):
    whole = kind.compute

    def compute(self, *given, **named):
        found["depth"] += 1
        try:
            if found["depth"] == 1:  # one request may be computed through another
                found["prompts"] += len(self.tokens)
            return whole(self, *given, **named)
        finally:
            found["depth"] -= 1

    monkeypatch.setattr(kind, "compute", compute)


@pytest.mark.parametrize(
    "command",
    ["lens", "choices", "process", pytest.param("steer", marks=pytest.mark.slow), "xmrc"],
)
def test_as_many_prompts_as_were_planned(command, folder, counted):  # noqa: F811
    study = asked(command)
    model = xlens.load(folder, device="cpu")
    data = study.read()
    plan = study.plan(data, model, flops=1e9)
    assert not counted
    assert plan.parts == study.parts(data) and set(plan.work) <= {*plan.parts}
    xlens.run(study, model, data=data, store=Store("store"), progress=False)
    assert plan.total.prompts == counted["prompts"] > 0
    assert plan.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["xmrc", "phases"])
def test_phases_are_planned_at_most(command, folder, counted):  # noqa: F811
    more = {"n_phases": 4, "phase_languages": ("en",)}
    more |= {"phases": True, "oracle": False} if command == "xmrc" else {"kinds": ()}
    study = asked(command, **more)
    model = xlens.load(folder, device="cpu")
    plan = study.plan(study.read(), model)
    xlens.run(study, model, store=Store("store"), progress=False)
    assert 0.5 * plan.total.prompts < counted["prompts"] <= plan.total.prompts


def test_tokens_are_those_that_run(folder, monkeypatch):  # noqa: F811
    """Common beginnings once, as the core plans them."""
    from xlens.engine import backoff

    run, ran = backoff.plan, []

    def noted(sequences, budget, **how):
        found = run(sequences, budget, **how)
        ran.append(sum(batch.padded_tokens for batch in found))
        return found

    monkeypatch.setattr(backoff, "plan", noted)
    study, model = asked("choices", shots=4), xlens.load(folder, device="cpu")
    plan = study.plan(study.read(), model)
    xlens.run(study, model, progress=False)
    assert plan.total.tokens == sum(ran)


def test_a_forecast_loads_no_model(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr("xlens.studies.loading.Loading.load", None)
    plans = forecast(asked("choices"), [str(folder)])
    (name, plan), *_ = plans.items()
    assert name == folder.name and plan.total.prompts == 8 * 3 * 2 and plan.seconds > 0
    with pytest.raises(SystemExit) as end:
        main(["choices", str(folder), *["--items", "items.jsonl", "--n-items", "8", "--dry-run"]])
    assert not end.value.code
    said = capsys.readouterr().out
    assert "2 parts, 48 prompts of" in said and "about" in said
    assert not Path("runs").exists()


def test_a_forecast_refuses_what_a_run_refuses(folder):  # noqa: F811
    with pytest.raises(ValueError, match="No file or folder"):
        forecast(STUDIES["xmrc"](data="nowhere", questions=("de",)), str(folder))
    with pytest.raises(ValueError, match="There is no file or folder"):
        forecast(asked("choices"), "./nowhere")


def test_what_is_there_is_not_planned_again(folder):  # noqa: F811
    model = xlens.load(folder, device="cpu")
    study = asked("choices")
    plan = study.plan(study.read(), model, flops=1e9)
    left = plan.without(["items/scores"])
    assert left.parts == ("items/consistency",) and left.total == Work() and left.seconds == 0
    assert str(left) == "1 part, 0 prompts of 0 tokens: the model takes about 1 s"
    assert str(Plan(("a", "b"))) == "2 parts"


def test_answers_may_be_short_or_long():
    size = Size(n_params=10**9, n_layers=1, d_model=1, d_vocab=1)
    said = str(Plan(("a",), {"a": Work(1, 600, said=0)}, size, 1e9))
    assert said.endswith("600 tokens: the model takes about 33 min")
    said = str(Plan(("a",), {"a": Work(1, 600, said=600)}, size, 1e9))
    assert said.endswith(": the model takes 33 min to 2.6 h, by how long answers are")


def test_time_follows_from_size():
    """By hand: weights once a token and the head once a reading, at .6 of the machine's speed.

    Words that are said take both for each token, at a sixth.
    """
    size = Size(n_layers=2, d_model=10, d_vocab=100, n_params=5_000)
    read = (2 * 5_000 * 60 + 2 * 10 * 100 * 30) / 6e5
    assert Work(tokens=60, read=30).seconds(size, 1e6) == pytest.approx(read)
    said = (2 * 5_000 + 2 * 10 * 100) * 7 * 6 / 1e6
    assert Work(tokens=60, read=30, said=7).seconds(size, 1e6) == pytest.approx(read + said)


def test_size_is_that_of_the_weights(folder):  # noqa: F811
    from xlens.models.sources import load_outline, resolve

    model = xlens.load(folder, device="cpu")
    outline = load_outline(resolve(folder))
    assert outline.size == model.size
    tied = model.hf_model.get_input_embeddings().weight
    assert model.size.n_params == sum(p.numel() for p in model.hf_model.parameters()) - tied.numel()


@pytest.mark.parametrize("command", find_studies())
def test_lists_may_be_written_with_commas(command):
    kind = find_studies()[command]
    several = [f.name for f in fields(kind) if f.type in ("tuple[str, ...]", tuple[str, ...])]
    assert {name for name in several if "languages" in name} <= set(kind.LISTS)
    for name in set(several) & set(kind.LISTS) - {"settings", "kinds"}:
        values = ("de:ru", "fr:es") if name == "pairs" else ("de", "ru")
        if name == "controls":
            values = kind.CONTROLS if hasattr(kind, "CONTROLS") else ("shuffled", "random-init")
        # Fields that are of no use without another.
        more: dict[str, Any] = {"causal": True} if name == "others" else {}
        more |= {"steer": ("mean_difference",)} if name == "steer_languages" else {}
        wanted = getattr(kind(**{name: values, **more}), name)
        assert getattr(kind(**{name: (",".join(values),), **more}), name) == wanted == values
        with pytest.raises(InputError, match=f"{name} is .*names none"):
            kind(**{name: (",",), **more})
