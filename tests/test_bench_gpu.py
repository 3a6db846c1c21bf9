"""The benchmark for a GPU runs to its end without one."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_gpu.py"


@pytest.mark.slow
def test_it_runs_tiny_on_the_cpu():
    asked = [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--rounds", "1"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    for what in ("lens", "harvest last", "harvest all, into a store", "generate", "relevance"):
        assert what in done.stdout
    assert "floor" in done.stdout and "failed" not in done.stdout
