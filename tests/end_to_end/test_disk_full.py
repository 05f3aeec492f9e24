"""A state folder on a full disk: one clear line, exit 12, and nothing is lost by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.render import render_jpeg
from tests.end_to_end.process import Site
from tests.tools.memory_disk import memory_disk, resize

FRAMES = 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Site]:
    """A site whose state folder is a filesystem of its own with very little room."""
    site = Site(tmp_path)
    with memory_disk(site.state, "1200k"):
        yield site


@pytest.mark.root
def test_a_full_disk_stops_it_with_12_and_a_larger_one_lets_it_go_on(small_disk: Site) -> None:
    site = small_disk
    for number in range(FRAMES):
        (site.folder / f"frame-{number:03d}.jpg").write_bytes(render_jpeg(number, 7))
    stopped = site.cli("run", "--once", "--json", site.folder)
    assert stopped.code == 12, stopped.err
    assert stopped.json()["error"]["code"] == "disk_full"
    assert len([p for p in site.folder.iterdir() if p.suffix == ".jpg"]) == FRAMES

    resize(site.state, "64m")
    found = site.once()
    assert found["frames"]["total"] == FRAMES
    assert found["frames"]["pending"] == 0
    assert site.cli("verify", "--json").json()["ok"]
