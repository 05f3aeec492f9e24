"""kill -9 between any two steps of trash, restore and delete: nothing is lost or half done."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["trash", "undo", "restore", "delete"])
def test_killed_at_every_step(operation: str) -> None:
    base = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.tools.trash_kill_sweep", str(base), operation],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 50
    finally:
        shutil.rmtree(base)
