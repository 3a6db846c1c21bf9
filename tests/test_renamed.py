"""Names that changed: the old ones work for one release, and say so."""

import json

import kit
import pandas as pd
import pytest

from xlens import corpus, results
from xlens._renamed import names_of, renamed, todays
from xlens.cli import _options, _todays
from xlens.lens import LensResult, target_sets
from xlens.phases.depth import DepthOptions, DepthResult
from xlens.studies import find_studies
from xlens.studies.lens import LensStudy
from xlens.studies.reading import ReadingStudy
from xlens.tasks.xmrc.metrics import normalise

WORDS = pd.DataFrame({"de": {"a": "Hund"}, "en": {"a": "dog"}})
ITS_OLD_NAME = pytest.warns(DeprecationWarning, match=r"'reading' is called 'match' from now on")


def test_functions_take_old_keywords(family_dir):
    model = kit.model(family_dir("gpt2"))
    with ITS_OLD_NAME:
        sets = target_sets(model, WORDS, reading="first")  # pyright: ignore[reportCallIssue]
    assert sets.match == "first"
    with ITS_OLD_NAME:
        assert sets.reading == "first"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(DeprecationWarning, match="'rules' is called 'normalisation'"):
        assert normalise("20–18", "en", rules="squad") == "20–18"  # pyright: ignore


def test_studies_take_old_fields():
    with pytest.warns(DeprecationWarning, match="'points' is called 'layers'"):
        study = LensStudy(causal=True, points=(1,))  # pyright: ignore[reportCallIssue]
    assert study == LensStudy(causal=True, layers=(1,))
    with pytest.warns(DeprecationWarning):
        assert ReadingStudy(rules="squad").normalisation == "squad"  # pyright: ignore
    with pytest.raises(TypeError, match="'match' and its old name 'reading': give one"):
        LensStudy(match="first", reading="first")  # pyright: ignore[reportCallIssue]


def test_an_old_attribute_says_what_it_is_called_now():
    """Also on the site, which can't print the docstring of a `functools.partial`."""
    assert vars(LensStudy)["points"].__doc__ == "The old name of `layers`."


def test_a_name_of_today_gives_no_warning(recwarn):
    assert LensStudy(match="whole").match == "whole"
    assert not [w for w in recwarn if issubclass(w.category, DeprecationWarning)]
    assert todays("f", {"a": "b"}, {"b": 1}) == {"b": 1}


def test_a_module_shows_its_old_name():
    with pytest.warns(DeprecationWarning, match="'Reading' is called 'Layout'"):
        assert corpus.Reading is corpus.Layout
    with pytest.raises(AttributeError, match="no attribute 'Raeding'"):
        _ = corpus.Raeding  # pyright: ignore[reportAttributeAccessIssue]


def test_subclasses_know_the_names_of_what_they_are_made_from():
    @renamed(one="first")
    class Base:
        first = 1

    @renamed(two="second")
    class Below(Base):
        second = 2

    assert names_of(Below) == {"one": "first", "two": "second"} and names_of(Base) == {
        "one": "first"
    }


def test_every_old_name_is_of_a_field_that_is_there():
    seen = 0
    for kind in (*find_studies().values(), LensResult, DepthOptions):
        there = set(kind.__dataclass_fields__)
        for old, new in names_of(kind).items():
            assert new in there and old not in there
            seen += 1
    assert seen >= 5


def test_the_command_line_and_yaml_take_old_options(tmp_path, capsys):
    now = names_of(LensStudy)
    assert _todays("--reading=first", now) == "--match=first" and _todays("--points", now) == (
        "--layers"
    )
    assert "--reading is called --match from now on" in capsys.readouterr().err
    for same in ("reading", "--readings", "first", "-h", "--", "--match"):
        assert _todays(same, now) == same
    file = tmp_path / "old.yaml"
    file.write_text("lens: {reading: first, n-items: 3}")
    assert _options(file, ["lens"], now).config == {"lens": {"match": "first", "n-items": 3}}


def test_results_saved_under_old_names_are_read(tmp_path):
    table = pd.DataFrame({"prompt": [0], "id": ["a"], "language": ["en"], "segment": ["s"]})
    made = DepthResult(
        table=table, profiles=table, n_layers=2, options={"reading": "r"}, provenance={}
    )
    assert made.options == {"measure": "r"}
    folder = made.save(tmp_path / "a")
    assert results.load(folder).options == {"measure": "r"}


def test_a_field_saved_by_its_old_name_is_read(tmp_path):
    @renamed(was="now")
    @results.dataclass(frozen=True, kw_only=True)
    class Renamed(results.Result):
        now: int

    folder = Renamed(now=3, provenance={}).save(tmp_path / "a")
    header = folder / results.HEADER
    said = json.loads(header.read_text())
    said["fields"]["was"] = said["fields"].pop("now")
    header.write_text(json.dumps(said))
    assert Renamed.load(folder, verify=False).now == 3
