"""Intervals at points: drawn from end to end, none where there is none, one way in all figures."""

import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

import xlens
from xlens.figures.whiskers import whiskers


def test_lines_go_from_end_to_end_and_never_to_the_wrong_side():
    found = whiskers([1.0, 2.0, 3.0], [0.5, np.nan, 3.5], [2.0, np.nan, 4.0], "red")
    assert found["array"] == [1.0, 0.0, 1.0] and found["arrayminus"] == [0.5, 0.0, 0.0]
    assert found["color"] == "red" and not found["symmetric"]
    (bar,) = go.Figure(go.Scatter(x=[1, 2, 3], y=[1, 2, 3], error_y=found)).data
    assert bar.error_y.arrayminus == (0.5, 0.0, 0.0)


def test_figures_draw_intervals_at_points_in_this_way_only():
    folder = Path(xlens.__file__).parent / "figures"
    by_hand = re.compile(r"arrayminus|error_[xy]\"?\]?\s*[=:]\s*\{")
    files = [path for path in folder.glob("*.py") if path.name != "whiskers.py"]
    assert [path.name for path in files if by_hand.search(path.read_text())] == []


def test_no_figure_runs_out_of_colours_and_leaves_the_rest_away():
    folder = Path(xlens.__file__).parent / "figures"
    cut = re.compile(r"zip\(.*?strict=False\)", re.S)
    found = [text for path in folder.glob("*.py") for text in cut.findall(path.read_text())]
    assert found and all("cycle(" in text or ", colors," in text for text in found), found
