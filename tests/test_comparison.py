"""Two runs or results side by side: rows matched by name, labelled by what differs."""

from dataclasses import replace

import pandas as pd
import pytest
from test_neurons import counted, drawn
from test_studies import SMALL, folder, here  # noqa: F401  (fixtures)

import xlens
from xlens.cli import main
from xlens.comparison import CompareResult
from xlens.figures import compared_points
from xlens.neurons import language_neurons
from xlens.results import load
from xlens.runs import RunDirectory
from xlens.studies import find_studies
from xlens.studies.steps.twins import TwinSummary

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def twins(shift=0.0, model="base"):
    rows = [
        {
            "layer": layer,
            "measure": m,
            "first": layer + shift,
            "second": 1.0,
            "low": -shift,
            "value": 2.0,
        }
        for m in ("separation", "pearson")
        for layer in range(3)
    ]
    return TwinSummary(
        provenance={"model": model, "how": {"seed": 1}}, table=pd.DataFrame(rows), names=("a", "b")
    )


def test_rows_are_matched_by_name_and_not_by_place():
    other = twins(0.5, "aligned")
    other = replace(other, table=other.table.iloc[::-1].drop(index=0))
    found = xlens.compare(twins(), other)
    assert found.names == ("model base", "model aligned") and found.differs == {
        "model": ["base", "aligned"]
    }
    moved = found.table.query("measure == 'first'")
    assert len(moved) == 5 and (moved["difference"] == 0.5).all()
    assert set(moved["where"]) >= {"layer 2 · pearson"}
    assert set(found.summary["measure"]) == {"first", "second", "value"}  # no ends of intervals
    compared_points(found)


def test_the_largest_difference_is_named_with_its_place():
    table = twins().table.assign(first=lambda t: t["first"] + (t["layer"] == 1) * -0.75 + 0.25)
    found = xlens.compare(twins(), replace(twins(), table=table)).summary.set_index("measure")
    assert found.loc["first", "most"] == -0.5 and "layer 1" in found.loc["first", "at"]
    assert found.loc["first", "difference"] == pytest.approx(0.0)


def test_vocabulary_items_and_ranks_are_no_numbers():
    table = twins().table.assign(token=range(6), k=1)
    found = xlens.compare(twins(0.5), replace(twins(), table=table.assign(token=7)))
    assert {"token", "k"}.isdisjoint(found.table["measure"])
    both = [replace(twins(), table=table.assign(token=[n, *range(1, 6)])) for n in (0, 7)]
    assert "token" not in set(xlens.compare(*both).table["measure"])


def test_names_that_are_cut_alike_give_way(tmp_path):
    long = "m" * 80
    pair = [twins(model=f"{long} {name}") for name in ("one", "two")]
    assert xlens.compare(*pair).names == ("first", "second")
    places = [result.save(tmp_path / name) for result, name in zip(pair, "ab", strict=True)]
    assert xlens.compare(*places).names == tuple(map(str, places))


def test_rows_that_nothing_names_are_not_matched():
    table = pd.DataFrame({"layer": [1, 1], "value": [0.1, 0.2]})
    same = replace(twins(), table=table)
    with pytest.raises(ValueError, match="no rows in common"):
        xlens.compare(same, same)


def test_kinds_are_not_mixed(tmp_path):
    neurons = language_neurons(counted(drawn()), top=0.1, filter_rate=0.6)
    with pytest.raises(ValueError, match="A TwinSummary and a LanguageNeurons"):
        xlens.compare(twins(), neurons)
    runs = [
        RunDirectory.create(tmp_path / name, {name: {"seed": 0}}, {"command": f"xlens {name}"})
        for name in ("lens", "choices")
    ]
    with pytest.raises(ValueError, match=r"a run of lens, .* one of choices: only runs of one"):
        xlens.compare(runs[0].path, runs[1].path)
    with pytest.raises(ValueError, match="a run and a result can't be compared"):
        xlens.compare(runs[0].path, twins())
    with pytest.raises(ValueError, match="no run directory"):
        xlens.compare(tmp_path / "nowhere", twins())


def test_runs_are_compared_part_by_part_and_models_by_name(tmp_path, capsys):
    made = {"one": ("gpt2", 0.0, 0), "two": ("aligned", 0.25, 3)}
    for name, (model, shift, seed) in made.items():
        run = RunDirectory.create(
            tmp_path / name, {"align": {"model": model, "seed": seed, "out": name}}, {}
        )
        twins(shift).save(run.result_folder(model, "inside/summary"))
        twins(0.0).save(run.result_folder("all-models", "same"))
    twins().save(RunDirectory.open(tmp_path / "two").result_folder("aligned", "inside/more"))
    given = [str(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(SystemExit) as ended:
        main(["compare", *given, "--out", str(tmp_path / "out")])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "first: model gpt2, seed 0" in said and "0.25" in said and "inside/more" in said
    found = load(tmp_path / "out" / "result")
    assert isinstance(found, CompareResult) and found.kind == "align"
    sizes = found.table.query("measure == 'first'").groupby("part")["difference"].mean()
    assert sizes["gpt2/inside/summary"] == 0.25 and sizes["all-models/same"] == 0
    assert (tmp_path / "out" / "compared.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["lens", "choices", "xmrc"])
def test_two_runs_of_a_study(command, folder, tmp_path):  # noqa: F811
    for n in (4, 5):
        study = find_studies()[command](**{**SMALL[command], "seed": n})
        xlens.run(study, str(folder), out=tmp_path / str(n), progress=False)
    found = xlens.compare(tmp_path / "4", tmp_path / "5")
    assert found.differs == {"seed": [4, 5]} and found.names == ("seed 4", "seed 5")
    assert len(found.summary) and found.table["difference"].notna().any()
    same = xlens.compare(tmp_path / "4", tmp_path / "4")
    assert (same.table["difference"].dropna() == 0).all()
    assert len(same.table) >= len(found.table)
    compared_points(found)
