"""Shares and counts in words, at the ends of what they can be."""

import numpy as np
import pytest

from xlens.stats import Resampling
from xlens.wording import number_of, percent, range_of


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0 %"),
        (0.001, "<1 %"),
        (0.25, "25 %"),
        (0.996, ">99 %"),
        (1.0, "100 %"),
        (np.nan, "–"),
    ],
)
def test_a_share_is_called_nothing_or_everything_only_where_it_is(share, said):
    assert percent(share) == said


def test_a_confidence_is_not_rounded():
    assert percent(0.975, whole=False) == Resampling(confidence=0.975).percent == "97.5 %"


def test_one_is_not_many():
    assert [number_of(n, "prompt") for n in (0, 1, 2)] == ["0 prompts", "1 prompt", "2 prompts"]
    assert number_of(1, "entry", "entries") == "1 entry"
    assert number_of(1200, "entry", "entries") == "1,200 entries"
    assert range_of([3, 3], "item") == "3 items" and range_of([5, 1, 3], "item") == "1 to 5 items"
