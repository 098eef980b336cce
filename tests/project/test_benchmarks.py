"""The benchmark for a GPU runs, on tiny sizes, wherever there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_prints_its_table_last():
    command = [sys.executable, "benchmarks/gpu.py", "--small"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heading, _, table = done.stdout.partition("| | ms | ratio | to |")
    assert "cpu, so no numbers of a GPU" in heading
    rows = [
        line.strip("| ").split(" | ") for line in table.splitlines() if re.match(r"\| \w", line)
    ]
    names = [name for name, *_ in rows]
    assert names[:3] == [
        "a step, batch 8",
        "a step, compiled, batch 8",
        "a cached step, batch 16",
    ]
    assert len(names[3:]) == 8 + 2
    assert all(float(milliseconds) > 0 and float(ratio) > 0 for _, milliseconds, ratio, _ in rows)
