"""Tables of the experiments' READMEs are those that are kept of their runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"


def tables(*asked, of=EXPERIMENTS):
    return subprocess.run(
        [sys.executable, str(of / "tables.py"), *map(str, asked)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_every_table_is_as_it_was_kept():
    done = tables("--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", sorted(EXPERIMENTS.glob("*/README.md")), ids=lambda p: p.parent.name
)
def test_no_table_stands_outside_the_marks(page):
    said = page.read_text(encoding="utf-8")
    outside = re.sub(r"<!-- begin table: .*?<!-- end table -->", "", said, flags=re.DOTALL)
    assert not re.findall(r"^\|.*$", outside, re.MULTILINE)
    named = {
        name
        for at in re.findall(r"<!-- begin table: \w+ of (.*?) -->", said)
        for name in at.split()
    }
    assert named == {path.stem for path in (page.parent / "results").glob("*.json")}


@pytest.fixture
def elsewhere(tmp_path):
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments")
    return tmp_path / "experiments"


def test_a_number_changed_by_hand_is_told_and_written_over(elsewhere):
    page = elsewhere / "latent_process" / "README.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(before.replace("| RankC | .67 |", "| RankC | .97 |"), encoding="utf-8")
    assert page.read_text(encoding="utf-8") != before
    done = tables("--check", of=elsewhere)
    assert done.returncode == 1 and "latent_process" in done.stderr
    assert tables(of=elsewhere).returncode == 0
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("of mgsm", "of nowhere", "nowhere.json"),
        ("means of mgsm", "recall of mgsm", "lacks recalled"),
    ],
)
def test_a_mark_that_names_what_is_not_kept_is_refused(was, now, said, elsewhere):
    page = elsewhere / "question_alignment" / "README.md"
    page.write_text(page.read_text(encoding="utf-8").replace(was, now), encoding="utf-8")
    done = tables(of=elsewhere)
    assert done.returncode and said in done.stderr
