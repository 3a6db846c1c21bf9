"""Nothing that is read waits without a word, and no JSON text is taken for one of two things."""

import json
import os
import shutil
from pathlib import Path

import pytest

import tiny
import xlens
from xlens import results
from xlens.cli import main
from xlens.files import sealed_json, unsealed_json
from xlens.lens.yardstick import read_lens_items
from xlens.models.series import find_series
from xlens.prompts import read_prompts
from xlens.records import decode, read_records
from xlens.studies.align import AlignStudy
from xlens.studies.serving import Serving
from xlens.tasks.sentences import read_sentences
from xlens.tasks.words import read_words
from xlens.tasks.xmrc import read_reading

TWICE = '{"a": 1, "b": {"id": 1, "id": 2}}'


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.make("gpt2", tmp_path_factory.mktemp("models") / "whole")


READERS = {
    "prompts.jsonl": read_prompts,
    "rows.json": lambda p: read_records(p, (".json",)),
    "rows.parquet": lambda p: read_records(p, (".parquet",)),
    "text.txt": lambda p: decode(p, (".txt",)),
    "words.tsv": read_words,
    "en.json": lambda p: read_reading(p, languages=["en"]),
    "items.json": read_lens_items,
    "sentences.tsv": lambda p: read_sentences(p, layout="tsv"),
    "small.gguf": xlens.load,
    "result.json": lambda p: results.load(p.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_a_named_pipe_is_refused_and_not_waited_for(name, tmp_path):
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"not a regular file|No file|no file|damaged") as error:
        READERS[name](pipe)
    assert str(pipe) in str(error.value) or name in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "vocab.json", "more.bin"])
def test_a_checkpoint_with_a_named_pipe_is_refused(name, model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "m" / name)
    with pytest.raises(ValueError):
        xlens.load(tmp_path / "m")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_config_that_says_one_thing_twice_is_refused(name, model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    path = tmp_path / "m" / name
    fields = json.loads(path.read_text()) if path.is_file() else {"eos_token_id": 1}
    key = next(iter(fields))
    path.write_text(json.dumps(fields)[:-1] + f', "{key}": null}}')
    with pytest.raises(ValueError, match=f'{name}.*"{key}" occurs twice in one object; keep one'):
        xlens.load(tmp_path / "m")


def test_what_is_read_back_says_each_thing_once(tmp_path):
    whole = sealed_json({"a": 1, "b": 2}, indent=None)
    twice = '{"a": 7, ' + whole[1:]
    with pytest.raises(ValueError, match='"a" occurs twice'):
        unsealed_json(tmp_path / "x.json", twice.encode(), "Make it anew.", verify=False)
    (tmp_path / "result.json").write_text(TWICE)
    with pytest.raises(ValueError, match=r"result\.json"):
        results.load(tmp_path)
    (tmp_path / "items.json").write_text('{"items": [], "items": []}')
    with pytest.raises(ValueError, match='"items" occurs twice'):
        read_lens_items(tmp_path / "items.json")
    with pytest.raises(ValueError, match=r"--extra-body.*occurs twice"):
        Serving(extra_body='{"top_p": 1, "top_p": 0.5}').endpoints(
            ["m@http://localhost:1/v1"], chat=True
        )


def test_more_trainings_than_fit_into_memory_are_refused():
    with pytest.raises(ValueError, match=r"runs is 10+; accepted are 1 to 1,000"):
        AlignStudy(source=("de",), languages=("en", "de"), runs=10**30)


def test_an_argument_that_no_shell_can_give_is_refused_in_words(capsys):
    with pytest.raises(SystemExit):
        main(["lens", "m", "--clusters", "\ud800"])
    assert r"argument 4, '\ud800', is not valid UTF-8" in capsys.readouterr().err


def test_a_series_says_which_checkpoint_lost_its_config(model, tmp_path):
    for step in (1, 2):
        shutil.copytree(model, tmp_path / f"checkpoint-{step}")
    assert len(find_series(str(tmp_path), ["all"])) == 2
    (tmp_path / "checkpoint-2" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2.*neither config\.json.*train it again"):
        find_series(str(tmp_path), ["all"])
