"""Kill, EIO and ENOSPC at the calls of every operation that changes files: nothing is lost.

Reduced here; `python -m tests.faults.sweep` hits every point of every operation.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import missing
from tests.faults.sweep import MOUNTING, THOROUGH

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def sweep(*arguments: str) -> str:
    """What the command prints, when nothing was lost."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sweep", "--jobs", "1", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("operation", THOROUGH)
def test_killed_at_every_call(operation: str) -> None:
    told = sweep("--operation", operation, "--attack", "kill")
    points = int(told.splitlines()[1].split()[2])
    assert points > 50, told


@pytest.mark.slow
def test_every_operation_under_every_attack_at_some_calls() -> None:
    told = sweep("--sample")
    names = {line.split()[0] for line in told.splitlines()[1:] if line}
    assert {"undo-sidecar", "migrate-0001", "index-large", "recluster", "backup"} <= names, told
    assert os.geteuid() != 0 or set(MOUNTING) <= names, told


def test_what_it_cannot_do_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sweep", "--operation", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no nonsense" in done.stderr
