"""Kills at each file operation. They fork, and torch's autograd survives that only in a process that has not trained in
threads: the cases, in kill_cases.py, get one of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("kill_cases.py")


def run_cases(marks, folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(CASES),
        "-m",
        marks,
        f"--basetemp={folder}",
        "-p",
        "no:cacheprovider",
    ]
    r = subprocess.run(command, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-6000:] + r.stderr[-2000:]
    print(r.stdout)


@pytest.mark.medium
def test_some_kills(tmp_path):
    run_cases("not slow and not attacks", tmp_path / "t")


@pytest.mark.attacks
def test_a_kill_at_each_operation(tmp_path):
    run_cases("attacks", tmp_path / "t")
