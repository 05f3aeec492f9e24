"""A small disk for a test: a filesystem in memory, mounted at a folder."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def memory_disk(place: Path, size: str) -> Iterator[Path]:
    """A filesystem of its own at a folder, as small as wished (`size` as mount takes it: "2m").

    The test is skipped where nothing may be mounted; it carries the marker `root`.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small filesystem")
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "stillwatch-test", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"mount is refused here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def resize(place: Path, size: str) -> None:
    """Make a mounted one larger or smaller."""
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
