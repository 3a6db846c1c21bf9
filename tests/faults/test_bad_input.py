"""Nonsense over functions and files, as the table of faults has it."""

from pathlib import Path

import bad_input
import pytest

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def test_values_that_cannot_be_are_refused():
    row = bad_input.calls()
    assert row.faults == [] and row.tried > 100


def test_fields_of_files_are_read_or_refused_by_name(tmp_path: Path):
    row = bad_input.files(tmp_path)
    assert row.faults == [] and row.counts["taken"] < 10
