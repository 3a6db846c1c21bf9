"""Answers of served models on a disk that changes them: none is used that was not given."""

import errno
import json
import logging
import os
import random
import shlex
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from damage import damage
from endpoint import Endpoint, serving

from xlens import Prompt, files
from xlens.served import ServedModel, served_generate
from xlens.served.answers import Answer, Answers
from xlens.store import StoreError

KIND = {"endpoint": "http://localhost/v1", "model": "m"}
GIVEN = {f"{n:032x}": Answer(f"Antwort {n}", "stop", 10 + n, n, "m-1") for n in range(6)}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    answers = Answers(tmp_path / "store", KIND)
    answers.prepare()
    for request, answer in GIVEN.items():
        answers.keep(request, answer)
    assert answers.path is not None
    return answers.path


@pytest.mark.parametrize("n", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_no_damaged_answer_is_used(n, kept, tmp_path, caplog):
    """Corruptions: every answer is as it was given, or gone and told of with its file."""
    dice = random.Random(1)
    whole = kept.read_bytes()
    tried = silent = 0
    while tried < n:
        kept.write_bytes(whole)
        caplog.clear()
        if (what := damage([kept], dice)) is None:
            continue
        tried += 1
        answers = Answers(tmp_path / "store", KIND)
        found = {request: answers.get(request) for request in GIVEN}
        assert all(found[r] in (None, answer) for r, answer in GIVEN.items()), what
        lost = sum(answer is None for answer in found.values())
        told = str(kept) in caplog.text and "asked again" in caplog.text
        silent += bool(lost) and not told
        # What is missing is taken in again, and the damage is told of once.
        answers.prepare()
        for request, answer in GIVEN.items():
            if request not in answers:
                answers.keep(request, answer)
        caplog.clear()
        again = Answers(tmp_path / "store", KIND)
        assert {request: again.get(request) for request in GIVEN} == GIVEN, what
        assert caplog.text == "", what
    # A file cut short at its end, or gone, is what a kill and a person do: asked again.
    assert silent <= 0.25 * tried


@pytest.mark.parametrize(
    ("old", "new"),
    [("Antwort 3", "Antwort 4"), ('"written":3', '"written":2'), ('"digest"', '"digesx"')],
)
def test_a_change_that_reads_well_is_found_and_named(old, new, kept, caplog):
    text = kept.read_text()
    assert old in text
    kept.write_text(text.replace(old, new))
    answers = Answers(kept.parents[1], KIND)
    assert answers.get(f"{3:032x}") is None
    assert f"{kept}: damaged, and not used: line " in caplog.text


def test_answers_of_an_older_xlens_are_read_with_one_warning(kept, caplog):
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    for line in lines:
        line.pop("digest", None)
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answers = Answers(kept.parents[1], KIND)
    assert {request: answers.get(request) for request in GIVEN} == GIVEN
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "6 answers" in record.getMessage()


def test_who_waits_for_the_file_says_for_whom(kept, caplog):
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with files.Lock(kept.parent / ".lock", "it", 60.0):
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    waiting = threading.Thread(
        target=Answers(kept.parents[1], KIND).keep, args=("f" * 32, next(iter(GIVEN.values())))
    )
    waiting.start()
    for _ in range(40):  # two seconds, longer on a busy machine
        if "Waiting for the answers kept in" in caplog.text:
            break
        time.sleep(0.05)
    assert f"process {os.getpid()} on" in caplog.text
    go.set()
    thread.join()
    waiting.join()
    assert "f" * 32 in Answers(kept.parents[1], KIND)


def test_a_full_disk_is_told_with_advice_for_the_store_itself(kept, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    answers = Answers(kept.parents[1], KIND)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No room for keeping an answer") as caught:
        answers.keep("e" * 32, next(iter(GIVEN.values())))
    root = shlex.quote(str(kept.parents[1]))
    assert f"`xlens store prune --older-than 30d --root {root}`" in str(caught.value)


def test_kept_nonsense_of_an_older_xlens_blocks_nothing(tmp_path):
    """A count of 10^30 ended every later call in an overflow."""
    pytest.importorskip("openai", reason="the extra [api] is not installed: make install")
    prompts = [Prompt(text, "de", text) for text in "ab"]
    with serving(Endpoint()) as there:
        served = ServedModel("m", there.url)

        def ask() -> Any:
            return served_generate(served, prompts, store=tmp_path, progress=False).table

        whole = ask()
        (path,) = (tmp_path / "served").glob("*.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines[1:]:
            del line["digest"]
        lines[1]["answer"]["read"] = 10**30
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        there.bodies.clear()
        assert ask().equals(whole) and len(there.asked) == 1
    shutil.rmtree(tmp_path / "served")
