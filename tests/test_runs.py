import json
import os
import sys

import pytest

from xlens import files
from xlens.runs import RunDirectory, describe_run
from xlens.studies.lens import pair_name

CONFIG = {"model": "tiny", "languages": ["fr", "zh-Hans"], "words": "花 الزهرة", "n": 3}
PROVENANCE = {"command": "xlens run", "started": "2026-01-01T00:00:00+00:00", "versions": {"a": 1}}


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_create_then_open_reads_the_same(tmp_path):
    made = RunDirectory.create(tmp_path / "deep" / "run", CONFIG, PROVENANCE)
    run = RunDirectory.open(tmp_path / "deep" / "run")
    assert run == made
    assert run.config == CONFIG
    assert run.provenance.items() >= PROVENANCE.items()
    assert "花 الزهرة" in run.config_file.read_text(encoding="utf-8")
    assert set(content(run.path)) == {"config.yaml", "provenance.json"}  # no drafts left


def test_same_config_is_taken_up_again_with_the_same_bytes(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    before = content(run.path)
    kept = run.result_folder("fr_zh-Hans", "translation")
    kept.mkdir(parents=True)
    later = {**PROVENANCE, "command": "python -m xlens run", "started": "2026-02-02T00:00:00+00:00"}
    RunDirectory.create(tmp_path, {**CONFIG, "languages": ("fr", "zh-Hans")}, later)
    assert content(run.path) == before
    assert kept.is_dir()


def test_changed_versions_are_added_once(tmp_path):
    RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    later = {**PROVENANCE, "started": "2026-02-02T00:00:00+00:00", "versions": {"a": 2}}
    for _ in range(2):
        run = RunDirectory.create(tmp_path, CONFIG, later)
    assert run.provenance["versions"] == {"a": 1}
    assert run.provenance["started"] == PROVENANCE["started"]
    assert run.provenance["resumed"] == [{"started": later["started"], "versions": {"a": 2}}]


def test_another_config_is_refused_and_named(tmp_path):
    RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    with pytest.raises(ValueError, match=r"differs in n, seed.*overwrite=True"):
        RunDirectory.create(tmp_path, {**CONFIG, "n": 4, "seed": 1}, PROVENANCE)
    RunDirectory.create(tmp_path / "lens", {"lens": {"n": 3, "seed": 0}}, PROVENANCE)
    with pytest.raises(ValueError, match=r"differs in lens\.n\. "):
        RunDirectory.create(tmp_path / "lens", {"lens": {"n": 4, "seed": 0}}, PROVENANCE)


def test_what_may_change_takes_its_newest_value(tmp_path):
    free = ("lens.pace", "lens.note")
    for options in ({"n": 3, "pace": 8}, {"n": 3, "pace": 1, "note": "x"}, {"n": 3}):
        run = RunDirectory.create(tmp_path, {"lens": options}, PROVENANCE, free=free)
        assert run.config == {"lens": options}
    with pytest.raises(ValueError, match=r"differs in lens\.n\. "):
        RunDirectory.create(tmp_path, {"lens": {"n": 4, "pace": 1}}, PROVENANCE, free=free)


def test_overwrite_deletes_the_run_and_nothing_else(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    run.result_folder("fr_ru", "translation").mkdir(parents=True)
    run.report_file.write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run = RunDirectory.create(tmp_path, {**CONFIG, "n": 4}, PROVENANCE, overwrite=True)
    assert run.config["n"] == 4
    assert set(os.listdir(tmp_path)) == {"config.yaml", "provenance.json", "notes.txt"}


def test_a_folder_with_other_files_is_refused_even_to_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"thesis\.tex.*new or an empty folder"):
            RunDirectory.create(tmp_path, CONFIG, PROVENANCE, overwrite=overwrite)
    assert set(os.listdir(tmp_path)) == {"thesis.tex"}


def test_foreign_config_and_provenance_are_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1")
    (tmp_path / "provenance.json").write_text(json.dumps({"other": "tool"}))
    with pytest.raises(ValueError, match="no run directory"):
        RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    with pytest.raises(ValueError, match="no run directory"):
        RunDirectory.open(tmp_path)


def test_a_run_killed_before_its_config_starts_afresh(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    run.config_file.unlink()
    stale = run.result_folder("fr_ru", "translation")
    stale.mkdir(parents=True)
    (tmp_path / ".xlens-config.yaml.1").write_text("half")
    run = RunDirectory.create(tmp_path, {**CONFIG, "n": 9}, PROVENANCE)
    assert run.config["n"] == 9
    assert not stale.exists()


def test_a_file_and_a_folder_below_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="give the name of a folder"):
            RunDirectory.create(path, CONFIG, PROVENANCE)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)  # root may write anywhere
    with pytest.raises(ValueError, match=r"Permission denied.*that you may write to"):
        RunDirectory.create(tmp_path / "run", CONFIG, PROVENANCE)


def test_open_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config\.yaml"):
        RunDirectory.open(tmp_path)


def test_results_lists_finished_ones_sorted(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    assert run.results() == {}
    saved = (("m", "fr_ru/translation"), ("m", "fr_ru/shuffled"), ("a", "scores"))
    for model, part in saved:
        folder = run.result_folder(model, part)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    run.result_folder("a", "unfinished").mkdir()
    (run.results_folder / "model.json").write_text("{}")
    assert run.results() == {"a": ("scores",), "m": ("fr_ru/shuffled", "fr_ru/translation")}
    assert run.models == ("a", "m")
    assert pair_name("fr", "zh-Hans") == "fr_zh-Hans"


def test_describe_run_shows_the_command_without_its_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/xlens", "run", "my words.csv"])
    known = describe_run(device="cpu")
    assert known["command"] == "xlens run 'my words.csv'"
    assert known["device"] == "cpu"
    assert known["versions"]["python"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/xlens/__main__.py", "demo"])
    assert describe_run()["command"] == "python -m xlens demo"


def test_a_run_of_an_older_xlens_is_refused_with_the_command_that_makes_it_anew(tmp_path):
    run = RunDirectory.create(tmp_path, CONFIG, PROVENANCE)
    said = json.loads(run.provenance_file.read_text())
    del said["sha256"]
    files.write(run.provenance_file, files.sealed_json({**said, "xlens_run": 2}))
    for ask in (
        lambda: RunDirectory.open(tmp_path),
        lambda: RunDirectory.create(tmp_path, CONFIG, PROVENANCE),
        lambda: RunDirectory.check(tmp_path, CONFIG),
    ):
        with pytest.raises(ValueError, match=r"older xlens.*anew: xlens run --overwrite"):
            ask()
    assert RunDirectory.create(tmp_path, CONFIG, PROVENANCE, overwrite=True).config == CONFIG
