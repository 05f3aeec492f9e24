"""A state folder on a full disk: one clear line, exit 12, and nothing is lost by it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.render import render_jpeg
from tests.end_to_end.process import Site

FRAMES = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Site]:
    """A site whose state folder is a filesystem of its own with very little room."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small filesystem")
    site = Site(tmp_path)
    site.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(site.state)]
    subprocess.run(mount, check=True)
    try:
        yield site
    finally:
        subprocess.run(["umount", str(site.state)], check=True)


@pytest.mark.root
def test_a_full_disk_stops_it_with_12_and_a_larger_one_lets_it_go_on(small_disk: Site) -> None:
    site = small_disk
    for number in range(FRAMES):
        (site.folder / f"frame-{number:03d}.jpg").write_bytes(render_jpeg(number, 7))
    stopped = site.cli("run", "--once", "--json", site.folder)
    assert stopped.code == 12, stopped.err
    assert stopped.json()["error"]["code"] == "disk_full"
    assert len([p for p in site.folder.iterdir() if p.suffix == ".jpg"]) == FRAMES

    remount = ["mount", "-o", "remount,size=64m", str(site.state)]
    subprocess.run(remount, check=True)
    found = site.once()
    assert found["frames"]["total"] == FRAMES
    assert found["frames"]["pending"] == 0
    assert site.cli("verify", "--json").json()["ok"]
