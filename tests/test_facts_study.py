"""`xlens facts`: parts, curves over models, the page; what is refused before a model is loaded."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import Page

import tiny
import xlens
from xlens.acquisition import FactCurves, FactRecall, FrequencyResponse, TransferCurves
from xlens.figures import (
    fact_bars,
    fact_curves,
    fact_groups,
    fact_relations,
    likeness_over_training,
)
from xlens.report import write_report
from xlens.report.facts import findings
from xlens.runs import RunDirectory
from xlens.studies import FactsStudy, forecast
from xlens.tasks.facts import FactAnswers

pytestmark = pytest.mark.usefixtures("as_users_have_it")
FAST = {"shots": 1, "n_candidates": 3, "draws": 50}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    made = tmp_path_factory.mktemp("models")
    return [str(tiny.make("gpt2", made / f"m-step{n}", n_positions=512, seed=n)) for n in (1, 2)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{relation}{n}", "language": tag, "relation": relation, "frequency": n * n}
        | {"subject": f"{tag} land {n}", "object": f"{tag} {relation} {n % 5}", "group": "odd"}
        | {"template": f"{tag} {relation} of <subject>: <mask>"}
        for relation in ("king", "river")
        for n in range(7)
        for tag in ("en", "de")
    ]
    Path("facts.jsonl").write_text("\n".join(map(json.dumps, rows)))


def study(**options: object) -> FactsStudy:
    return FactsStudy(**{"facts": "facts.jsonl", **FAST, **options})


@pytest.mark.slow
def test_parts_curves_and_page_of_two_models(models: list[str]) -> None:
    done = xlens.run(study(), models, out="run", progress=False)
    assert set(done.models) == {"m-step1", "m-step2"}
    for parts in done.models.values():
        asked = ["answers", "candidates", "recall", "consistency", "frequency"]
        assert [*parts] == [*asked, "likeness", "transfer"]
        assert isinstance(parts["answers"], FactAnswers)
        assert isinstance(parts["frequency"], FrequencyResponse)
        found = parts["recall"]
        assert isinstance(found, FactRecall) and found.accuracy["n"].tolist() == [14, 14]
        assert {"ranked", "exact"} <= set(found.languages["rule"])
        assert found.provenance["asked"]["shots"] == 1
        for figure in (fact_bars(found), fact_relations(found)):
            assert figure.layout.title.text
    grown = done.across["curves"]
    assert isinstance(grown, FactCurves) and grown.models == ("m-step1", "m-step2")
    assert len(fact_curves(grown, "phi").data) == 2 and len(fact_groups(grown).data) == 2
    followed = done.across["transfer"]
    assert isinstance(followed, TransferCurves) and followed.last == "m-step2"
    assert set(followed.table["by"]) == {"all", "answers", "frequency", "sets"}
    assert len(likeness_over_training(followed, layer=1).layout.annotations) == 2
    with pytest.raises(ValueError, match="no measure 'x'; there are accuracy, co"):
        fact_curves(grown, "x")
    page = write_report(RunDirectory.open("run")).read_text(encoding="utf-8")
    for text in (
        *("Over models and checkpoints", "m-step1: what was found", "permuted within relations"),
        *("Which facts does", "by resampling facts", "m-step2, frequency of facts"),
        *("m-step2, similarity to the pivot", "grouped by the answers of m-step2"),
    ):
        assert text in page, text
    assert Page(page).hangs_together()
    assert "The answer stands among the demonstrations of 0 % of prompts" in page
    files = {path.name for path in Path("run/figures").iterdir()}
    assert {"curves-accuracy.html", "curves-groups.html", "m-step1-rank-c.html"} <= files
    assert {"m-step2-frequency-every.html", "m-step1-likeness-sets.html"} <= files


def test_what_is_right_may_change_and_nothing_is_asked_again(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = xlens.run(study(), models[0], out="run", progress=False)
    saved = Path("run/results/m-step1/answers/result.json").stat().st_mtime_ns
    monkeypatch.setattr("xlens.tasks.facts.asking.generate", None)
    other = replace(study(), rule="prefix", pivot="de")
    again = xlens.run(other, models[0], out="run", progress=False)
    assert again["recall"].rule == "prefix" and again["recall"].pivot == "de"
    # States are compared with the new pivot's: their cosines are the same, seen from there.
    tags = [set(done["likeness"].cells["language"]) for done in (first, again)]
    assert tags == [{"de"}, {"en"}]
    own = [done["likeness"].cosines[:, 0] for done in (first, again)]
    np.testing.assert_allclose(*own, rtol=1e-5)
    assert first["recall"].rule == "word"
    assert Path("run/results/m-step1/answers/result.json").stat().st_mtime_ns == saved
    with pytest.raises(ValueError, match=r"differs in facts\.shots"):
        xlens.run(study(shots=2), models[0], out="run", progress=False)


def test_without_candidates_and_frequencies(models: list[str]) -> None:
    plain = study(n_candidates=0, n_items=9)
    data = plain.read()
    bare = type(data)(data.frame.drop(columns=["frequency", "group"]), "bare")
    done = xlens.run(plain, models[0], data=bare, progress=False)
    assert [*done.parts] == ["answers", "recall", "likeness", "transfer"] == [*plain.parts(bare)]
    assert replace(plain, states=False).parts(bare) == ("answers", "recall")
    assert done["transfer"].paths.empty and set(done["transfer"].table["by"]) == {
        "all", "answers", "relations"
    }  # fmt: skip
    recall = done["recall"]
    assert recall.groups.empty and "ranked" not in set(recall.languages["rule"])
    names = {"en": "English", "de": "German"}
    assert findings(recall, names)[0].startswith("Recalled of 9 facts: English")


def test_models_decide_what_is_usual() -> None:
    assert FactsStudy().of_models(["atlas@step512", "atlas"]).facts == "atlas"
    assert FactsStudy().of_models(["atlas", "gpt2"]).facts == "cldr"
    assert FactsStudy(facts="x.tsv").of_models(["atlas"]).facts == "x.tsv"
    assert (
        FactsStudy(facts="atlas").how["shots"] == 0 and FactsStudy(facts="cldr").how["shots"] == 3
    )
    assert FactsStudy(facts="atlas", shots=2).how["shots"] == 2


def test_what_it_takes_is_counted_before_a_model_is_loaded(models: list[str]) -> None:
    (plan,) = forecast(study(), models[0]).values()
    assert plan.work is not None and plan.work["answers"].prompts == 28
    assert plan.work["likeness"].prompts == 28
    assert plan.work["candidates"].prompts == 28 * 3 and plan.work["answers"].said > 28


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pivot": "fr"}, "No facts in 'fr'"),
        ({"shots": 7}, "needs 7 demonstrations"),
        ({"relations": ("sea",)}, r"no relation \['sea'\]"),
        ({"facts": "none.jsonl"}, "No file or folder 'none.jsonl'"),
        ({"facts": "klar:nowhere"}, "No file or folder 'nowhere'"),
        ({"facts": None}, "Name two languages or more: --languages"),
        ({"frequencies": Path("other.tsv")}, "None of the frequencies is of a fact"),
        ({"languages": ("en", "fr")}, "has no 'fr'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(
    options: dict[str, object], message: str
) -> None:
    Path("other.tsv").write_text("id\tlanguage\tfrequency\nx\ten\t1\n")
    with pytest.raises(ValueError, match=message):
        xlens.run(study(**options), "no-such-model-anywhere", progress=False)


def test_prompts_that_a_model_cannot_hold_are_refused(models: list[str]) -> None:
    rows = [json.loads(line) for line in Path("facts.jsonl").read_text().splitlines()]
    rows[0]["subject"] = "word " * 600
    Path("facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"prompt of fact 'king\d' .*the context holds 512"):
        xlens.run(study(), models[0], progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_candidates": 1}, "to rank takes 2 or more, 0 asks for none"),
        ({"n_candidates": 0, "rule": "ranked"}, "rule='ranked' without candidates"),
        ({"clusters": "paragraph"}, "id or subject"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study(**options)
