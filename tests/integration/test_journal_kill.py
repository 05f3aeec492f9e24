"""kill -9 between any two steps of a file operation: nothing is lost, double or misrecorded."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL, unlike a power cut, needs no disk."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


def sweep(base: Path, *arguments: str) -> int:
    """The number of kills of a sweep that ended well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.filing_kill_sweep", str(base), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation",
    [
        "apply-move",
        "undo-move",
        "apply-copy",
        "undo-link",
        "apply-move-sidecar",
        "undo-move-sidecar",
        "apply-folder",
        "undo-folder",
    ],
)
def test_killed_at_every_step(base: Path, operation: str) -> None:
    assert sweep(base, operation) > (20 if operation.endswith("folder") else 50)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("operation", ["apply-move", "undo-move"])
def test_killed_at_every_step_across_filesystems(base: Path, operation: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a second filesystem")
    own = base / "cam" / "stillwatch"
    own.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "stillwatch-test", str(own)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount is refused here: {mounted.stderr.strip()}")
    try:
        assert sweep(base, operation, "other") > 50
    finally:
        subprocess.run(["umount", str(own)], check=True)
