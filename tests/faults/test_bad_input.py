"""Nonsense over functions, files and options, as the table of faults has it."""

import gzip
import random
import re
from pathlib import Path
from typing import Any

import bad_input
import commands
import pytest

import xlens
from xlens.lens.yardstick import read_lens_items
from xlens.results import load as load_any
from xlens.studies import Loading, find_studies
from xlens.tasks.running_text import read_texts
from xlens.tasks.words import read_words

pytestmark = pytest.mark.usefixtures("as_users_have_it")
STEERED = {"languages": ("en", "de"), "n_estimate": 6, "n_dev": 3, "n_test": 3}


def test_values_that_cannot_be_are_refused():
    row = bad_input.calls()
    assert row.faults == [] and row.tried > 100


def test_fields_of_files_are_read_or_refused_by_name(tmp_path: Path):
    row = bad_input.files(tmp_path)
    assert row.faults == [] and row.counts["taken"] < 10


def test_fields_of_studies_are_refused_without_a_model(tmp_path: Path):
    row = bad_input.fields_of_studies(commands.stories(tmp_path / "stories"))
    assert row.faults == [] and row.tried > 400


@pytest.mark.parametrize("there", [False, True], ids=["named", "loaded"])
@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("xmrc", {"phases": True, "phase_layers": (9,)}, "no layer 9: accepted are 0 to 3"),
        ("xmrc", {"max_new_tokens": 10**9}, "max_new_tokens is 1000000000; .* it reads 128"),
        ("steer", STEERED | {"layers": (1, "3-9")}, "no layer 4: accepted are 1 to 3"),
        ("steer", STEERED | {"max_new_tokens": 10**9}, "max_new_tokens is 1000000000; .* 128"),
        ("lens", {"pairs": ("de:ru",), "kinds": ("month",), "top_k": 10**9}, "accepted are 1 to"),
    ],
)
def test_what_a_model_lacks_is_refused_before_it_is_loaded_or_runs(
    command: str,
    given: dict[str, Any],
    message: str,
    there: bool,
    family_dir: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if command == "xmrc":
        given = {"data": str(commands.stories(tmp_path / "stories")), "questions": ("en",), **given}
    place = family_dir("gpt2")
    model = xlens.load(place) if there else str(place)
    monkeypatch.setattr(Loading, "load", lambda *_: pytest.fail("it is loaded"))
    monkeypatch.setattr(find_studies()[command], "steps", lambda *_: pytest.fail("it runs"))
    with pytest.raises(ValueError, match=message):
        xlens.run(find_studies()[command](**given), model)


TEXT = "Der Hund schläft.\n" * 90
ROWS = '{"text": "Der Hund schläft."}\n' * 90
NOISE = random.Random(0).randbytes(999).hex().encode()  # every worker collects the same tests
READERS = {
    "text": lambda path: read_texts([f"de={path}"]),
    "words": lambda path: read_words(str(path)),
    "yardstick": read_lens_items,
    "result": lambda path: load_any(path.parent),
}


@pytest.mark.parametrize(
    ("reader", "name", "content"),
    [
        ("text", "a.txt", TEXT.encode("latin-1")),
        ("text", "a.jsonl", (ROWS + '{"text": "Der').encode()),
        ("text", "a.jsonl", (ROWS + '{"txt": "Der"}').encode()),
        ("text", "a.jsonl", (ROWS + '{"text": 3}').encode()),
        ("text", "a.txt.gz", gzip.compress(NOISE, mtime=0)[:-40]),
        ("text", "a.parquet", b"PAR1 and nothing else PAR1"),
        ("words", "a.jsonl", b"{}"),
        ("yardstick", "a.json", b"[" * 100_000),
        ("yardstick", "a.json", b'{"items": [3]}'),
        ("result", "result.json", b"[" * 100_000),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{len(given)} bytes",
)
def test_what_a_damaged_file_still_holds_is_not_taken_for_it(
    reader: str, name: str, content: bytes, tmp_path: Path
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(name)):
        READERS[reader](path)
